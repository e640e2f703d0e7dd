//! Named histories: those that the design was made for, and those in which the simulator once found the engine wrong.

use std::time::Duration;

use herald_protocol::api_view::Shutdown;
use herald_sim::{
    fault::{Fault, Forgery, Kind, Removal, Stop},
    history::{FOREVER, History},
    world::{self, Detail},
};
use test_case::test_case;

fn fault(at: f64, lasts: f64, kind: Kind) -> Fault {
    Fault { at: Duration::from_secs_f64(at), lasts: Duration::from_secs_f64(lasts), kind }
}

fn for_ever(at: f64, kind: Kind) -> Fault {
    Fault { at: Duration::from_secs_f64(at), lasts: FOREVER, kind }
}

fn power_off(node: usize) -> Kind {
    Kind::PowerOff { node, boot: Duration::from_secs(1) }
}

fn cable(node: usize, silent_s: u64) -> Kind {
    Kind::Cable { node, silent: Duration::from_secs(silent_s) }
}

fn pause(node: usize, clock: bool) -> Kind {
    Kind::PauseNode { node, clock }
}

fn upgrade() -> Kind {
    Kind::RollingUpgrade { down: Duration::from_millis(800), step: Duration::from_secs(3) }
}

fn rotation() -> Kind {
    Kind::KeyRotation { step: Duration::from_millis(400) }
}

const RESTART: Stop = Stop::Asked(Shutdown::Restarting);

/// Runs the history with a few seeds: delays, jitter and the order of starts differ.
fn holds(nodes: usize, addresses: usize, faults: &[Fault]) {
    for seed in 0..5 {
        all_holds(&History::quiet(seed, nodes, addresses).with_faults(faults.to_vec()));
    }
}

fn all_holds(history: &History) {
    let violation = world::run(history, Detail::Nothing).violation;
    assert!(violation.is_none(), "{history}{}", violation.map(|v| v.to_string()).unwrap_or_default());
}

#[test_case(3, 6, &[] ; "nothing happens")]
#[test_case(1, 6, &[fault(9.0, 2.0, Kind::Speaker(0, Stop::Killed)), fault(15.0, 5.0, power_off(0)), fault(25.0, 3.0, Kind::Recreate(0))]; "a lone node")]
#[test_case(2, 6, &[fault(9.0, 20.0, power_off(0))]; "the first of two loses power and comes back")]
#[test_case(3, 6, &[fault(9.0, 20.0, cable(0, 30))]; "a cable is pulled and put back, the port is silent for 30 s")]
#[test_case(3, 6, &[fault(9.0, 20.0, upgrade())]; "a rolling upgrade")]
#[test_case(5, 10, &[fault(9.0, 3.0, Kind::SitePowerCycle { step: Duration::from_millis(700) })]; "the site loses power")]
#[test_case(5, 10, &[fault(9.0, 30.0, Kind::Partition(vec![0, 3]))]; "a partition")]
#[test_case(4, 4, &[fault(34.9, 11.7, Kind::Partition(vec![0, 3])), fault(36.2, 0.0, upgrade())]; "a rolling upgrade on both sides of a partition")]
#[test_case(3, 6, &[fault(9.0, 640.0, Kind::StallSpeaker(0))]; "cover comes to its end")]
#[test_case(3, 6, &[fault(0.0, 60.0, Kind::EtherTypeDropped(None)), for_ever(20.0, power_off(0))]; "unheard peers")]
#[test_case(3, 6, &[fault(9.0, 40.0, Kind::ApiLost(0)), fault(12.0, 5.0, Kind::Recreate(0))]; "an owner cut off from news")]
#[test_case(3, 6, &[fault(9.0, 300.0, Kind::ApiDown), fault(20.0, 1.0, Kind::Speaker(0, Stop::Killed))]; "the API is away")]
#[test_case(5, 6, &[fault(9.0, 4.0, Kind::ProxyArp), fault(10.0, 5.0, power_off(0))]; "the switch answers for the dead")]
#[test_case(5, 6, &[fault(9.0, 6.0, Kind::Suppression), fault(10.0, 9.0, power_off(0))]; "the switch answers in the name of the dead")]
#[test_case(3, 6, &[fault(0.0, 20.0, Kind::Stranger(0)), fault(0.0, 20.0, Kind::Stranger(1))]; "a stranger holds addresses before their first claim")]
#[test_case(3, 6, &[fault(9.0, 30.0, Kind::Stranger(0)), fault(9.0, 30.0, Kind::Stranger(1))]; "a stranger claims what is owned")]
#[test_case(3, 6, &[fault(0.0, 20.0, Kind::KernelAnswers(0, 1)), fault(0.0, 20.0, Kind::KernelAnswers(1, 2))]; "nodes' kernels answer before the first claim")]
#[test_case(3, 6, &[fault(9.0, 5.0, rotation()), fault(11.0, 1.0, Kind::Speaker(0, RESTART))]; "the key is replaced, and a speaker restarts meanwhile")]
#[test_case(4, 6, &[fault(9.0, 20.0, Kind::Forged(Forgery::Replay)), fault(12.0, 1.0, Kind::Speaker(0, RESTART))]; "replays")]
fn of_the_design(nodes: usize, addresses: usize, faults: &[Fault]) {
    holds(nodes, addresses, faults);
}

