//! The claim exchange: changes go out at once, full lists on request; claims of peers come in.

use std::{collections::VecDeque, net::IpAddr, ops::Bound, time::Duration};

use super::{
    Engine,
    claim_sync::{FRAMES_AT_ONCE, list_gap},
};
use crate::{
    claim::{Birth, Claim, Digest},
    io::{Event, Withdrawal},
    mutation::Mutation,
    node::{NodeId, NodeName},
    peer::{Peer, Presence},
    timers::LACKING_WARN,
    wire::{self, Body, Change, Claims, FrameLimit, Sender, State},
};

impl Engine {
    /// Compares what this node knows of a peer's claims with the state and the digest of its last Hello. A peer that
    /// listens claims nothing yet; the claims of its last incarnation stay as they are until then.
    ///
    /// When no claims of any peer are lacking any longer, addresses that seemed vacant are looked at again.
    pub(super) fn compare_claims(&mut self, now: Duration, id: NodeId, state: State, claimed: Digest) {
        let claims = state != State::Listening && self.peers.get(id).is_some_and(Peer::speaks);
        let differs = claims && claimed != self.claims.digest(id) && !self.local.breaks(Mutation::IgnoreDigests);
        if self.sync.note_difference(now, id, differs) {
            self.evaluate_contended(now);
        }
    }

    /// Handles that a peer asks for all claims.
    pub(super) fn list_asked_for(&mut self, now: Duration, by: NodeId) {
        let gap = self.sync.note_request(now, by, self.interval());
        self.begin_full_list(now, gap);
    }

    fn claims_limit(&self, now: Duration) -> FrameLimit {
        self.sync.frame_limit(now, self.interval(), self.transmitter.frame_limit())
    }

    /// Sends this node's changed claims.
    pub(super) fn send_changes(&mut self, now: Duration) {
        let limit = self.claims_limit(now);
        for (subject, changes) in self.sync.take_covered_changes() {
            for claims in wire::delta(limit, subject, changes) {
                self.send(Body::Claims(claims));
            }
        }
        let changes = self.sync.take_changes();
        if changes.is_empty() {
            return;
        }
        for claims in wire::delta(limit, self.local.id(), changes) {
            self.send(Body::Claims(claims));
        }
        if let Some(next) = self.sync.drop_full_list() {
            self.begin_full_list(now, list_gap(self.interval()));
            self.sync.set_next_part(next.max(now));
        }
    }

    /// Repeats new claims that still hold. Withdrawals are not repeated: hearing of one late does no harm, and each
    /// makes the owner announce.
    pub(super) fn repeat_claims(&mut self, now: Duration) {
        let mut changes = Vec::new();
        while let Some(address) = self.sync.pop_repeat(now) {
            changes.extend(self.claims.of(self.local.id(), address).map(|claim| Change::Claimed(*claim)));
        }
        let limit = self.claims_limit(now);
        if changes.len() > FRAMES_AT_ONCE * wire::changes_per_frame(limit) {
            // That many claims go out in parts, as a full list.
            self.begin_full_list(now, list_gap(self.interval()));
            return;
        }
        for claims in wire::delta(limit, self.local.id(), changes) {
            self.send(Body::Claims(claims));
        }
    }

    /// Begins to send all claims, unless that is under way; `gap` after the last list at the earliest.
    pub(super) fn begin_full_list(&mut self, now: Duration, gap: Duration) {
        if self.sync.hasten_full_list(now, gap) {
            return;
        }
        let claimed = self.claims.range(self.local.id(), ..).map(|claim| Change::Claimed(*claim));
        let gone = self.objects.deletions().map(|deleted| withdrawn(deleted.address, deleted.birth, true));
        let limit = self.claims_limit(now);
        let mut frames: VecDeque<Claims> =
            wire::full_list(limit, self.local.id(), gone.chain(claimed).collect()).into();
        // A peer that has just come does not know what silent nodes own.
        for silent in self.covers.nodes() {
            frames.extend(wire::delta(limit, silent, self.claims_of(silent)));
        }
        self.sync.begin_full_list(now, gap, frames);
    }

    /// Sends the next part of a full list that is on its way.
    pub(super) fn continue_full_list(&mut self, now: Duration) {
        for claims in self.sync.take_part(now) {
            self.send(Body::Claims(claims));
        }
    }

    /// Sends a peer that has just come the claims of silent nodes, and those of its own last incarnation, as far as
    /// this node is one of those that cover for them.
    pub(super) fn send_claims_of_silent_peers(&mut self, id: NodeId) {
        if !self.participation.is_active() {
            return;
        }
        let own = self.is_coverer(id, false).then_some(id);
        for subject in self.covers.nodes().chain(own).collect::<Vec<_>>() {
            self.send_claims_of(subject);
        }
    }

