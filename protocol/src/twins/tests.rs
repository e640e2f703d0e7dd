//! Tables of what interfaces do.

use std::net::Ipv4Addr;

use test_case::test_case;

use super::*;

const INTERVAL: Duration = Duration::from_millis(100);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn interface(index: u32, name: &str) -> Interface<'_> {
    Interface {
        index,
        name,
        able: true,
        default_route: false,
        macvlan_on: None,
        has_claims: false,
        hears: true,
        heard: Duration::ZERO,
        runs: &NO_RUNS,
        in_use: false,
        subnets: &SUBNETS[index as usize..][..1],
    }
}

/// Each interface is in one of its own.
const SUBNETS: [(IpAddr, u8); 40] = {
    let mut subnets = [(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 24); 40];
    let mut index = 0;
    while index < 40 {
        subnets[index].0 = IpAddr::V4(Ipv4Addr::new(192, 168, index as u8, 0));
        index += 1;
    }
    subnets
};

static NO_RUNS: BTreeSet<Incarnation> = BTreeSet::new();

const PEERS: Others = Others { heard: true, listed: true };

/// A macvlan on the link with the index 2 of a network namespace.
fn macvlan(index: u32, name: &str, namespace: Option<i32>) -> Interface<'_> {
    Interface { macvlan_on: Some(Parent { index: 2, namespace }), ..interface(index, name) }
}

fn down(interface: Interface<'_>) -> Interface<'_> {
    Interface { able: false, ..interface }
}

/// eth1 yields to eth0.
fn twinned() -> Twins {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    twins.heard(ms(100), 2, 3);
    assert_eq!(decide(&mut twins, 100, &both(), ""), [Role::Speaks, Role::Yields(2)]);
    twins
}

/// The roles of interfaces 2 (eth0) and 3 (eth1).
fn decide(twins: &mut Twins, at: u64, interfaces: &[Interface<'_>], named: &str) -> [Role; 2] {
    twins.decide(ms(at), INTERVAL, interfaces, PEERS, |name| name == named);
    [twins.role(2), twins.role(3)]
}

fn both() -> [Interface<'static>; 2] {
    [interface(2, "eth0"), interface(3, "eth1")]
}

#[test]
fn interface_that_is_alone_speaks_at_once() {
    let mut twins = Twins::default();
    assert_eq!(decide(&mut twins, 0, &both()[..1], "")[0], Role::Speaks);
    assert_eq!(twins.poll_timeout(), None);
}

#[test]
fn interface_that_comes_is_tried_and_then_speaks() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both()[..1], "");
    assert_eq!(decide(&mut twins, 1000, &both(), ""), [Role::Speaks, Role::Tried]);
    assert_eq!(twins.poll_timeout(), Some(ms(1300)));
    assert_eq!(decide(&mut twins, 1299, &both(), ""), [Role::Speaks, Role::Tried]);
    assert_eq!(decide(&mut twins, 1300, &both(), ""), [Role::Speaks, Role::Speaks]);
    assert_eq!(twins.poll_timeout(), None);
}

#[test_case("eth0", "eth1"; "by name")]
#[test_case("eth9", "eth1"; "the one in use stays, whatever the other is called")]
fn interface_on_the_same_segment_yields_to_the_one_in_use(first: &str, second: &str) {
    let mut twins = Twins::default();
    let interfaces = [interface(2, first), interface(3, second)];
    decide(&mut twins, 0, &interfaces[..1], "");
    decide(&mut twins, 1000, &interfaces, "");
    assert!(twins.heard(ms(1100), 3, 2), "that is new");
    assert!(!twins.heard(ms(1200), 2, 3), "that is known");
    assert_eq!(decide(&mut twins, 1200, &interfaces, ""), [Role::Speaks, Role::Yields(2)]);
    assert_eq!(twins.yielding().collect::<Vec<_>>(), [(3, 2)]);
}