#[test_case(5, 1, &[fault(9.0, 16.0, Kind::StallSpeaker(0))]; "coverers stop before the owner answers again")]
#[test_case(5, 1, &[fault(9.0, 8.7, Kind::Partition(vec![0]))]; "the winner does not announce after a heal")]
#[test_case(19, 1, &[fault(9.0, 5.5, Kind::Deaf(14)), fault(12.8, 0.3, Kind::Speaker(0, Stop::Killed))]; "a deaf node's reports")]
#[test_case(4, 2, &[fault(9.0, 15.6, Kind::Partition(vec![1])), fault(24.3, 0.57, Kind::Speaker(3, RESTART))]; "a claim that only coverers know")]
#[test_case(3, 24, &[fault(9.0, 13.0, pause(2, true)), fault(15.0, 1.1, Kind::Recreate(23))]; "claims during a stall")]
#[test_case(3, 1, &[fault(9.0, 0.0, upgrade()), fault(9.81, 0.33, Kind::StallSpeaker(2))]; "a joiner and a silent owner")]
#[test_case(5, 2, &[fault(9.0, 9.0, power_off(3)), fault(34.3, 0.8, pause(4, true)), fault(19.0, 15.6, Kind::Speaker(1, Stop::Deleted))]; "a joiner and a dead owner")]
#[test_case(2, 1, &[fault(9.0, 0.25, power_off(1)), fault(12.2, 0.08, cable(0, 30)), fault(20.8, 0.08, power_off(1))]; "the winner was listening")]
#[test_case(2, 1, &[fault(9.0, 5.0, Kind::StallSpeaker(1)), fault(12.9, 0.24, Kind::Partition(vec![0]))]; "cut off while it covers")]
#[test_case(6, 4, &[fault(9.0, 7.4, Kind::Partition(vec![1, 4])), fault(15.9, 0.65, Kind::OneWay(1, 3))]; "heard one way after a heal")]
#[test_case(2, 1, &[fault(9.0, 0.0, upgrade()), fault(10.04, 5.3, Kind::Partition(vec![0])), fault(13.4, 0.5, pause(1, true))]; "a barrier that ends in a stall")]
#[test_case(3, 4, &[fault(9.0, 6.8, Kind::Deaf(0)), fault(10.7, 5.3, Kind::StallSpeaker(1))]; "a deaf owner hears again, its successor is covered")]
#[test_case(3, 6, &[fault(0.0, 60.0, Kind::EtherTypeDropped(None)), fault(20.0, 2.0, power_off(0))]; "a turn that came again and again")]
// Found as seed 107656 of an earlier generator.
#[test_case(3, 3, &[fault(9.264, 9.295, Kind::Speaker(1, RESTART)), fault(18.377, 0.944, pause(2, false)), fault(19.153, 0.8, Kind::Speaker(0, RESTART))]; "a coverer contradicts a paused node before that misses the owner")]
fn where_the_machine_was_wrong(nodes: usize, addresses: usize, faults: &[Fault]) {
    holds(nodes, addresses, faults);
}