    /// Sends the claims of a node in its stead.
    pub(super) fn send_claims_of(&mut self, subject: NodeId) {
        for claims in wire::delta(self.transmitter.frame_limit(), subject, self.claims_of(subject)) {
            self.send(Body::Claims(claims));
        }
    }

    /// Sends those claims of a silent node that another silent node contests: the node that covers for that one may not
    /// know of the better claim, and neither of the two can send it.
    pub(super) fn send_contested_claims_of(&mut self, id: NodeId) {
        let silent = |other: NodeId| self.peers.get(other).is_some_and(|peer| peer.silent_since().is_some());
        let rivals =
            |claim: &Claim| self.claims.on(claim.address).iter().any(|(other, _)| *other != id && silent(*other));
        let contested: Vec<Claim> = self.claims.range(id, ..).filter(|claim| rivals(claim)).copied().collect();
        for claim in contested {
            if self.best_claim(claim.address).is_some_and(|(holder, _)| holder == id) {
                self.sync.send_for(id, claim);
            }
        }
    }

    fn claims_of(&self, id: NodeId) -> Vec<Change> {
        self.claims.range(id, ..).map(|claim| Change::Claimed(*claim)).collect()
    }

    /// Takes in a part of the claims of a node.
    pub(super) fn claims_received(&mut self, now: Duration, sender: Sender, claims: &Claims) {
        if !self.is_sign_of_life(now, sender) {
            return;
        }
        self.counters.accepted += 1;
        if claims.subject == self.local.id() {
            self.note_own_previous_claims(claims);
        } else if claims.subject == sender.node {
            self.take_claims(now, sender.node, claims);
        } else {
            self.take_covered(now, claims);
        }
    }

    /// Takes in what a silent node claims, by the account of a node that covers for it.
    fn take_covered(&mut self, now: Duration, claims: &Claims) {
        let subject = claims.subject;
        // A node that has just come may hear of another before the API, or a Hello, has named it.
        if !self.peers.add(subject, &NodeName::new(&format!("{subject:?}"))) {
            return;
        }
        // A node that is heard speaks for itself, unless it listens, after a stall, or if its Hello is overdue: peers
        // may have found it silent already, and this node may have stood still without noticing.
        let listens = |peer: &Peer| peer.run.as_ref().is_some_and(|run| run.state == State::Listening);
        let believed =
            |peer: &&Peer| !peer.speaks() || listens(peer) || self.participation.is_stalled() || peer.is_overdue(now);
        let Some(peer) = self.peers.get(subject).filter(believed) else { return };
        if !peer.speaks() && peer.silent_since().is_none() {
            self.peers.set_presence(subject, Presence::Silent { since: now, reported: false });
        }
        for change in &claims.changes {
            if let Change::Claimed(claim) = change {
                self.objects.note_floor(claim);
                let known = self.claims.of(subject, claim.address);
                if known.is_none_or(|known| known.precedence() < claim.precedence()) {
                    self.claims.set(subject, *claim);
                    self.evaluate(now, claim.address);
                    if self.claims.of(self.local.id(), claim.address).is_some() {
                        // The silent node has lost the address and cannot withdraw; its neighbours may still believe
                        // it.
                        self.announce(now, claim.address);
                    }
                }
            }
        }
        self.detector.look_at(now);
    }

    /// Takes in what peers remember of the claims of this node before it restarted.
    fn note_own_previous_claims(&mut self, claims: &Claims) {
        if self.participation.state() != State::Listening {
            return;
        }
        for change in &claims.changes {
            if let Change::Claimed(claim) = change {
                self.objects.note_floor(claim);
                self.siblings.note_reminded(claim.address);
                self.participation.remember(*claim);
            }
        }
    }

    /// Handles that a peer no longer claims an address.
    fn other_withdrew(&mut self, now: Duration, id: NodeId, address: IpAddr) {
        self.claims.remove(id, address);
        // A node that this node covers for may be the owner again.
        self.refresh_answer(address);
        self.announce_after_loss(now, address);
    }

    fn take_claims(&mut self, now: Duration, id: NodeId, claims: &Claims) {
        let mut touched: Vec<IpAddr> = Vec::new();
        if let Some((first, last)) = claims.range {
            let said: std::collections::BTreeSet<_> = claims.changes.iter().map(Change::address).collect();
            let range = (Bound::Included(first), Bound::Included(last));
            let gone =
                self.claims.range(id, range).map(|claim| claim.address).filter(|address| !said.contains(address));
            touched.extend(gone);
            // The withdrawals of these were lost.
            for address in &touched {
                self.other_withdrew(now, id, *address);
            }
        }
        for change in &claims.changes {
            match change {
                Change::Claimed(claim) => {
                    self.objects.note_floor(claim);
                    if self.claims.set(id, *claim) {
                        touched.push(claim.address);
                    }
                    if self.claims.on(claim.address).len() > 1 {
                        self.sync.note_dispute(now, claim.address, self.interval());
                    }
                    self.contradict(now, claim);
                }
                Change::Withdrawn { address, birth, deleted } => {
                    if *deleted && !self.local.breaks(Mutation::ForgetDeletions) {
                        self.note_deleted(now, *address, *birth, false);
                    }
                    self.other_withdrew(now, id, *address);
                    touched.push(*address);
                }
            }
        }
        let run = self.peers.get(id).and_then(|peer| peer.run.as_ref());
        if let Some((state, claimed)) = run.map(|run| (run.state, run.said().digest)) {
            self.compare_claims(now, id, state, claimed);
        } else {
            self.sync.forget_lacking(id);
        }
        for address in touched {
            self.evaluate(now, address);
        }
        if self.peers.silent().any(|silent| !self.covers.contains(silent)) {
            // A cover may have waited for these claims.
            self.detector.look_at(now);
        }
    }