#[test_case(false, "", [Role::Speaks, Role::Yields(2)]; "by name")]
#[test_case(true, "", [Role::Yields(3), Role::Speaks]; "by the default route")]
#[test_case(true, "eth0", [Role::Speaks, Role::Yields(2)]; "an advertisement wins")]
fn of_two_that_start_together_the_same_one_speaks_each_time(default_route: bool, named: &str, expected: [Role; 2]) {
    let mut twins = Twins::default();
    let interfaces = [interface(2, "eth0"), Interface { default_route, ..interface(3, "eth1") }];
    let first = decide(&mut twins, 0, &interfaces, named);
    assert_eq!(first.iter().filter(|role| **role == Role::Speaks).count(), 1, "{first:?}");
    twins.heard(ms(100), 2, 3);
    assert_eq!(decide(&mut twins, 100, &interfaces, named), expected);
}

#[test]
fn advertisement_that_names_the_other_moves_the_node_there() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both()[..1], "");
    decide(&mut twins, 0, &both(), "");
    twins.heard(ms(100), 2, 3);
    assert_eq!(decide(&mut twins, 100, &both(), ""), [Role::Speaks, Role::Yields(2)]);
    assert_eq!(decide(&mut twins, 200, &both(), "eth1"), [Role::Yields(3), Role::Speaks]);
    twins.heard(ms(300), 2, 3);
    assert_eq!(decide(&mut twins, 300, &both(), ""), [Role::Yields(3), Role::Speaks], "nothing moves back");
}

/// Its cable is pulled: the other is tried, while peers take over.
#[test]
fn interface_that_fails_is_followed_by_the_other() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    twins.heard(ms(100), 2, 3);
    decide(&mut twins, 100, &both(), "");
    let failed = [Interface { able: false, ..interface(2, "eth0") }, interface(3, "eth1")];
    assert_eq!(decide(&mut twins, 500, &failed, "")[1], Role::Tried);
    assert_eq!(twins.poll_timeout(), Some(ms(1500)));
    assert_eq!(decide(&mut twins, 1499, &failed, "")[1], Role::Tried);
    assert_eq!(decide(&mut twins, 1500, &failed, "")[1], Role::Speaks);
    // It is plugged in again: the other goes on.
    assert_eq!(decide(&mut twins, 2000, &both(), ""), [Role::Tried, Role::Speaks]);
    twins.heard(ms(2100), 2, 3);
    assert_eq!(decide(&mut twins, 2100, &both(), ""), [Role::Yields(3), Role::Speaks]);
}

#[test]
fn interface_that_does_not_hear_the_other_any_more_speaks_again() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    twins.heard(ms(100), 2, 3);
    decide(&mut twins, 100, &both(), "");
    assert_eq!(twins.poll_timeout(), Some(ms(1100)), "whether it still hears the other is looked at");
    assert_eq!(decide(&mut twins, 1100, &both(), ""), [Role::Speaks, Role::Yields(2)]);
    assert_eq!(twins.poll_timeout(), Some(ms(2100)));
    assert_eq!(decide(&mut twins, 2100, &both(), ""), [Role::Speaks, Role::Tried]);
    assert_eq!(decide(&mut twins, 2400, &both(), ""), [Role::Speaks, Role::Speaks]);
}

#[test]
fn macvlan_yields_to_its_parent_at_once_and_for_good() {
    let mut twins = Twins::default();
    let interfaces = [interface(2, "eth0"), macvlan(3, "a-shim", None)];
    decide(&mut twins, 0, &interfaces[..1], "");
    for at in [1000, 10_000] {
        assert_eq!(decide(&mut twins, at, &interfaces, ""), [Role::Speaks, Role::Yields(2)]);
        assert_eq!(twins.poll_timeout(), None);
    }
}