/// Random histories in which the machine was wrong, as they were found.
#[test_case(2350, 3, 41, 0.3, &[
    fault(16.160, 1.854, Kind::PowerOff { node: 0, boot: Duration::from_millis(2341) }),
    fault(17.157, 9.263, cable(1, 0)),
    fault(25.028, 17.132, Kind::StallSpeaker(0)),
]; "a loser that is silent and cannot withdraw")]
#[test_case(2396, 6, 45, 0.0, &[
    fault(9.408, 2.185, Kind::Excluded(2)),
    fault(19.992, 13.297, Kind::Mute(5)),
    fault(20.783, 8.249, Kind::NoEndpoint(19, 2)),
    fault(21.227, 8.693, Kind::NotReady(4)),
    fault(26.182, 1.070, Kind::Forged(Forgery::Noise)),
    fault(29.094, 4.431, Kind::Partition(vec![2, 5])),
    fault(29.687, 10.713, Kind::Loss(0.03)),
]; "the winner learns of a withdrawal by a full list")]
#[test_case(101_563, 6, 45, 0.0, &[
    fault(14.192, 5.480, Kind::PowerOff { node: 4, boot: Duration::from_millis(1775) }),
    fault(20.484, 8.526, Kind::StallSpeaker(5)),
    fault(22.337, 6.987, Kind::Recreate(23)),
]; "an address is deleted while its owner is stopped")]
#[test_case(104_128, 8, 37, 0.3, &[
    fault(20.067, 13.812, Kind::NotReady(6)),
    fault(21.435, 3.105, Kind::Speaker(7, Stop::Killed)),
    fault(27.816, 0.570, Kind::PowerOff { node: 4, boot: Duration::from_millis(959) }),
    fault(28.902, 3.767, Kind::Partition(vec![1, 3, 5])),
]; "a new run has claimed and withdrawn before the winner hears it")]
fn as_it_was_found(seed: u64, nodes: usize, addresses: usize, local_share: f64, faults: &[Fault]) {
    let mut history = History::quiet(seed, nodes, addresses).with_faults(faults.to_vec());
    history.local_share = local_share;
    all_holds(&history);
}

fn deleted(node: usize, removal: Removal) -> Kind {
    Kind::NodeDeleted(node, removal)
}

fn renumbered(node: usize, none_left: bool) -> Kind {
    Kind::Renumbered { node, none_left }
}

