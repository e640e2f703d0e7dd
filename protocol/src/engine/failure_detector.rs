//! Silence, cover and death of peers.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{Contention, Engine};
use crate::{
    claim::Reason,
    host_probe::Silence,
    io::{Event, Output},
    mac::MacAddr,
    mutation::Mutation,
    node::NodeId,
    peer::{Peer, Presence},
    timers::{self, COVER_MAX, COVER_WARN},
    wire::State,
};

/// Who answers for a silent node: so many, in case one of them fails. Their answers are the same.
const COVERERS: usize = 2;

/// Unheard nodes whose kernels are asked at the same time, at most: 320 probes a second. The others are taken to be
/// there until it is their turn.
const ASKED_AT_ONCE: usize = 16;

/// For so many intervals of its silence a run that does not echo this node counts as a sign of life: ten times what a
/// restarted speaker needs to be heard both ways.
pub(super) const PENDING_IS_ALIVE: u32 = 20;

/// A peer that was not heard for this long, and that the API does not list, is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);

impl Engine {
    /// Attends to the peers that need it, and sets when the next one will.
    ///
    /// What is decided about one peer may make another's kernel worth asking at once, so it looks again, once for each
    /// peer at most. A peer that needs attention even then would need it for ever: it is looked at again after a
    /// tenth of an interval, as everything else is due before.
    pub(super) fn attend_due_peers(&mut self, now: Duration) {
        if self.peers_at > now {
            return;
        }
        for _ in 0..=self.peers.iter().count() {
            self.attend_peers(now);
            if self.peers_at > now {
                return;
            }
        }
        debug_assert!(false, "a peer needs attention without end");
        self.peers_at = now + self.interval() / 10;
    }

