//! Histories that random seeds have found, made as small as possible: in each of them the engine was wrong once.

use std::time::Duration;

use herald_protocol::api_view::Shutdown;
use herald_sim::{
    fault::{Fault, Forgery, Kind, Removal, Stop},
    history::History,
    world::{self, Detail},
};
use test_case::test_case;

fn fault(at: f64, lasts: f64, kind: Kind) -> Fault {
    Fault { at: Duration::from_secs_f64(at), lasts: Duration::from_secs_f64(lasts), kind }
}

fn power_off(node: usize, boot_ms: u64) -> Kind {
    Kind::PowerOff { node, boot: Duration::from_millis(boot_ms) }
}

fn cable(node: usize, silent_s: u64) -> Kind {
    Kind::Cable { node, silent: Duration::from_secs(silent_s) }
}

/// Each history runs with some seeds besides the one it was found with: delays, jitter and the order of starts differ.
fn holds(seed: u64, nodes: usize, addresses: usize, faults: &[Fault]) {
    for seed in [seed, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        all_holds(&History::quiet(seed, nodes, addresses).with_faults(faults.to_vec()));
    }
}

fn all_holds(history: &History) {
    let violation = world::run(history, Detail::Nothing).violation;
    assert!(violation.is_none(), "{history}{}", violation.map(|found| found.to_string()).unwrap_or_default());
}