/// Nodes come and go by the API, and their addresses and links change.
#[test_case(3, 6, &[fault(9.0, 12.0, deleted(0, Removal::MachineStays))]; "a node is deleted and runs on")]
#[test_case(3, 6, &[fault(9.0, 12.0, deleted(0, Removal::SpeakerStops))]; "a speaker is taken away then its node deleted")]
#[test_case(3, 6, &[fault(9.0, 12.0, deleted(0, Removal::MachineReplaced))]; "another machine bears the name")]
#[test_case(3, 6, &[fault(9.0, 12.0, deleted(0, Removal::SpeakerStops)), fault(9.5, 0.5, Kind::Speaker(1, Stop::Deleted)), fault(10.5, 0.5, Kind::Speaker(2, Stop::Deleted))]; "a silent node is deleted of which all know from others")]
#[test_case(2, 6, &[fault(9.0, 12.0, deleted(0, Removal::MachineReplaced)), fault(30.0, 3.0, power_off(1))]; "the name of one of two is reused")]
#[test_case(3, 6, &[fault(9.0, 10.0, renumbered(0, false)), fault(11.0, 2.0, Kind::Speaker(0, Stop::Killed))]; "a node is renumbered and its speaker killed")]
#[test_case(3, 6, &[fault(9.0, 10.0, renumbered(0, true)), fault(11.0, 2.0, Kind::Speaker(1, Stop::Killed))]; "a node is without a prefix for a while")]
#[test_case(3, 50, &[fault(0.0, 60.0, Kind::Mtu(0, 576)), fault(0.0, 60.0, Kind::Mtu(1, 576)), fault(0.0, 60.0, Kind::Mtu(2, 576)), fault(9.0, 1.0, Kind::Speaker(1, Stop::Deleted)), fault(20.0, 5.0, power_off(0))]; "all links are short")]
#[test_case(3, 50, &[fault(0.0, 60.0, Kind::Mtu(0, 9000)), fault(9.0, 1.0, Kind::Speaker(1, Stop::Deleted)), fault(20.0, 5.0, power_off(0))]; "one has jumbo frames")]
#[test_case(3, 6, &[fault(9.0, 20.0, Kind::KernelTakes(0, 1)), fault(9.0, 20.0, Kind::KernelTakes(1, 2)), fault(12.0, 1.0, Kind::Speaker(0, Stop::Killed))]; "kernels of other nodes take what is owned")]
#[test_case(3, 6, &[fault(0.0, 60.0, Kind::EtherTypeDropped(None)), fault(20.0, 15.0, Kind::NotReady(0))]; "not ready while no node hears a Hello")]
fn of_members(nodes: usize, addresses: usize, faults: &[Fault]) {
    holds(nodes, addresses, faults);
}

/// The API servers' clocks differ, and virtual machines go on from snapshots.
#[test_case(3, 3, &[fault(9.0, 3.0, Kind::RecreateOlder(0))]; "a younger object with an older birth")]
#[test_case(3, 3, &[fault(9.0, 3.0, Kind::RecreateOlder(0)), fault(10.0, 10.0, Kind::ApiLost(0)), fault(25.0, 3.0, power_off(0))]; "an older birth while one is cut off from news")]
#[test_case(3, 6, &[fault(9.0, 20.0, Kind::Reverted(0))]; "a reverted machine")]
#[test_case(3, 6, &[fault(9.0, 20.0, Kind::Reverted(0)), fault(12.0, 3.0, power_off(0))]; "a machine reverted to before it lost what it owned")]
#[test_case(3, 6, &[fault(9.0, 20.0, Kind::Reverted(0)), fault(12.0, 3.0, Kind::Recreate(0)), fault(12.0, 3.0, Kind::Recreate(1))]; "a machine reverted to objects that are gone")]
#[test_case(5, 2, &[fault(9.2, 5.2, Kind::Reverted(3)), fault(10.43, 0.085, cable(3, 30)), fault(13.15, 1.97, Kind::NotReady(1))]; "a machine reverted while its port is silent")]
#[test_case(6, 1, &[fault(13.115, 18.278, Kind::Partition(vec![3, 5])), fault(24.713, 13.929, Kind::Reverted(5)), fault(25.321, 0.0, upgrade())]; "a machine reverted to before all other speakers were replaced")]
#[test_case(2, 1, &[fault(0.0, 19.816, Kind::Stranger(0)), fault(15.318, 56.0, Kind::ApiLost(0)), fault(18.264, 0.052, Kind::Recreate(0))]; "a first claim for an object that is gone")]
#[test_case(2, 12, &[fault(20.0, 40.0, Kind::ApiLost(0)), fault(34.8, 3.5, Kind::RecreateOlder(11)), fault(35.1, 0.0, upgrade())]; "an older birth while the speakers restart")]
fn of_time(nodes: usize, addresses: usize, faults: &[Fault]) {
    holds(nodes, addresses, faults);
}

