//! The schedule of scenarios: most of them spend their time waiting, each in a namespace of its own, and can run at the
//! same time.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Cluster, Scenario};

/// Whether a scenario allows others on its cluster at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// The scenario touches only its own namespace, pools and addresses, and judges no time.
    Concurrent,
    /// The scenario restarts Herald, breaks nodes or the wire, changes what applies to all pools, or measures.
    Alone,
}

/// Starts scenarios in the order of a list: one that must run alone starts after all before it have ended, the others
/// run together.
#[derive(Debug)]
pub struct Schedule {
    wanted: Vec<(Concurrency, Cluster)>,
    ended: Mutex<BTreeSet<usize>>,
    changed: Condvar,
}

impl Schedule {
    /// Returns the schedule of these scenarios, which are identified by their position from here on.
    #[must_use]
    pub fn of(scenarios: &[Scenario]) -> Self {
        let wanted = scenarios.iter().map(|scenario| (scenario.company, scenario.cluster)).collect();
        Self { wanted, ended: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits for a scenario's turn, runs it, and ends its turn, even if it panics.
    pub fn take<T>(&self, position: usize, run: impl FnOnce() -> T) -> T {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(ended, |ended| !may_begin(&self.wanted, ended, position));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        let _turn = Turn { turns: self, position };
        run()
    }
}

/// A turn under way; dropping it ends the turn.
struct Turn<'a> {
    turns: &'a Schedule,
    position: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(self.position);
        self.turns.changed.notify_all();
    }
}

/// Returns whether a scenario may start: every scenario before it must have ended, except that concurrent scenarios on
/// the same cluster may run together.
fn may_begin(wanted: &[(Concurrency, Cluster)], ended: &BTreeSet<usize>, position: usize) -> bool {
    let (company, cluster) = wanted[position];
    let bears = |before: usize| {
        let (its_company, its_cluster) = wanted[before];
        company == Concurrency::Concurrent && its_company == Concurrency::Concurrent && its_cluster == cluster
    };
    (0..position).all(|before| ended.contains(&before) || bears(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::Topology;
    use test_case::test_case;

    const WELCOME: (Concurrency, Cluster) = (Concurrency::Concurrent, Cluster::Shared);
    const ALONE: (Concurrency, Cluster) = (Concurrency::Alone, Cluster::Shared);
    const ELSEWHERE: (Concurrency, Cluster) = (Concurrency::Concurrent, Cluster::Own(Topology::One));

    #[test_case(&[WELCOME, WELCOME], &[], 1, true; "with another concurrent one")]
    #[test_case(&[WELCOME, ALONE], &[], 1, false; "alone while another runs")]
    #[test_case(&[WELCOME, ALONE], &[0], 1, true; "alone after all others")]
    #[test_case(&[ALONE, WELCOME], &[], 1, false; "while an earlier exclusive one runs")]
    #[test_case(&[ALONE, WELCOME], &[0], 1, true; "after an exclusive one has ended")]
    #[test_case(&[WELCOME, ALONE, WELCOME], &[0], 2, false; "while an earlier one waits")]
    #[test_case(&[WELCOME, ELSEWHERE], &[], 1, false; "another cluster")]
    #[test_case(&[WELCOME, ELSEWHERE], &[0], 1, true; "another cluster after the first one is free")]
    fn scenario_starts_when_it_may(wanted: &[(Concurrency, Cluster)], ended: &[usize], position: usize, may: bool) {
        assert_eq!(may_begin(wanted, &ended.iter().copied().collect(), position), may);
    }

    #[test]
    fn turn_ends_with_a_panic() {
        let turns = Schedule { wanted: vec![ALONE, ALONE], ended: Mutex::default(), changed: Condvar::new() };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turns.take(0, || panic!("a failure"))));
        assert!(panicked.is_err());
        assert_eq!(turns.take(1, || "ran"), "ran");
    }
}
