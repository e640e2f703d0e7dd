//! Histories in which the machine is known to be wrong, each with its diagnosis.
//!
//! A row demands the violation: a mended machine fails it, and the row then moves to `histories.rs`, which demands that
//! every invariant holds. So no mend goes unnoticed, and no known defect is forgotten.

use std::time::Duration;

use herald_segment::view::Shutdown;
use herald_sim::{
    check::Invariant,
    fault::{Fault, Kind, Stop},
    history::History,
    world::{self, Detail},
};
use test_case::test_case;

fn fault(at: f64, lasts: f64, kind: Kind) -> Fault {
    Fault { at: Duration::from_secs_f64(at), lasts: Duration::from_secs_f64(lasts), kind }
}

const RESTART: Stop = Stop::Asked(Shutdown::Restarting);

/// World seeds under which each history is run: delays, jitter and who starts first differ.
const SEEDS: u64 = 20;

/// The history of seed 107656, without what it does not need.
///
/// Three nodes, a, b, c; c owns an address. b's speaker is down. c is paused for 0.944 s and its clock does not show it.
/// a calls c dead and claims the address with the next epoch. b's speaker comes back. a restarts 0.17 s before c goes on,
/// so that b covers for a with a's address. From then on c answers with its own MAC and b with a's.
///
/// What happens, in terms of docs/protocol.md:
///
/// 1. c does not notice that it stood still: its own timers are not late, and the uptime check (section 24) needs a peer
///    that speaks on both sides of the pause. a is gone, and b's run is a new one to c.
/// 2. So c takes a to be speaking: by c's clock the last Hello of a is 0.1 s old, and a falls silent only after 1.5 I.
/// 3. c and b hear each other both ways within about 0.1 s. b sees that it lacks c's claims, gets the full list, finds
///    that c's claim loses against a's, and says a's claim in its stead at once (contradiction, section 14). All this is
///    within the bound.
/// 4. c drops that claim: "Claims about a node that speaks are ignored: it speaks for itself" (section 14). It arrives
///    some 6 ms before c calls a silent.
/// 5. b says it again only when the dispute is looked into, 2 I after it was first seen. That alone is the whole bound of
///    P4 (2 I from the first Hello), so two MACs last up to 2 I and a half.
///
/// The same happens whenever a coverer's word about a node that has just fallen silent to the coverer arrives before the
/// node falls silent to the receiver; it takes the undetected pause to make the receiver's claim a losing one.
///
/// What would mend it, either of them: (a) c may learn from b's Hello that it stood still. The entry in *heard* that
/// suspects a names sequence 228, heard 0.2 s ago; c itself heard no more than 209, by its clock 0.1 s ago. A peer that
/// heard a later frame of the same run a longer time ago than this node heard an earlier one shows that this node's
/// clock lost time (frames that overtake each other within the delay of the wire apart): a stall by section 24. (b) A
/// coverer's word about a node whose promised Hello is overdue (older than I) is believed: such a node does not speak for
/// itself. (c) A dispute with a node that has just come to count is looked into after 1 I, not 2 I.
#[test_case(3, 3, &[
    fault(9.264, 9.295, Kind::Speaker(1, RESTART)),
    fault(18.377, 0.944, Kind::PauseNode { node: 2, clock: false }),
    fault(19.153, 0.8, Kind::Speaker(0, RESTART)),
], Invariant::TwoMacs; "a coverer contradicts a paused node before that misses the owner")]
fn is_violated(nodes: usize, addresses: usize, faults: &[Fault], expected: Invariant) {
    let seen: Vec<_> = (0..SEEDS)
        .filter_map(|seed| {
            let history = History::quiet(seed, nodes, addresses).with_faults(faults.to_vec());
            world::run(&history, Detail::Nothing).violation
        })
        .collect();
    assert!(seen.iter().all(|violation| violation.invariant == expected), "another defect: {seen:?}");
    assert!(!seen.is_empty(), "mended: this history belongs to histories.rs");
}
