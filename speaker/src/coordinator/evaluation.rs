//! The addresses that are to be looked at again, a few at a time: in a large cluster one fact can concern all of them,
//! and frames and timers are not to wait for that. Pure.

use std::{collections::BTreeSet, net::IpAddr, ops::Bound, time::Duration};

/// Nodes looked at in one turn, summed up over its addresses. To look at one takes about a microsecond, half of it for
/// the hash where that is not known yet: some 2 ms, a twenty-fifth of the shortest Hello interval.
const LOOKS_PER_TURN: usize = 2000;

/// The addresses that wait.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    waiting: BTreeSet<IpAddr>,
    /// The one looked at last: those behind it come next, so that each has its turn, however often others are added.
    last: Option<IpAddr>,
    due: Duration,
}

impl Evaluation {
    /// Adds addresses, to be looked at from now on.
    pub(super) fn add(&mut self, now: Duration, addresses: impl IntoIterator<Item = IpAddr>) {
        // What comes while others wait puts their turn off no further.
        if self.is_done() {
            self.due = now;
        }
        self.waiting.extend(addresses);
    }

    /// Takes those of one turn: one at least, and as many as there is time for among so many nodes. The next turn is due
    /// at once, by another time than this one: whoever waits for it sees that it is another.
    pub(super) fn turn(&mut self, now: Duration, nodes: usize) -> Vec<IpAddr> {
        let count = (LOOKS_PER_TURN / nodes.max(1)).max(1);
        self.due = now;
        (0..count).map_while(|_| self.next()).collect()
    }

    fn next(&mut self) -> Option<IpAddr> {
        let behind = self.last.and_then(|last| self.waiting.range((Bound::Excluded(last), Bound::Unbounded)).next());
        let next = *behind.or_else(|| self.waiting.first())?;
        self.waiting.remove(&next);
        self.last = Some(next);
        Some(next)
    }

    /// Returns whether all have been looked at.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next turn is due.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        (!self.is_done()).then_some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u32) -> impl Iterator<Item = IpAddr> {
        (0..count).map(|n| IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn many_addresses_take_several_turns_and_each_is_due_at_once() {
        let mut evaluation = Evaluation::default();
        evaluation.add(Duration::from_secs(1), addresses(1000));
        let mut turns = 0_u64;
        while let Some(due) = evaluation.poll_timeout() {
            assert_eq!(due, Duration::from_secs(1 + turns));
            turns += 1;
            assert_eq!(evaluation.turn(Duration::from_secs(1 + turns), 100).len(), 20);
        }
        assert_eq!(turns, 50);
    }

    #[test]
    fn addresses_that_pour_in_put_no_turn_off() {
        let mut evaluation = Evaluation::default();
        evaluation.add(Duration::from_secs(1), addresses(1));
        evaluation.add(Duration::from_secs(2), addresses(2));
        assert_eq!(evaluation.poll_timeout(), Some(Duration::from_secs(1)));
        assert_eq!(evaluation.turn(Duration::from_secs(3), 1).len(), 2);
    }

    /// Nodes of a large cluster become Ready and NotReady one after another, and each time all addresses are concerned.
    #[test]
    fn addresses_that_pour_in_keep_no_other_waiting_for_ever() {
        let mut evaluation = Evaluation::default();
        let mut seen = BTreeSet::new();
        for _ in 0..50 {
            evaluation.add(Duration::ZERO, addresses(1000));
            seen.extend(evaluation.turn(Duration::ZERO, 100));
        }
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn turn_takes_one_address_at_least() {
        let mut evaluation = Evaluation::default();
        evaluation.add(Duration::ZERO, addresses(2));
        assert_eq!(evaluation.turn(Duration::ZERO, 5000).len(), 1);
        assert_eq!(evaluation.turn(Duration::ZERO, 0).len(), 1);
        assert!(evaluation.is_done());
    }
}