#[test_case(32101, 2, 1, &[
    fault(8.5, 0.5, Kind::Speaker(0, Stop::Deleted)),
    fault(8.5, 0.5, Kind::Speaker(1, Stop::Deleted)),
    fault(9.273, 7.015, Kind::StallSpeaker(0)),
]; "node that the API names has restarted and hangs before it claims")]
#[test_case(30685, 4, 4, &[
    fault(14.393, 8.208, Kind::Recreate(3)),
    fault(22.009, 7.640, Kind::PauseNode { node: 3, clock: false }),
    fault(28.832, 1.321, Kind::Partition(vec![3])),
]; "a machine that stood still misses the others one after another")]
#[test_case(760_537, 2, 1, &[
    fault(0.0, 60.0, Kind::EtherTypeDropped(None)),
    fault(34.755, 10.374, Kind::Renumbered { node: 0, none_left: true }),
]; "presumed owner of an address is no longer listed")]
#[test_case(49819, 3, 1, &[
    fault(8.0, 20.0, power_off(1, 1000)),
    fault(16.234, 9.730, Kind::StallSpeaker(0)),
    fault(19.849, 0.0, Kind::RollingUpgrade { down: Duration::from_millis(800), step: Duration::from_secs(3) }),
    fault(20.177, 0.078, Kind::Flapping { node: 0, period: Duration::from_millis(1583) }),
]; "an owner and its successor restart, and the owner is the first")]
#[test_case(18446, 9, 3, &[
    fault(8.0, 60.0, Kind::EtherTypeDropped(None)),
    fault(23.676, 4.729, Kind::Partition(vec![1, 6, 8])),
    fault(25.007, 0.055, Kind::Renumbered { node: 4, none_left: true }),
    fault(32.963, 0.080, cable(4, 30)),
]; "a link comes back where its successor was found dead long ago")]
#[test_case(40109, 2, 2, &[
    fault(0.0, 30.0, Kind::EtherTypeDropped(None)),
    fault(11.944, 7.971, Kind::Partition(vec![1])),
    fault(16.158, 18.0, Kind::Excluded(1)),
    fault(19.119, 0.087, Kind::ProxyArp),
]; "two nodes that were apart go on with one address")]
#[test_case(24896, 4, 11, &[
    fault(0.0, 30.0, Kind::EtherTypeDropped(None)),
    fault(8.458, 0.775, cable(3, 0)),
    fault(18.614, 3.750, Kind::Excluded(2)),
]; "node that was found dead is back, and no peer hears it")]
#[test_case(44689, 4, 33, &[
    fault(16.009, 0.588, Kind::StallSpeaker(0)),
    fault(18.507, 4.309, cable(1, 0)),
    fault(20.432, 2.080, Kind::PauseNode { node: 0, clock: true }),
]; "a machine that stood still misses its successor before it is heard")]
#[test_case(8534, 3, 26, &[
    fault(0.0, 30.518, Kind::Mtu(0, 576)),
    fault(0.0, 31250.0, Kind::Mtu(1, 576)),
    fault(19.941, 18.951, Kind::Speaker(2, Stop::Killed)),
]; "claims of a silent node that no other node knows are not awaited")]
#[test_case(28842, 2, 2, &[
    fault(14.992, 17.166, Kind::OneWay(0, 1)),
    fault(19.063, 0.066, Kind::NodeDeleted(1, Removal::MachineReplaced)),
    fault(22.438, 6.0, Kind::ApiLost(0)),
    fault(26.0, 0.075, Kind::Recreate(1)),
]; "a run that does not echo reports a deletion")]
#[test_case(34471, 2, 1, &[
    fault(18.992, 15.143, Kind::Reverted(1)),
    fault(31.670, 3.523, Kind::Deaf(1)),
]; "a machine that was set back is found dead before it learns that it was set back")]
#[test_case(15393, 3, 49, &[
    fault(0.0, 1_000_000.0, Kind::Mtu(0, 1280)),
    fault(0.0, 1_000_000.0, Kind::Mtu(1, 576)),
    fault(0.0, 1_000_000.0, Kind::Mtu(2, 9000)),
    fault(12.974, 2.918, Kind::OneWay(2, 1)),
    fault(34.125, 3.369, Kind::Stranger(2)),
    fault(35.770, 0.097, Kind::PauseNode { node: 2, clock: true }),
    fault(37.748, 14.011, Kind::StallSpeaker(0)),
]; "node that loses an address to a silent node has announced it to clients")]
#[test_case(31052, 5, 2, &[
    fault(14.693, 17.376, Kind::Partition(vec![0, 4])),
    fault(25.993, 2.769, power_off(4, 2015)),
    fault(26.576, 4.248, Kind::Excluded(4)),
    fault(29.345, 0.887, Kind::Suppression),
    fault(29.579, 0.188, Kind::Partition(vec![1, 3, 4])),
]; "two silent nodes claim an address, and each is covered by a peer that does not know the other's claim")]
#[test_case(30890, 2, 3, &[
    fault(17.961, 7.298, Kind::PauseNode { node: 0, clock: false }),
    fault(24.117, 0.063, Kind::Recreate(2)),
    fault(24.448, 0.055, cable(0, 30)),
]; "a machine that stood still cannot know yet that it is cut off")]
fn seeds(seed: u64, nodes: usize, addresses: usize, faults: &[Fault]) {
    holds(seed, nodes, addresses, faults);
}

#[test_case(38279, 3, 3, 0.3, &[
    fault(8.0, 60.0, Kind::EtherTypeDropped(None)),
    fault(15.693, 26.0, Kind::NotReady(1)),
    fault(17.005, 19.0, Kind::Excluded(2)),
]; "an address is handed back to its former owner")]
fn some_local(seed: u64, nodes: usize, addresses: usize, local_share: f64, faults: &[Fault]) {
    for seed in [seed, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let history = History::quiet(seed, nodes, addresses).with_faults(faults.to_vec());
        all_holds(&History { local_share, ..history });
    }
}

/// Replayed Hellos of a node's former run must not keep peers that have just started from hearing each other.
#[test]
fn replayed_former_run_delays_no_echo() {
    let deleted = |node| fault(8.5, 0.5, Kind::Speaker(node, Stop::Deleted));
    let faults = [
        fault(8.0, 2.5, power_off(3, 1000)),
        deleted(1),
        deleted(4),
        deleted(7),
        fault(8.5, 7.0, Kind::Forged(Forgery::FormerRuns)),
        fault(8.84, 1.871, Kind::Partition(vec![1, 4])),
    ];
    for seed in [19539, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let history = History { firewalls: 8, ..History::quiet(seed, 8, 12) }.with_faults(faults.to_vec());
        all_holds(&History { local_share: 0.3, ..history });
    }
}

