//! How this node takes part in the protocol: its state, its link, the barrier at a join and the pause after a stall.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{claim::Claim, timers::SETTLED, wire::State};

/// The pause of a node that has just joined: it listens before it claims.
#[derive(Debug)]
struct Barrier {
    since: Duration,
    first_evidence: Option<Duration>,
    /// When its end is looked at next.
    next: Duration,
}

/// The pause of a node whose process was not run for a while: it hears first what it missed.
#[derive(Debug)]
struct Stall {
    since: Duration,
    until: Duration,
    /// When its end is looked at next.
    next: Duration,
}

/// The barrier or the stall is looked at four times an interval: at each frame would cost the square of the nodes.
const LOOKS_PER_INTERVAL: u32 = 4;

/// The state of this node, and what keeps it from taking part.
#[derive(Debug)]
pub(super) struct Participation {
    state: State,
    carrier: bool,
    started: Duration,
    /// When this node last joined the segment: at the end of a barrier.
    joined: Duration,
    barrier: Option<Barrier>,
    stall: Option<Stall>,
    /// Whether the API (or the saved state) has named the nodes of the segment.
    stations_known: bool,
    /// What this node claimed before it restarted, until it has joined.
    resume: BTreeMap<IpAddr, Claim>,
}

impl Participation {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            state: State::Listening,
            carrier: true,
            started: now,
            joined: now,
            barrier: Some(Barrier::new(now)),
            stall: None,
            stations_known: false,
            resume: BTreeMap::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn is_active(&self) -> bool {
        self.state == State::Active
    }

    pub(super) fn has_carrier(&self) -> bool {
        self.carrier
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }

    /// Returns whether this node may answer for others, and begin or cease to answer for itself.
    pub(super) fn is_able(&self) -> bool {
        self.is_active() && !self.is_stalled() && self.carrier
    }

    /// Returns the state that a Hello states. A node that catches up with a stall states that it listens, so that
    /// others go on answering for it.
    pub(super) fn stated(&self) -> State {
        if self.is_active() && self.is_stalled() { State::Listening } else { self.state }
    }

    /// Returns how long this run has been at work.
    pub(super) fn uptime(&self, now: Duration) -> Duration {
        now.saturating_sub(self.started)
    }

    /// Returns until when this node is new to the segment; nothing, if it is not.
    pub(super) fn settles_at(&self, now: Duration) -> Option<Duration> {
        Some(self.joined + SETTLED).filter(|settled| *settled > now)
    }

    /// Returns since when this node listens before it takes part.
    pub(super) fn joining_since(&self) -> Option<Duration> {
        self.barrier.as_ref().map(|barrier| barrier.since)
    }

    /// Notes that the API has named the nodes of the segment.
    pub(super) fn note_stations(&mut self) {
        self.stations_known = true;
    }

    pub(super) fn knows_stations(&self) -> bool {
        self.stations_known
    }

    /// Notes that another host was heard.
    pub(super) fn note_evidence(&mut self, now: Duration) {
        if let Some(barrier) = self.barrier.as_mut().filter(|barrier| barrier.first_evidence.is_none()) {
            barrier.first_evidence = Some(now);
            barrier.next = now;
        }
    }

    /// Returns when another host was first heard since the barrier began, if the end of the barrier is to be looked at
    /// now.
    pub(super) fn barrier_evidence_if_due(&mut self, now: Duration, interval: Duration) -> Option<Duration> {
        let barrier = self.barrier.as_mut().filter(|barrier| barrier.next <= now)?;
        barrier.next = now + interval / LOOKS_PER_INTERVAL;
        barrier.first_evidence
    }

    pub(super) fn next_barrier_look(&self) -> Option<Duration> {
        self.barrier.as_ref().map(|barrier| barrier.next)
    }

    /// Ends the barrier.
    pub(super) fn join(&mut self, now: Duration) {
        self.barrier = None;
        self.joined = now;
        if self.state == State::Listening {
            self.state = State::Active;
        }
    }

    /// Takes in whether the link has carrier, and begins a barrier when it comes back. Returns whether that is news.
    pub(super) fn set_carrier(&mut self, now: Duration, carrier: bool) -> bool {
        if carrier == self.carrier {
            return false;
        }
        self.carrier = carrier;
        if carrier {
            self.barrier = Some(Barrier::new(now));
            if self.is_active() {
                self.state = State::Listening;
            }
        }
        true
    }

    /// States from now on that this run ends.
    pub(super) fn end_as(&mut self, state: State) {
        self.state = state;
    }

    /// Begins the pause after a stall.
    pub(super) fn begin_stall(&mut self, now: Duration, interval: Duration) {
        self.stall = Some(Stall { since: now, until: now + interval * 2, next: now + interval / LOOKS_PER_INTERVAL });
    }

    /// Returns when the pause after a stall ends at the latest.
    pub(super) fn stalled_until(&self) -> Option<Duration> {
        self.stall.as_ref().map(|stall| stall.until)
    }

    pub(super) fn next_stall_look(&self) -> Option<Duration> {
        self.stall.as_ref().map(|stall| stall.next.min(stall.until))
    }

    /// Sets when the end of the pause is looked at again, if it was looked at now.
    pub(super) fn look_at_stall_again(&mut self, now: Duration, interval: Duration) {
        if let Some(stall) = self.stall.as_mut().filter(|stall| stall.next <= now) {
            stall.next = now + interval / LOOKS_PER_INTERVAL;
        }
    }

    pub(super) fn end_stall(&mut self) {
        self.stall = None;
    }

    /// Returns the moment before which frames were sent before or during the stall that this node catches up with; zero
    /// without one. The first frames after a stall have waited in the socket's buffer, which keeps the oldest.
    pub(super) fn caught_up_since(&self, interval: Duration) -> Duration {
        self.stall.as_ref().map_or(Duration::ZERO, |stall| stall.since + interval / LOOKS_PER_INTERVAL)
    }

    /// Remembers a claim of an earlier run; the highest of several counts.
    pub(super) fn remember(&mut self, claim: Claim) {
        let known = self.resume.entry(claim.address).or_insert(claim);
        if known.precedence() < claim.precedence() {
            *known = claim;
        }
    }

    /// Returns the claim of an earlier run on an address, until this node has joined.
    pub(super) fn remembered(&self, address: IpAddr) -> Option<&Claim> {
        self.resume.get(&address)
    }

    pub(super) fn forget_remembered(&mut self, address: IpAddr) {
        self.resume.remove(&address);
    }

    pub(super) fn take_remembered(&mut self) -> impl Iterator<Item = Claim> + use<> {
        std::mem::take(&mut self.resume).into_values()
    }
}

impl Barrier {
    fn new(now: Duration) -> Self {
        Self { since: now, first_evidence: None, next: now }
    }
}