/// Two networks: the node keeps what it claims on the one whose cable is pulled for a moment.
#[test]
fn interface_on_another_segment_speaks_again_at_once() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    let failed = [interface(2, "eth0"), Interface { able: false, ..interface(3, "eth1") }];
    assert_eq!(decide(&mut twins, 1000, &failed, ""), [Role::Speaks, Role::Speaks]);
    assert_eq!(decide(&mut twins, 1100, &both(), ""), [Role::Speaks, Role::Speaks]);
}

#[test]
fn three_on_one_segment_yield_to_one() {
    let mut twins = Twins::default();
    let interfaces = [interface(2, "eth0"), interface(3, "eth1"), interface(4, "eth2")];
    decide(&mut twins, 0, &interfaces, "");
    twins.heard(ms(100), 2, 3);
    twins.heard(ms(100), 3, 4);
    twins.decide(ms(100), INTERVAL, &interfaces, PEERS, |_| false);
    assert_eq!([2, 3, 4].map(|index| twins.role(index)), [Role::Speaks, Role::Yields(2), Role::Yields(2)]);
}

/// The parent has no address, so it is no segment. In the mode `private` neither macvlan hears the other.
#[test]
fn of_two_macvlans_on_one_parent_one_yields() {
    let mut twins = Twins::default();
    let interfaces = [macvlan(3, "shim0", Some(0)), macvlan(4, "shim1", Some(0))];
    twins.decide(ms(0), INTERVAL, &interfaces, PEERS, |_| false);
    assert_eq!([3, 4].map(|index| twins.role(index)), [Role::Speaks, Role::Yields(3)]);
}

/// A node in a container: its eth1 is a macvlan on the second link of the host, which is none of its own.
#[test]
fn macvlan_on_a_link_of_another_network_namespace_is_on_none_of_this_one() {
    let mut twins = Twins::default();
    let interfaces = [macvlan(2, "eth0", Some(0)), macvlan(3, "eth1", Some(1))];
    decide(&mut twins, 0, &interfaces, "");
    assert_eq!(decide(&mut twins, 300, &interfaces, ""), [Role::Speaks, Role::Speaks]);
}

/// What it claims it keeps, and nobody else is given a turn.
#[test_case(1000, 100; "the other's wait has begun")]
#[test_case(1000, 990; "the other's wait is almost over")]
fn interface_that_comes_back_before_the_other_follows_goes_on(failed: u64, lasted: u64) {
    let mut twins = twinned();
    twins.heard(ms(failed), 2, 3);
    let without = [down(interface(2, "eth0")), Interface { default_route: true, ..interface(3, "eth1") }];
    let with = [interface(2, "eth0"), without[1].clone()];
    assert_eq!(decide(&mut twins, failed, &without, ""), [Role::Speaks, Role::Tried]);
    assert_eq!(decide(&mut twins, failed + lasted, &with, ""), [Role::Speaks, Role::Tried]);
    assert_eq!(decide(&mut twins, failed + lasted + 299, &with, ""), [Role::Speaks, Role::Tried]);
    twins.heard(ms(failed + lasted + 299), 2, 3);
    assert_eq!(decide(&mut twins, failed + lasted + 300, &with, ""), [Role::Speaks, Role::Yields(2)]);
}

#[test]
fn interface_of_a_node_that_is_alone_follows_soon() {
    let mut twins = twinned();
    let failed = [down(interface(2, "eth0")), interface(3, "eth1")];
    twins.decide(ms(500), INTERVAL, &failed, Others { heard: false, ..PEERS }, |_| false);
    assert_eq!(twins.poll_timeout(), Some(ms(800)));
    assert_eq!(decide(&mut twins, 800, &failed, ""), [Role::Tried, Role::Speaks]);
}