/// Two nodes, one on a link that is shorter than the other knows, so that the other's claims do not come through. The
/// node on the short link is the only candidate for an address, and loses power.
#[test]
fn claims_of_a_node_that_is_not_a_candidate_are_not_awaited() {
    let faults = [
        fault(0.0, 61.035, Kind::Mtu(1, 576)),
        fault(37.631, 0.224, Kind::PowerOff { node: 1, boot: Duration::from_millis(2839) }),
    ];
    for seed in [13434, 1, 2] {
        all_holds(&History { local_share: 0.3, ..History::quiet(seed, 2, 16) }.with_faults(faults.to_vec()));
    }
}

/// Node 1 is not heard, and takes an address of node 0, whose cable is pulled for a moment. The third node does not
/// hear node 1 either.
#[test]
fn link_comes_back_where_only_the_successor_is_not_heard() {
    let faults = [
        fault(0.0, 16.964, Kind::EtherTypeDropped(Some(1))),
        fault(10.997, 0.752, Kind::Cable { node: 0, silent: Duration::ZERO }),
    ];
    holds(3, 7, &faults);
}

/// A machine goes on from a snapshot in which it was about to claim an address, announces the address, and learns that
/// it was reverted.
#[test]
fn reverted_machine_announces_the_address_that_it_was_about_to_claim() {
    let faults = [
        fault(8.758, 7.475, Kind::Stranger(0)),
        fault(11.008, 9.5, Kind::ApiLost(11)),
        fault(12.939, 0.088, Kind::Recreate(0)),
        fault(20.693, 9.899, Kind::Reverted(10)),
    ];
    for seed in [12117, 1, 2, 3] {
        all_holds(&History::quiet(seed, 12, 1).with_faults(faults.to_vec()));
    }
}

/// An owner that the API no longer lists comes back, and claims its former addresses.
#[test]
fn owner_whose_node_is_deleted_restarts_after_the_protocol_was_dropped() {
    let faults = [
        fault(21.013, 7.472, Kind::Recreate(2)),
        fault(27.363, 4.31, Kind::EtherTypeDropped(None)),
        fault(28.639, 13.107, Kind::NodeDeleted(4, Removal::MachineStays)),
        fault(29.592, 11.517, Kind::Speaker(4, RESTART)),
    ];
    holds(7, 3, &faults);
}

/// No node hears a Hello. A node hands an address over that the API takes for another's, so no node claims it; it takes
/// the address back, and keeps it for the hold-down.
#[test]
fn address_handed_over_in_a_partition_is_taken_back() {
    let faults = [
        fault(0.0, 60.0, Kind::EtherTypeDropped(None)),
        fault(21.945, 4.997, Kind::Partition(vec![1, 3])),
        fault(22.961, 20.0, Kind::Excluded(3)),
    ];
    holds(4, 2, &faults);
}

/// No node hears a Hello, and owners cease to be candidates.
#[test_case(&[fault(20.0, 40.0, Kind::Excluded(0))]; "one")]
#[test_case(&[fault(20.0, 40.0, Kind::Excluded(0)), fault(22.0, 40.0, Kind::Excluded(1))]; "two")]
#[test_case(&[fault(20.0, 40.0, Kind::Excluded(0)), fault(21.0, 30.0, Kind::ApiLost(1))]; "the next one has no news")]
fn unheard_and_no_candidate(faults: &[Fault]) {
    for from in [0.0, 9.0] {
        let mut all = vec![fault(from, 80.0, Kind::EtherTypeDropped(None))];
        all.extend_from_slice(faults);
        holds(3, 6, &all);
    }
}

