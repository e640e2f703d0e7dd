//! ARP and Neighbour Discovery: which packets are answered, and what the packets of other hosts show.

use std::{net::IpAddr, time::Duration};

use super::{Engine, overhearing::Overheard};
use crate::{
    api_view::Packet,
    claim::{Claim, ClaimKey},
    conflict_detection::Answer,
    io::{Event, Output},
    mac::MacAddr,
    node::NodeId,
    peer::Presence,
};

impl Engine {
    /// Takes in an ARP or ND packet. Returns the link-layer address with which to answer it, if it asks for an address
    /// that is answered here.
    pub fn handle_packet(&mut self, now: Duration, packet: &Packet) -> Option<MacAddr> {
        self.wake(now);
        if self.is_own(packet.source) {
            return None;
        }
        self.evidence(now);
        if let Some((address, mac)) = packet.binding {
            if packet.asks.is_none() && self.is_answer(address, mac) {
                self.hearing.replied(now);
            }
            if self.peers.by_mac(mac).is_none() && mac == packet.source {
                self.hearing.seen(address, mac);
            }
            self.binding_seen(now, packet, address, mac);
        }
        self.settle(now);
        self.answer(packet.question()?)
    }

    /// Returns whether this is a link-layer address of this node, here or on another interface.
    fn is_own(&self, mac: MacAddr) -> bool {
        mac == self.local.mac() || self.siblings.have_mac(mac)
    }

    /// Takes in that a host has answered a ping of this node.
    pub(super) fn ponged(&mut self, now: Duration, address: IpAddr, mac: MacAddr) {
        self.evidence(now);
        if !self.is_answer(address, mac) {
            return;
        }
        self.hearing.ponged(now);
        let Some(id) = self.peers.by_mac(mac) else { return };
        let Some(peer) = self.peers.get(id) else { return };
        if peer.probe_target() == Some((address, mac)) {
            self.back_from_the_dead(now, id);
            let Some(peer) = self.peers.get_mut(id) else { return };
            peer.rest.kernel.ponged(now, (address, mac));
            if peer.rest.kernel.is_watched() {
                self.detector.look_by(now);
            }
        }
    }

    /// Returns whether this is the answer of a host that was probed.
    fn is_answer(&self, address: IpAddr, mac: MacAddr) -> bool {
        let peer = self.peers.by_mac(mac).and_then(|id| self.peers.get(id));
        self.hearing.is_neighbour(address, mac)
            || self.hearing.is_witness(address, mac)
            || peer.is_some_and(|peer| peer.probe_target() == Some((address, mac)))
    }

    /// Takes in a packet that binds an address to a link-layer address.
    fn binding_seen(&mut self, now: Duration, packet: &Packet, address: IpAddr, mac: MacAddr) {
        // A node that covers for this one answers with this node's link-layer address.
        if self.is_own(mac) {
            return;
        }
        let Some(id) = self.peers.by_mac(mac) else { return self.stranger_seen(now, address, mac) };
        // Switches and routers answer for dead nodes.
        let itself = packet.source == mac;
        if itself && self.kernel_seen(now, id, (address, mac), packet.asks.is_some()) {
            return;
        }
        let claimed = self.claims.of(id, address).is_some();
        // The word of another host matters only before a first claim: otherwise the answers of a switch would put off a
        // succession.
        let matters =
            if itself { self.objects.contains(address) } else { self.conflict_detection.is_asked_for(address) };
        if !claimed && matters {
            self.overhearing.note(now, address, Overheard { node: id, itself });
        }
    }

