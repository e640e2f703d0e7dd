//! Joining the segment, and coming back to it: what ends the barrier at a start and after the link was lost, what ends
//! the pause after a stall, which claims are resumed.

use std::{net::IpAddr, time::Duration};

use super::{Engine, claim_sync::list_gap, objects::Viewed};
use crate::{
    api_view::ExpectedPeer,
    claim::{Claim, Reason},
    io::Event,
    mac::MacAddr,
    node::NodeId,
    peer::{Peer, Presence},
    timers::BARRIER,
};

impl Engine {
    /// Ends the barrier if it is time.
    pub(super) fn step_barrier(&mut self, now: Duration) {
        if let Some(first) = self.participation.barrier_evidence_if_due(now, self.interval())
            && !self.participation.is_stalled()
            && self.participation.has_carrier()
            && self.is_hearing()
            && self.has_joined(now, first)
        {
            self.activate(now);
        }
    }

    /// Returns whether this node knows the claims of the others.
    fn has_joined(&self, now: Duration, first_evidence: Duration) -> bool {
        if now >= first_evidence + BARRIER.max(self.interval() * 10) {
            return true;
        }
        // The claims of a silent node come from the nodes that cover for it.
        if self.peers.silent().next().is_some() {
            return false;
        }
        let mut heard = 0;
        let mut reported = 0;
        let mut missing = 0;
        for (id, peer) in self.peers.iter() {
            if peer.pending.is_some() {
                return false;
            }
            missing += usize::from(peer.rest.station.is_some() && !peer.speaks());
            if let Some(run) = peer.run.as_ref().filter(|_| peer.speaks()) {
                // A peer that counts this node has already sent the claims that it remembers for this node.
                if !run.counts_me || self.sync.lacks(id) {
                    return false;
                }
                heard += 1;
                reported = reported.max(usize::from(run.hears()));
            }
        }
        if self.participation.knows_stations() && missing == 0 {
            return true;
        }
        // Each of the peers hears as many nodes as there are to hear, this node among them.
        heard > 0 && heard >= reported && now >= first_evidence + self.interval() * 2
    }

    /// Begins to take part.
    pub(super) fn activate(&mut self, now: Duration) {
        self.participation.join(now);
        self.contest.settle_all();
        // While this node's link was away, a node may have taken over its addresses that is not heard, where the
        // network drops the protocol. If the API does not name that node either, one of the two has to hear the other's
        // announcement.
        for address in self.claims.addresses_of(self.local.id()).collect::<Vec<_>>() {
            match self.taken_unheard(now, address) {
                Some(to) => {
                    self.revive(now, to);
                    self.yield_to_unheard(address, to);
                }
                None => self.announcements.announce_in_turn(now, address),
            }
        }
        for claim in self.participation.take_remembered() {
            self.resume_claim(now, claim);
        }
        for address in self.answers_and_claims() {
            self.refresh_answer(address);
        }
        self.evaluate_all(now);
        self.send_changes(now);
        self.begin_full_list(now, list_gap(self.interval()));
        self.detector.look_at(now);
        self.hasten_hello(now, Duration::ZERO);
    }

    /// Returns the node that has taken an address of this node while its link was away, if a fresh view of the API says
    /// so and no claim can: the network drops the frames of that node, which may be there all the same.
    fn taken_unheard(&self, now: Duration, address: IpAddr) -> Option<NodeId> {
        let viewed = self.objects.get(address)?;
        let by = viewed.announced_by.filter(|by| *by != self.local.id())?;
        let peer = self.peers.get(by)?;
        // A node that the API came to name after this node had missed it is not dead.
        let named_since = peer.rest.absent_since.is_none_or(|since| viewed.named() > since);
        let may_act = self.may_act_unheard(peer) || peer.presence() == Presence::Dead && named_since;
        (may_act && self.view_is_fresh(now)).then_some(by)
    }