/// No node hears a Hello for a minute, and a node that owned addresses, or the name of one, is away for a while.
/// Afterwards no Hello reports what was taken over. (The first half of the minute is not judged: there, flows are led
/// elsewhere because of the fault itself.)
#[test_case(&[fault(33.2, 6.0, cable(1, 0))]; "a link is away")]
#[test_case(&[fault(11.0, 0.1, cable(1, 30))]; "a link is away, and its port silent for long")]
#[test_case(&[fault(11.0, 0.1, deleted(2, Removal::MachineReplaced)), fault(12.0, 21.0, Kind::NotReady(0)), fault(19.0, 29.0, Kind::NotReady(1))]; "another machine bears a name, and others become unfit")]
#[test_case(&[fault(31.6, 1.3, deleted(2, Removal::MachineReplaced)), fault(36.0, 12.0, Kind::NotReady(0))]; "another machine bears a name late")]
fn unheard_and_away(faults: &[Fault]) {
    let mut all = vec![fault(8.0, 60.0, Kind::EtherTypeDropped(None))];
    all.extend_from_slice(faults);
    holds(3, 6, &all);
}

/// A forger replays Hellos of a dead node's former runs. The other nodes have heard those runs, or have restarted and
/// have not.
#[test_case(&[]; "heard")]
#[test_case(&[fault(11.05, 0.6, Kind::Speaker(1, Stop::Deleted)), fault(11.05, 0.6, Kind::Speaker(2, Stop::Deleted))]; "never heard")]
fn former_runs_of_a_dead_node(restarts: &[Fault]) {
    let restart = |at| fault(at, 0.5, Kind::Speaker(0, Stop::Deleted));
    let replayed = fault(11.0, 30.0, Kind::Forged(Forgery::FormerRuns));
    let mut all = vec![restart(3.0), restart(5.0), restart(7.0), for_ever(11.0, power_off(0)), replayed];
    all.extend_from_slice(restarts);
    holds(3, 6, &all);
}

/// Two of three nodes are cut off from the third. Meanwhile the machine of one of the two is replaced: another machine
/// has its name, with another MAC, and comes to own the addresses of the third. When the segment is whole again, the
/// third hears the announcement of an address from the new MAC before it hears a Hello of the new run both ways.
#[test]
fn replaced_machine_is_heard_by_arp_first() {
    let faults =
        [fault(24.015, 4.626, Kind::Partition(vec![1, 2])), fault(26.126, 0.874, deleted(2, Removal::MachineReplaced))];
    for seed in 0..100 {
        all_holds(&History::quiet(seed, 3, 3).with_faults(faults.to_vec()));
    }
}

/// A switch answers probes in the name of a dead node. It does not answer pings, so the node is succeeded within two
/// seconds (docs/protocol/failure.md#duration) if its kernel used to answer them. If a firewall drops them, the node is
/// not succeeded.
#[test_case(0 => true; "nodes answer pings")]
#[test_case(3 => false; "firewalls drop pings")]
fn node_that_dies_behind_suppression_is_succeeded(firewalls: usize) -> bool {
    let taken = |seed| {
        let faults = vec![for_ever(9.0, Kind::Suppression), for_ever(10.0, power_off(0))];
        let mut history = History { firewalls, ..History::quiet(seed, 3, 12) }.with_faults(faults);
        history.end = Duration::from_secs(12);
        let outcome = world::run(&history, Detail::Events);
        assert!(outcome.violation.is_none(), "{history}{:?}", outcome.violation);
        // Chance decides which node claims first.
        let owned = outcome.trace.iter().any(|line| line.contains("node 0: owns"));
        owned.then(|| !outcome.takeover.is_empty())
    };
    let taken: Vec<_> = (0..20).filter_map(taken).collect();
    assert!(taken.iter().all(|other| *other == taken[0]), "{taken:?}");
    taken[0]
}

/// The network drops the protocol, and for a while the kernel of node 2 has an address that node 0 owns, and announces
/// it. The owner yields. When the kernel lets the address go, its speaker, which cannot overhear its own kernel,
/// presumes node 0 to own it, and all others presume node 2, until VirtualIP.status says that the owner has yielded.
#[test]
fn kernel_takes_an_address_and_lets_it_go_unheard() {
    for seed in 0..20 {
        let mut faults = vec![fault(8.0, 60.0, Kind::EtherTypeDropped(None))];
        faults.extend((0..6).map(|address| fault(12.0, 0.8, Kind::KernelTakes(address, 2))));
        all_holds(&History::quiet(seed, 5, 6).with_faults(faults));
    }
}

