//! Which scenarios run at the same time: most only wait, each in a namespace of its own, and bear each other.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use super::{Cluster, Scenario};

/// Whether a scenario bears others beside it on its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// It touches its own namespace, pools and addresses only, and judges no time.
    Concurrent,
    /// It restarts Herald, breaks nodes or the wire, changes what holds for all pools, or measures.
    Alone,
}

/// Lets scenarios begin in the order of a list: one that wants to be alone after all before it have ended, the others
/// together.
#[derive(Debug)]
pub struct Schedule {
    wanted: Vec<(Concurrency, Cluster)>,
    ended: Mutex<BTreeSet<usize>>,
    changed: Condvar,
}

impl Schedule {
    /// The turns of these scenarios, which are known by their position from here on.
    #[must_use]
    pub fn of(scenarios: &[Scenario]) -> Self {
        let wanted = scenarios.iter().map(|scenario| (scenario.company, scenario.cluster)).collect();
        Self { wanted, ended: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits for a scenario's turn, runs it, and ends its turn, also when it panics.
    pub fn take<T>(&self, position: usize, run: impl FnOnce() -> T) -> T {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(ended, |ended| !may_begin(&self.wanted, ended, position));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        let _turn = Turn { turns: self, position };
        run()
    }
}

/// A turn under way; it ends when this is dropped.
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

/// Returns whether a scenario may begin: of those before it, none is left that bears no company or wants another
/// cluster; and if it bears none itself, none is left at all.
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

    #[test_case(&[WELCOME, WELCOME], &[], 1, true; "beside one that bears it")]
    #[test_case(&[WELCOME, ALONE], &[], 1, false; "alone, and another runs")]
    #[test_case(&[WELCOME, ALONE], &[0], 1, true; "alone, after all others")]
    #[test_case(&[ALONE, WELCOME], &[], 1, false; "after one that wants to be alone")]
    #[test_case(&[ALONE, WELCOME], &[0], 1, true; "after one that wanted to be alone")]
    #[test_case(&[WELCOME, ALONE, WELCOME], &[0], 2, false; "not past one that waits")]
    #[test_case(&[WELCOME, ELSEWHERE], &[], 1, false; "another cluster")]
    #[test_case(&[WELCOME, ELSEWHERE], &[0], 1, true; "another cluster, when the first is left")]
    fn turns(wanted: &[(Concurrency, Cluster)], ended: &[usize], position: usize, may: bool) {
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
