//! Ownership of addresses: does what [`decide`] says of each.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Engine,
    contest::Contention,
    decision::{LAST_PLACE, Turn},
};
use crate::{
    api_view::Vip,
    claim::{Claim, ClaimKey, Epoch, Reason},
    conflict_detection::{self, Step},
    election::{Holder, Verdict, decide},
    io::{Event, Output, Withdrawal},
    node::NodeId,
    peer::Peer,
    timers::{FIRST_CLAIM_PROBE_EVERY, FIRST_CLAIM_PROBES},
    wire::Change,
};

impl Engine {
    /// Takes in what the API's view says about an address.
    pub(super) fn view_changed(&mut self, now: Duration, address: IpAddr, vip: Option<Arc<Vip>>) {
        match vip {
            Some(vip) => {
                if self.objects.get(address).is_some_and(|before| before.uid != vip.uid) {
                    self.conflict_detection.cancel(address);
                    // The announcer of the object before may be no candidate for this one. An owner announces it again.
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
                // A claim of an earlier run must not be resumed either.
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

    /// Decides about every address.
    pub(super) fn evaluate_all(&mut self, now: Duration) {
        for address in self.answers_and_claims() {
            self.evaluate(now, address);
        }
    }

    /// Decides about the addresses that this node contends for: a peer can, or can no longer, claim them.
    pub(super) fn evaluate_contended(&mut self, now: Duration) {
        if !self.may_claim() {
            return;
        }
        for address in self.contest.addresses().collect::<Vec<_>>() {
            self.evaluate(now, address);
        }
    }

    /// Counts this node's turns from now on, because it could not claim until now.
    pub(super) fn restart_turns(&mut self, now: Duration) {
        self.contest.restart(now);
        self.evaluate_contended(now);
    }

    /// Decides about the addresses that a peer holds, whose state has changed.
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
                self.withdraw_own(address, Some(why));
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

    /// Does what a decision about an address depends on, and sets when the address is decided about again: asks the
    /// kernel of a node that is presumed to own it, and follows a hand-over by way of the API.
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

    /// Notices that there is an address to claim. With no speaking peer the frames heard before prove little: a host
    /// has to answer first.
    fn notice(&mut self, now: Duration, address: IpAddr) {
        if self.peers.speaking() == 0 && self.contest.get(address).is_none() {
            self.hearing.restart(now);
        }
    }

    /// Claims an address of this node for a new object, as soon as it may.
    fn renew(&mut self, now: Duration, address: IpAddr) {
        self.notice(now, address);
        self.contest.begin(address, Contention { reason: Reason::Recreated, since: now, left_by: None });
        if self.may_claim() {
            self.claim(now, address, Reason::Recreated);
        }
    }

    /// Claims an address when this node's turn has come, if nothing speaks against it.
    fn contend(&mut self, now: Duration, address: IpAddr, reason: Reason) {
        self.notice(now, address);
        let may_claim = self.may_claim();
        let contention = self.contest.go_on(now, address, reason, may_claim);
        if !may_claim {
            return;
        }
        match self.turn(now, address, contention) {
            Turn::Never => {}
            Turn::At(due) => {
                self.contest.decide_at(due, address);
                self.ask_unheard_candidates(now, address);
            }
            Turn::After(until) => self.contest.decide_at(until, address),
            Turn::WhenHeard => self.hearing.restart(now),
            Turn::HeldByOwnKernel => {
                let event = Event::AnsweredByClusterNode { address, node: self.local.id() };
                self.outbox.report_once_a_minute(now, event);
            }
            Turn::NowIfFree if !self.is_free(now, address) => {}
            Turn::NowIfFree | Turn::Now => self.claim(now, address, contention.reason),
        }
    }

    /// Asks the kernels of the candidates that come before this node and are not heard: they may be at work.
    fn ask_unheard_candidates(&mut self, now: Duration, address: IpAddr) {
        let Some(vip) = self.objects.get(address).cloned() else { return };
        let me = self.local.id();
        for candidate in vip.candidates.iter().take_while(|candidate| candidate.node != me).take(LAST_PLACE) {
            self.ask_unheard(now, candidate.node);
        }
    }

    /// Returns whether no host answers for an address that was never claimed (RFC 5227 section 2.1.1), and probes it if
    /// that is not known. On a network on which a host answers for every address, no probes are sent.
    fn is_free(&mut self, now: Duration, address: IpAddr) -> bool {
        if !self.local.probes_first_claims() {
            return true;
        }
        match self.conflict_detection.verdict(now, address) {
            conflict_detection::Verdict::Free { begun } if self.heard_nothing_since(begun) => {
                // This node would not have heard an answer either.
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
        // Another node may know a younger object than this node's view shows; the birth of that is in its claim.
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

    /// Makes this node the owner of an address, which was another's or nobody's.
    pub(super) fn enter_claim(&mut self, now: Duration, claim: Claim, from: Option<NodeId>) {
        self.settle_contention(claim.address);
        self.objects.note_floor(&claim);
        self.claims.set(self.local.id(), claim);
        self.announcements.gain(now, claim.address);
        self.sync.send_change(Change::Claimed(claim));
        // The claim is repeated: the next candidate does not wait for a Hello, which may be lost as well as this frame.
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
        self.withdraw_own(address, None);
        self.outbox.report(Event::Lost { claim, to });
        self.refresh_answer(address);
        self.announce_after_loss(now, address);
    }

    /// Gives an address up that a node announces which is not heard: the node that announced it first has to stop.
    pub(super) fn yield_to_unheard(&mut self, address: IpAddr, to: NodeId) {
        self.settle_contention(address);
        self.withdraw_own(address, None);
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
