//! The failure detector: silence and death of peers.

use std::{net::IpAddr, time::Duration};

use super::{
    Engine,
    contest::Contention,
    cover::{COVERERS, Covers},
};
use crate::{
    claim::Reason,
    host_probe::Silence,
    io::{Event, Output},
    mac::MacAddr,
    mutation::Mutation,
    node::NodeId,
    peer::{Peer, Presence},
    ping::PingClock,
    timers::{self, COVER_MAX, COVER_WARN},
};

/// The most unheard nodes whose kernels are asked at the same time: 320 probes a second. The others are taken to be
/// there until it is their turn.
const ASKED_AT_ONCE: usize = 16;

/// Hello intervals of a peer's silence during which an incarnation that does not echo this node counts as a sign of
/// life: ten times what a restarted speaker needs to be heard both ways.
pub(super) const PENDING_IS_ALIVE: u32 = 20;

/// A peer that was not heard for this long, and that the API does not list, is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// When the failure detector looks at the peers, and when it asks which of them answer pings.
#[derive(Debug)]
pub(super) struct FailureDetector {
    /// When a peer next needs attention.
    next_look: Duration,
    pings: PingClock,
}

impl FailureDetector {
    pub(super) fn new(now: Duration) -> Self {
        Self { next_look: now, pings: PingClock::default() }
    }

    pub(super) fn next_look(&self) -> Duration {
        self.next_look
    }

    /// Looks at the peers at this moment, whatever was set before.
    pub(super) fn look_at(&mut self, at: Duration) {
        self.next_look = at;
    }

    /// Looks at the peers at this moment or before.
    pub(super) fn look_by(&mut self, at: Duration) {
        self.next_look = self.next_look.min(at);
    }

    pub(super) fn pings(&self) -> &PingClock {
        &self.pings
    }

    pub(super) fn pings_mut(&mut self) -> &mut PingClock {
        &mut self.pings
    }
}

impl Engine {
    /// Attends to the peers that need it, and sets when the next one will.
    ///
    /// A decision about one peer may make another's kernel worth asking at once, so the peers are looked at again, once
    /// for each peer at most. A peer that needs attention even then would need it for ever: it is looked at again after
    /// a tenth of an interval, as everything else is due before.
    pub(super) fn attend_due_peers(&mut self, now: Duration) {
        if self.detector.next_look() > now {
            return;
        }
        for _ in 0..=self.peers.iter().count() {
            self.attend_peers(now);
            if self.detector.next_look() > now {
                return;
            }
        }
        debug_assert!(false, "a peer needs attention without end");
        self.detector.look_at(now + self.interval() / 10);
    }

    /// Attends once to the peers that are silent or about to be, and sets when to look again.
    fn attend_peers(&mut self, now: Duration) {
        let needs_it = |id: NodeId, peer: &Peer, covers: &Covers| match peer.presence() {
            Presence::Speaking => peer.silent_at().is_none_or(|at| at <= now) || covers.contains(id),
            Presence::Dead => peer.is_forgettable(now, FORGET_AFTER),
            Presence::Unheard => peer.rest.station.is_some() || peer.is_forgettable(now, FORGET_AFTER),
            Presence::Silent { .. } => true,
        };
        let (mut due, mut outdated) = (Vec::new(), Vec::new());
        for (id, peer) in self.peers.iter() {
            if peer.pending_until().is_some_and(|until| until <= now) {
                outdated.push(id);
            } else if needs_it(id, peer, &self.covers) {
                due.push(id);
            }
        }
        for id in outdated {
            self.peers.drop_pending(id);
            let Some(peer) = self.peers.get(id) else { continue };
            if needs_it(id, peer, &self.covers) {
                due.push(id);
            }
        }
        due.sort_unstable();
        for id in due {
            self.attend(now, id);
        }
        self.detector.look_at(self.next_attention(now));
    }

    fn attend(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        match peer.presence() {
            Presence::Speaking if peer.silent_at().is_some_and(|at| at <= now) => {
                if !self.earlier_run_goes_on(now, id) {
                    self.peer_falls_silent(now, id);
                }
            }
            Presence::Speaking => self.update_cover(now, id),
            Presence::Silent { .. } => self.attend_silent(now, id),
            Presence::Unheard if peer.rest.station.is_some() => self.attend_unheard(now, id),
            Presence::Unheard | Presence::Dead => self.forget(id),
        }
    }

    fn next_attention(&self, now: Duration) -> Duration {
        let mut next = now + self.interval() * 10;
        for (_, peer) in self.peers.iter() {
            let at = match peer.presence() {
                Presence::Speaking => peer.silent_at(),
                Presence::Silent { since, reported } => {
                    let lost = peer.lost_at(self.interval()).filter(|at| *at > now);
                    let warn = Some(since + if reported { COVER_MAX } else { COVER_WARN }).filter(|at| *at > now);
                    // Verdicts of peers, and with them a new picture once an interval, come with Hellos and not with a
                    // timer.
                    let look = Some(now + self.interval());
                    [lost, warn, look, peer.rest.kernel.next()].into_iter().flatten().min()
                }
                Presence::Unheard => peer.rest.kernel.next(),
                Presence::Dead => None,
            };
            next = [at, peer.pending_until()].into_iter().flatten().fold(next, Duration::min);
        }
        next
    }