    /// Attends once to those that are silent or about to be, and sets when to look again.
    fn attend_peers(&mut self, now: Duration) {
        let needs_it = |id: NodeId, peer: &Peer, covers: &BTreeSet<NodeId>| match peer.presence() {
            Presence::Speaking => peer.silent_at().is_none_or(|at| at <= now) || covers.contains(&id),
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
        self.peers_at = self.next_attention(now);
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
                    // Verdicts of others and an interval's new picture come with Hellos, not with a timer.
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

    /// A peer was not heard for one and a half intervals, or says that it restarts.
    pub(super) fn peer_falls_silent(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        if matches!(peer.presence(), Presence::Silent { .. }) {
            return;
        }
        self.peers.set_presence(id, Presence::Silent { since: now, reported: false });
        if let Some(peer) = self.peers.get_mut(id) {
            peer.rest.absent_since.get_or_insert(now);
        }
        self.lacking.remove(&id);
        if self.peers.speaking() == 0 {
            self.hearing.restart(now);
        }
        self.tell(Event::PeerSilent(id));
        // Whoever hears it says so at once.
        self.hasten_hello(now, Duration::ZERO);
        self.reassess(now, id);
        self.attend_silent(now, id);
        if self.peers.speaking() == 0 && self.view_fresh_at.is_none() {
            // Nobody is there any more who could know better than the saved view.
            self.evaluate_all(now);
        }
        // Those that this node ranked after it come earlier now.
        self.evaluate_contended(now);
    }

    fn attend_silent(&mut self, now: Duration, id: NodeId) {
        let lost = self.peers.get(id).is_some_and(|peer| peer.is_lost(now, self.interval()));
        self.probe_if_concerned(now, id);
        if lost && self.is_dead(now, id) {
            self.die(now, id);
            return;
        }
        self.update_cover(now, id);
        let Some(peer) = self.peers.get(id) else { return };
        let Presence::Silent { since, reported } = peer.presence() else { return };
        if !reported && now >= since + COVER_WARN {
            self.peers.set_presence(id, Presence::Silent { since, reported: true });
            if self.covers.contains(&id) {
                self.tell(Event::CoveringLong(id));
            }
        }
        if lost && (now >= since + COVER_MAX || self.book.range(id, ..).any(|claim| !claim.cover)) {
            self.reassess(now, id);
        }
        if self.peers.get(id).is_some_and(|peer| peer.is_forgettable(now, FORGET_AFTER))
            && self.book.addresses_of(id).next().is_none()
        {
            self.forget(id);
        }
    }

    /// Asks a silent node's kernel, if this node covers for it or may succeed it, or if nobody else does.
    fn probe_if_concerned(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        if !peer.rest.kernel.is_watched() {
            let holds = self.book.addresses_of(id).next().is_some();
            let patience = timers::lost_after(self.interval()) * 2;
            let unattended =
                !peer.rest.reports.any() && peer.silent_since().is_some_and(|since| now >= since + patience);
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
            self.outputs.push_back(Output::Probe { address, mac });
            if since.is_none_or(|since| !self.hearing.is_heard_since(since)) {
                self.ask_witnesses();
            }
        }
        self.ping_if_due(now, id, address, mac);
    }

    /// Begins to ask a node's kernel, unless it is asked already. Returns where, if anywhere.
    fn watch_kernel(&mut self, now: Duration, id: NodeId) -> Option<(IpAddr, MacAddr)> {
        let lately = now.saturating_sub(self.ping_habit_lasts());
        let peer = self.peers.get_mut(id)?;
        let Some(target) = peer.probe_target() else {
            // Nobody can be asked. A probe that stays due would be due at every look.
            peer.rest.kernel.stop();
            self.report_once_a_minute(now, Event::CannotBeAsked(id));
            return None;
        };
        let begins = !peer.rest.kernel.is_watched();
        peer.rest.kernel.watch(now, target, lately);
        if begins {
            self.ping_soon(now);
        }
        Some(target)
    }

    /// Is this node one of the first two live candidates of an address that a silent node holds?
    fn is_next_in_line(&self, id: NodeId) -> bool {
        self.book.addresses_of(id).any(|address| {
            let vip = self.vips.get(&address);
            vip.and_then(|vip| self.place(vip, Some(id))).is_some_and(|place| place < COVERERS)
        })
    }

    /// Nobody who is heard has heard it for three intervals, its kernel does not answer, and this node would hear it if
    /// it did.
    fn is_dead(&self, now: Duration, id: NodeId) -> bool {
        let Some(peer) = self.peers.get(id) else { return false };
        let Some(silent_since) = peer.silent_since() else { return false };
        // A run of it is heard, but does not hear this node: it is alive. Not for ever: it may be an old run, replayed.
        if peer.pending.is_some() && now < silent_since + self.interval() * PENDING_IS_ALIVE {
            return false;
        }
        // What was heard before the kernel fell silent says nothing about now.
        let silence = self.kernel_silence(peer);
        let hears = self.hears_and_is_heard(silence.map_or(silent_since, |silence| silence.since.max(silent_since)));
        if self.stall.is_some() || !self.carrier || !(hears || self.breaks(Mutation::TakeOverWhileDeaf)) {
            return false;
        }
        if self.breaks(Mutation::TakeOverWithoutProbing) {
            return true;
        }
        silence.is_some() || !peer.rest.kernel.is_watched() && peer.rest.reports.say_silent()
    }

    /// Returns why a peer's kernel counts as silent, if it does: by what this node has found out, or was told of pings.
    pub(super) fn kernel_silence(&self, peer: &Peer) -> Option<Silence> {
        peer.kernel_silence(self.called, self.hearing.last_pong())
    }

    /// Since then, did anybody else show that this node hears, and that it is heard? What can only hear, or only speak,
    /// would find every other node dead.
    fn hears_and_is_heard(&self, since: Duration) -> bool {
        self.hearing.evidence().is_some_and(|evidence| evidence > since) && self.hearing.is_heard_since(since)
    }

    /// A node is dead: its claims are no longer live.
    fn die(&mut self, now: Duration, id: NodeId) {
        let silence = self.peers.get(id).and_then(|peer| self.kernel_silence(peer));
        self.peers.set_presence(id, Presence::Dead);
        if let Some(peer) = self.peers.get_mut(id)
            && peer.rest.kernel.conclude(silence)
        {
            // Those that do not know it to answer pings, and may be first in line, have this node's word only.
            peer.attest = true;
            self.hasten_hello(now, Duration::ZERO);
        }
        self.tell(Event::PeerDead(id));
        self.hearing.found_dead(now);
        let left = self.book.remove_node(id);
        self.end_cover(id);
        for claim in left {
            if self.best_claim(claim.address).is_none() {
                self.contending
                    .insert(claim.address, Contention { reason: Reason::Dead, since: now, left_by: Some(id) });
            }
            self.evaluate(now, claim.address);
        }
        for address in self.presumed_of(id) {
            self.contending.insert(address, Contention { reason: Reason::Dead, since: now, left_by: Some(id) });
            self.evaluate(now, address);
        }
        self.evaluate_contended(now);
    }

    /// A node which the API lists, and which was never heard: its kernel says whether it is there.
    fn attend_unheard(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        if !peer.rest.kernel.is_watched() {
            return;
        }
        let silence = self.kernel_silence(peer);
        let shows_life = peer.shows_life(now, self.interval() * PENDING_IS_ALIVE);
        let silent = silence.is_some_and(|it| self.hears_and_is_heard(it.since)) && !shows_life;
        if silent && peer.is_lost(now, self.interval()) && self.state == State::Active {
            self.die(now, id);
            return;
        }
        if peer.rest.kernel.is_alive(now)
            && self.contending.is_empty()
            && !self.handovers.concern(id)
            && self.presumed_of(id).is_empty()
        {
            // It is there, and nothing depends on it any more.
            if let Some(peer) = self.peers.get_mut(id) {
                peer.rest.kernel.stop();
            }
        } else {
            self.probe(now, id);
        }
        self.update_cover(now, id);
    }

    /// A node that is not heard matters to an address: its kernel is asked.
    pub(super) fn ask_unheard(&mut self, now: Duration, id: NodeId) {
        if self.state != State::Active {
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
        self.peers_at = now;
        if unheard {
            self.tell(Event::PeerUnheard(name));
        }
    }

    fn forget(&mut self, id: NodeId) {
        self.end_cover(id);
        let listed = self.peers.get(id).is_some_and(|peer| peer.rest.station.is_some());
        if !listed {
            self.peers.forget(id);
        }
    }

    /// Does this node come first or second among those that could answer for a silent one? The order is the same
    /// everywhere, whatever anybody knows of the API. `unheard`: those that the API lists, and that are not heard, count.
    pub(super) fn is_coverer(&self, id: NodeId, unheard: bool) -> bool {
        let mine = cover_rank(id, self.id);
        let counts = |peer: &Peer| peer.takes_part() || unheard && self.may_act_unheard(peer);
        let before = self.peers.iter().filter(|(other, peer)| *other != id && counts(peer));
        before.filter(|(other, _)| cover_rank(id, *other) < mine).take(COVERERS).count() < COVERERS
    }

    /// Is this node to be covered: is its speaker silent and its kernel alive, and does it hold anything? And: is it one
    /// that was never heard?
    pub(super) fn needs_cover(&self, now: Duration, id: NodeId, peer: &Peer) -> (bool, bool) {
        let restarted = peer.listens() && peer.speaks();
        let unheard = peer.may_be_there() && peer.rest.kernel.is_alive(now);
        let silent = restarted || peer.silent_since().is_some() || unheard;
        let alive = self.kernel_silence(peer).is_none();
        let covering = self.covers.contains(&id);
        let holds = || self.book.addresses_of(id).next().is_some() || unheard && !self.presumed_of(id).is_empty();
        (silent && alive && (covering || holds()), unheard)
    }

    /// Those that answer for a silent node, by this node's account.
    pub(super) fn coverers(&self, id: NodeId, unheard: bool) -> Vec<NodeId> {
        let counts = |peer: &Peer| peer.takes_part() || unheard && self.may_act_unheard(peer);
        let others = self.peers.iter().filter(|(other, peer)| *other != id && counts(peer)).map(|(other, _)| other);
        let me = (self.state == State::Active).then_some(self.id);
        let mut able: Vec<NodeId> = others.chain(me).collect();
        able.sort_unstable_by_key(|node| cover_rank(id, *node));
        able.truncate(COVERERS);
        able
    }

    /// Begins or ends to answer for a node.
    pub(super) fn update_cover(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        let covering = self.covers.contains(&id);
        let able = self.state == State::Active && self.stall.is_none() && self.carrier;
        let (needed, unheard) = self.needs_cover(now, id, peer);
        let wanted = needed && able && !self.breaks(Mutation::NoCover) && self.is_coverer(id, unheard);
        if wanted && !covering {
            // Somebody may have taken an address of it, and this node may have missed the claim.
            if self.lacking.is_empty() {
                self.covers.insert(id);
                self.tell(Event::Covering(id));
                self.refresh_answers_of(id);
                if self.peers.iter().any(|(other, peer)| other != id && peer.speaks() && peer.listens()) {
                    self.say_all_for(id);
                } else {
                    self.say_what_is_contested(id);
                }
            }
        } else if !wanted && covering {
            self.end_cover(id);
        }
    }

    pub(super) fn end_cover(&mut self, id: NodeId) {
        if self.covers.remove(&id) {
            self.tell(Event::CoverEnded(id));
            self.refresh_answers_of(id);
        }
    }

    pub(super) fn drop_covers(&mut self) {
        for id in self.covers.clone() {
            self.end_cover(id);
        }
    }
}

/// The place of a node in the order of those that cover for a silent one: the finalizer of SplitMix64 (Steele, Lea and
/// Flood 2014) over the exclusive or of the two ids. Lower comes first.
fn cover_rank(silent: NodeId, node: NodeId) -> (u64, NodeId) {
    let mut z = silent.0 ^ node.0;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31), node)
}