/// Two that yielded do not hear each other, since neither speaks.
#[test]
fn one_of_several_follows() {
    let mut twins = Twins::default();
    let all = [interface(2, "eth0"), interface(3, "eth1"), interface(4, "eth2")];
    let roles = |twins: &mut Twins, at: u64, interfaces: &[Interface<'_>]| {
        twins.decide(ms(at), INTERVAL, interfaces, PEERS, |_| false);
        [2, 3, 4].map(|index| twins.role(index))
    };
    roles(&mut twins, 0, &all);
    twins.heard(ms(100), 2, 3);
    twins.heard(ms(100), 2, 4);
    assert_eq!(roles(&mut twins, 100, &all), [Role::Speaks, Role::Yields(2), Role::Yields(2)]);
    let failed = [down(interface(2, "eth0")), interface(3, "eth1"), interface(4, "eth2")];
    assert_eq!(roles(&mut twins, 500, &failed), [Role::Speaks, Role::Tried, Role::Tried]);
    assert_eq!(roles(&mut twins, 1500, &failed), [Role::Tried, Role::Speaks, Role::Tried]);
    assert_eq!(roles(&mut twins, 1799, &failed), [Role::Tried, Role::Speaks, Role::Tried]);
    twins.heard(ms(1799), 3, 4);
    assert_eq!(roles(&mut twins, 1800, &failed), [Role::Tried, Role::Speaks, Role::Yields(3)]);
}

/// A switch restarts: both lose their carrier, and get it back one after the other.
#[test_case(true, [Role::Speaks, Role::Yields(2)]; "the one in use comes back")]
#[test_case(false, [Role::Tried, Role::Speaks]; "it does not")]
fn interface_in_use_is_waited_for_when_both_have_failed(comes_back: bool, expected: [Role; 2]) {
    let mut twins = twinned();
    let [first, second] = both();
    assert_eq!(decide(&mut twins, 500, &[down(first.clone()), down(second.clone())], ""), [Role::Speaks, Role::Tried]);
    assert!(!twins.is_deciding(ms(500)), "nothing is decided while neither has a carrier");
    assert_eq!(twins.poll_timeout(), None);
    assert_eq!(decide(&mut twins, 60_000, &[down(first.clone()), second.clone()], ""), [Role::Speaks, Role::Tried]);
    let interfaces = [if comes_back { first } else { down(first) }, second];
    decide(&mut twins, 60_100, &interfaces, "");
    if comes_back {
        twins.heard(ms(60_200), 2, 3);
    }
    assert_eq!(decide(&mut twins, 61_000, &interfaces, ""), expected);
}

/// What the speaker did before it was restarted it does afterwards.
#[test]
fn interface_on_which_an_earlier_run_left_claims_speaks() {
    let mut twins = Twins::default();
    let interfaces = [interface(2, "eth0"), Interface { has_claims: true, ..interface(3, "eth1") }];
    assert_eq!(decide(&mut twins, 0, &interfaces, ""), [Role::Tried, Role::Speaks]);
    twins.heard(ms(100), 3, 2);
    assert_eq!(decide(&mut twins, 100, &interfaces, ""), [Role::Yields(3), Role::Speaks]);
}

/// What was left on an interface that is plugged in again says nothing.
#[test]
fn interface_that_comes_is_tried_whatever_was_claimed_there() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both()[..1], "");
    let interfaces = [interface(2, "eth0"), Interface { has_claims: true, ..interface(3, "eth1") }];
    assert_eq!(decide(&mut twins, 1000, &interfaces, ""), [Role::Speaks, Role::Tried]);
}