    /// Handles that a peer was not heard for one and a half intervals, or states that it restarts.
    pub(super) fn peer_falls_silent(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        if matches!(peer.presence(), Presence::Silent { .. }) {
            return;
        }
        self.peers.set_presence(id, Presence::Silent { since: now, reported: false });
        if let Some(peer) = self.peers.get_mut(id) {
            peer.rest.absent_since.get_or_insert(now);
        }
        self.sync.forget_lacking(id);
        if self.peers.speaking() == 0 {
            self.hearing.restart(now);
        }
        self.outbox.report(Event::PeerSilent(id));
        // A peer that hears it states that at once.
        self.hasten_hello(now, Duration::ZERO);
        self.reassess(now, id);
        self.attend_silent(now, id);
        if self.peers.speaking() == 0 && !self.objects.reached() {
            // No peer is there any longer that could know better than the saved view.
            self.evaluate_all(now);
        }
        // The turns of addresses for which this node ranked after the silent peer come earlier now.
        self.evaluate_contended(now);
    }

    fn attend_silent(&mut self, now: Duration, id: NodeId) {
        let lost = self.peers.get(id).is_some_and(|peer| peer.is_lost(now, self.interval()));
        self.probe_if_concerned(now, id);
        if lost && self.is_dead(now, id) {
            self.declare_dead(now, id);
            return;
        }
        self.update_cover(now, id);
        let Some(peer) = self.peers.get(id) else { return };
        let Presence::Silent { since, reported } = peer.presence() else { return };
        if !reported && now >= since + COVER_WARN {
            self.peers.set_presence(id, Presence::Silent { since, reported: true });
            if self.covers.contains(id) {
                self.outbox.report(Event::CoveringLong(id));
            }
        }
        if lost && (now >= since + COVER_MAX || self.claims.range(id, ..).any(|claim| !claim.cover)) {
            self.reassess(now, id);
        }
        if self.peers.get(id).is_some_and(|peer| peer.is_forgettable(now, FORGET_AFTER))
            && self.claims.addresses_of(id).next().is_none()
        {
            self.forget(id);
        }
    }

    /// Asks a silent node's kernel, if this node covers for it or may succeed it, or if no other node asks.
    fn probe_if_concerned(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        if !peer.rest.kernel.is_watched() {
            let holds = self.claims.addresses_of(id).next().is_some();
            let patience = timers::lost_after(self.interval()) * 2;
            // A peer that asked once may have found the node dead since, or be dead itself.
            let attended = peer.rest.reports.any_since(now.saturating_sub(patience));
            let unattended = !attended && peer.silent_since().is_some_and(|since| now >= since + patience);
            if !holds || !(unattended || self.is_coverer(id, false) || self.is_next_in_line(id)) {
                return;
            }
        }
        self.probe(now, id);
    }

    fn probe(&mut self, now: Duration, id: NodeId) {
        let Some((address, mac)) = self.watch_kernel(now, id) else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        let silent_since = peer.silent_since();
        if peer.rest.kernel.address_due(now) {
            let since = silent_since.max(peer.rest.kernel.unanswered_since());
            self.outbox.push(Output::Probe { address, mac });
            if since.is_none_or(|since| !self.hearing.is_heard_since(since)) {
                self.ask_witnesses();
            }
        }
        self.ping_if_due(now, id, address, mac);
    }

    /// Begins to ask a node's kernel, unless it is asked already. Returns where it is asked, if anywhere.
    fn watch_kernel(&mut self, now: Duration, id: NodeId) -> Option<(IpAddr, MacAddr)> {
        let lately = now.saturating_sub(self.ping_habit_lasts());
        let peer = self.peers.get_mut(id)?;
        let Some(target) = peer.probe_target() else {
            // The node cannot be asked. A probe that stays due would be due at every look.
            peer.rest.kernel.stop();
            self.outbox.report_once_a_minute(now, Event::CannotBeAsked(id));
            return None;
        };
        let begins = !peer.rest.kernel.is_watched();
        peer.rest.kernel.watch(now, target, lately);
        if begins {
            self.ping_soon(now);
        }
        Some(target)
    }

    /// Returns whether this node is one of the first two live candidates of an address that a silent node holds.
    fn is_next_in_line(&self, id: NodeId) -> bool {
        self.claims.addresses_of(id).any(|address| {
            let vip = self.objects.get(address);
            vip.and_then(|vip| self.place(vip, Some(id))).is_some_and(|place| place < COVERERS)
        })
    }

