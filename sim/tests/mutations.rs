//! Tests of the tests: with each rule of the protocol broken on purpose, an invariant is violated, and the same history
//! keeps all invariants when the rule is kept.

use std::time::Duration;

use herald_protocol::{api_view::Shutdown, mutation::Mutation};
use herald_sim::{
    check::Invariant,
    fault::{Fault, Forgery, Kind, Stop},
    history::{FOREVER, History, Shape},
    mutations,
    world::{self, Detail},
};
use test_case::test_case;

fn s(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn fault(at: f64, lasts: f64, kind: Kind) -> Fault {
    Fault { at: s(at), lasts: s(lasts), kind }
}

/// Any history.
fn random(seed: u64) -> History {
    History::generate(seed, Shape::default())
}

/// The two parts of a segment take over from a dead node with equal epochs; one of them has no news of the API.
fn equal_epochs(seed: u64) -> History {
    History::quiet(seed, 5, 40).with_faults(vec![
        fault(9.0, 60.0, Kind::ApiLost(1)),
        fault(9.0, 60.0, Kind::ApiLost(3)),
        Fault { at: s(10.0), lasts: FOREVER, kind: Kind::PowerOff { node: 0, boot: s(1.0) } },
        fault(10.01, 4.0, Kind::Partition(vec![1, 3])),
    ])
}

/// A node leaves and comes back, again and again; later it comes to own everything; then a forger replays what it once
/// sent. (Of many runs, each with a farewell, a replay is likely to begin with one.)
fn replayed_farewell(seed: u64) -> History {
    let leaves = |time: u32| fault(1.5 + 0.8 * f64::from(time), 0.3, Kind::Speaker(0, Stop::Asked(Shutdown::Leaving)));
    let mut faults: Vec<Fault> = (0..4).map(leaves).collect();
    faults.extend([
        fault(6.0, 3.0, Kind::PowerOff { node: 1, boot: s(0.5) }),
        fault(6.0, 3.0, Kind::PowerOff { node: 2, boot: s(0.5) }),
        fault(13.0, 20.0, Kind::Forged(Forgery::Replay)),
    ]);
    History::quiet(seed, 3, 6).with_faults(faults)
}

/// A node's view of the API stands still while another node is NotReady for a moment; much later that other node takes
/// over, and restarts.
fn old_view(seed: u64) -> History {
    History::quiet(seed, 3, 20).with_faults(vec![
        fault(9.0, 3.0, Kind::NotReady(1)),
        fault(10.0, 80.0, Kind::ApiLost(2)),
        Fault { at: s(55.0), lasts: FOREVER, kind: Kind::PowerOff { node: 0, boot: s(1.0) } },
        fault(65.0, 1.0, Kind::Speaker(1, Stop::Killed)),
    ])
}

/// An address is deleted while a node's view stands still.
fn lagging_watch(seed: u64) -> History {
    History::quiet(seed, 3, 4).with_faults(vec![
        fault(9.0, 25.0, Kind::ApiLost(seed as usize % 3)),
        fault(10.0, 20.0, Kind::Recreate(0)),
        fault(11.0, 20.0, Kind::Recreate(1)),
        fault(12.0, 20.0, Kind::Recreate(2)),
    ])
}

/// Each node has a second interface on the wire.
fn two_interfaces(seed: u64) -> History {
    History { second_interfaces: 3, ..History::quiet(seed, 3, 6) }
}

use Invariant::{AnsweredUnheard, FlowBroken, Ghost, PingPong, QuietChange, Reason, StaleCache, TwoMacs, Unanswered};

// Mostly ping-pong: a node that takes over loses at once to the claim that it has just outdone.
#[test_case(Mutation::IgnoreEpoch, random, 100, &[PingPong, Unanswered, Reason, FlowBroken, TwoMacs, StaleCache])]
#[test_case(Mutation::SkipBarrier, random, 100, &[Reason])]
#[test_case(Mutation::TakeOverWithoutProbing, random, 50, &[Reason])]
#[test_case(Mutation::TakeOverWhileDeaf, random, 100, &[Reason])]
#[test_case(Mutation::TrustRememberedClaims, random, 100, &[Reason, TwoMacs])]
#[test_case(Mutation::BreakTiesByRank, equal_epochs, 10, &[TwoMacs])]
#[test_case(Mutation::RetakeWithoutHoldDown, random, 600, &[PingPong])]
#[test_case(Mutation::NoCover, random, 100, &[Unanswered])]
#[test_case(Mutation::KeepAnsweringAfterLoss, random, 50, &[TwoMacs])]
#[test_case(Mutation::AnswerAfterStall, random, 200, &[AnsweredUnheard])]
#[test_case(Mutation::SkipTwoWayCheck, replayed_farewell, 60, &[Reason, QuietChange, Unanswered, TwoMacs])]
#[test_case(Mutation::IgnoreDeafOwner, random, 600, &[Unanswered])]
#[test_case(Mutation::MoveWithStaleView, old_view, 10, &[Reason])]
#[test_case(Mutation::ForgetDeletions, lagging_watch, 10, &[Reason, Ghost])]
#[test_case(Mutation::IgnoreUnheardPeers, random, 600, &[Reason, FlowBroken, TwoMacs])]
#[test_case(Mutation::IgnoreDigests, random, 50, &[TwoMacs, Reason])]
#[test_case(Mutation::SpeakOnBoth, two_interfaces, 20, &[TwoMacs, Reason, QuietChange, FlowBroken])]
fn broken_rule_violates_an_invariant(
    mutation: Mutation,
    history: fn(u64) -> History,
    seeds: u64,
    expected: &[Invariant],
) {
    let caught = (0..seeds).find(|seed| {
        let mut broken = history(*seed);
        broken.mutation = Some(mutation);
        let seen = world::run(&broken, Detail::Nothing).violation.map(|violation| violation.invariant);
        if !seen.is_some_and(|seen| expected.contains(&seen)) {
            return false;
        }
        // A history that fails even with the rule kept shows nothing.
        world::run(&history(*seed), Detail::Nothing).violation.is_none()
    });
    assert!(caught.is_some(), "{mutation:?}: none of {seeds} histories violates {expected:?}");
}

#[test]
fn every_mutation_has_its_row() {
    let rows = include_str!("mutations.rs");
    for mutation in mutations::ALL {
        assert!(rows.contains(&format!("#[test_case(Mutation::{mutation:?},")), "{mutation:?} has no row");
    }
}