    /// Resumes a claim of the run before, if no node has taken the address since.
    fn resume_claim(&mut self, now: Duration, claim: Claim) {
        let taken = self.best_claim(claim.address).is_some_and(|(_, best)| best.precedence() > claim.precedence());
        let deleted = self.objects.deleted_birth(claim.address) >= Some(claim.birth);
        if taken || deleted || self.is_about_to_be_resumed(now, claim.address) {
            return;
        }
        self.enter_claim(now, Claim { reason: Reason::Resumed, ..claim }, None);
        // Nearly all hosts know; but while this node was away it could not contradict other announcements.
        self.announcements.announce_in_turn(now, claim.address);
    }

    /// Returns whether another node has taken the address by a fresh view of the API, and has just restarted as well:
    /// it is about to claim the address itself.
    fn is_about_to_be_resumed(&self, now: Duration, address: IpAddr) -> bool {
        let named = self.objects.get(address).and_then(|vip| vip.announced_by).filter(|by| *by != self.local.id());
        let listens = |peer: &Peer| peer.speaks() && peer.listens();
        self.view_is_fresh(now) && named.and_then(|by| self.peers.get(by)).is_some_and(listens)
    }

    /// Takes in which nodes the API lists on the segment.
    pub(super) fn stations_listed(&mut self, now: Duration, stations: &[ExpectedPeer]) {
        self.peers.list(stations);
        self.participation.note_stations();
        self.detector.look_at(now);
        // An address that was presumed to be of a node which is no longer listed, and was never heard, is nobody's.
        for gone in self.covers.nodes().filter(|id| self.peers.get(*id).is_none()).collect::<Vec<_>>() {
            self.end_cover(gone);
        }
        let is_unknown = |id: &NodeId| *id != self.local.id() && self.peers.get(*id).is_none();
        let named = |address: IpAddr, vip: &Viewed| {
            [vip.announced_by, self.overhearing.announcer(address)].iter().flatten().any(is_unknown)
        };
        let orphaned: Vec<IpAddr> =
            self.objects.iter().filter(|(address, vip)| named(*address, vip)).map(|(address, _)| address).collect();
        for address in orphaned {
            self.evaluate(now, address);
        }
        self.evaluate_contended(now);
    }

    /// Takes in whether the link has carrier.
    pub(super) fn carrier_changed(&mut self, now: Duration, carrier: bool) {
        if self.participation.set_carrier(now, carrier) && carrier {
            self.hearing.restart(now);
            self.conflict_detection.clear();
            self.contest.clear();
            self.drop_covers();
            self.hasten_hello(now, Duration::ZERO);
        }
    }

    /// Takes in the node's own addresses on the segment.
    pub(super) fn interface_changed(&mut self, now: Duration, mac: MacAddr, address: Option<IpAddr>) {
        if self.local.take_interface(mac, address) {
            for address in self.claims.addresses_of(self.local.id()).collect::<Vec<_>>() {
                self.refresh_answer(address);
                self.announce(now, address);
            }
        }
        self.hasten_hello(now, Duration::ZERO);
    }

    /// Handles that this process, or its machine, has just stood still.
    pub(super) fn stalled(&mut self, now: Duration, gap: Duration) {
        // Time in which this node could not hear does not count as silence of peers.
        for (_, peer) in self.peers.iter_mut() {
            peer.postpone(now);
        }
        self.participation.begin_stall(now, self.interval());
        self.outbox.report(Event::Stalled(gap));
        self.hasten_hello(now, Duration::ZERO);
        self.detector.look_at(now);
    }

    /// Ends the pause after a stall if it is time: when every speaking peer was heard since, and its claims are known.
    pub(super) fn step_stall(&mut self, now: Duration) {
        let Some(until) = self.participation.stalled_until() else { return };
        let drained = self.participation.caught_up_since(self.interval());
        let mut heard_all = true;
        for (id, peer) in self.peers.iter().filter(|(_, peer)| peer.speaks()) {
            heard_all &= !self.sync.lacks(id) && peer.run.as_ref().is_some_and(|run| run.heard() > drained);
        }
        if now >= until || heard_all && self.peers.speaking() > 0 {
            self.participation.end_stall();
            self.restart_turns(now);
        } else {
            self.participation.look_at_stall_again(now, self.interval());
        }
    }
}
