//! Claims on the wire: changes at once, full lists on request, and what comes from others.

use std::{collections::VecDeque, net::IpAddr, ops::Bound, time::Duration};

use super::Engine;
use crate::{
    claim::{Birth, Claim, Digest},
    io::{Event, Withdrawal},
    mutation::Mutation,
    node::{NodeId, NodeName},
    peer::{Peer, Presence},
    timers::{LACKING_WARN, TRIGGERED_GAP_DIVISOR},
    wire::{self, Body, Change, Claims, FrameLimit, Sender, State},
};

/// Frames of a full list sent at once: 32 of 1,400 bytes stay well below the 212,992 bytes of a socket's default
/// receive buffer (net.core.rmem_default), which counts 2,304 bytes for each.
const PART: usize = 32;

/// Between two parts: 3,200 frames/s at most, 10,000 addresses in a tenth of a second.
const PART_EVERY: Duration = Duration::from_millis(10);

/// A new claim is repeated after an interval divided by this: well before the next candidate steps in, two intervals
/// after it (docs/protocol/ownership.md#turn), and so late that what lost the first frame may be over.
const REPEAT_DIVISOR: u32 = 2;

/// Hello intervals for which a peer asks for lists in vain until they are sent in the shortest frames: the link of the one that
/// asks, or a switch on the way, may carry no longer ones. With 30 % of frames lost, who asks for a list of one frame asks six
/// times in a row once in 60, and a list in short frames costs three times as many.
const IN_VAIN: u32 = 5;
/// Hello intervals after which not even short frames come through. From then on a list for this peer goes out once in
/// [`CALM`]: until somebody mends the network it is read by nobody.
const LONG_IN_VAIN: u32 = 50;
/// Hello intervals from one list to the next then.
const CALM: u32 = 10;
/// Hello intervals after which who has not asked again has got what it asked for.
const ASKS_NO_MORE: u32 = 3;

/// Since when a peer has asked for lists again and again, and when it last did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    since: Duration,
    last: Duration,
}

impl Asked {
    /// For how long it has asked.
    fn in_vain_for(self) -> Duration {
        self.last.saturating_sub(self.since)
    }
}

/// A full list on its way out.
#[derive(Debug)]
pub(super) struct FullList {
    frames: VecDeque<Claims>,
    next: Duration,
}

impl FullList {
    pub(super) fn next(&self) -> Duration {
        self.next
    }
}

impl Engine {
    /// Compares what this node knows of a peer's claims with the state and the digest of its last Hello. A peer that
    /// listens claims nothing yet; what its last run claimed stays as it is until then.
    ///
    /// When no peer's claims are lacking any more, addresses that seemed vacant are looked at again.
    pub(super) fn compare_claims(&mut self, now: Duration, id: NodeId, state: State, claimed: Digest) {
        let claims = state != State::Listening && self.peers.get(id).is_some_and(Peer::speaks);
        if claims && claimed != self.book.digest(id) && !self.breaks(Mutation::IgnoreDigests) {
            self.lacking.entry(id).or_insert(now);
        } else if self.lacking.remove(&id).is_some() && self.lacking.is_empty() {
            self.evaluate_contended(now);
        }
    }

    /// A peer asks for all claims.
    pub(super) fn list_asked_for(&mut self, now: Duration, by: NodeId) {
        let (ceases, long) = (self.interval() * ASKS_NO_MORE, self.interval() * LONG_IN_VAIN);
        self.asked.retain(|_, asked| now <= asked.last + ceases);
        let asked = self.asked.entry(by).or_insert(Asked { since: now, last: now });
        asked.last = now;
        let gap = if asked.in_vain_for() < long { self.list_gap() } else { self.interval() * CALM };
        self.begin_full_list(now, gap);
    }

    /// From one list to the next, at least: many ask at the same time, and one list is for all of them.
    pub(super) fn list_gap(&self) -> Duration {
        self.interval() / TRIGGERED_GAP_DIVISOR
    }

    /// How long a frame with claims may be: what this node's link carries, or less if lists do not come through.
    fn claims_limit(&self, now: Duration) -> FrameLimit {
        let (ceases, long) = (self.interval() * ASKS_NO_MORE, self.interval() * IN_VAIN);
        let in_vain = |asked: &Asked| now <= asked.last + ceases && asked.in_vain_for() >= long;
        if self.asked.values().any(in_vain) { FrameLimit::LEAST } else { self.frame_limit }
    }