    /// Returns whether this is a packet of a peer about the peer's own address. It proves that the peer's kernel lives,
    /// unless another machine has taken the peer's name: the kernel of that machine is not the one that is asked.
    /// `asks`: the packet asks for an address.
    fn kernel_seen(&mut self, now: Duration, id: NodeId, said: (IpAddr, MacAddr), asks: bool) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return false };
        let target = peer.probe_target();
        let own = target.is_some_and(|(target, _)| target == said.0);
        let lives = target == Some(said);
        if lives {
            peer.rest.kernel.answered(now);
            self.detector.look_by(now);
        }
        // A switch may go on to answer for a node that was found dead by pings; but it asks for nothing in its name.
        let itself = asks || !peer.rest.kernel.has_missed_pings();
        if lives && itself {
            self.back_from_the_dead(now, id);
        }
        own
    }

    /// Takes in that a node lives. Where the network drops the protocol, nothing else would show that a dead node is
    /// back.
    fn back_from_the_dead(&mut self, now: Duration, id: NodeId) {
        if self.peers.speaking() == 0 && self.peers.get(id).is_some_and(|peer| peer.presence() == Presence::Dead) {
            self.revive(now, id);
            self.announce_what_is_said_to_be_of(now, id);
        }
    }

    /// Announces in turn the addresses that the API says a returned node announces, and that this node owns. The node
    /// may have been dead here only, and this node there: where both own an address, one of them has to hear the
    /// other's announcement.
    fn announce_what_is_said_to_be_of(&mut self, now: Duration, id: NodeId) {
        let own: Vec<IpAddr> = self.claims.addresses_of(self.local.id()).collect();
        for address in own {
            let named = self.objects.get(address).is_some_and(|vip| vip.announced_by == Some(id));
            if named {
                self.announcements.announce_unless_pending(now, address);
            }
        }
    }

    /// Takes in that a node lives which is not heard.
    pub(super) fn revive(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.rest.reports.revive();
        peer.rest.kernel.revive(now);
        if peer.presence() == Presence::Dead {
            let silent = peer.run.as_ref().map(|run| Presence::Silent { since: run.heard(), reported: false });
            self.peers.set_presence(id, silent.unwrap_or(Presence::Unheard));
        }
    }

    /// Judges packets of nodes about addresses that they have still not claimed.
    pub(super) fn judge_overheard(&mut self, now: Duration) {
        while let Some((address, Overheard { node, itself })) = self.overhearing.pop_due(now) {
            if self.claims.of(node, address).is_some() {
                continue;
            }
            let contended = self.contest.get(address).is_some() && self.best_claim(address).is_none();
            if itself && self.peers.get(node).is_some_and(|peer| !peer.speaks()) {
                self.announced_by_unheard(now, node, address);
            } else if contended && self.conflict_detection.heard(now, address, Answer::Cluster(node)) {
                self.outbox.report(Event::AnsweredByClusterNode { address, node });
            } else if itself && !self.sync.lacks(node) {
                // While its claims are lacking, this node does not know that it has not claimed the address.
                self.suspect_kernel(now, address, node);
            }
            self.evaluate(now, address);
        }
    }

    /// Handles that a speaking node answers for an address of this node which it does not claim. It may have withdrawn
    /// a losing claim just now, so it is asked: if it answers again, its kernel has the address. Neighbours have been
    /// led there; this node announces the address once the time for the answer is over.
    fn suspect_kernel(&mut self, now: Duration, address: IpAddr, node: NodeId) {
        if self.claims.of(self.local.id(), address).is_none() || !self.is_answering() {
            return;
        }
        if let Some(until) = self.overhearing.ask(now, address) {
            self.outbox.push(Output::Enquire(address));
            self.announcements.announce_unless_pending(until, address);
        } else if self.announcements.begin_defence(now, address) {
            self.outbox.report(Event::AnsweredByClusterNode { address, node });
            self.defend(address);
        }
    }

    /// Handles that a node which is not heard announces an address: it has taken it.
    fn announced_by_unheard(&mut self, now: Duration, id: NodeId, address: IpAddr) {
        if self.peers.get(id).is_none() {
            return;
        }
        self.revive(now, id);
        self.overhearing.set_announcer(address, id);
        if self.peers.speaking() == 0 {
            // The network drops the protocol: remembered claims are older than what is overheard.
            self.forget_claims(address, |node| node != id);
        }
        if self.claims.of(self.local.id(), address).is_some_and(|own| !self.outlasts(own, id)) {
            self.yield_to_unheard(address, id);
        }
    }

    /// Returns whether this node keeps an address that a node announces which does not hear it. The node that has
    /// announced it for longer than the rounds take stops; of two that have just begun, the one with the lower key.
    fn outlasts(&self, own: &Claim, other: NodeId) -> bool {
        let (Some(vip), Some(peer)) = (self.objects.get(own.address), self.peers.get(other)) else { return false };
        self.announcements.are_pending(own.address) && own.key > ClaimKey::of(own.address, &vip.uid, &peer.rest.name)
    }

    /// Handles that a host outside the cluster has an address.
    fn stranger_seen(&mut self, now: Duration, address: IpAddr, mac: MacAddr) {
        if self.conflict_detection.heard(now, address, Answer::Stranger(mac)) {
            self.outbox.report(Event::Conflict { address, mac });
            return;
        }
        let owned = self.claims.of(self.local.id(), address).is_some() && self.is_answering();
        if owned && self.announcements.begin_defence(now, address) {
            self.outbox.report(Event::Conflict { address, mac });
            self.defend(address);
        }
    }

    /// Announces an address once, without rounds: the other side may do the same.
    fn defend(&mut self, address: IpAddr) {
        self.outbox.push(Output::Announce { address, mac: self.local.mac() });
    }
}
