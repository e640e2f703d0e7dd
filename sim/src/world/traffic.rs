//! Frames and packets in transit.

use std::{hint::black_box, net::IpAddr, sync::Arc};

use herald_protocol::{
    Input,
    api_view::Packet,
    mac::MacAddr,
    wire::{Body, Frame},
};
use rayon::prelude::*;

use super::{Detail, Event, To, World, forge::Recorded};
use crate::{
    carried::Carried,
    check::{Invariant, Violation, two_macs},
    names::{self, HostIx, NodeIx},
    net::{BASE_DELAY, Kind},
    node::{Node, Received},
};

/// Number of frames that a forger records, and replays at random.
const RECORDED: usize = 400;

/// Number of receivers that are looked up before the first of them takes a frame in. Among a thousand nodes each looks
/// up its record of the sender in 300 KB of its own that nothing has touched for a while. A single such look-up waits
/// for memory three times; several in a row wait together.
const LOOKED_AHEAD: usize = 16;

/// Number of the peers that a Hello reports as missed for which receivers look up their records as well. Receivers
/// pass over most of what a Hello says of other peers.
const LOOKED_AHEAD_ENTRIES: usize = 2;

impl World<'_> {
    /// A speaker sends a frame of the protocol.
    pub(super) fn transmit(&mut self, from: NodeIx, bytes: Vec<u8>) {
        if let Some(violation) = self.judges.load.frame(self.now, from, self.judges.limits) {
            self.violate(violation);
            return;
        }
        self.trouble.last_sent[from] = self.now;
        let frame = match self.keys_seen(from).open(&bytes) {
            Ok(frame) => frame,
            Err(error) => {
                self.violate(Violation {
                    invariant: Invariant::Unbounded,
                    at: self.now,
                    seen: format!("node {from} sends a frame that no receiver can read: {error}"),
                });
                return;
            }
        };
        if self.detail >= Detail::Frames {
            self.trace(|| format!("node {from}: sends {} {:?}", frame.sender.sequence, frame.body));
        }
        let hello = match &frame.body {
            Body::Hello(hello) => {
                self.nodes[from].interval = hello.interval;
                true
            }
            Body::Claims(_) | Body::Later(_) => false,
        };
        if self.forger.records {
            if self.forger.recorded.len() == RECORDED {
                let forgotten = self.rng.usize(0..RECORDED);
                self.forger.recorded.swap_remove(forgotten);
            }
            self.forger.recorded.push(Recorded { from, run: frame.sender.incarnation, hello, bytes: bytes.clone() });
        }
        if !self.net.transmits(from) {
            return;
        }
        let length = bytes.len();
        let carried = Arc::new(Carried { from, frame, hello, length, bytes: self.opens_itself.then_some(bytes) });
        if self.net.is_uniform() {
            self.queue.push(self.now + BASE_DELAY, Event::Frame(To::All, carried));
            return;
        }
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            for delay in self.net.delays(&mut self.rng).into_iter().flatten() {
                self.queue.push(self.now + delay, Event::Frame(To::Host(to), carried.clone()));
            }
        }
    }

    pub(super) fn frame_arrives(&mut self, to: To, carried: &Arc<Carried>) {
        match to {
            To::All if self.nodes.len() >= self.crowd && self.net.loss == 0.0 && self.judges.two_macs.is_empty() => {
                for index in self.crowd_hears(carried) {
                    self.after(index);
                }
            }
            To::All => {
                for index in 0..self.nodes.len() {
                    self.frame_arrives_at(index, carried);
                }
            }
            To::Host(index) => self.frame_arrives_at(index, carried),
        }
    }

    /// Lets all receivers take in a frame, on all cores: the result of one does not depend on another. Returns the
    /// receivers whose state has changed, in the order in which they would have heard the frame one after the other.
    fn crowd_hears(&mut self, carried: &Arc<Carried>) -> Vec<NodeIx> {
        let (now, net) = (self.now, &self.net);
        let share = self.nodes.len().div_ceil(rayon::current_num_threads());
        let hear = |(part, nodes): (usize, &mut [Node])| {
            let mut stirred = Vec::new();
            for (some, nodes) in nodes.chunks_mut(LOOKED_AHEAD).enumerate() {
                look_ahead(nodes, &carried.frame);
                let first = part * share + some * LOOKED_AHEAD;
                for (index, node) in (first..).zip(nodes) {
                    let reached = index != carried.from
                        && net.carries(carried.from, index, Kind::Protocol)
                        && net.fits(carried.from, index, carried.length);
                    if reached && node.hear(now, carried) {
                        stirred.push(index);
                    }
                }
            }
            stirred
        };
        let parts: Vec<_> = self.nodes.par_chunks_mut(share).enumerate().map(hear).collect();
        parts.concat()
    }

    fn frame_arrives_at(&mut self, index: NodeIx, carried: &Arc<Carried>) {
        if index == carried.from
            || !self.net.carries(carried.from, index, Kind::Protocol)
            || !self.net.fits(carried.from, index, carried.length)
        {
            return;
        }
        if !self.nodes[index].runs() || self.net.loses(&mut self.rng) {
            return;
        }
        self.hear(index, carried);
    }

    /// A speaker takes a frame from its socket.
    pub(super) fn hear(&mut self, index: NodeIx, carried: &Arc<Carried>) {
        let node = &self.nodes[index];
        if carried.hello && node.speaks() && !self.judges.two_macs.is_empty() {
            let interval = node.interval.max(self.nodes[carried.from].interval);
            let bound = two_macs::bound(interval, self.net.loss, self.net.longest_delay());
            self.judges.two_macs.hello(self.now, carried.from, index, bound);
        }
        if self.nodes[index].hear(self.now, carried) {
            self.after(index);
        }
    }

    /// An ARP packet leaves a host.
    pub(super) fn send_packet(&mut self, from: HostIx, to: To, packet: Packet) {
        if !self.net.transmits(from) {
            return;
        }
        if self.net.is_uniform() {
            self.queue.push(self.now + BASE_DELAY, Event::Packet { from, to, packet });
            return;
        }
        let hosts = match to {
            To::All => 0..self.nodes.len() + self.clients.len() + 1,
            To::Host(host) => host..host + 1,
        };
        for host in hosts.filter(|host| *host != from) {
            for delay in self.net.delays(&mut self.rng).into_iter().flatten() {
                self.queue.push(self.now + delay, Event::Packet { from, to: To::Host(host), packet });
            }
        }
    }

    /// A liveness probe leaves a node.
    pub(super) fn probe(&mut self, from: NodeIx, mac: MacAddr, packet: Packet) {
        let Some(to) = self.host_of(mac) else { return };
        if self.net.suppresses {
            if let Some(asked) = packet.asks.filter(|_| self.net.transmits(from)) {
                let answer = Packet { source: mac, binding: Some((asked, mac)), asks: None };
                let event = Event::Packet { from, to: To::Host(from), packet: answer };
                self.queue.push(self.now + BASE_DELAY * 2, event);
            }
            return;
        }
        if self.net.proxy_arp && !self.reachable(from, to) && self.net.transmits(from) {
            // Switches and routers answer for the dead in two ways: with their own MAC, or with the right one.
            let Some(asked) = packet.asks else { return };
            let stated = if self.rng.bool() { names::SWITCH_MAC } else { mac };
            let answer = Packet { source: names::SWITCH_MAC, binding: Some((asked, stated)), asks: None };
            let event = Event::Packet { from, to: To::Host(from), packet: answer };
            self.queue.push(self.now + BASE_DELAY * 2, event);
        }
        self.send_packet(from, To::Host(to), packet);
    }

    pub(super) fn packet_arrives(&mut self, from: HostIx, to: To, packet: &Packet) {
        match to {
            To::All => {
                for host in 0..=self.nodes.len() + self.clients.len() {
                    if host != from {
                        self.packet_arrives_at(host, from, packet);
                    }
                }
            }
            To::Host(host) => self.packet_arrives_at(host, from, packet),
        }
    }

    fn packet_arrives_at(&mut self, host: HostIx, from: HostIx, packet: &Packet) {
        // If the host itself is the sender, the switch speaks.
        let carried = if host == from { self.net.delivers(host) } else { self.net.carries(from, host, Kind::Other) };
        if !carried || self.net.loses(&mut self.rng) {
            return;
        }
        if host == self.nodes.len() + self.clients.len() {
            self.holder_hears(host, from, packet);
            return;
        }
        if host >= self.nodes.len() {
            self.client_hears(host, from, packet);
            return;
        }
        let node = &mut self.nodes[host];
        if !node.runs() {
            return;
        }
        self.kernel_answers(host, from, packet);
        self.holder_hears(host, from, packet);
        let node = &mut self.nodes[host];
        let stalled = node.stalled > 0;
        match &mut node.speaker {
            Some(speaker) if stalled => speaker.store(Received::Packet(from, *packet)),
            Some(_) => self.hear_packet(host, from, packet),
            None => {}
        }
    }

    /// A speaker takes an ARP packet from its socket.
    pub(super) fn hear_packet(&mut self, index: NodeIx, from: HostIx, packet: &Packet) {
        let node = &mut self.nodes[index];
        let now = node.local(self.now);
        let Some(speaker) = &mut node.speaker else { return };
        let answer = speaker.machine.hear_packet(now, packet);
        let listens = speaker.listens_since.filter(|since| self.now < *since + node.interval);
        self.after(index);
        if let (Some(since), Some(mac)) = (listens, answer) {
            let stopped = since.as_secs_f64();
            let seen =
                format!("node {index} was stopped until {stopped:.3} s, has not heard a peer since, and answers {mac}");
            self.violate(Violation { invariant: Invariant::AnsweredUnheard, at: self.now, seen });
        }
        if let (Some(mac), Some(asked)) = (answer, packet.asks) {
            self.answer(index, from, asked, mac);
        }
    }

    /// A host's kernel answers for the host's own addresses.
    pub(super) fn kernel_answers(&mut self, host: HostIx, from: HostIx, packet: &Packet) {
        if let Some(asked) = packet.asks.filter(|asked| self.kernel_has(host, *asked)) {
            self.answer(host, from, asked, self.mac_of(host));
        }
    }

    /// Returns whether this is one of the host's own addresses.
    pub(super) fn kernel_has(&self, host: HostIx, address: IpAddr) -> bool {
        let has = |node: &Node| {
            let (left, changed) = (node.without_prefix == 0, node.renumbered > 0);
            left && (!changed || node.address == Some(address))
        };
        names::host_of_address(address) == Some(host) && self.nodes.get(host).is_none_or(has)
    }

    /// Returns a host's link-layer address.
    pub(super) fn mac_of(&self, host: HostIx) -> MacAddr {
        self.nodes.get(host).map_or_else(|| names::mac(host), |node| node.mac)
    }

    /// A host answers a request.
    pub(super) fn answer(&mut self, host: HostIx, to: HostIx, address: IpAddr, mac: MacAddr) {
        let packet = Packet { source: self.mac_of(host), binding: Some((address, mac)), asks: None };
        self.send_packet(host, To::Host(to), packet);
    }

    pub(super) fn echo_replies(&mut self, index: NodeIx) {
        let hosts = self.nodes.len() + self.clients.len();
        let is_other = |host: HostIx| self.seconds.node(host) != self.seconds.node(index);
        let heard = (0..hosts).any(|host| is_other(host) && self.reachable(index, host));
        if heard && !self.net.loses(&mut self.rng) {
            self.evidence(index);
        }
    }

    fn evidence(&mut self, index: NodeIx) {
        let node = &mut self.nodes[index];
        let stalled = node.stalled > 0;
        match &mut node.speaker {
            Some(speaker) if stalled => speaker.store(Received::Evidence),
            Some(_) => self.speaker_handles(index, Input::Evidence),
            None => {}
        }
    }
}

/// Brings what receivers know of a frame's sender into the processor's cache.
fn look_ahead(receivers: &[Node], frame: &Frame) {
    let entries = match &frame.body {
        Body::Hello(hello) => hello.heard.as_slice(),
        Body::Claims(_) | Body::Later(_) => &[],
    };
    for speaker in receivers.iter().filter_map(|node| node.speaker.as_ref()) {
        black_box(speaker.machine.segment().last_heard(frame.sender.node));
        for heard in entries.iter().filter(|heard| heard.suspect).take(LOOKED_AHEAD_ENTRIES) {
            black_box(speaker.machine.segment().last_heard(heard.node));
        }
    }
}