/// Its switch port passes nothing any more, and the link stays up.
#[test]
fn interface_that_hears_nobody_is_followed_by_one_that_does() {
    let mut twins = twinned();
    // The first hears nobody since the given time.
    let at = |first: Option<u64>, second: u64| {
        let [eth0, eth1] = both();
        let eth0 = Interface { hears: first.is_none(), heard: ms(first.unwrap_or(second)), ..eth0 };
        [eth0, Interface { heard: ms(second), ..eth1 }]
    };
    twins.heard(ms(2000), 2, 3);
    assert_eq!(decide(&mut twins, 3000, &at(Some(2000), 3000), ""), [Role::Speaks, Role::Yields(2)]);
    assert_eq!(decide(&mut twins, 3100, &at(Some(2000), 3001), ""), [Role::Speaks, Role::Tried]);
    assert_eq!(decide(&mut twins, 3400, &at(Some(2000), 3400), ""), [Role::Tried, Role::Speaks]);
    // The wires may have been parted: it says that it is there, and nothing lies there.
    assert_eq!(decide(&mut twins, 3500, &at(Some(2000), 3500), ""), [Role::Tried, Role::Speaks]);
    assert_eq!(decide(&mut twins, 3800, &at(Some(2000), 3800), ""), [Role::Speaks, Role::Speaks]);
    assert_eq!([2, 3].map(|index| twins.is_deaf(index)), [true, false]);
    decide(&mut twins, 59_000, &at(Some(2000), 59_000), "");
    // It hears again, first of all the other.
    twins.heard(ms(60_000), 3, 2);
    assert_eq!(decide(&mut twins, 60_000, &at(None, 60_000), ""), [Role::Yields(3), Role::Speaks]);
    assert!(!twins.is_deaf(2));
}

/// Two networks of which one is quiet.
#[test]
fn interface_on_a_quiet_segment_of_its_own_is_not_deaf() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    let quiet = Interface { hears: false, ..interface(2, "eth0") };
    assert_eq!(decide(&mut twins, 60_000, &[quiet, interface(3, "eth1")], ""), [Role::Speaks, Role::Speaks]);
    assert!(!twins.is_deaf(2));
}

/// What eth0 sends is lost, so eth1 does not hear it; eth0 hears eth1. Each time that eth1 yields and hears nothing it would
/// speak again, for ever.
#[test]
fn interface_that_is_not_heard_yields_to_the_one_that_is() {
    let mut twins = Twins::default();
    let heard = |at: u64| both().map(|interface| Interface { heard: ms(at), ..interface });
    decide(&mut twins, 0, &heard(0), "");
    assert_eq!(decide(&mut twins, 300, &heard(300), ""), [Role::Speaks, Role::Speaks]);
    twins.heard(ms(400), 3, 2);
    assert_eq!(decide(&mut twins, 400, &heard(400), ""), [Role::Speaks, Role::Yields(2)]);
    assert_eq!(twins.poll_timeout(), Some(ms(1400)));
    assert_eq!(decide(&mut twins, 1400, &heard(1400), ""), [Role::Yields(3), Role::Speaks]);
    for at in (1500..60_000).step_by(100) {
        twins.heard(ms(at), 3, 2);
        assert_eq!(decide(&mut twins, at, &heard(at), ""), [Role::Yields(3), Role::Speaks], "{at}");
    }
}

/// It hears nobody at all, so it is no proof that the other is mute.
#[test]
fn interface_that_is_deaf_itself_goes_on_yielding() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    twins.heard(ms(400), 3, 2);
    for at in (400..2400).step_by(100) {
        assert_eq!(decide(&mut twins, at, &both(), ""), [Role::Speaks, Role::Yields(2)], "{at}");
    }
}

/// It hears the other once in a while, and would speak in between.
#[test]
fn interface_that_hears_the_other_seldom_is_tried_for_longer_each_time() {
    let mut twins = twinned();
    let mut spoke = vec![];
    for at in (200..600_000).step_by(100) {
        let before = twins.role(3);
        if decide(&mut twins, at, &both(), "")[1] == Role::Speaks && before != Role::Speaks {
            spoke.push(at);
            twins.heard(ms(at), 3, 2);
        }
        if at % 3000 == 0 {
            twins.heard(ms(at), 2, 3);
        }
    }
    // Without the pauses it would be 200 times.
    assert!(spoke.len() < 40, "{spoke:?}");
}

