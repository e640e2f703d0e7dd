//! The facts that a decision about an address depends on: who holds it, how the holder stands, whether this node may
//! claim.
//!
//! Nothing here changes anything. The decision itself is [`decide`](crate::election::decide).

use std::{cmp::Reverse, net::IpAddr, time::Duration};

use super::{Engine, contest::Contention, failure_detector::PENDING_IS_ALIVE, objects::Viewed};
use crate::{
    api_view::Vip,
    claim::{Claim, ClaimKey, Epoch, Precedence, Reason},
    election::{Facts, Holder, Standing, VipFacts},
    mutation::Mutation,
    node::NodeId,
    peer::{Peer, Presence},
    timers::{BARRIER, COVER_MAX},
    wire::State,
};

/// Candidates from the tenth on step in together: if nine live candidates let their turns pass, their views of the API
/// are old; they are not slow.
pub(super) const LAST_PLACE: usize = 9;

/// Hello intervals within which the last turn comes: two for each place, and two by which the frames heard at its
/// beginning may be late.
const LONGEST_TURN: u32 = 2 * LAST_PLACE as u32 + 2;

/// When this node may claim an address that it contends for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now.
    Now,
    /// Now, if no host answers for the address: it was never claimed before.
    NowIfFree,
    /// At this moment. Candidates that come before this node may be at work unheard until then.
    At(Duration),
    /// Not before this moment: what is known by then may show that the address is taken.
    After(Duration),
    /// When another host has been heard: until then this node may be the one that hears nothing.
    WhenHeard,
    /// Not as long as this node's own kernel has the address, which does not answer this node's probes.
    HeldByOwnKernel,
    /// Not at all: this node is no candidate.
    Never,
}

