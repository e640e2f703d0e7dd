//! Joining the segment, and coming back to it: the barrier at a start and after the link was lost, the pause after a
//! stall, what is resumed and what is not.

use std::{net::IpAddr, time::Duration};

use super::{Engine, viewed::Viewed};
use crate::{
    api_view::ExpectedPeer,
    claim::{Claim, Reason},
    io::Event,
    mac::MacAddr,
    node::NodeId,
    peer::{Peer, Presence},
    timers::BARRIER,
    wire::State,
};

/// A node that has just come listens before it claims.
#[derive(Debug)]
pub(super) struct Barrier {
    since: Duration,
    first_evidence: Option<Duration>,
    next: Duration,
}

impl Barrier {
    pub(super) fn new(now: Duration) -> Self {
        Self { since: now, first_evidence: None, next: now }
    }

    pub(super) fn next(&self) -> Duration {
        self.next
    }

    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// Something was heard.
    pub(super) fn evidence(&mut self, now: Duration) {
        if self.first_evidence.is_none() {
            self.first_evidence = Some(now);
            self.next = now;
        }
    }
}

/// This process was not run for a while: it hears first what it missed.
#[derive(Debug)]
pub(super) struct Stall {
    since: Duration,
    until: Duration,
    next: Duration,
}

impl Stall {
    pub(super) fn next(&self) -> Duration {
        self.next.min(self.until)
    }
}

impl Engine {
    /// The barrier is looked at four times an interval: at each frame would cost the square of the nodes.
    fn look_every(&self) -> Duration {
        self.interval() / 4
    }

    /// Ends the barrier if it is time.
    pub(super) fn step_barrier(&mut self, now: Duration) {
        let next = now + self.look_every();
        let Some(barrier) = self.barrier.as_mut().filter(|barrier| barrier.next <= now) else { return };
        barrier.next = next;
        if let Some(first) = barrier.first_evidence
            && self.stall.is_none()
            && self.carrier
            && self.is_hearing()
            && self.has_joined(now, first)
        {
            self.activate(now);
        }
    }

