//! The delivery of frames, packets and pings on a bus.

use std::net::IpAddr;

use herald_protocol::{Input, Output, api_view::Packet, mac::MacAddr, wire::Body};

use super::{Bus, DELAY, GATEWAY, SECRET, Traffic, keys, mac, own_address};
use crate::next_build::{self, Build};

impl Bus {
    pub(super) fn deliver(&mut self, from: usize, traffic: &Traffic) {
        if let Traffic::Packet(packet, Some(to)) = traffic
            && *to == GATEWAY.mac
        {
            let binding = Some((GATEWAY.address, GATEWAY.mac));
            let answer = Packet { source: GATEWAY.mac, binding, asks: None };
            self.in_flight.push((self.now + DELAY, 0, Traffic::Packet(answer, Some(packet.source))));
        }
        if let Traffic::Ping { address, to, from } = *traffic {
            self.ping_arrives(address, to, from);
            return;
        }
        for node in 1..=self.nodes {
            if node == from || self.deaf.contains(&node) {
                continue;
            }
            if let Traffic::Packet(packet, to) = traffic {
                if to.is_some_and(|to| to != mac(node)) {
                    continue;
                }
                let answers = self.kernels.contains(&node) || self.suppressed.contains(&node);
                if packet.asks == Some(own_address(node)) && answers && !self.mute.contains(&node) {
                    let answer =
                        Packet { source: mac(node), binding: Some((own_address(node), mac(node))), asks: None };
                    self.in_flight.push((self.now + DELAY, node, Traffic::Packet(answer, Some(packet.source))));
                }
            }
            let Some(segment) = self.speakers.get_mut(&node) else { continue };
            match traffic {
                Traffic::Frame(_) if self.loses_frames_to == Some(node) => continue,
                Traffic::Frame(bytes) if self.builds.get(&node) == Some(&Build::Next) => {
                    self.read_of_next.extend(next_build::hear(self.now, node, segment, bytes).map(|what| (node, what)));
                }
                Traffic::Frame(bytes) => segment.handle_frame(self.now, bytes),
                Traffic::Packet(packet, _) => {
                    segment.handle_packet(self.now, packet);
                }
                Traffic::Pong { address, from, to } if *to == mac(node) => {
                    segment.handle(self.now, Input::Pong { address: *address, mac: *from });
                }
                Traffic::Pong { .. } | Traffic::Ping { .. } => continue,
            }
            self.collect(node);
        }
    }

    /// Lets the gateway or a living node answer a ping, unless a firewall drops the ping, or the ping or its answer is
    /// lost.
    fn ping_arrives(&mut self, address: IpAddr, to: MacAddr, from: MacAddr) {
        let node = (1..=self.nodes).find(|node| mac(*node) == to);
        let answers = match node {
            Some(node) => self.kernels.contains(&node) && !self.mute.contains(&node) && !self.deaf.contains(&node),
            None => to == GATEWAY.mac,
        };
        let lost = self.drops_pings.contains(&(to, from)) || self.loses_ping() || self.loses_ping();
        if answers && !lost {
            let pong = Traffic::Pong { address, from: to, to: from };
            self.in_flight.push((self.now + self.pong_delay, node.unwrap_or_default(), pong));
        }
    }

    /// Loses this percentage of the pings, and of the answers, from now on.
    pub fn lose_pings(&mut self, percent: u8, seed: u64) {
        self.loses_pings = percent;
        self.luck = fastrand::Rng::with_seed(seed);
    }

    fn loses_ping(&mut self) -> bool {
        self.luck.u8(..100) < self.loses_pings
    }

    /// Lets a firewall at each of these hosts drop every ping.
    pub fn drop_pings_to(&mut self, to: impl IntoIterator<Item = MacAddr>) {
        for to in to {
            self.drops_pings.extend((1..=self.nodes).map(|from| (to, mac(from))));
        }
    }

    pub(super) fn collect(&mut self, node: usize) {
        while let Some(output) = self.speakers.get_mut(&node).unwrap().poll_output() {
            let now = self.now;
            if self.loses.as_mut().is_some_and(|losses| losses.takes(now, node, &output)) {
                continue;
            }
            let packet = |asks, binding| Packet { source: mac(node), binding, asks };
            let mine = Some((own_address(node), mac(node)));
            let traffic = match output {
                Output::Send(_) if self.drops_protocol => continue,
                Output::Send(bytes) if bytes.len() > self.carries => continue,
                Output::Send(bytes) => {
                    let build = self.build(node);
                    // A test may have rotated the key.
                    let keys = keys(&[SECRET[0], SECRET[0] + 1]).with_versions(build.versions());
                    if let Body::Hello(hello) = keys.open(&bytes).unwrap().body {
                        let suspects = hello.heard.iter().filter(|heard| heard.suspect);
                        self.suspicions.extend(suspects.map(|heard| (now, node, heard.node)));
                        let asks = hello.heard.iter().filter(|heard| heard.wants_claims);
                        self.requests.extend(asks.map(|heard| (now, node, heard.node)));
                    }
                    self.sent.push((node, bytes.clone()));
                    let frames = match build {
                        Build::Today => vec![bytes],
                        Build::Next => next_build::say(&self.speakers[&node].saved_state().claims, &bytes),
                    };
                    if !self.mute.contains(&node) {
                        let at = self.now + DELAY;
                        self.in_flight.extend(frames.into_iter().map(|bytes| (at, node, Traffic::Frame(bytes))));
                    }
                    continue;
                }
                Output::Probe { address, mac } => Traffic::Packet(packet(Some(address), mine), Some(mac)),
                Output::Ping { address, mac: to } => {
                    self.pings.push((now, node, to));
                    Traffic::Ping { address, to, from: mac(node) }
                }
                Output::Enquire(address) => {
                    if let Some(mac) = self.strangers.get(&address) {
                        let answer = Packet { source: *mac, binding: Some((address, *mac)), asks: None };
                        self.in_flight.push((self.now + DELAY * 2, 0, Traffic::Packet(answer, None)));
                    }
                    Traffic::Packet(packet(Some(address), None), None)
                }
                Output::Announce { address, mac } => {
                    self.announced.push((self.now, node, address));
                    Traffic::Packet(packet(Some(address), Some((address, mac))), None)
                }
                Output::EchoAll | Output::Answers { .. } => continue,
                Output::Event(event) => {
                    self.events.push((self.now, node, event));
                    continue;
                }
            };
            if !self.mute.contains(&node) {
                self.in_flight.push((self.now + DELAY, node, traffic));
            }
        }
    }
}