/// Two wires are joined: the one that has spoken for long goes on beside one that has just come back to the wire.
#[test]
fn interface_that_has_just_come_back_yields() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    let failed = [down(interface(2, "eth0")), interface(3, "eth1")];
    assert_eq!(decide(&mut twins, 5000, &failed, ""), [Role::Speaks, Role::Speaks]);
    assert_eq!(decide(&mut twins, 9000, &both(), ""), [Role::Speaks, Role::Speaks]);
    twins.heard(ms(9100), 3, 2);
    assert_eq!(decide(&mut twins, 9100, &both(), ""), [Role::Yields(3), Role::Speaks]);
}

/// Two interfaces flap in turn, so that one or the other is on trial all the time.
#[test]
fn report_waits_for_interfaces_that_flap_no_longer_than_five_seconds() {
    let mut twins = Twins::default();
    let flapping = |at: u64| {
        let [eth1, eth2] = [interface(3, "eth1"), interface(4, "eth2")];
        let is_first_down = (at / 200).is_multiple_of(2);
        [
            interface(2, "eth0"),
            if is_first_down { down(eth1) } else { eth1 },
            if is_first_down { eth2 } else { down(eth2) },
        ]
    };
    let mut longest = (0, 0);
    for at in (0..60_000).step_by(100) {
        twins.decide(ms(at), INTERVAL, &flapping(at), PEERS, |_| false);
        longest =
            if twins.is_deciding(ms(at)) { (longest.0 + 100, longest.1.max(longest.0 + 100)) } else { (0, longest.1) };
        assert!(twins.poll_timeout().is_none_or(|due| due > ms(at)), "nothing is due at {at} any more");
    }
    assert!((1000..=5000).contains(&longest.1), "{} ms", longest.1);
}

#[test]
fn thirty_on_one_segment_yield_to_one() {
    let names: Vec<String> = (0..30).map(|n| format!("eth{n}")).collect();
    let interfaces: Vec<_> = (2..).zip(&names).map(|(index, name)| interface(index, name)).collect();
    let mut twins = Twins::default();
    twins.decide(ms(0), INTERVAL, &interfaces, PEERS, |_| false);
    assert!((3..32).all(|index| twins.heard(ms(100), 2, index)));
    twins.decide(ms(100), INTERVAL, &interfaces, PEERS, |_| false);
    assert_eq!(twins.yielding().count(), 29);
    assert!(twins.yielding().all(|(_, to)| to == 2));
}

/// An interface of [`any_history_ends_with_one_that_speaks_on_each_wire`].
#[derive(Clone, Copy, Debug)]
struct Nic {
    wire: usize,
    carrier: bool,
    mute: bool,
    deaf: bool,
    heard: u64,
}

