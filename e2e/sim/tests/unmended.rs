//! Histories in which the machine is known to be wrong, each with its diagnosis.
//!
//! A test demands the violation: a mended machine fails it, and the history then moves to `histories.rs`, which demands
//! that every invariant holds. So no mend goes unnoticed, and no known defect is forgotten.

use std::time::Duration;

use herald_sim::{
    check::Invariant,
    fault::{Fault, Kind},
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

/// The network drops the protocol, and for a while the kernel of node 2 has an address that node 0 owns, and announces it.
/// The owner yields. When the kernel lets the address go, its speaker, which cannot overhear its own kernel, still presumes
/// node 0 to own it and covers for it; all others presume node 2. Nobody claims it, and clients are led now to the one, now
/// to the other.
///
/// What would mend it: an owner that yields is named by VirtualIP.status no longer, so whoever goes by its announcement
/// could forget that (`Segment::announced_unheard`).
#[test]
fn kernel_takes_an_address_and_lets_it_go_unheard() {
    let fault = |at, lasts, kind| Fault { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), kind };
    let history = |seed| {
        let mut faults = vec![fault(8000, 60_000, Kind::EtherTypeDropped(None))];
        faults.extend((0..6).map(|address| fault(12_000, 800, Kind::KernelTakes(address, 2))));
        History::quiet(seed, 5, 6).with_faults(faults)
    };
    let seen: Vec<_> = (0..SEEDS).filter_map(|seed| world::run(&history(seed), Detail::Nothing).violation).collect();
    assert!(seen.iter().all(|violation| violation.invariant == Invariant::FlowBroken), "another defect: {seen:?}");
    assert!(!seen.is_empty(), "mended: this history belongs to histories.rs, and to the random ones");
}
