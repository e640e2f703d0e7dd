//! Tables of the roles of interfaces.

mod failure;
mod same_subnets;

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

/// The subnets by the index of an interface: each interface is in one of its own.
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

/// Returns a macvlan on the link with the index 2 of a network namespace.
fn macvlan(index: u32, name: &str, namespace: Option<i32>) -> Interface<'_> {
    Interface { macvlan_on: Some(Parent { index: 2, namespace }), ..interface(index, name) }
}

fn down(interface: Interface<'_>) -> Interface<'_> {
    Interface { able: false, ..interface }
}

/// Returns the state in which eth1 yields to eth0.
fn twinned() -> Twins {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    twins.heard(ms(100), 2, 3);
    assert_eq!(decide(&mut twins, 100, &both(), ""), [Role::Speaks, Role::Yields(2)]);
    twins
}

/// Decides, and returns the roles of the interfaces 2 (eth0) and 3 (eth1).
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
    assert!(twins.heard(ms(1100), 3, 2), "the pair is new");
    assert!(!twins.heard(ms(1200), 2, 3), "the pair is known");
    assert_eq!(decide(&mut twins, 1200, &interfaces, ""), [Role::Speaks, Role::Yields(2)]);
    assert_eq!(twins.yielding().collect::<Vec<_>>(), [(3, 2)]);
}

#[test_case(false, "", [Role::Speaks, Role::Yields(2)]; "by name")]
#[test_case(true, "", [Role::Yields(3), Role::Speaks]; "by the default route")]
#[test_case(true, "eth0", [Role::Speaks, Role::Yields(2)]; "an advertisement wins")]
fn same_one_of_two_that_start_together_speaks_each_time(default_route: bool, named: &str, expected: [Role; 2]) {
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

#[test]
fn two_of_three_interfaces_on_one_segment_yield_to_the_third() {
    let mut twins = Twins::default();
    let interfaces = [interface(2, "eth0"), interface(3, "eth1"), interface(4, "eth2")];
    decide(&mut twins, 0, &interfaces, "");
    twins.heard(ms(100), 2, 3);
    twins.heard(ms(100), 3, 4);
    twins.decide(ms(100), INTERVAL, &interfaces, PEERS, |_| false);
    assert_eq!([2, 3, 4].map(|index| twins.role(index)), [Role::Speaks, Role::Yields(2), Role::Yields(2)]);
}

/// The parent has no address, so it is not an interface of the speaker. In the mode `private` neither macvlan hears the
/// other.
#[test]
fn one_of_two_macvlans_on_one_parent_yields() {
    let mut twins = Twins::default();
    let interfaces = [macvlan(3, "shim0", Some(0)), macvlan(4, "shim1", Some(0))];
    twins.decide(ms(0), INTERVAL, &interfaces, PEERS, |_| false);
    assert_eq!([3, 4].map(|index| twins.role(index)), [Role::Speaks, Role::Yields(3)]);
}

/// A node runs in a container: its eth1 is a macvlan on the second link of the host, which is not one of the node's own
/// links.
#[test]
fn macvlan_on_a_link_of_another_network_namespace_does_not_yield() {
    let mut twins = Twins::default();
    let interfaces = [macvlan(2, "eth0", Some(0)), macvlan(3, "eth1", Some(1))];
    decide(&mut twins, 0, &interfaces, "");
    assert_eq!(decide(&mut twins, 300, &interfaces, ""), [Role::Speaks, Role::Speaks]);
}

/// A speaker goes on after a restart as before.
#[test]
fn interface_with_claims_of_an_earlier_incarnation_speaks() {
    let mut twins = Twins::default();
    let interfaces = [interface(2, "eth0"), Interface { has_claims: true, ..interface(3, "eth1") }];
    assert_eq!(decide(&mut twins, 0, &interfaces, ""), [Role::Tried, Role::Speaks]);
    twins.heard(ms(100), 3, 2);
    assert_eq!(decide(&mut twins, 100, &interfaces, ""), [Role::Yields(3), Role::Speaks]);
}

/// Claims that were left on an interface do not count when the interface is plugged in again.
#[test]
fn interface_that_comes_is_tried_despite_earlier_claims() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both()[..1], "");
    let interfaces = [interface(2, "eth0"), Interface { has_claims: true, ..interface(3, "eth1") }];
    assert_eq!(decide(&mut twins, 1000, &interfaces, ""), [Role::Speaks, Role::Tried]);
}

#[test]
fn all_but_one_of_thirty_interfaces_on_one_segment_yield() {
    let names: Vec<String> = (0..30).map(|n| format!("eth{n}")).collect();
    let interfaces: Vec<_> = (2..).zip(&names).map(|(index, name)| interface(index, name)).collect();
    let mut twins = Twins::default();
    twins.decide(ms(0), INTERVAL, &interfaces, PEERS, |_| false);
    assert!((3..32).all(|index| twins.heard(ms(100), 2, index)));
    twins.decide(ms(100), INTERVAL, &interfaces, PEERS, |_| false);
    assert_eq!(twins.yielding().count(), 29);
    assert!(twins.yielding().all(|(_, to)| to == 2));
}

#[test_case(None => Some(2); "the first")]
#[test_case(Some(3) => Some(3); "the one in use")]
#[test_case(Some(9) => Some(2); "it is not there any more")]
fn interface_in_use_is_chosen_among_equal_ones(now_on: Option<u32>) -> Option<u32> {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    twins.choose(&[2, 3], now_on)
}

#[test]
fn interface_that_hears_no_host_is_not_chosen() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    let [first, second] = both();
    decide(&mut twins, 400, &[first, Interface { hears: false, ..second }], "");
    assert_eq!(twins.choose(&[2, 3], Some(3)), Some(2));
}

/// Two interfaces that spoke hear each other: the one on which addresses lie goes on, whatever the name of the other.
#[test]
fn interface_in_use_goes_on_of_two_that_spoke() {
    let mut twins = Twins::default();
    decide(&mut twins, 0, &both(), "");
    decide(&mut twins, 300, &both(), "");
    let [first, second] = both();
    let interfaces = [first, Interface { in_use: true, ..second }];
    decide(&mut twins, 9000, &interfaces, "");
    twins.heard(ms(9100), 2, 3);
    assert_eq!(decide(&mut twins, 9100, &interfaces, ""), [Role::Yields(3), Role::Speaks]);
}