    /// Sends this node's changed claims.
    pub(super) fn send_changes(&mut self, now: Duration) {
        let limit = self.claims_limit(now);
        for (subject, changes) in std::mem::take(&mut self.covered_changes) {
            for claims in wire::delta(limit, subject, changes.into_values().collect()) {
                self.send(Body::Claims(claims));
            }
        }
        if self.changes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.changes);
        for claims in wire::delta(limit, self.id, changes.into_values().collect()) {
            self.send(Body::Claims(claims));
        }
        if let Some(list) = self.full_list.take() {
            // What is left of it is out of date.
            self.begin_full_list(now, self.list_gap());
            if let Some(renewed) = &mut self.full_list {
                renewed.next = list.next.max(now);
            }
        }
    }

    /// This node has claimed an address anew, and says so now. It will say it once more: the next candidate does not wait
    /// for a Hello, which may be lost as well.
    pub(super) fn repeat_later(&mut self, now: Duration, address: IpAddr) {
        self.repeats.set(now + self.interval() / REPEAT_DIVISOR, address, ());
    }

    /// Says new claims again that still hold. Withdrawals are not repeated: to know of one late does no harm, and each
    /// makes the owner announce.
    pub(super) fn repeat_claims(&mut self, now: Duration) {
        let mut changes = Vec::new();
        while let Some((_, address, ())) = self.repeats.pop_due(now) {
            changes.extend(self.book.of(self.id, address).map(|claim| Change::Claimed(*claim)));
        }
        let limit = self.claims_limit(now);
        if changes.len() > PART * wire::changes_per_frame(limit) {
            // So many go out in parts.
            self.begin_full_list(now, self.list_gap());
            return;
        }
        for claims in wire::delta(limit, self.id, changes) {
            self.send(Body::Claims(claims));
        }
    }

    /// Begins to send all claims, unless that is under way; so long after the last list at the earliest.
    pub(super) fn begin_full_list(&mut self, now: Duration, gap: Duration) {
        let next = now.max(self.full_list_sent + gap);
        if let Some(list) = &mut self.full_list {
            list.next = list.next.min(next);
            return;
        }
        let claimed = self.book.range(self.id, ..).map(|claim| Change::Claimed(*claim));
        let gone = self.deleted.iter().map(|(address, deleted)| withdrawn(address, deleted.birth, true));
        let limit = self.claims_limit(now);
        let mut frames: VecDeque<Claims> = wire::full_list(limit, self.id, gone.chain(claimed).collect()).into();
        // Who has just come does not know what silent nodes own.
        for silent in &self.covers {
            frames.extend(wire::delta(limit, *silent, self.claims_of(*silent)));
        }
        self.full_list = Some(FullList { frames, next });
        // It says them all once more.
        self.repeats.clear();
    }

    /// Sends the next part of a full list that is on its way.
    pub(super) fn continue_full_list(&mut self, now: Duration) {
        if self.full_list.as_ref().is_none_or(|list| list.next > now) {
            return;
        }
        let Some(mut list) = self.full_list.take() else { return };
        let part = list.frames.len().min(PART);
        for claims in list.frames.drain(..part).collect::<Vec<_>>() {
            self.send(Body::Claims(claims));
        }
        self.full_list_sent = now;
        if !list.frames.is_empty() {
            self.full_list = Some(FullList { next: now + PART_EVERY, ..list });
        }
    }

    /// Tells a peer that has just come what silent nodes own, and what its own last run claimed: as far as this node is
    /// one of those that cover for them.
    pub(super) fn brief(&mut self, id: NodeId) {
        if self.state != State::Active {
            return;
        }
        let own = self.is_coverer(id, false).then_some(id);
        for subject in self.covers.iter().copied().chain(own).collect::<Vec<_>>() {
            self.say_all_for(subject);
        }
    }

    /// Says what a node claims, in its stead.
    pub(super) fn say_all_for(&mut self, subject: NodeId) {
        for claims in wire::delta(self.frame_limit, subject, self.claims_of(subject)) {
            self.send(Body::Claims(claims));
        }
    }

    /// Says, in the stead of a node that has fallen silent, what another silent one claims as well: who covers for that one
    /// may not know of the better claim, and neither of the two can say it.
    pub(super) fn say_what_is_contested(&mut self, id: NodeId) {
        let silent = |other: NodeId| self.peers.get(other).is_some_and(|peer| peer.silent_since().is_some());
        let rivals =
            |claim: &Claim| self.book.on(claim.address).iter().any(|(other, _)| *other != id && silent(*other));
        let contested: Vec<Claim> = self.book.range(id, ..).filter(|claim| rivals(claim)).copied().collect();
        for claim in contested {
            if self.best_claim(claim.address).is_some_and(|(holder, _)| holder == id) {
                self.say_for(id, claim);
            }
        }
    }

    fn claims_of(&self, id: NodeId) -> Vec<Change> {
        self.book.range(id, ..).map(|claim| Change::Claimed(*claim)).collect()
    }

    /// Takes in a part of somebody's claims.
    pub(super) fn claims_received(&mut self, now: Duration, sender: Sender, claims: &Claims) {
        if !self.is_sign_of_life(now, sender) {
            return;
        }
        self.counters.accepted += 1;
        if claims.subject == self.id {
            self.reminded(claims);
        } else if claims.subject == sender.node {
            self.take_claims(now, sender.node, claims);
        } else {
            self.take_covered(now, claims);
        }
    }

    /// What a silent node claims, by the account of one that covers for it.
    fn take_covered(&mut self, now: Duration, claims: &Claims) {
        let subject = claims.subject;
        // Who has just come may hear of a node before the API, or a Hello, has named it.
        if !self.peers.add(subject, &NodeName::new(&format!("{subject:?}"))) {
            return;
        }
        // A node that is heard speaks for itself: not while it listens, not after a stall, and not if its Hello is overdue.
        // Others may have found it silent already, and this node may have stood still without noticing.
        let listens = |peer: &Peer| peer.run.as_ref().is_some_and(|run| run.state == State::Listening);
        let believed = |peer: &&Peer| !peer.speaks() || listens(peer) || self.stall.is_some() || peer.is_overdue(now);
        let Some(peer) = self.peers.get(subject).filter(believed) else { return };
        if !peer.speaks() && peer.silent_since().is_none() {
            self.peers.set_presence(subject, Presence::Silent { since: now, reported: false });
        }
        for change in &claims.changes {
            if let Change::Claimed(claim) = change {
                self.note_floor(claim);
                let known = self.book.of(subject, claim.address);
                if known.is_none_or(|known| known.precedence() < claim.precedence()) {
                    self.book.set(subject, *claim);
                    self.evaluate(now, claim.address);
                    if self.book.of(self.id, claim.address).is_some() {
                        // The other has lost it, is silent and cannot withdraw: nobody answers for it who believed it.
                        self.announce(now, claim.address);
                    }
                }
            }
        }
        self.peers_at = now;
    }

    /// Peers remember what this node claimed before it restarted.
    fn reminded(&mut self, claims: &Claims) {
        if self.state != State::Listening {
            return;
        }
        for change in &claims.changes {
            if let Change::Claimed(claim) = change {
                self.note_floor(claim);
                if !self.siblings.is_empty() {
                    self.reminded_of.insert(claim.address);
                }
                let known = self.resume.entry(claim.address).or_insert(*claim);
                if known.precedence() < claim.precedence() {
                    *known = *claim;
                }
            }
        }
    }

    /// A peer does not claim an address any more.
    fn other_withdrew(&mut self, now: Duration, id: NodeId, address: IpAddr) {
        self.book.remove(id, address);
        // A node that this one covers for may be the owner again.
        self.refresh_answer(address);
        self.announce_after_loss(now, address);
    }

    fn take_claims(&mut self, now: Duration, id: NodeId, claims: &Claims) {
        let mut touched: Vec<IpAddr> = Vec::new();
        if let Some((first, last)) = claims.range {
            let said: std::collections::BTreeSet<_> = claims.changes.iter().map(Change::address).collect();
            let range = (Bound::Included(first), Bound::Included(last));
            let gone = self.book.range(id, range).map(|claim| claim.address).filter(|address| !said.contains(address));
            touched.extend(gone);
            // Their withdrawal was lost.
            for address in &touched {
                self.other_withdrew(now, id, *address);
            }
        }
        for change in &claims.changes {
            match change {
                Change::Claimed(claim) => {
                    self.note_floor(claim);
                    if self.book.set(id, *claim) {
                        touched.push(claim.address);
                    }
                    if self.book.on(claim.address).len() > 1 && self.disputes.get(claim.address).is_none() {
                        self.disputes.set(now + self.interval() * 2, claim.address, ());
                    }
                    self.contradict(now, claim);
                }
                Change::Withdrawn { address, birth, deleted } => {
                    if *deleted && !self.breaks(Mutation::ForgetDeletions) {
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
            self.lacking.remove(&id);
        }
        for address in touched {
            self.evaluate(now, address);
        }
        if self.peers.silent().any(|silent| !self.covers.contains(&silent)) {
            // A cover may have waited for this.
            self.peers_at = now;
        }
    }

    /// Contradicts a claim that is not the best: the owner says again that the address is its own, to the claimant and to
    /// everybody whom the claimant may have told otherwise; who covers for the owner says it in its stead.
    pub(super) fn contradict(&mut self, now: Duration, losing: &Claim) {
        let Some((holder, best)) = self.best_claim(losing.address) else { return };
        if best.precedence() <= losing.precedence() {
            return;
        }
        if holder == self.id {
            self.changes.insert(best.address, Change::Claimed(best));
            self.announce(now, best.address);
        } else if self.covers.contains(&holder) {
            self.say_for(holder, best);
        }
    }

    /// Contradicts what a peer claims and does not own.
    pub(super) fn contradict_all(&mut self, now: Duration, id: NodeId) {
        for losing in self.book.range(id, ..).copied().collect::<Vec<_>>() {
            self.contradict(now, &losing);
        }
    }

    /// A peer has come to miss a node that this one covers for. As long as it took that node to speak, it did not believe
    /// what this node said in its stead: it hears again what it disputes.
    pub(super) fn repeat_to_who_misses(&mut self, from: NodeId, missed: NodeId) {
        let disputed = self.disputes.iter().map(|(address, ())| address);
        let disputed: Vec<IpAddr> = disputed.filter(|address| self.book.of(from, *address).is_some()).collect();
        for address in disputed {
            if let Some((holder, best)) = self.best_claim(address).filter(|(holder, _)| *holder == missed) {
                self.say_for(holder, best);
            }
        }
    }

    /// A peer says that it counts this node. What this node said before in the stead of a silent node, the peer has not heard:
    /// it hears again what it disputes.
    pub(super) fn repeat_to_who_counts_it(&mut self, from: NodeId) {
        if self.covers.is_empty() {
            return;
        }
        for losing in self.book.range(from, ..).copied().collect::<Vec<_>>() {
            let best = self.best_claim(losing.address).filter(|(holder, _)| self.covers.contains(holder));
            if let Some((holder, best)) = best {
                self.say_for(holder, best);
            }
        }
    }

    fn say_for(&mut self, holder: NodeId, claim: Claim) {
        self.covered_changes.entry(holder).or_default().insert(claim.address, Change::Claimed(claim));
    }

    /// Two nodes that speak have claimed an address for two intervals: the claim of one does not get through to the
    /// other. The owner repeats it; who would cover for the owner says it as well, for it may be that just these two do
    /// not hear each other.
    pub(super) fn judge_disputes(&mut self, now: Duration) {
        while let Some((_, address, ())) = self.disputes.pop_due(now) {
            let Some((holder, best)) = self.best_claim(address) else { continue };
            let speaks = |id: NodeId| self.peers.get(id).is_some_and(Peer::speaks);
            let losing = self.book.on(address).iter().find(|(id, _)| *id != holder && speaks(*id)).copied();
            let Some((_, losing)) = losing else { continue };
            self.disputes.set(now + self.interval() * 10, address, ());
            if holder == self.id {
                self.contradict(now, &losing);
            } else if self.is_coverer(holder, false) {
                self.say_for(holder, best);
            }
        }
    }

    /// The claims of a peer that speaks do not come through: its Hellos are shorter than its lists.
    pub(super) fn tell_who_lacks(&mut self, now: Duration) {
        let long = self.lacking.iter().filter(|(_, since)| now >= **since + LACKING_WARN).map(|(id, _)| *id);
        for id in long.collect::<Vec<_>>() {
            self.report_once_a_minute(now, Event::ClaimsLacking(id));
        }
    }

    /// This node claims an address no more.
    pub(super) fn strike(&mut self, address: IpAddr, why: Option<Withdrawal>) {
        if let Some(claim) = self.book.remove(self.id, address) {
            let deleted = why == Some(Withdrawal::Deleted);
            self.changes.insert(address, withdrawn(address, claim.birth, deleted));
            self.announcer.cancel(address);
            self.gained.remove(&address);
            self.state_changed = true;
        }
    }
}

fn withdrawn(address: IpAddr, birth: Birth, deleted: bool) -> Change {
    Change::Withdrawn { address, birth, deleted }
}