/// Interfaces are plugged into other wires, lose their carrier, and one or another a direction, and get them back. When it has been quiet for long
/// enough, on each wire with an interface that works one speaks, and no other; and nothing changes all the time.
#[test]
fn any_history_ends_with_one_that_speaks_on_each_wire() {
    const NAMES: [&str; 4] = ["eth0", "eth1", "eth2", "eth3"];
    const TICK: u64 = 100;
    // The longest trial is 19 s.
    const QUIET: u64 = 100_000;
    for seed in 0..6 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut nics = [Nic { wire: 0, carrier: true, mute: false, deaf: false, heard: 0 }; 4];
        let mut twins = Twins::default();
        let mut at = 0;
        for change in 0..6 {
            for _ in 0..rng.usize(1..4) {
                let (which, what) = (rng.usize(..4), rng.u8(..5));
                if what > 2 {
                    nics.iter_mut().for_each(|nic| (nic.mute, nic.deaf) = (false, false));
                }
                let nic = &mut nics[which];
                match what {
                    0 | 1 => nic.wire = rng.usize(..3),
                    2 => nic.carrier = !nic.carrier,
                    3 => nic.mute = true,
                    _ => nic.deaf = true,
                }
            }
            let (until, mut changes) = (at + QUIET, vec![]);
            while at < until {
                at += TICK;
                let before = nics.iter_mut().zip(2..).filter(|(nic, _)| nic.carrier && !nic.deaf);
                before.for_each(|(nic, _)| nic.heard = at);
                for (sender, from) in nics.iter().zip(2..) {
                    let sends = sender.carrier && !sender.mute && twins.role(from) == Role::Speaks;
                    for (hearer, to) in nics.iter().zip(2..).filter(|(_, to)| sends && *to != from) {
                        if hearer.carrier && !hearer.deaf && hearer.wire == sender.wire {
                            twins.heard(ms(at), from, to);
                        }
                    }
                }
                let interfaces: Vec<_> = nics
                    .iter()
                    .zip(2..)
                    .map(|(nic, index)| Interface {
                        able: nic.carrier,
                        hears: nic.heard + 300 > at,
                        heard: ms(nic.heard),
                        ..interface(index, NAMES[usize::try_from(index).unwrap() - 2])
                    })
                    .collect();
                if twins.decide(ms(at), INTERVAL, &interfaces, PEERS, |_| false) {
                    changes.push(at);
                }
                // As the machine does: what was decided is asked for again.
                twins.decide(ms(at), INTERVAL, &interfaces, PEERS, |_| false);
                assert!(
                    twins.poll_timeout().is_none_or(|due| due > ms(at)),
                    "seed {seed}: nothing is due at {at} any more"
                );
            }
            for wire in 0..3 {
                let on = || nics.iter().zip(2..).filter(|(nic, _)| nic.carrier && nic.wire == wire);
                let works = |nic: &Nic| !nic.mute && !nic.deaf;
                let speaking = on().filter(|(nic, index)| works(nic) && twins.role(*index) == Role::Speaks).count();
                let expected = usize::from(on().any(|(nic, _)| works(nic)));
                assert_eq!(speaking, expected, "seed {seed}, change {change}, wire {wire}: {nics:?} {:?}", twins.roles);
            }
            let late = changes.iter().filter(|change| **change + QUIET / 2 > until).count();
            // One that is deaf or mute speaks and yields again every 20 s or so, and others may follow each time.
            let is_broken = nics.iter().any(|nic| nic.mute || nic.deaf);
            assert!(late <= if is_broken { 28 } else { 0 }, "seed {seed}, change {change}: {nics:?} {changes:?}");
        }
    }
}

/// Both are in the same subnets, and hear these runs of other nodes.
fn alike<'a>(runs: [&'a BTreeSet<Incarnation>; 2]) -> [Interface<'a>; 2] {
    let subnets = &SUBNETS[..1];
    let [first, second] = both();
    [Interface { subnets, runs: runs[0], ..first }, Interface { subnets, runs: runs[1], ..second }]
}

fn runs(all: &[u64]) -> BTreeSet<Incarnation> {
    all.iter().copied().map(Incarnation).collect()
}

/// A cable is plugged in, and neither interface hears the other. Nothing can lie on the new one that does not lie on the one in
/// use as well.
#[test_case(&[1], &[], true => Role::Tried; "its port forwards nothing, or drops the protocol")]
#[test_case(&[], &[1], true => Role::Tried; "the port of the one in use drops the protocol")]
#[test_case(&[1], &[2], true => Role::Tried; "it is on another wire")]
#[test_case(&[], &[], true => Role::Tried; "the network drops the protocol")]
#[test_case(&[], &[], false => Role::Speaks; "there is no other node")]
#[test_case(&[1, 2], &[2, 3], true => Role::Speaks; "on one wire: what the one in use sends gets lost")]
fn interface_that_brings_nothing_stands_by(first: &[u64], second: &[u64], listed: bool) -> Role {
    let (first, second) = (runs(first), runs(second));
    let interfaces = alike([&first, &second]);
    let mut twins = Twins::default();
    let others = Others { heard: listed, listed };
    twins.decide(ms(0), INTERVAL, &interfaces[..1], others, |_| false);
    for at in (1000..10_000).step_by(100) {
        twins.decide(ms(at), INTERVAL, &interfaces, others, |_| false);
        assert_eq!(twins.role(2), Role::Speaks);
    }
    assert_eq!(twins.standing_by().next(), (twins.role(3) == Role::Tried).then_some((3, 2)));
    assert!(!twins.is_deciding(ms(10_000)), "it stands by for good");
    twins.role(3)
}

