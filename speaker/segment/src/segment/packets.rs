//! ARP and Neighbour Discovery: what is answered, and what the packets of others show.

use std::{net::IpAddr, time::Duration};

use super::Segment;
use crate::{first_claim::Answer, mac::MacAddr, node::NodeId, timers::DEFEND_EVERY, types::Event, view::Packet};

impl Segment {
    /// Takes in an ARP or ND packet. Returns the link-layer address with which to answer it, if it asks for an address
    /// that is answered here.
    pub fn handle_packet(&mut self, now: Duration, packet: &Packet) -> Option<MacAddr> {
        self.wake(now);
        if packet.source == self.config.mac {
            return None;
        }
        self.evidence(now);
        if let Some((address, mac)) = packet.binding {
            self.binding_seen(now, packet.source, address, mac);
        }
        self.settle(now);
        // A gratuitous request tells, and asks nothing.
        let asked = packet.asks.filter(|asked| packet.binding.is_none_or(|(address, _)| address != *asked))?;
        self.answer(asked)
    }

    /// Somebody says where an address is.
    fn binding_seen(&mut self, now: Duration, source: MacAddr, address: IpAddr, mac: MacAddr) {
        // Others that cover for this node say so.
        if mac == self.config.mac {
            return;
        }
        let Some(id) = self.peers.by_mac(mac) else { return self.stranger_seen(now, address, mac) };
        // Only what comes from the node itself: switches and routers answer for the dead.
        if source == mac {
            self.node_seen(now, id, address);
        }
        let claims = self.book.of(id, address).is_some();
        if !claims && self.first_claims.heard(now, address, Answer::Cluster(id)) {
            self.tell(Event::AnsweredByClusterNode { address, node: id });
        }
    }

    /// A packet of a peer's kernel, or of its speaker if that cannot be heard otherwise.
    fn node_seen(&mut self, now: Duration, id: NodeId, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.probe_target().is_some_and(|(target, _)| target == address) {
            peer.kernel.answered(now);
            self.peers_at = self.peers_at.min(now);
            return;
        }
        if peer.speaks() || self.book.of(id, address).is_some() || !self.vips.contains_key(&address) {
            return;
        }
        self.announced_unheard.insert(address, id);
        // Its rounds take three seconds: if both have just begun to announce, the higher key stays.
        let own = self.book.of(self.id, address);
        if own.is_some() && !self.announcer.is_pending(address) {
            self.yield_to_unheard(address, id);
        }
        self.evaluate(now, address);
    }

    /// Somebody outside the cluster says that an address is its own.
    fn stranger_seen(&mut self, now: Duration, address: IpAddr, mac: MacAddr) {
        if self.first_claims.heard(now, address, Answer::Stranger(mac)) {
            self.tell(Event::Conflict { address, mac });
            return;
        }
        let owned = self.book.of(self.id, address).is_some() && self.is_answering();
        let due = self.defended.get(&address).is_none_or(|last| now >= *last + DEFEND_EVERY);
        if owned && due {
            self.defended.insert(address, now);
            self.tell(Event::Conflict { address, mac });
            self.defend(address);
        }
    }

    /// One announcement, and no rounds: the other side may do the same.
    fn defend(&mut self, address: IpAddr) {
        self.outputs.push_back(crate::types::Output::Announce { address, mac: self.config.mac });
    }
}
