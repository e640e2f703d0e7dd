//! The addresses that wait for another evaluation, which takes a few at a time: in a large cluster one fact can concern
//! all of them, and frames and timers must not wait for all. Pure.

use std::{collections::BTreeSet, net::IpAddr, ops::Bound, time::Duration};

/// Number of nodes looked at in one turn, summed up over its addresses. The look at one node takes about a microsecond,
/// half of it for its hash where the hash is not known yet: a turn takes some 2 ms, a twenty-fifth of the shortest
/// Hello interval.
const LOOKS_PER_TURN: usize = 2000;

/// The addresses that wait.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    waiting: BTreeSet<IpAddr>,
    /// The address looked at last. The addresses behind it come next, so each address has its turn, however often
    /// others are added.
    last: Option<IpAddr>,
    due: Duration,
}

impl Evaluation {
    /// Adds addresses, whose evaluation is due from now on.
    pub(super) fn add(&mut self, now: Duration, addresses: impl IntoIterator<Item = IpAddr>) {
        // An address that comes while others wait does not delay their turn.
        if self.is_done() {
            self.due = now;
        }
        self.waiting.extend(addresses);
    }

    /// Takes the addresses of one turn: at least one, and as many as there is time for among that number of nodes. The
    /// next turn is due at once, at another time than this turn, so that the caller who waits for it sees that it is
    /// another.
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

    /// Returns whether all addresses have been looked at.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the time at which the next turn is due.
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
    fn addresses_that_pour_in_do_not_delay_a_turn() {
        let mut evaluation = Evaluation::default();
        evaluation.add(Duration::from_secs(1), addresses(1));
        evaluation.add(Duration::from_secs(2), addresses(2));
        assert_eq!(evaluation.poll_timeout(), Some(Duration::from_secs(1)));
        assert_eq!(evaluation.turn(Duration::from_secs(3), 1).len(), 2);
    }

    /// Nodes of a large cluster become Ready and NotReady one after another, and each change concerns all addresses.
    #[test]
    fn addresses_that_pour_in_starve_no_other() {
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
