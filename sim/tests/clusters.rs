//! Two clusters on one segment that announce some of the same addresses: a misconfiguration.

use std::{collections::BTreeMap, time::Duration};

use herald_protocol::api_view::Shutdown;
use herald_sim::{
    fault::{Fault, Forgery, Kind, Stop},
    history::{History, Rivals},
    world::{self, Detail, Outcome},
};
use test_case::test_case;

fn fault(at: f64, lasts: f64, kind: Kind) -> Fault {
    Fault { at: Duration::from_secs_f64(at), lasts: Duration::from_secs_f64(lasts), kind }
}

fn holds(history: &History) -> Outcome {
    let outcome = world::run(history, Detail::Events);
    assert!(outcome.violation.is_none(), "{history}{}", outcome.violation.map(|v| v.to_string()).unwrap_or_default());
    outcome
}

/// The other cluster has the same Secret, like a cluster into which this one's backup was restored. It starts with this
/// one, or later, and this one fails beside it. An address that only one cluster uses behaves as without the other; of
/// an address that both use, a node reports a conflict (docs/protocol/ownership.md#two-clusters).
#[test_case(0.0, &[]; "both start together")]
#[test_case(8.0, &[]; "the other comes later")]
#[test_case(8.0, &[
    fault(20.0, 10.0, Kind::PowerOff { node: 0, boot: Duration::from_secs(1) }),
    fault(45.0, 2.0, Kind::Recreate(0)),
]; "a node fails next to the other cluster")]
#[test_case(0.0, &[
    fault(9.0, 10.0, Kind::EtherTypeDropped(None)),
    fault(12.0, 3.0, Kind::Speaker(0, Stop::Asked(Shutdown::Restarting))),
]; "the protocol is dropped")]
#[test_case(0.0, &[fault(9.0, 20.0, Kind::Forged(Forgery::Replay))]; "frames of both are played back")]
fn with_one_secret(rivals_from: f64, faults: &[Fault]) {
    for seed in 0..5 {
        let rivals_from = Duration::from_secs_f64(rivals_from);
        let history = History { rivals: 2, rivals_from, ..History::quiet(seed, 3, 6) };
        holds(&history.with_faults(faults.to_vec()));
    }
}

/// Number of times that a node takes an address from owners that are not candidates, in a history of less than half a
/// minute: three times, and then after pauses of 1, 2, 4, 8 and at last 16 s
/// (docs/protocol/ownership.md#no-candidate-owner). The first claim is not one of them.
const TAKES: usize = 1 + 3 + 5;

/// The other cluster was made from a snapshot of etcd: it has the same UID, so it is one cluster to the protocol, with
/// two views that differ for good. The nodes of either cluster are not candidates in the other's view. Addresses change
/// their owner again and again, with pauses that grow; at no time is one answered with two MACs for longer than a claim
/// takes.
#[test_case(1, 1)]
#[test_case(3, 2)]
#[test_case(5, 4)]
#[test_case(8, 8)]
fn cloned_whole(nodes: usize, rivals: usize) {
    for seed in 0..5 {
        let outcome = holds(&History { rivals, rivals_are: Rivals::Cloned, ..History::quiet(seed, nodes, 6) });
        let mut claims = BTreeMap::new();
        for line in &outcome.trace {
            if let Some((node, claim)) = line.split_once(": owns address ") {
                let (address, _) = claim.split_once(',').unwrap_or_default();
                let node = node.rsplit(' ').next().unwrap_or_default();
                *claims.entry((node, address)).or_insert(0) += 1;
            }
        }
        assert!(claims.values().all(|count| *count <= TAKES), "seed {seed}: {claims:?}");
        let moves: usize = claims.values().sum();
        assert!(
            moves > claims.len(),
            "seed {seed}: no address changes its owner, so this test and its page are out of date"
        );
    }
}
