//! Is a silent node's kernel alive? What probes find out, and what others say.

use std::time::Duration;

use crate::{
    timers::{PROBE_CALM, PROBE_EVERY, PROBES},
    wire::Kernel,
};

/// Asks a node's kernel for signs of life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelWatch {
    /// When the next probe goes out; `None`: it is not watched.
    next: Option<Duration>,
    /// When the last probe went out that has not been answered.
    asked: Option<Duration>,
    /// When the first of the probes went out that were not answered in a row.
    first_unanswered: Option<Duration>,
    unanswered: u32,
    answered: Option<Duration>,
}

impl KernelWatch {
    /// Begins to ask, unless it does so already.
    pub(crate) fn watch(&mut self, now: Duration) {
        if self.next.is_none() {
            *self = Self { next: Some(now), answered: self.answered, ..Self::default() };
        }
    }

    /// Stops asking.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Begins to count anew: what was not answered while this node could not hear says nothing.
    pub(crate) fn recount(&mut self, now: Duration) {
        if self.next.is_some() {
            *self = Self { next: Some(now), answered: self.answered, ..Self::default() };
        }
    }

    /// Is it watched?
    pub(crate) fn is_watched(&self) -> bool {
        self.next.is_some()
    }

    /// When the next probe goes out.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Is a probe due? Counts the one before as unanswered if it was not answered.
    pub(crate) fn due(&mut self, now: Duration) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        if let Some(asked) = self.asked {
            self.first_unanswered.get_or_insert(asked);
            self.unanswered = self.unanswered.saturating_add(1);
        }
        self.asked = Some(now);
        self.next = Some(now + PROBE_EVERY);
        true
    }

    /// The kernel has answered.
    pub(crate) fn answered(&mut self, now: Duration) {
        let next = self.next.map(|_| now + PROBE_CALM);
        *self = Self { next, answered: Some(now), ..Self::default() };
    }

    /// Three probes in a row were not answered; the time of the first. `report`: when, by the account of others, it
    /// last answered.
    pub(crate) fn silent_since(&self, report: Option<Duration>) -> Option<Duration> {
        self.first_unanswered.filter(|first| self.unanswered >= PROBES && report.is_none_or(|report| report < *first))
    }

    /// When the first of the probes went out that were not answered, however few.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        self.first_unanswered
    }

    /// Has it answered within the last second?
    pub(crate) fn is_alive(&self, now: Duration) -> bool {
        self.answered.is_some_and(|answered| now.saturating_sub(answered) < Duration::from_secs(1))
    }

    /// What to tell others. `evidence`: when this node last heard anything; without it, silence says nothing.
    pub(crate) fn report(&self, now: Duration, evidence: Option<Duration>) -> Option<Kernel> {
        if let Some(since) = self.silent_since(None) {
            return evidence.filter(|evidence| *evidence > since).map(|_| Kernel::Silent);
        }
        self.next.and(self.answered).map(|answered| Kernel::Answered(now.saturating_sub(answered)))
    }
}

/// What others say about a peer's kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reports {
    /// When its kernel last answered one of them.
    pub(crate) answered: Option<Duration>,
    /// When one of them last said that its kernel is silent.
    pub(crate) silent: Option<Duration>,
}

impl Reports {
    /// Others found it silent, and nobody had an answer during their three probes.
    pub(crate) fn say_silent(&self) -> bool {
        let probed = PROBE_EVERY * PROBES;
        self.silent.is_some_and(|silent| self.answered.is_none_or(|answered| answered + probed < silent))
    }
}
