//! ICMP and ICMPv6 echo: which hosts answer pings.

use std::net::IpAddr;

use herald_protocol::{Input, mac::MacAddr};

use super::{Event, World};
use crate::{
    names::{HostIx, NodeIx},
    net::Kind,
    node::Received,
};

impl World<'_> {
    /// A speaker pings a host. No switch answers in the host's name, as some do for ARP.
    pub(super) fn ping(&mut self, from: NodeIx, address: IpAddr, mac: MacAddr) {
        let Some(to) = self.host_of(mac).filter(|_| self.net.transmits(from)) else { return };
        for delay in self.net.delays(&mut self.rng).into_iter().flatten() {
            self.queue.push(self.now + delay, Event::Ping { from, to, address });
        }
    }

    /// A ping arrives: the host's kernel answers, whether or not its speaker runs, unless a firewall drops it.
    pub(super) fn ping_arrives(&mut self, from: NodeIx, to: HostIx, address: IpAddr) {
        if !self.net.carries(from, to, Kind::Other) || self.net.loses(&mut self.rng) {
            return;
        }
        let runs = self.nodes.get(to).is_none_or(|node| node.runs());
        if !runs || !self.kernel_has(to, address) || to < self.history.firewalls.min(self.history.nodes) {
            return;
        }
        let mac = self.mac_of(to);
        for delay in self.net.delays(&mut self.rng).into_iter().flatten() {
            self.queue.push(self.now + delay, Event::Pong { from: to, to: from, address, mac });
        }
    }

    /// The answer arrives at the node that asked.
    pub(super) fn pong_arrives(&mut self, from: HostIx, to: NodeIx, address: IpAddr, mac: MacAddr) {
        if !self.net.carries(from, to, Kind::Other) || !self.nodes[to].runs() || self.net.loses(&mut self.rng) {
            return;
        }
        let node = &mut self.nodes[to];
        let stalled = node.stalled > 0;
        match &mut node.speaker {
            Some(speaker) if stalled => speaker.store(Received::Pong(address, mac)),
            Some(_) => self.speaker_handles(to, Input::Pong { address, mac }),
            None => {}
        }
    }
}