fn second_cable(node: usize, silent_s: u64) -> Kind {
    Kind::SecondCable { node, silent: Duration::from_secs(silent_s) }
}

fn loose_plug(node: usize, period_ms: u64) -> Kind {
    Kind::SecondFlapping { node, period: Duration::from_millis(period_ms) }
}

/// Nodes have a second interface on the wire: one of the two takes part.
#[test_case(3, &[]; "nothing happens")]
#[test_case(3, &[fault(0.0, 15.0, second_cable(0, 0)), fault(0.0, 20.0, second_cable(1, 30))]; "second cables are plugged in later")]
#[test_case(1, &[fault(12.0, 20.0, second_cable(0, 30))]; "a second cable is pulled, its port is silent when it is back")]
#[test_case(2, &[fault(10.0, 20.0, loose_plug(0, 150)), fault(10.0, 20.0, loose_plug(1, 2500))]; "loose plugs")]
#[test_case(2, &[fault(10.0, 15.0, cable(0, 0)), fault(35.0, 0.1, cable(0, 0))]; "the cable in use is pulled, and flaps later")]
#[test_case(2, &[fault(10.0, 4.0, cable(0, 30)), fault(60.0, 4.0, second_cable(0, 0))]; "the cable in use is pulled, comes back to a silent port, and the second follows")]
#[test_case(2, &[fault(10.0, 20.0, Kind::SecondUnheard(0)), fault(15.0, 1.0, Kind::Speaker(1, Stop::Killed))]; "the protocol is dropped at the second port")]
#[test_case(2, &[fault(10.0, 20.0, Kind::EtherTypeDropped(Some(0)))]; "the protocol is dropped at the port in use")]
#[test_case(3, &[fault(10.0, 20.0, Kind::EtherTypeDropped(None))]; "the protocol is dropped everywhere")]
#[test_case(3, &[fault(10.0, 20.0, Kind::SwitchesParted(vec![2]))]; "two switches are parted and joined")]
#[test_case(2, &[fault(10.0, 20.0, Kind::Partition(vec![0]))]; "a node is cut off with both")]
#[test_case(2, &[fault(10.0, 20.0, Kind::Mute(0)), fault(50.0, 20.0, Kind::Deaf(1))]; "the port in use passes nothing in one direction")]
#[test_case(2, &[fault(10.0, 1.0, Kind::Speaker(0, Stop::Killed)), fault(15.0, 1.0, Kind::Speaker(0, RESTART)), fault(20.0, 5.0, power_off(1))]; "speakers and nodes restart")]
#[test_case(3, &[fault(10.0, 0.0, upgrade())]; "a rolling upgrade with two interfaces each")]
fn of_two_interfaces(second_interfaces: usize, faults: &[Fault]) {
    for seed in 0..5 {
        let history = History { second_interfaces, ..History::quiet(seed, 3, 6) };
        all_holds(&history.with_faults(faults.to_vec()));
    }
}

/// Plugging second cables in and out, one after another, changes no owner and no link-layer address.
#[test]
fn second_cables_move_nothing() {
    let faults: Vec<Fault> = (0..3)
        .map(|node| fault(10.0 + 4.0 * f64::from(node), 5.0, second_cable(node as usize, 3)))
        .chain((0..3).map(|node| fault(0.0, 9.0, second_cable(node, 0))))
        .collect();
    for seed in 0..10 {
        let history = History { second_interfaces: 3, ..History::quiet(seed, 3, 6) }.with_faults(faults.clone());
        let outcome = world::run(&history, Detail::Events);
        assert!(outcome.violation.is_none(), "{history}{:?}", outcome.violation);
        let claims: Vec<_> = outcome.trace.iter().filter(|line| line.contains(": owns address")).collect();
        assert_eq!(claims.len(), 6, "each address is claimed once: {claims:#?}");
    }
}
