//! Makes a history that violates an invariant as small as possible.

use std::time::Duration;

use crate::{
    check::{Invariant, Violation},
    history::History,
    world::{self, Detail},
};

/// Number of runs of the simulation that a shrink may take.
const TRIES: usize = 300;

/// Returns the smallest history found that violates the same invariant, and the violation.
pub fn shrink(history: &History, invariant: Invariant) -> (History, Option<Violation>) {
    let mut best = history.clone();
    let mut violation = None;
    let mut tries = TRIES;
    loop {
        let mut smaller = candidates(&best).into_iter();
        let found = smaller.find_map(|candidate| {
            tries = tries.checked_sub(1)?;
            let seen = world::run(&candidate, Detail::Nothing).violation.filter(|seen| seen.invariant == invariant)?;
            Some((candidate, seen))
        });
        let Some((candidate, seen)) = found else { return (best, violation) };
        best = candidate;
        violation = Some(seen);
    }
}

/// Returns histories that are smaller, much smaller ones first.
fn candidates(history: &History) -> Vec<History> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut History)| {
        let mut candidate = history.clone();
        change(&mut candidate);
        candidate.end = candidate.settled_end();
        if candidate != *history {
            all.push(candidate);
        }
    };
    for index in 0..history.faults.len() {
        add(&|candidate| {
            candidate.faults.remove(index);
        });
    }
    add(&|candidate| candidate.addresses = (candidate.addresses / 2).max(1));
    add(&|candidate| candidate.addresses = (candidate.addresses - 1).max(1));
    add(&|candidate| candidate.nodes = (candidate.nodes / 2).max(1));
    add(&|candidate| candidate.nodes = (candidate.nodes - 1).max(1));
    add(&|candidate| candidate.rivals = 0);
    add(&|candidate| candidate.second_interfaces = 0);
    add(&|candidate| candidate.second_interfaces = candidate.second_interfaces.saturating_sub(1));
    add(&|candidate| candidate.firewalls = 0);
    add(&|candidate| candidate.local_share = 0.0);
    add(&|candidate| candidate.clients = (candidate.clients - 1).max(1));
    for index in 0..history.faults.len() {
        let lasts = history.faults[index].lasts;
        if lasts > Duration::from_millis(100) {
            add(&|candidate| candidate.faults[index].lasts = lasts / 2);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Shape;

    #[test]
    fn candidates_are_smaller() {
        let history = (0..).map(|seed| History::generate(seed, Shape::default())).find(|h| h.faults.len() > 2).unwrap();
        for candidate in candidates(&history) {
            let size = |h: &History| {
                let lasts: Duration = h.faults.iter().map(|fault| fault.lasts).sum();
                (
                    h.faults.len() + h.nodes + h.rivals + h.second_interfaces + h.firewalls + h.addresses + h.clients,
                    h.local_share.to_bits(),
                    lasts,
                )
            };
            let (a, b) = (size(&candidate), size(&history));
            assert!(a.0 <= b.0 && a.1 <= b.1 && a.2 <= b.2 && a != b);
        }
    }
}