    /// Contradicts a claim that is not the best: the owner states again, to the claimant and to all nodes that the
    /// claimant may have reached, that the address is its own. A node that covers for the owner states it in the
    /// owner's stead.
    pub(super) fn contradict(&mut self, now: Duration, losing: &Claim) {
        let Some((holder, best)) = self.best_claim(losing.address) else { return };
        if best.precedence() <= losing.precedence() {
            return;
        }
        if holder == self.local.id() {
            self.sync.send_change(Change::Claimed(best));
            self.announce(now, best.address);
        } else if self.covers.contains(holder) {
            self.sync.send_for(holder, best);
        }
    }

    /// Contradicts those claims of a peer that are not the best.
    pub(super) fn contradict_all(&mut self, now: Duration, id: NodeId) {
        for losing in self.claims.range(id, ..).copied().collect::<Vec<_>>() {
            self.contradict(now, &losing);
        }
    }

    /// Repeats disputed claims of a silent node to a peer that has come to miss that node. As long as the peer took the
    /// node to speak, it did not believe what this node stated in the node's stead.
    pub(super) fn repeat_to_peer_that_misses(&mut self, from: NodeId, missed: NodeId) {
        let disputed = self.sync.disputed();
        let disputed: Vec<IpAddr> = disputed.filter(|address| self.claims.of(from, *address).is_some()).collect();
        for address in disputed {
            if let Some((holder, best)) = self.best_claim(address).filter(|(holder, _)| *holder == missed) {
                self.sync.send_for(holder, best);
            }
        }
    }

    /// Repeats claims of silent nodes to a peer that has come to count this node, and has not heard what this node
    /// stated in their stead before: those that the peer disputes.
    pub(super) fn repeat_to_peer_that_counts(&mut self, from: NodeId) {
        if self.covers.is_empty() {
            return;
        }
        for losing in self.claims.range(from, ..).copied().collect::<Vec<_>>() {
            let best = self.best_claim(losing.address).filter(|(holder, _)| self.covers.contains(*holder));
            if let Some((holder, best)) = best {
                self.sync.send_for(holder, best);
            }
        }
    }

    /// Looks into addresses that two speaking nodes have claimed for two intervals: the claim of one does not reach the
    /// other. The owner repeats it; a node that would cover for the owner states it as well, for just these two may not
    /// hear each other.
    pub(super) fn judge_disputes(&mut self, now: Duration) {
        while let Some(address) = self.sync.pop_dispute(now) {
            let Some((holder, best)) = self.best_claim(address) else { continue };
            let speaks = |id: NodeId| self.peers.get(id).is_some_and(Peer::speaks);
            let losing = self.claims.on(address).iter().find(|(id, _)| *id != holder && speaks(*id)).copied();
            let Some((_, losing)) = losing else { continue };
            self.sync.keep_dispute(now, address, self.interval());
            if holder == self.local.id() {
                self.contradict(now, &losing);
            } else if self.is_coverer(holder, false) {
                self.sync.send_for(holder, best);
            }
        }
    }

    /// Reports peers whose claims do not get through though they speak: their Hellos are shorter than their lists.
    pub(super) fn report_lacking_claims(&mut self, now: Duration) {
        let long = self.sync.lacking().filter(|(_, since)| now >= *since + LACKING_WARN).map(|(id, _)| id);
        for id in long.collect::<Vec<_>>() {
            self.outbox.report_once_a_minute(now, Event::ClaimsLacking(id));
        }
    }

    /// Strikes out this node's claim on an address.
    pub(super) fn withdraw_own(&mut self, address: IpAddr, why: Option<Withdrawal>) {
        if let Some(claim) = self.claims.remove(self.local.id(), address) {
            let deleted = why == Some(Withdrawal::Deleted);
            self.sync.send_change(withdrawn(address, claim.birth, deleted));
            self.announcements.lose(address);
            self.outbox.note_saved_state_changed();
        }
    }
}

fn withdrawn(address: IpAddr, birth: Birth, deleted: bool) -> Change {
    Change::Withdrawn { address, birth, deleted }
}
