//! Histories in which the machine is known to be wrong, each with its diagnosis.
//!
//! A test demands the violation: a mended machine fails it, and the history then moves to `histories.rs`, which demands
//! that every invariant holds. So no mend goes unnoticed, and no known defect is forgotten.

use std::time::Duration;

use herald_sim::{
    check::Invariant,
    fault::{Fault, Kind, Removal},
    history::History,
    world::{self, Detail},
};

/// World seeds under which each history is run: delays, jitter and who starts first differ.
const SEEDS: u64 = 20;

/// Two interfaces of a node on one wire are two runs with one name. Nothing else goes wrong in these histories, and in
/// most of them one of these comes of it within two seconds of the start:
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

/// Two of three nodes are cut off from the third. Meanwhile the machine of one of the two is replaced: another bears its
/// name, with another MAC. It comes to own what the third owned.
///
/// When the segment is whole again, the third hears the announcement of an address from the new MAC before it hears a Hello
/// of the new run both ways, and reports a host outside the cluster. The API has told it the new MAC long ago: but the
/// MAC of a node that was ever heard is that of its last Hello, and only this one is looked up
/// (`Peers::learn_mac`, `Peer::mac`). What would mend it: both MACs are the node's, that of its own account and the API's.
#[test]
fn a_replaced_machine_is_taken_for_a_stranger() {
    let fault = |at, lasts, kind| Fault { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), kind };
    let history = |seed| {
        let faults = vec![
            fault(24_015, 4626, Kind::Partition(vec![1, 2])),
            fault(26_126, 874, Kind::NodeDeleted(2, Removal::MachineReplaced)),
        ];
        History { lets_known_pass: false, ..History::quiet(seed, 3, 3).with_faults(faults) }
    };
    let seen: Vec<_> =
        (0..SEEDS * 5).filter_map(|seed| world::run(&history(seed), Detail::Nothing).violation).collect();
    assert!(seen.iter().all(|violation| violation.invariant == Invariant::Stranger), "another defect: {seen:?}");
    assert!(!seen.is_empty(), "mended: this history belongs to histories.rs");
}
