//! Ownership of addresses: gathers the facts about each, and does what [`election`] says.

use std::{cmp::Reverse, net::IpAddr, sync::Arc, time::Duration};

use super::{Contention, Engine, failure_detector::PENDING_IS_ALIVE, viewed::Viewed};
use crate::{
    api_view::Vip,
    claim::{Claim, ClaimKey, Epoch, Precedence, Reason},
    conflict_detection,
    election::{Facts, Holder, Standing, Verdict, VipFacts, decide},
    io::{Event, Withdrawal},
    mutation::Mutation,
    node::NodeId,
    peer::{Peer, Presence},
    timers::{BARRIER, COVER_MAX, FIRST_CLAIM_PROBE_EVERY, FIRST_CLAIM_PROBES, SETTLED},
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
                if self.deleted_birth(address).is_some_and(|birth| birth < vip.birth) {
                    self.deleted.remove(address);
                }
                if self.vips.get(&address).is_some_and(|before| before.uid != vip.uid) {
                    self.first_claims.cancel(address);
                    // The node that announced the object before may be no candidate for this one. An owner announces it again.
                    self.announced_unheard.remove(&address);
                    self.overheard.remove(address);
                }
                let given_up = vip.given_up;
                let viewed = Viewed::next(now, vip, self.vips.get(&address));
                let before = self.vips.insert(address, viewed).and_then(|before| before.given_up);
                if let Some(given_up) = given_up.filter(|_| before != given_up) {
                    self.given_up(now, address, given_up);
                }
            }
            None => {
                let seen = self.vips.get(&address).map(|vip| self.birth_of(address, vip));
                self.vips.remove(&address);
                // What an earlier run claimed is not to be resumed either.
                let own = self.book.of(self.id, address).or(self.resume.get(&address)).map(|claim| claim.birth);
                if let Some(birth) = seen.max(own) {
                    self.note_deleted(now, address, birth, true);
                }
                self.first_claims.cancel(address);
                self.hold_down.forget(address);
                self.takes.forget(address);
                self.handovers.forget(address);
                self.announced_unheard.remove(&address);
                self.defended.remove(&address);
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
        let own = self.book.addresses_of(self.id);
        let mut all: Vec<IpAddr> =
            self.vips.keys().copied().chain(own).chain(self.contending.keys().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Who else could claim has changed.
    pub(super) fn evaluate_contended(&mut self, now: Duration) {
        if !self.may_claim() {
            return;
        }
        for address in self.contending.keys().copied().collect::<Vec<_>>() {
            self.evaluate(now, address);
        }
    }

    /// From now on this node could claim: its turns are counted from here.
    pub(super) fn restart_turns(&mut self, now: Duration) {
        for contention in self.contending.values_mut() {
            contention.since = now;
        }
        self.evaluate_contended(now);
    }

    /// A peer stands differently: decides anew about what it holds.
    pub(super) fn reassess(&mut self, now: Duration, id: NodeId) {
        self.update_cover(now, id);
        for address in self.book.addresses_of(id).collect::<Vec<_>>() {
            self.evaluate(now, address);
        }
    }

    /// Decides about an address, and acts.
    pub(super) fn evaluate(&mut self, now: Duration, address: IpAddr) {
        match decide(&self.facts(now, address)) {
            Verdict::Rest => self.settle_contention(address),
            Verdict::Yield => self.yield_to_better(now, address),
            Verdict::Withdraw(why) => {
                self.settle_contention(address);
                self.strike(address, Some(why));
                self.tell(Event::Withdrawn { address, why });
            }
            Verdict::HandOver(to) => self.hand_over(now, address, to),
            Verdict::TakeBack => self.claim(now, address, Reason::Vacant),
            Verdict::Renew => self.renew(now, address),
            Verdict::Contend(reason) => self.contend(now, address, reason),
        }
        self.refresh_answer(address);
        self.forget_floor_of_the_gone(address);
    }

    fn facts(&mut self, now: Duration, address: IpAddr) -> Facts {
        let best = self.best_claim(address);
        let holder = match best {
            Some((id, claim)) if id == self.id => Holder::Me(claim),
            Some((id, claim)) => Holder::Peer(claim, self.standing(now, id, &claim)),
            None => match self.presumed(address) {
                Some(id) => {
                    self.ask_unheard(now, id);
                    Holder::Presumed
                }
                None => Holder::Nobody,
            },
        };
        let successor = match holder {
            Holder::Me(_) => self.successor_by_api(now, address),
            _ => None,
        };
        let handed_over = match holder {
            Holder::Nobody => self.handed_over(now, address),
            _ => None,
        };
        if holder != Holder::Nobody {
            self.end_hand_over(address, !matches!(holder, Holder::Me(_)));
        }
        let vip = self.vips.get(&address).map(|vip| {
            let candidates = &vip.candidates;
            let holders = best.and_then(|(id, _)| candidates.class_of(id));
            let mine = candidates.class_of(self.id);
            VipFacts { birth: self.birth_of(address, vip), has_candidates: !candidates.is_empty(), mine, holders }
        });
        let held_down = self.hold_down.until(now, address).filter(|_| !self.breaks(Mutation::RetakeWithoutHoldDown));
        let unsettled = Some(self.joined + SETTLED).filter(|settled| *settled > now);
        let pause = self.takes.until(now, address);
        if let Some(until) = held_down.max(unsettled).max(pause) {
            self.turns.set(until, address, ());
        }
        Facts {
            own: self.book.of(self.id, address).copied(),
            holder,
            vip,
            deleted: self.deleted_birth(address),
            fresh: self.view_is_fresh(now),
            held_down: held_down.is_some(),
            pausing: pause.is_some(),
            settling: unsettled.is_some(),
            successor,
            handed_over,
        }
    }

    fn standing(&self, now: Duration, id: NodeId, claim: &Claim) -> Standing {
        let Some(peer) = self.peers.get(id) else { return Standing::Holding };
        let says = peer.run.as_ref().map(|run| (run.state, run.deaf));
        match peer.presence() {
            _ if says.is_some_and(|(state, _)| state == State::Leaving) => Standing::Leaving,
            Presence::Speaking if says.is_some_and(|(_, deaf)| deaf) && !self.breaks(Mutation::IgnoreDeafOwner) => {
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
        self.book.best(address, |id, claim| self.order(id, claim))
    }

    fn order(&self, id: NodeId, claim: &Claim) -> (Precedence, Reverse<usize>) {
        let (birth, epoch, key) = claim.precedence();
        if self.breaks(Mutation::IgnoreEpoch) {
            return ((birth, Epoch(0), key), Reverse(0));
        }
        if self.breaks(Mutation::BreakTiesByRank) {
            let place = |vip: &Viewed| vip.candidates.iter().position(|candidate| candidate.node == id);
            let rank = self.vips.get(&claim.address).and_then(place).unwrap_or(usize::MAX);
            return ((birth, epoch, ClaimKey(0)), Reverse(rank));
        }
        ((birth, epoch, key), Reverse(0))
    }

    /// A node that is not heard, but is taken to own an address that nobody claims: the API or the wire says that it
    /// announces it, and its kernel is not known to be silent.
    pub(super) fn presumed(&self, address: IpAddr) -> Option<NodeId> {
        if self.breaks(Mutation::IgnoreUnheardPeers) {
            return None;
        }
        // What was seen on the wire needs less to be believed than what the API once said.
        let silent = |peer: &Peer| self.kernel_silence(peer).is_some();
        let patience = self.interval() * PENDING_IS_ALIVE;
        let there =
            |peer: &Peer| peer.shows_life(self.called, patience) || peer.presence() != Presence::Dead && !silent(peer);
        let alive = |peer: &Peer| !peer.speaks() && there(peer);
        let seen = self.announced_unheard.get(&address).copied();
        let seen = seen.filter(|id| self.peers.get(*id).is_some_and(alive));
        let viewed = self.vips.get(&address)?;
        // A node that was heard after it was named, and did not claim the address, has contradicted the API.
        let contradicts = |peer: &Peer| peer.run.as_ref().is_some_and(|run| run.heard() > viewed.named);
        let said = |peer: &Peer| peer.may_be_there() || self.may_act_unheard(peer) && !contradicts(peer);
        seen.or(viewed.announced_by.filter(|id| self.peers.get(*id).is_some_and(said)))
    }

    /// Returns whether this node's view is from before it started, while others are heard whose views may be newer: it has
    /// not reached the API since. Whom such a view names need not be whom theirs name.
    pub(super) fn goes_by_saved_view(&self) -> bool {
        self.view_fresh_at.is_none() && self.peers.speaking() > 0
    }

    /// May this peer claim something without this node hearing of it? It was never heard, or nobody is heard at all: then
    /// it is the network that drops the protocol, and they are all at work. Not if its kernel is silent.
    pub(super) fn may_act_unheard(&self, peer: &Peer) -> bool {
        let everybody = self.peers.speaking() == 0 && peer.silent_since().is_some();
        peer.may_be_there() || everybody && self.kernel_silence(peer).is_none()
    }

    /// The addresses a node is presumed to own.
    pub(super) fn presumed_of(&self, id: NodeId) -> Vec<IpAddr> {
        let named =
            |address: &IpAddr, vip: &Vip| self.announced_unheard.get(address).copied().or(vip.announced_by) == Some(id);
        let unclaimed = self.vips.iter().filter(|(address, vip)| named(address, vip));
        unclaimed.map(|(address, _)| *address).filter(|address| self.best_claim(*address).is_none()).collect()
    }

    /// How many candidates that could claim come before this node; `None` if it is no candidate. The holder, which is to
    /// be succeeded, does not count. Where nobody holds the address, a node that has fallen silent does, until it is found
    /// dead: in that moment the others may be about to fall silent as well.
    pub(super) fn place(&self, vip: &Vip, holder: Option<NodeId>) -> Option<usize> {
        vip.candidates.class_of(self.id)?;
        let mut before = 0;
        for candidate in vip.candidates.iter() {
            if candidate.node == self.id {
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
        let hears = self.is_hearing() || self.breaks(Mutation::TakeOverWhileDeaf);
        self.state == State::Active && self.stall.is_none() && self.carrier && hears
    }

    /// There is something to claim. With no peer to hear, what was heard before that was noticed says little: somebody
    /// has to answer first.
    fn notice(&mut self, now: Duration, address: IpAddr) {
        if self.peers.speaking() == 0 && !self.contending.contains_key(&address) {
            self.hearing.restart(now);
        }
    }

    /// No peer is heard, and since then nobody else was either.
    fn heard_nothing_since(&self, since: Duration) -> bool {
        self.peers.speaking() == 0
            && self.hearing.evidence().is_none_or(|evidence| evidence < since)
            && !self.breaks(Mutation::TakeOverWhileDeaf)
    }

    /// Claims an address of this node's for a new object, as soon as it may.
    fn renew(&mut self, now: Duration, address: IpAddr) {
        self.notice(now, address);
        self.contending.insert(address, Contention { reason: Reason::Recreated, since: now, left_by: None });
        if self.may_claim() {
            self.claim(now, address, Reason::Recreated);
        }
    }

    /// Claims an address in this node's turn.
    fn contend(&mut self, now: Duration, address: IpAddr, reason: Reason) {
        self.notice(now, address);
        let may_claim = self.may_claim();
        let contention = self.contending.entry(address).or_insert(Contention { reason, since: now, left_by: None });
        if reason != Reason::Vacant {
            contention.reason = reason;
        }
        if !may_claim {
            // Its turn is counted from when it could.
            contention.since = now;
            return;
        }
        let Contention { reason, since, .. } = *contention;
        if let Some((decided, _)) = self.overheard.get(address).filter(|(decided, _)| *decided > now) {
            self.turns.set(decided, address, ());
            return;
        }
        let Some(vip) = self.vips.get(&address).cloned() else { return };
        let holder = self.best_claim(address).map(|(id, _)| id);
        let Some(place) = self.place(&vip, holder) else { return };
        let step = u32::try_from(place).unwrap_or(u32::MAX).saturating_mul(2);
        let mut due = since + self.interval().saturating_mul(step);
        let object = self.birth_of(address, &vip);
        let seen = self.floors.get(&address).is_some_and(|(birth, _)| *birth >= object);
        let known = seen || vip.ever_announced;
        if reason == Reason::Vacant && holder.is_none() && known && self.has_restarted_candidate(&vip) {
            // One of them may be about to resume it.
            due = due.max(since + BARRIER.max(self.interval() * 10));
        }
        if due > now {
            self.turns.set(due, address, ());
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
                self.turns.set(until, address, ());
                return;
            }
        }
        if holder.is_none() && !known {
            if vip.held_here {
                // Its own kernel does not answer what it asks itself.
                self.report_once_a_minute(now, Event::AnsweredByClusterNode { address, node: self.id });
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
        let of_candidates = self.lacking.iter().filter(|(id, _)| vip.candidates.class_of(**id).is_some());
        let until = of_candidates.map(|(_, since)| *since + COVER_MAX).max();
        until.filter(|until| *until > now && !self.breaks(Mutation::IgnoreDigests))
    }

    fn has_restarted_candidate(&self, vip: &Vip) -> bool {
        let restarted = |id| self.peers.get(id).is_some_and(|peer| peer.speaks() && peer.listens());
        vip.candidates.iter().any(|candidate| restarted(candidate.node))
    }

    /// Those that come first may be there, though they are not heard: their kernels are asked.
    fn ask_unheard_candidates(&mut self, now: Duration, vip: &Vip) {
        let me = self.id;
        for candidate in vip.candidates.iter().take_while(|candidate| candidate.node != me).take(LAST_PLACE) {
            self.ask_unheard(now, candidate.node);
        }
    }

    /// Before its first claim ever, everybody is asked for an address; not where somebody answers for every address.
    fn is_free(&mut self, now: Duration, address: IpAddr) -> bool {
        if !self.config.first_claim_probe {
            return true;
        }
        match self.first_claims.verdict(now, address) {
            conflict_detection::Verdict::Free { begun } if self.heard_nothing_since(begun) => {
                // An answer would not have been heard either.
                self.hearing.restart(now);
                self.first_claims.ask_again(now, address);
                false
            }
            conflict_detection::Verdict::Free { .. } => true,
            conflict_detection::Verdict::Unknown => {
                self.first_claims.begin(now, address);
                self.turns.set(now + FIRST_CLAIM_PROBE_EVERY * (FIRST_CLAIM_PROBES + 1), address, ());
                false
            }
            conflict_detection::Verdict::Probing
            | conflict_detection::Verdict::Conflict { .. }
            | conflict_detection::Verdict::AnsweredByCluster { .. } => false,
        }
    }

    fn claim(&mut self, now: Duration, address: IpAddr, reason: Reason) {
        let Some(vip) = self.vips.get(&address).cloned() else { return };
        let object = self.birth_of(address, &vip);
        if object != vip.birth {
            self.report_once_a_minute(now, Event::BornOutOfOrder(address));
        }
        // Another node may know a younger object than this one's view shows; its birth is on the wire.
        let (birth, epoch) = match self.floors.get(&address) {
            Some((birth, epoch)) if *birth >= object => (*birth, epoch.next()),
            _ => (object, Epoch(1)),
        };
        let key = ClaimKey::of(address, &vip.uid, &self.config.node);
        let cover = vip.cover;
        let holder = self.best_claim(address).map(|(id, _)| id);
        let left_by = self.contending.get(&address).and_then(|contention| contention.left_by);
        let unfit = |id| vip.candidates.class_of(id).is_none();
        if reason == Reason::Class && holder.is_some_and(unfit) {
            self.takes.took(now, address);
        }
        let from = holder.or(left_by).filter(|id| *id != self.id);
        self.enter_claim(now, Claim { address, birth, epoch, key, reason, cover }, from);
        self.announce(now, address);
    }

    /// From now on this node owns an address, which was another's or nobody's.
    pub(super) fn enter_claim(&mut self, now: Duration, claim: Claim, from: Option<NodeId>) {
        self.settle_contention(claim.address);
        self.note_floor(&claim);
        self.book.set(self.id, claim);
        self.gained.insert(claim.address, now);
        self.changes.insert(claim.address, Change::Claimed(claim));
        self.repeat_later(now, claim.address);
        self.state_changed = true;
        self.announced_unheard.remove(&claim.address);
        let before = from.and_then(|id| self.peers.get(id)).filter(|peer| !peer.speaks());
        let silent_for = before.and_then(Peer::last_sign).map(|sign| now.saturating_sub(sign));
        self.tell(Event::Owned { claim, from, silent_for });
        self.refresh_answer(claim.address);
        self.peers_at = self.peers_at.min(now + self.interval());
    }

    fn yield_to_better(&mut self, now: Duration, address: IpAddr) {
        self.settle_contention(address);
        let Some((to, claim)) = self.best_claim(address) else { return };
        if claim.reason == Reason::Class {
            self.hold_down.deposed(now, address);
        }
        self.strike(address, None);
        self.tell(Event::Lost { claim, to });
        self.refresh_answer(address);
        self.announce_after_loss(now, address);
    }

    /// An unheard node announces what this one owns: one of the two has to stop, and it is the one that was first.
    pub(super) fn yield_to_unheard(&mut self, address: IpAddr, to: NodeId) {
        self.settle_contention(address);
        self.strike(address, None);
        self.tell(Event::Withdrawn { address, why: Withdrawal::TakenByUnheard(to) });
        self.refresh_answer(address);
    }

    pub(super) fn settle_contention(&mut self, address: IpAddr) {
        if self.contending.remove(&address).is_some() {
            self.first_claims.cancel(address);
            self.overheard.remove(address);
        }
    }

    /// The highest birth and epoch of an address ever seen.
    pub(super) fn note_floor(&mut self, claim: &Claim) {
        let floor = self.floors.entry(claim.address).or_insert((claim.birth, claim.epoch));
        *floor = (*floor).max((claim.birth, claim.epoch));
    }
}
