//! A bound on the events at one moment. A machine that spins would not let a history end.

use std::time::Duration;

use crate::{
    check::{Invariant, Violation},
    history::History,
};

/// Counts of what has happened at one moment.
#[derive(Debug)]
pub(super) struct Pace {
    limit: u32,
    at: Duration,
    events: u32,
    outputs: u32,
}

impl Pace {
    /// Returns the bound for a history: at one moment each node, address and client may have ten events with each of
    /// the others (views of all addresses at three delays, timers, frames of a full list), plus some more.
    pub(super) fn of(history: &History) -> Self {
        let hosts = u32::try_from(history.speakers() + history.clients).unwrap_or(u32::MAX);
        let addresses = u32::try_from(history.addresses).unwrap_or(u32::MAX);
        let limit = 1000_u32.saturating_add(hosts.saturating_add(addresses).saturating_mul(10));
        Self { limit: limit.saturating_add(hosts.saturating_mul(addresses)), at: Duration::ZERO, events: 0, outputs: 0 }
    }

    /// Counts an event that is due at this time. Returns a violation if there are too many.
    pub(super) fn event(&mut self, at: Duration) -> Option<Violation> {
        if at > self.at {
            (self.at, self.events, self.outputs) = (at, 0, 0);
        }
        self.events += 1;
        (self.events > self.limit).then(|| self.violation("events"))
    }

    /// Counts an output of a machine. Returns a violation if there are too many.
    pub(super) fn output(&mut self) -> Option<Violation> {
        self.outputs += 1;
        (self.outputs > self.limit.saturating_mul(4)).then(|| self.violation("outputs of machines"))
    }

    fn violation(&self, what: &str) -> Violation {
        let seen = format!("more than {} {what} while the clock stands still", self.limit);
        Violation { invariant: Invariant::Unbounded, at: self.at, seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_when_the_clock_does_not_move() {
        let mut pace = Pace { limit: 3, at: Duration::ZERO, events: 0, outputs: 0 };
        let ms = Duration::from_millis;
        for at in [0, 0, 0, 1, 1, 1] {
            assert_eq!(pace.event(ms(at)), None);
        }
        assert_eq!(pace.event(ms(1)).unwrap().invariant, Invariant::Unbounded);
        assert_eq!(pace.event(ms(2)), None);
        assert!((0..12).all(|_| pace.output().is_none()));
        assert!(pace.output().is_some());
    }
}