/// The claims of a successor are longer than the link of a leaving node carries. Until they have come in short frames,
/// an announcement of the successor is not taken for one of its kernel.
#[test]
fn announcement_of_a_successor_with_unsent_claims_is_believed() {
    let faults =
        [fault(0.0, 15.259, Kind::Mtu(1, 576)), fault(14.259, 0.241, Kind::Speaker(1, Stop::Asked(Shutdown::Leaving)))];
    for seed in [730_392, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        all_holds(&History::quiet(seed, 2, 15).with_faults(faults.to_vec()));
    }
}

/// The first nodes of the cluster, this many, have two interfaces on the wire.
#[test_case(8506, (3, 3), 1, 0.0, &[
    fault(10.864, 55.0, Kind::ApiLost(0)),
    fault(33.288, 0.913, Kind::StallSpeaker(0)),
    fault(34.076, 0.078, cable(0, 30)),
    fault(35.308, 9.799, Kind::SecondUnheard(0)),
]; "peer that is heard at last has claims that the others lack")]
#[test_case(22436, (2, 1), 3, 0.3, &[
    fault(10.139, 20.5, Kind::ApiLost(0)),
    fault(10.326, 1.659, Kind::Recreate(2)),
    fault(11.798, 0.084, Kind::Recreate(0)),
    fault(20.896, 2.828, Kind::Deaf(0)),
]; "interface that follows another knows the deletions that the other was told of")]
#[test_case(11433, (6, 1), 8, 0.0, &[
    fault(9.151, 4.819, Kind::Deaf(0)),
    fault(26.226, 18.497, Kind::SwitchesParted(vec![1, 2, 5])),
]; "joined switches end a run, whose peers take the other run at once")]
#[test_case(12055, (4, 1), 3, 0.0, &[
    fault(17.475, 2.585, cable(0, 0)),
    fault(24.205, 9.008, Kind::SwitchesParted(vec![1, 3, 5])),
    fault(27.419, 7.638, Kind::Partition(vec![1, 6])),
]; "joined switches end the run on the first interface")]
#[test_case(16633, (5, 1), 2, 0.0, &[
    fault(14.419, 18.777, Kind::SwitchesParted(vec![1, 2])),
    fault(14.556, 3.502, Kind::Partition(vec![0, 3, 5])),
    fault(31.646, 2.332, Kind::Speaker(4, Stop::Killed)),
]; "joined switches end the run on the second interface")]
#[test_case(16633, (5, 1), 3, 0.0, &[
    fault(14.419, 18.777, Kind::SwitchesParted(vec![1, 2])),
    fault(14.556, 3.502, Kind::Partition(vec![0, 3, 5])),
    fault(23.628, 9.913, Kind::SwitchesParted(vec![0, 2])),
    fault(31.646, 0.146, Kind::Speaker(4, Stop::Killed)),
]; "interface covers for a peer on its segment an address that the other interface owns elsewhere")]
#[test_case(12055, (8, 1), 13, 0.0, &[
    fault(9.161, 1.489, Kind::Speaker(0, Stop::Killed)),
    fault(12.694, 1.281, power_off(2, 1749)),
    fault(15.346, 14.5, Kind::ApiLost(3)),
    fault(17.475, 5.17, cable(0, 0)),
    fault(18.966, 1.683, Kind::Recreate(3)),
    fault(24.205, 4.504, Kind::SwitchesParted(vec![1, 3, 5])),
    fault(27.419, 0.239, Kind::Partition(vec![1, 6])),
]; "peer goes from the segment of one run to that of the other")]
fn second_interfaces(
    seed: u64,
    (nodes, with_two): (usize, usize),
    addresses: usize,
    local_share: f64,
    faults: &[Fault],
) {
    for seed in [seed, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let history = History { second_interfaces: with_two, local_share, ..History::quiet(seed, nodes, addresses) };
        all_holds(&history.with_faults(faults.to_vec()));
    }
}
