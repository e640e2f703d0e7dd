//! Histories in which the machine is known to be wrong, each with its diagnosis.
//!
//! A test demands the violation: a mended machine fails it, and the history then moves to `histories.rs`, which demands
//! that every invariant holds. So no mend goes unnoticed, and no known defect is forgotten.

use herald_sim::{
    check::Invariant,
    history::History,
    world::{self, Detail},
};

/// World seeds under which each history is run: delays, jitter and who starts first differ.
const SEEDS: u64 = 20;

/// Two interfaces of a node on one wire are two runs with one name, if nobody keeps them apart: the speaker does
/// (docs/protocol.md, section 9; speaker/src/machine/twins.rs), above the segments that are simulated here. Nothing else goes
/// wrong in these histories, and in most of them one of these comes of it within two seconds of the start:
///
/// - Peers count one run of a node and drop the claims of the other. If that is the one which announces, its address is
///   claimed as vacant by the next candidate, and answered with two MACs.
/// - The other interface's MAC is no station's: what the node itself answers from there is reported as a conflict with a
///   host outside the cluster.
/// - The interface that announces nothing is told by its peers, as a run that has just started, what its node owned, and
///   resumes it.
#[test]
fn second_interfaces_on_one_wire() {
    let history = |seed| History { second_interfaces: 3, ..History::quiet(seed, 3, 6) };
    let seen: Vec<_> = (0..SEEDS).filter_map(|seed| world::run(&history(seed), Detail::Nothing).violation).collect();
    let expected = [Invariant::Stranger, Invariant::Reason, Invariant::TwoMacs];
    assert!(seen.iter().all(|violation| expected.contains(&violation.invariant)), "another defect: {seen:?}");
    assert!(!seen.is_empty(), "mended: this history belongs to histories.rs");
}