    /// Does this node know what the others claim?
    fn has_joined(&self, now: Duration, first_evidence: Duration) -> bool {
        if now >= first_evidence + BARRIER.max(self.interval() * 10) {
            return true;
        }
        // What a silent node owns is for those to say that cover for it.
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
                // Who counts this node has told it before what it remembers of its claims.
                if !run.counts_me || self.lacking.contains_key(&id) {
                    return false;
                }
                heard += 1;
                reported = reported.max(usize::from(run.hears()));
            }
        }
        if self.stations_known && missing == 0 {
            return true;
        }
        // Each of the others hears as many peers as there are to hear, this node among them.
        heard > 0 && heard >= reported && now >= first_evidence + self.interval() * 2
    }

    /// From now on this node takes part.
    pub(super) fn activate(&mut self, now: Duration) {
        self.barrier = None;
        self.joined = now;
        self.contending.clear();
        if self.state == State::Listening {
            self.state = State::Active;
        }
        // Its link was away: who took over what it claims may not be heard, where the network drops the protocol. If the API
        // does not say so either, one of the two has to hear the other's announcement.
        for address in self.book.addresses_of(self.id).collect::<Vec<_>>() {
            match self.taken_unheard(now, address) {
                Some(to) => {
                    self.revive(now, to);
                    self.yield_to_unheard(address, to);
                }
                None => self.announcer.resumed(now, address),
            }
        }
        for (_, claim) in std::mem::take(&mut self.resume) {
            self.resume_claim(now, claim);
        }
        for address in self.answers_and_claims() {
            self.refresh_answer(address);
        }
        self.evaluate_all(now);
        self.send_changes(now);
        self.begin_full_list(now, self.list_gap());
        self.peers_at = now;
        self.hasten_hello(now, Duration::ZERO);
    }

    /// Returns the node that has taken an address of this node's while its link was away, if a fresh view of the API says so
    /// and no claim can: the network drops what that node says, which may be there all the same.
    fn taken_unheard(&self, now: Duration, address: IpAddr) -> Option<NodeId> {
        let viewed = self.vips.get(&address)?;
        let by = viewed.announced_by.filter(|by| *by != self.id)?;
        let peer = self.peers.get(by)?;
        // Whom the API came to name after this node had missed it is not dead.
        let named_since = peer.rest.absent_since.is_none_or(|since| viewed.named > since);
        let may_act = self.may_act_unheard(peer) || peer.presence() == Presence::Dead && named_since;
        (may_act && self.view_is_fresh(now)).then_some(by)
    }

    /// What this node claimed before it restarted is its own still, if nobody has taken it since.
    fn resume_claim(&mut self, now: Duration, claim: Claim) {
        let taken = self.best_claim(claim.address).is_some_and(|(_, best)| best.precedence() > claim.precedence());
        let deleted = self.deleted_birth(claim.address) >= Some(claim.birth);
        if taken || deleted || self.is_about_to_be_resumed(now, claim.address) {
            return;
        }
        self.enter_claim(now, Claim { reason: Reason::Resumed, ..claim }, None);
        // Nearly everybody knows; but while it was away it could not contradict those who said otherwise.
        self.announcer.resumed(now, claim.address);
    }

    /// Has another node taken the address, as a fresh view of the API says, that has just restarted as well? It is about to
    /// say so itself.
    fn is_about_to_be_resumed(&self, now: Duration, address: IpAddr) -> bool {
        let named = self.vips.get(&address).and_then(|vip| vip.announced_by).filter(|by| *by != self.id);
        let listens = |peer: &Peer| peer.speaks() && peer.listens();
        self.view_is_fresh(now) && named.and_then(|by| self.peers.get(by)).is_some_and(listens)
    }

    /// The API lists these nodes on the segment.
    pub(super) fn stations_listed(&mut self, now: Duration, stations: &[ExpectedPeer]) {
        self.peers.list(stations);
        self.stations_known = true;
        self.peers_at = now;
        // What a node was presumed to own that is listed no more, and was never heard, is nobody's.
        for gone in self.covers.iter().copied().filter(|id| self.peers.get(*id).is_none()).collect::<Vec<_>>() {
            self.end_cover(gone);
        }
        let is_unknown = |id: &NodeId| *id != self.id && self.peers.get(*id).is_none();
        let named = |address: &IpAddr, vip: &Viewed| {
            [vip.announced_by, self.announced_unheard.get(address).copied()].iter().flatten().any(is_unknown)
        };
        let orphaned: Vec<IpAddr> =
            self.vips.iter().filter(|(address, vip)| named(address, vip)).map(|(address, _)| *address).collect();
        for address in orphaned {
            self.evaluate(now, address);
        }
        self.evaluate_contended(now);
    }

    /// The link came or went.
    pub(super) fn carrier_changed(&mut self, now: Duration, carrier: bool) {
        if carrier == self.carrier {
            return;
        }
        self.carrier = carrier;
        if carrier {
            self.hearing.restart(now);
            self.barrier = Some(Barrier::new(now));
            if self.state == State::Active {
                self.state = State::Listening;
            }
            self.first_claims.clear();
            self.contending.clear();
            self.turns.clear();
            self.drop_covers();
            self.hasten_hello(now, Duration::ZERO);
        }
    }

    /// The node's own addresses on the segment have changed.
    pub(super) fn interface_changed(&mut self, now: Duration, mac: MacAddr, address: Option<IpAddr>) {
        self.config.address = address;
        if mac != self.config.mac {
            self.config.mac = mac;
            let owned: Vec<IpAddr> = self.book.addresses_of(self.id).collect();
            for address in owned {
                self.refresh_answer(address);
                self.announce(now, address);
            }
        }
        self.hasten_hello(now, Duration::ZERO);
    }

    /// This process, or its machine, has just stood still.
    pub(super) fn stalled(&mut self, now: Duration, gap: Duration) {
        // Time in which nothing could be heard is no silence of others.
        for (_, peer) in self.peers.iter_mut() {
            peer.postpone(now);
        }
        self.stall = Some(Stall { since: now, until: now + self.interval() * 2, next: now + self.look_every() });
        self.tell(Event::Stalled(gap));
        self.hasten_hello(now, Duration::ZERO);
        self.peers_at = now;
    }

    /// What was heard before this was said before or during the stall that this node catches up with; zero without one. What
    /// comes at first has waited in the socket's buffer, which keeps the oldest.
    pub(super) fn caught_up_since(&self) -> Duration {
        self.stall.as_ref().map_or(Duration::ZERO, |stall| stall.since + self.look_every())
    }

    /// Ends the pause after a stall if it is time.
    pub(super) fn step_stall(&mut self, now: Duration) {
        let Some(until) = self.stall.as_ref().map(|stall| stall.until) else { return };
        let drained = self.caught_up_since();
        let mut heard_all = true;
        for (id, peer) in self.peers.iter().filter(|(_, peer)| peer.speaks()) {
            heard_all &= !self.lacking.contains_key(&id) && peer.run.as_ref().is_some_and(|run| run.heard() > drained);
        }
        if now >= until || heard_all && self.peers.speaking() > 0 {
            self.stall = None;
            self.restart_turns(now);
        } else {
            let next = now + self.look_every();
            if let Some(stall) = self.stall.as_mut().filter(|stall| stall.next <= now) {
                stall.next = next;
            }
        }
    }
}