#[test_case(true, Role::Speaks; "an advertisement names it")]
#[test_case(false, Role::Tried; "none does")]
fn interface_that_is_named_does_not_stand_by(is_named: bool, expected: Role) {
    let heard = runs(&[1]);
    let interfaces = alike([&heard, &NO_RUNS]);
    let mut twins = Twins::default();
    decide(&mut twins, 0, &interfaces[..1], "");
    let named = if is_named { "eth1" } else { "" };
    decide(&mut twins, 1000, &interfaces, named);
    assert_eq!(decide(&mut twins, 4000, &interfaces, named)[1], expected);
}

/// The protocol is dropped at the port of the one or of the other: it yields on, and nothing is said in the name of the node by
/// a second run.
#[test_case(&[1], &[]; "of the one that yields")]
#[test_case(&[], &[1]; "of the one in use")]
fn interface_that_yields_goes_on_when_the_protocol_is_dropped_at_a_port(first: &[u64], second: &[u64]) {
    let (first, second) = (runs(first), runs(second));
    let interfaces = alike([&first, &second]);
    let mut twins = twinned();
    for at in (200..60_000).step_by(100) {
        assert_eq!(decide(&mut twins, at, &interfaces, ""), [Role::Speaks, Role::Yields(2)], "{at}");
    }
    assert_eq!(twins.standing_by().next(), None, "it is on the segment of the other, as far as is known");
}

/// Other nodes come to the wire of the one of two that speak.
#[test_case(false => [Role::Speaks, Role::Tried]; "nothing lies on the other")]
#[test_case(true => [Role::Speaks, Role::Speaks]; "something lies on the other")]
fn interface_that_hears_nobody_ceases_to_speak(in_use: bool) -> [Role; 2] {
    let mut twins = Twins::default();
    let alone = Others { heard: false, listed: false };
    for at in [0, 1000, 5000] {
        twins.decide(ms(at), INTERVAL, &alike([&NO_RUNS, &NO_RUNS]), alone, |_| false);
    }
    assert_eq!([2, 3].map(|index| twins.role(index)), [Role::Speaks, Role::Speaks]);
    assert_eq!(twins.poll_timeout(), Some(ms(6000)), "it is looked at");
    let heard = runs(&[1]);
    let [first, second] = alike([&heard, &NO_RUNS]);
    let interfaces = [Interface { in_use: true, ..first }, Interface { in_use, ..second }];
    decide(&mut twins, 6000, &interfaces, "")
}

#[test_case(None => Some(2); "the first")]
#[test_case(Some(3) => Some(3); "the one in use")]
#[test_case(Some(9) => Some(2); "it is not there any more")]
fn of_equal_interfaces_the_one_in_use_is_chosen(now_on: Option<u32>) -> Option<u32> {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    twins.choose(&[2, 3], now_on)
}

#[test]
fn interface_on_which_nobody_is_heard_is_not_chosen() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    let [first, second] = both();
    decide(&mut twins, 400, &[first, Interface { hears: false, ..second }], "");
    assert_eq!(twins.choose(&[2, 3], Some(3)), Some(2));
}

/// Two that spoke hear each other: the one on which addresses lie goes on, whatever the other is called.
#[test]
fn of_two_that_spoke_the_one_in_use_goes_on() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    let [first, second] = both();
    let interfaces = [first, Interface { in_use: true, ..second }];
    decide(&mut twins, 9000, &interfaces, "");
    twins.heard(ms(9100), 2, 3);
    assert_eq!(decide(&mut twins, 9100, &interfaces, ""), [Role::Yields(3), Role::Speaks]);
}