impl Engine {
    /// Returns every address about which there is something to decide.
    pub(super) fn answers_and_claims(&self) -> Vec<IpAddr> {
        let own = self.claims.addresses_of(self.local.id());
        let mut all: Vec<IpAddr> = self.objects.addresses().chain(own).chain(self.contest.addresses()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Returns the facts about an address, for [`decide`](crate::election::decide).
    pub(super) fn facts(&self, now: Duration, address: IpAddr) -> Facts {
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

    pub(super) fn holder(&self, now: Duration, address: IpAddr) -> Holder {
        match self.best_claim(address) {
            Some((id, claim)) if id == self.local.id() => Holder::Me(claim),
            Some((id, claim)) => Holder::Peer(claim, self.standing(now, id, &claim)),
            None if self.presumed(address).is_some() => Holder::Presumed,
            None => Holder::Nobody,
        }
    }

    pub(super) fn held_down_until(&self, now: Duration, address: IpAddr) -> Option<Duration> {
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
            // If no peer at all is heard, the network drops the protocol; that speaker alone has not failed.
            Presence::Silent { since, .. } if now >= since + COVER_MAX && self.peers.speaking() > 0 => {
                Standing::CoverExpired
            }
            _ => Standing::Holding,
        }
    }

    /// Returns the highest live claim on an address.
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

    /// Returns the node that is presumed to own an address which no node claims: it is not heard, the API or the wire
    /// says that it announces the address, and its kernel is not known to be silent.
    pub(super) fn presumed(&self, address: IpAddr) -> Option<NodeId> {
        if self.local.breaks(Mutation::IgnoreUnheardPeers) {
            return None;
        }
        // A packet on the wire needs less support than what the API once said.
        let silent = |peer: &Peer| self.kernel_silence(peer).is_some();
        let patience = self.interval() * PENDING_IS_ALIVE;
        let there =
            |peer: &Peer| peer.shows_life(self.called, patience) || peer.presence() != Presence::Dead && !silent(peer);
        let alive = |peer: &Peer| !peer.speaks() && there(peer);
        let seen = self.overhearing.announcer(address);
        let seen = seen.filter(|id| self.peers.get(*id).is_some_and(alive));
        let viewed = self.objects.get(address)?;
        // A node that was heard after the API named it, and did not claim the address, has contradicted the API.
        let contradicts = |peer: &Peer| peer.run.as_ref().is_some_and(|run| run.heard() > viewed.named());
        let said = |peer: &Peer| peer.may_be_there() || self.may_act_unheard(peer) && !contradicts(peer);
        seen.or(viewed.announced_by.filter(|id| self.peers.get(*id).is_some_and(said)))
    }

    /// Returns whether this node has not reached the API since it started, while peers are heard whose views may be
    /// newer. The announcer that such a view names need not be the one that theirs name.
    pub(super) fn goes_by_saved_view(&self) -> bool {
        !self.objects.reached() && self.peers.speaking() > 0
    }

    /// Returns whether this peer may claim an address without this node hearing of it. It may if it was never heard, or
    /// if no peer is heard at all: then the network drops the protocol, and all peers may be at work. It may not if its
    /// kernel is silent.
    pub(super) fn may_act_unheard(&self, peer: &Peer) -> bool {
        let everybody = self.peers.speaking() == 0 && peer.silent_since().is_some();
        peer.may_be_there() || everybody && self.kernel_silence(peer).is_none()
    }

    /// Returns the addresses that a node is presumed to own.
    pub(super) fn presumed_of(&self, id: NodeId) -> Vec<IpAddr> {
        let named = |address: IpAddr, vip: &Vip| self.overhearing.announcer(address).or(vip.announced_by) == Some(id);
        let unclaimed = self.objects.iter().filter(|(address, vip)| named(*address, vip));
        unclaimed.map(|(address, _)| address).filter(|address| self.best_claim(*address).is_none()).collect()
    }

    /// Returns how many candidates that could claim come before this node; `None` if this node is no candidate. The
    /// holder, which is to be succeeded, does not count. Where no node holds the address, a node that has fallen silent
    /// counts until it is found dead: the other nodes may be about to fall silent in the same moment.
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

    /// Returns when this node may claim an address that it contends for, as far as it may claim anything now.
    pub(super) fn turn(&self, now: Duration, address: IpAddr, contention: Contention) -> Turn {
        let Contention { reason, since, .. } = contention;
        if let Some(judged) = self.overhearing.judged_at(address).filter(|judged| *judged > now) {
            return Turn::After(judged);
        }
        let Some(vip) = self.objects.get(address) else { return Turn::Never };
        let holder = self.best_claim(address).map(|(id, _)| id);
        let Some(place) = self.place(vip, holder) else { return Turn::Never };
        let step = u32::try_from(place).unwrap_or(u32::MAX).saturating_mul(2);
        let mut due = since + self.interval().saturating_mul(step);
        let object = self.objects.birth_of(address, vip);
        let seen = self.objects.floor(address).is_some_and(|(birth, _)| birth >= object);
        let known = seen || vip.ever_announced;
        let vacant = reason == Reason::Vacant && holder.is_none() && known;
        if vacant && self.has_restarted_candidate(vip) {
            // A candidate that has just restarted may be about to resume the address.
            due = due.max(since + BARRIER.max(self.interval() * 10));
        }
        if due > now {
            return Turn::At(due);
        }
        // The first candidate of a new address waits only for the answers to its probes: no other node can have taken
        // the address.
        let waited = place > 0 || now > since && known;
        // A contention may be old: another host had the address, or a claim was lacking.
        let lately = since.max(now.saturating_sub(self.interval().saturating_mul(LONGEST_TURN)));
        if waited && self.heard_nothing_since(lately) {
            // This node may have ceased to hear, or the nodes before it may have claimed unheard.
            return Turn::WhenHeard;
        }
        // A claim that this node does not know may be on the address. (The owner of a new address answers the probes.)
        if vacant && let Some(until) = self.lacks_claims_until(now, vip) {
            return Turn::After(until);
        }
        match (holder, known) {
            (None, false) if vip.held_here => Turn::HeldByOwnKernel,
            (None, false) => Turn::NowIfFree,
            _ => Turn::Now,
        }
    }

    pub(super) fn may_claim(&self) -> bool {
        let hears = self.is_hearing() || self.local.breaks(Mutation::TakeOverWhileDeaf);
        self.participation.is_able() && hears
    }

    /// Returns whether no peer is heard, and no other host was heard since then either.
    pub(super) fn heard_nothing_since(&self, since: Duration) -> bool {
        self.peers.speaking() == 0
            && self.hearing.evidence().is_none_or(|evidence| evidence < since)
            && !self.local.breaks(Mutation::TakeOverWhileDeaf)
    }

    /// Returns until when an address may seem vacant because a claim on it has not got through: as long as a speaking
    /// candidate has claims that this node does not know, for as long as cover lasts at most. (A frame may be too long
    /// for the path each time.) A claim of a node that is no candidate does not matter: the address would be taken from
    /// it anyway.
    fn lacks_claims_until(&self, now: Duration, vip: &Vip) -> Option<Duration> {
        let of_candidates = self.sync.lacking().filter(|(id, _)| vip.candidates.class_of(*id).is_some());
        let until = of_candidates.map(|(_, since)| since + COVER_MAX).max();
        until.filter(|until| *until > now && !self.local.breaks(Mutation::IgnoreDigests))
    }

    fn has_restarted_candidate(&self, vip: &Vip) -> bool {
        let restarted = |id| self.peers.get(id).is_some_and(|peer| peer.speaks() && peer.listens());
        vip.candidates.iter().any(|candidate| restarted(candidate.node))
    }
}
