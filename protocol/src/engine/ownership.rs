//! Ownership of addresses: gathers the facts about each, and does what [`election`] says.

use std::{cmp::Reverse, net::IpAddr, sync::Arc, time::Duration};

use super::{Engine, contest::Contention, failure_detector::PENDING_IS_ALIVE, objects::Viewed};
use crate::{
    api_view::Vip,
    claim::{Claim, ClaimKey, Epoch, Precedence, Reason},
    conflict_detection::{self, Step},
    election::{Facts, Holder, Standing, Verdict, VipFacts, decide},
    io::{Event, Output, Withdrawal},
    mutation::Mutation,
    node::NodeId,
    peer::{Peer, Presence},
    timers::{BARRIER, COVER_MAX, FIRST_CLAIM_PROBE_EVERY, FIRST_CLAIM_PROBES},
    wire::{Change, State},
};

/// The candidates from the tenth on step in together: that nine live ones let their turns pass means that their views of
/// the API are old, not that they are slow.
const LAST_PLACE: usize = 9;

/// Intervals in which a turn comes: two for each place, and two for what was heard at its beginning to be late.
const LONGEST_TURN: u32 = 2 * LAST_PLACE as u32 + 2;

impl Engine {
    /// The API's view of an address has changed.
    pub(super) fn view_changed(&mut self, now: Duration, address: IpAddr, vip: Option<Arc<Vip>>) {
        match vip {
            Some(vip) => {
                if self.objects.get(address).is_some_and(|before| before.uid != vip.uid) {
                    self.conflict_detection.cancel(address);
                    // The node that announced the object before may be no candidate for this one. An owner announces it again.
                    self.overhearing.forget_announcer(address);
                    self.overhearing.drop_unjudged(address);
                }
                let given_up = vip.given_up;
                let before = self.objects.show(now, address, vip).and_then(|before| before.given_up);
                if let Some(given_up) = given_up.filter(|_| before != given_up) {
                    self.given_up(now, address, given_up);
                }
            }
            None => {
                let seen = self.objects.hide(address);
                // What an earlier run claimed is not to be resumed either.
                let own = self
                    .claims
                    .of(self.local.id(), address)
                    .or(self.participation.remembered(address))
                    .map(|claim| claim.birth);
                if let Some(birth) = seen.max(own) {
                    self.note_deleted(now, address, birth, true);
                }
                self.conflict_detection.cancel(address);
                self.contest.forget(address);
                self.handovers.forget(address);
                self.overhearing.forget_announcer(address);
                self.announcements.forget(address);
            }
        }
        self.evaluate(now, address);
    }

    /// Everything may have changed.
    pub(super) fn evaluate_all(&mut self, now: Duration) {
        for address in self.answers_and_claims() {
            self.evaluate(now, address);
        }
    }