    /// Returns whether a silent node is dead: no speaking peer has heard it for three intervals, its kernel does not
    /// answer, and this node would hear it if it did.
    fn is_dead(&self, now: Duration, id: NodeId) -> bool {
        let Some(peer) = self.peers.get(id) else { return false };
        let Some(silent_since) = peer.silent_since() else { return false };
        // An incarnation of it is heard that does not hear this node: it is alive. This does not hold for ever, since
        // frames of an old incarnation can be replayed.
        if peer.pending.is_some() && now < silent_since + self.interval() * PENDING_IS_ALIVE {
            return false;
        }
        // Frames heard before the kernel fell silent prove nothing about now.
        let silence = self.kernel_silence(peer);
        let hears = self.hears_and_is_heard(silence.map_or(silent_since, |silence| silence.since.max(silent_since)));
        if self.participation.is_stalled()
            || !self.participation.has_carrier()
            || !(hears || self.local.breaks(Mutation::TakeOverWhileDeaf))
        {
            return false;
        }
        if self.local.breaks(Mutation::TakeOverWithoutProbing) {
            return true;
        }
        silence.is_some() || !peer.rest.kernel.is_watched() && peer.rest.reports.say_silent()
    }

    /// Returns why a peer's kernel counts as silent, if it does: by what this node has found out, or by what peers
    /// report of pings.
    pub(super) fn kernel_silence(&self, peer: &Peer) -> Option<Silence> {
        peer.kernel_silence(self.called, self.hearing.last_pong())
    }

    /// Returns whether another host has shown since then that this node hears, and that it is heard. A node that can
    /// only hear, or only speak, would find every other node dead.
    fn hears_and_is_heard(&self, since: Duration) -> bool {
        self.hearing.evidence().is_some_and(|evidence| evidence > since) && self.hearing.is_heard_since(since)
    }

    /// Handles that a node is dead: its claims are no longer live.
    fn declare_dead(&mut self, now: Duration, id: NodeId) {
        let silence = self.peers.get(id).and_then(|peer| self.kernel_silence(peer));
        self.peers.set_presence(id, Presence::Dead);
        if let Some(peer) = self.peers.get_mut(id)
            && peer.rest.kernel.conclude(silence)
        {
            // Peers that do not know it to answer pings, and may be first in line, depend on this node's word.
            peer.attest = true;
            self.hasten_hello(now, Duration::ZERO);
        }
        self.outbox.report(Event::PeerDead(id));
        self.hearing.found_dead(now);
        let left = self.claims.remove_node(id);
        self.end_cover(id);
        for claim in left {
            if self.best_claim(claim.address).is_none() {
                self.contest.begin(claim.address, Contention { reason: Reason::Dead, since: now, left_by: Some(id) });
            }
            self.evaluate(now, claim.address);
        }
        for address in self.presumed_of(id) {
            self.contest.begin(address, Contention { reason: Reason::Dead, since: now, left_by: Some(id) });
            self.evaluate(now, address);
        }
        self.evaluate_contended(now);
    }

    /// Attends to a node which the API lists and which was never heard: its kernel shows whether it is there.
    fn attend_unheard(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        if !peer.rest.kernel.is_watched() {
            return;
        }
        let silence = self.kernel_silence(peer);
        let shows_life = peer.shows_life(now, self.interval() * PENDING_IS_ALIVE);
        let silent = silence.is_some_and(|it| self.hears_and_is_heard(it.since)) && !shows_life;
        if silent && peer.is_lost(now, self.interval()) && self.participation.is_active() {
            self.declare_dead(now, id);
            return;
        }
        if peer.rest.kernel.is_alive(now)
            && self.contest.is_empty()
            && !self.handovers.concern(id)
            && self.presumed_of(id).is_empty()
        {
            // It is there, and nothing depends on it any longer.
            if let Some(peer) = self.peers.get_mut(id) {
                peer.rest.kernel.stop();
            }
        } else {
            self.probe(now, id);
        }
        self.update_cover(now, id);
    }

    /// Asks the kernel of a node that is not heard and matters to an address.
    pub(super) fn ask_unheard(&mut self, now: Duration, id: NodeId) {
        if !self.participation.is_active() {
            return;
        }
        let Some(peer) = self.peers.get(id) else { return };
        let unheard = peer.presence() == Presence::Unheard;
        let concerned = (unheard || peer.silent_since().is_some()) && peer.probe_target().is_some();
        if !concerned || peer.rest.kernel.is_watched() {
            return;
        }
        let asked = self.peers.iter().filter(|(_, peer)| peer.is_asked_for()).take(ASKED_AT_ONCE).count();
        if unheard && asked == ASKED_AT_ONCE {
            return;
        }
        self.watch_kernel(now, id);
        let Some(peer) = self.peers.get(id) else { return };
        let name = peer.rest.name.clone();
        self.detector.look_at(now);
        if unheard {
            self.outbox.report(Event::PeerUnheard(name));
        }
    }

    fn forget(&mut self, id: NodeId) {
        self.end_cover(id);
        let listed = self.peers.get(id).is_some_and(|peer| peer.rest.station.is_some());
        if !listed {
            self.peers.forget(id);
        }
    }
}