    /// Every address there is something to decide about.
    pub(super) fn answers_and_claims(&self) -> Vec<IpAddr> {
        let own = self.claims.addresses_of(self.local.id());
        let mut all: Vec<IpAddr> = self.objects.addresses().chain(own).chain(self.contest.addresses()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Who else could claim has changed.
    pub(super) fn evaluate_contended(&mut self, now: Duration) {
        if !self.may_claim() {
            return;
        }
        for address in self.contest.addresses().collect::<Vec<_>>() {
            self.evaluate(now, address);
        }
    }

    /// From now on this node could claim: its turns are counted from here.
    pub(super) fn restart_turns(&mut self, now: Duration) {
        self.contest.restart(now);
        self.evaluate_contended(now);
    }

    /// A peer stands differently: decides anew about what it holds.
    pub(super) fn reassess(&mut self, now: Duration, id: NodeId) {
        self.update_cover(now, id);
        for address in self.claims.addresses_of(id).collect::<Vec<_>>() {
            self.evaluate(now, address);
        }
    }

    /// Decides about an address, and acts.
    pub(super) fn evaluate(&mut self, now: Duration, address: IpAddr) {
        self.prepare_decision(now, address);
        match decide(&self.facts(now, address)) {
            Verdict::Rest => self.settle_contention(address),
            Verdict::Yield => self.yield_to_better(now, address),
            Verdict::Withdraw(why) => {
                self.settle_contention(address);
                self.strike(address, Some(why));
                self.outbox.report(Event::Withdrawn { address, why });
            }
            Verdict::HandOver(to) => self.hand_over(now, address, to),
            Verdict::TakeBack => self.claim(now, address, Reason::Vacant),
            Verdict::Renew => self.renew(now, address),
            Verdict::Contend(reason) => self.contend(now, address, reason),
        }
        self.refresh_answer(address);
        if self.best_claim(address).is_none() {
            self.objects.forget_floor_of_the_gone(address);
        }
    }

    /// Does what a decision about an address depends on, and sets when the address is decided about again: asks the kernel
    /// of a node that is presumed to own it, and follows a hand-over by way of the API.
    fn prepare_decision(&mut self, now: Duration, address: IpAddr) {
        let holder = self.holder(now, address);
        match holder {
            Holder::Me(_) => self.follow_own_hand_over(now, address),
            Holder::Peer(..) => {}
            Holder::Presumed => {
                if let Some(id) = self.presumed(address) {
                    self.ask_unheard(now, id);
                }
            }
            Holder::Nobody => self.follow_hand_over(now, address),
        }
        if holder != Holder::Nobody {
            self.end_hand_over(address, !matches!(holder, Holder::Me(_)));
        }
        let held_down = self.held_down_until(now, address);
        let pause = self.contest.pauses_until(now, address);
        if let Some(until) = held_down.max(self.participation.settles_at(now)).max(pause) {
            self.contest.decide_at(until, address);
        }
    }

    /// Returns what is known of an address, for [`decide`].
    fn facts(&self, now: Duration, address: IpAddr) -> Facts {
        let holder = self.holder(now, address);
        let vip = self.objects.get(address).map(|vip| {
            let candidates = &vip.candidates;
            let holders = self.best_claim(address).and_then(|(id, _)| candidates.class_of(id));
            let mine = candidates.class_of(self.local.id());
            VipFacts {
                birth: self.objects.birth_of(address, vip),
                has_candidates: !candidates.is_empty(),
                mine,
                holders,
            }
        });
        Facts {
            own: self.claims.of(self.local.id(), address).copied(),
            holder,
            vip,
            deleted: self.objects.deleted_birth(address),
            fresh: self.view_is_fresh(now),
            held_down: self.held_down_until(now, address).is_some(),
            pausing: self.contest.pauses_until(now, address).is_some(),
            settling: self.participation.settles_at(now).is_some(),
            successor: if matches!(holder, Holder::Me(_)) { self.successor_by_api(now, address) } else { None },
            handed_over: if holder == Holder::Nobody { self.handed_over(now, address) } else { None },
        }
    }

    fn holder(&self, now: Duration, address: IpAddr) -> Holder {
        match self.best_claim(address) {
            Some((id, claim)) if id == self.local.id() => Holder::Me(claim),
            Some((id, claim)) => Holder::Peer(claim, self.standing(now, id, &claim)),
            None if self.presumed(address).is_some() => Holder::Presumed,
            None => Holder::Nobody,
        }
    }

    fn held_down_until(&self, now: Duration, address: IpAddr) -> Option<Duration> {
        let until = self.contest.held_down_until(now, address);
        until.filter(|_| !self.local.breaks(Mutation::RetakeWithoutHoldDown))
    }

    fn standing(&self, now: Duration, id: NodeId, claim: &Claim) -> Standing {
        let Some(peer) = self.peers.get(id) else { return Standing::Holding };
        let says = peer.run.as_ref().map(|run| (run.state, run.deaf));
        match peer.presence() {
            _ if says.is_some_and(|(state, _)| state == State::Leaving) => Standing::Leaving,
            Presence::Speaking
                if says.is_some_and(|(_, deaf)| deaf) && !self.local.breaks(Mutation::IgnoreDeafOwner) =>
            {
                Standing::Deaf
            }
            Presence::Silent { .. } if !claim.cover && peer.is_lost(now, self.interval()) && self.is_hearing() => {
                Standing::Uncovered
            }
            // If nobody at all is heard, it is the network that drops the protocol, and not that speaker which failed.
            Presence::Silent { since, .. } if now >= since + COVER_MAX && self.peers.speaking() > 0 => {
                Standing::CoverExpired
            }
            _ => Standing::Holding,
        }
    }

    /// The highest live claim on an address.
    pub(super) fn best_claim(&self, address: IpAddr) -> Option<(NodeId, Claim)> {
        self.claims.best(address, |id, claim| self.order(id, claim))
    }

    fn order(&self, id: NodeId, claim: &Claim) -> (Precedence, Reverse<usize>) {
        let (birth, epoch, key) = claim.precedence();
        if self.local.breaks(Mutation::IgnoreEpoch) {
            return ((birth, Epoch(0), key), Reverse(0));
        }
        if self.local.breaks(Mutation::BreakTiesByRank) {
            let place = |vip: &Viewed| vip.candidates.iter().position(|candidate| candidate.node == id);
            let rank = self.objects.get(claim.address).and_then(place).unwrap_or(usize::MAX);
            return ((birth, epoch, ClaimKey(0)), Reverse(rank));
        }
        ((birth, epoch, key), Reverse(0))
    }

    /// A node that is not heard, but is taken to own an address that nobody claims: the API or the wire says that it
    /// announces it, and its kernel is not known to be silent.
    pub(super) fn presumed(&self, address: IpAddr) -> Option<NodeId> {
        if self.local.breaks(Mutation::IgnoreUnheardPeers) {
            return None;
        }
        // What was seen on the wire needs less to be believed than what the API once said.
        let silent = |peer: &Peer| self.kernel_silence(peer).is_some();
        let patience = self.interval() * PENDING_IS_ALIVE;
        let there =
            |peer: &Peer| peer.shows_life(self.called, patience) || peer.presence() != Presence::Dead && !silent(peer);
        let alive = |peer: &Peer| !peer.speaks() && there(peer);
        let seen = self.overhearing.announcer(address);
        let seen = seen.filter(|id| self.peers.get(*id).is_some_and(alive));
        let viewed = self.objects.get(address)?;
        // A node that was heard after it was named, and did not claim the address, has contradicted the API.
        let contradicts = |peer: &Peer| peer.run.as_ref().is_some_and(|run| run.heard() > viewed.named());
        let said = |peer: &Peer| peer.may_be_there() || self.may_act_unheard(peer) && !contradicts(peer);
        seen.or(viewed.announced_by.filter(|id| self.peers.get(*id).is_some_and(said)))
    }

    /// Returns whether this node's view is from before it started, while others are heard whose views may be newer: it has
    /// not reached the API since. Whom such a view names need not be whom theirs name.
    pub(super) fn goes_by_saved_view(&self) -> bool {
        !self.objects.reached() && self.peers.speaking() > 0
    }

    /// May this peer claim something without this node hearing of it? It was never heard, or nobody is heard at all: then
    /// it is the network that drops the protocol, and they are all at work. Not if its kernel is silent.
    pub(super) fn may_act_unheard(&self, peer: &Peer) -> bool {
        let everybody = self.peers.speaking() == 0 && peer.silent_since().is_some();
        peer.may_be_there() || everybody && self.kernel_silence(peer).is_none()
    }

    /// The addresses a node is presumed to own.
    pub(super) fn presumed_of(&self, id: NodeId) -> Vec<IpAddr> {
        let named = |address: IpAddr, vip: &Vip| self.overhearing.announcer(address).or(vip.announced_by) == Some(id);
        let unclaimed = self.objects.iter().filter(|(address, vip)| named(*address, vip));
        unclaimed.map(|(address, _)| address).filter(|address| self.best_claim(*address).is_none()).collect()
    }

    /// How many candidates that could claim come before this node; `None` if it is no candidate. The holder, which is to
    /// be succeeded, does not count. Where nobody holds the address, a node that has fallen silent does, until it is found
    /// dead: in that moment the others may be about to fall silent as well.
    pub(super) fn place(&self, vip: &Vip, holder: Option<NodeId>) -> Option<usize> {
        vip.candidates.class_of(self.local.id())?;
        let mut before = 0;
        for candidate in vip.candidates.iter() {
            if candidate.node == self.local.id() {
                return Some(before);
            }
            let silent = |peer: &Peer| peer.silent_since().is_some() && peer.takes_part_when_heard();
            let counts =
                |peer: &Peer| peer.takes_part() || self.may_act_unheard(peer) || holder.is_none() && silent(peer);
            if Some(candidate.node) != holder && self.peers.get(candidate.node).is_some_and(counts) {
                before += 1;
                if before == LAST_PLACE {
                    return Some(before);
                }
            }
        }
        None
    }

    pub(super) fn may_claim(&self) -> bool {
        let hears = self.is_hearing() || self.local.breaks(Mutation::TakeOverWhileDeaf);
        self.participation.is_able() && hears
    }

    /// There is something to claim. With no peer to hear, what was heard before that was noticed says little: somebody
    /// has to answer first.
    fn notice(&mut self, now: Duration, address: IpAddr) {
        if self.peers.speaking() == 0 && self.contest.get(address).is_none() {
            self.hearing.restart(now);
        }
    }

    /// No peer is heard, and since then nobody else was either.
    fn heard_nothing_since(&self, since: Duration) -> bool {
        self.peers.speaking() == 0
            && self.hearing.evidence().is_none_or(|evidence| evidence < since)
            && !self.local.breaks(Mutation::TakeOverWhileDeaf)
    }

    /// Claims an address of this node's for a new object, as soon as it may.
    fn renew(&mut self, now: Duration, address: IpAddr) {
        self.notice(now, address);
        self.contest.begin(address, Contention { reason: Reason::Recreated, since: now, left_by: None });
        if self.may_claim() {
            self.claim(now, address, Reason::Recreated);
        }
    }

    /// Claims an address in this node's turn.
    fn contend(&mut self, now: Duration, address: IpAddr, reason: Reason) {
        self.notice(now, address);
        let may_claim = self.may_claim();
        let Contention { reason, since, .. } = self.contest.go_on(now, address, reason, may_claim);
        if !may_claim {
            return;
        }
        if let Some(judged) = self.overhearing.judged_at(address).filter(|judged| *judged > now) {
            self.contest.decide_at(judged, address);
            return;
        }
        let Some(vip) = self.objects.get(address).cloned() else { return };
        let holder = self.best_claim(address).map(|(id, _)| id);
        let Some(place) = self.place(&vip, holder) else { return };
        let step = u32::try_from(place).unwrap_or(u32::MAX).saturating_mul(2);
        let mut due = since + self.interval().saturating_mul(step);
        let object = self.objects.birth_of(address, &vip);
        let seen = self.objects.floor(address).is_some_and(|(birth, _)| birth >= object);
        let known = seen || vip.ever_announced;
        if reason == Reason::Vacant && holder.is_none() && known && self.has_restarted_candidate(&vip) {
            // One of them may be about to resume it.
            due = due.max(since + BARRIER.max(self.interval() * 10));
        }
        if due > now {
            self.contest.decide_at(due, address);
            self.ask_unheard_candidates(now, &vip);
            return;
        }
        // A new address in the first place waits for the answers to its probes only: nobody else can have taken it.
        let waited = place > 0 || now > since && known;
        // A contention may be old: a stranger had the address, or a claim was lacking.
        let lately = since.max(now.saturating_sub(self.interval().saturating_mul(LONGEST_TURN)));
        if waited && self.heard_nothing_since(lately) {
            // It may have ceased to hear, or those before it may have claimed unheard: somebody has to answer first.
            self.hearing.restart(now);
            return;
        }
        if reason == Reason::Vacant && holder.is_none() && known {
            // A claim that this node does not know may be on it. (Who has a new address answers the enquiries.)
            if let Some(until) = self.lacks_claims_until(now, &vip) {
                self.contest.decide_at(until, address);
                return;
            }
        }
        if holder.is_none() && !known {
            if vip.held_here {
                // Its own kernel does not answer what it asks itself.
                self.outbox.report_once_a_minute(now, Event::AnsweredByClusterNode { address, node: self.local.id() });
                return;
            }
            if !self.is_free(now, address) {
                return;
            }
        }
        self.claim(now, address, reason);
    }

    /// Returns until when an address may seem vacant because a claim on it has not come through: while a candidate that speaks
    /// has claims which this node does not know, for as long as cover lasts at most. (A frame may be too long for the
    /// path, time after time.) From who is no candidate the address would be taken anyway.
    fn lacks_claims_until(&self, now: Duration, vip: &Vip) -> Option<Duration> {
        let of_candidates = self.sync.lacking().filter(|(id, _)| vip.candidates.class_of(*id).is_some());
        let until = of_candidates.map(|(_, since)| since + COVER_MAX).max();
        until.filter(|until| *until > now && !self.local.breaks(Mutation::IgnoreDigests))
    }

    fn has_restarted_candidate(&self, vip: &Vip) -> bool {
        let restarted = |id| self.peers.get(id).is_some_and(|peer| peer.speaks() && peer.listens());
        vip.candidates.iter().any(|candidate| restarted(candidate.node))
    }

    /// Those that come first may be there, though they are not heard: their kernels are asked.
    fn ask_unheard_candidates(&mut self, now: Duration, vip: &Vip) {
        let me = self.local.id();
        for candidate in vip.candidates.iter().take_while(|candidate| candidate.node != me).take(LAST_PLACE) {
            self.ask_unheard(now, candidate.node);
        }
    }

    /// Before its first claim ever, everybody is asked for an address; not where somebody answers for every address.
    fn is_free(&mut self, now: Duration, address: IpAddr) -> bool {
        if !self.local.probes_first_claims() {
            return true;
        }
        match self.conflict_detection.verdict(now, address) {
            conflict_detection::Verdict::Free { begun } if self.heard_nothing_since(begun) => {
                // An answer would not have been heard either.
                self.hearing.restart(now);
                self.conflict_detection.ask_again(now, address);
                false
            }
            conflict_detection::Verdict::Free { .. } => true,
            conflict_detection::Verdict::Unknown => {
                self.conflict_detection.begin(now, address);
                self.contest.decide_at(now + FIRST_CLAIM_PROBE_EVERY * (FIRST_CLAIM_PROBES + 1), address);
                false
            }
            conflict_detection::Verdict::Probing
            | conflict_detection::Verdict::Conflict { .. }
            | conflict_detection::Verdict::AnsweredByCluster { .. } => false,
        }
    }

    /// Takes the next steps of address conflict detection that are due.
    pub(super) fn step_first_claims(&mut self, now: Duration) {
        while let Some(step) = self.conflict_detection.poll(now) {
            match step {
                Step::Enquire(address) => self.outbox.push(Output::Enquire(address)),
                Step::Free(address) => self.evaluate(now, address),
            }
        }
    }

    fn claim(&mut self, now: Duration, address: IpAddr, reason: Reason) {
        let Some(vip) = self.objects.get(address).cloned() else { return };
        let object = self.objects.birth_of(address, &vip);
        if object != vip.birth {
            self.outbox.report_once_a_minute(now, Event::BornOutOfOrder(address));
        }
        // Another node may know a younger object than this one's view shows; its birth is on the wire.
        let (birth, epoch) = match self.objects.floor(address) {
            Some((birth, epoch)) if birth >= object => (birth, epoch.next()),
            _ => (object, Epoch(1)),
        };
        let key = ClaimKey::of(address, &vip.uid, self.local.name());
        let cover = vip.cover;
        let holder = self.best_claim(address).map(|(id, _)| id);
        let left_by = self.contest.get(address).and_then(|contention| contention.left_by);
        let unfit = |id| vip.candidates.class_of(id).is_none();
        if reason == Reason::Class && holder.is_some_and(unfit) {
            self.contest.note_taken(now, address);
        }
        let from = holder.or(left_by).filter(|id| *id != self.local.id());
        self.enter_claim(now, Claim { address, birth, epoch, key, reason, cover }, from);
        self.announce(now, address);
    }

    /// From now on this node owns an address, which was another's or nobody's.
    pub(super) fn enter_claim(&mut self, now: Duration, claim: Claim, from: Option<NodeId>) {
        self.settle_contention(claim.address);
        self.objects.note_floor(&claim);
        self.claims.set(self.local.id(), claim);
        self.announcements.gain(now, claim.address);
        self.sync.send_change(Change::Claimed(claim));
        // The next candidate does not wait for a Hello, which may be lost as well as this frame.
        self.sync.repeat_later(now, claim.address, self.interval());
        self.outbox.note_saved_state_changed();
        self.overhearing.forget_announcer(claim.address);
        let before = from.and_then(|id| self.peers.get(id)).filter(|peer| !peer.speaks());
        let silent_for = before.and_then(Peer::last_sign).map(|sign| now.saturating_sub(sign));
        self.outbox.report(Event::Owned { claim, from, silent_for });
        self.refresh_answer(claim.address);
        self.detector.look_by(now + self.interval());
    }

    fn yield_to_better(&mut self, now: Duration, address: IpAddr) {
        self.settle_contention(address);
        let Some((to, claim)) = self.best_claim(address) else { return };
        if claim.reason == Reason::Class {
            self.contest.note_deposed(now, address);
        }
        self.strike(address, None);
        self.outbox.report(Event::Lost { claim, to });
        self.refresh_answer(address);
        self.announce_after_loss(now, address);
    }

    /// An unheard node announces what this one owns: one of the two has to stop, and it is the one that was first.
    pub(super) fn yield_to_unheard(&mut self, address: IpAddr, to: NodeId) {
        self.settle_contention(address);
        self.strike(address, None);
        self.outbox.report(Event::Withdrawn { address, why: Withdrawal::TakenByUnheard(to) });
        self.refresh_answer(address);
    }

    pub(super) fn settle_contention(&mut self, address: IpAddr) {
        if self.contest.settle(address) {
            self.conflict_detection.cancel(address);
            self.overhearing.drop_unjudged(address);
        }
    }
}
