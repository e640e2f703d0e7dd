//! Interfaces in the same subnets that do not hear each other: whether one of them stands by for the other.

use test_case::test_case;

use super::*;

/// Returns two interfaces in the same subnets that hear these incarnations of other nodes.
fn alike<'a>(runs: [&'a BTreeSet<Incarnation>; 2]) -> [Interface<'a>; 2] {
    let subnets = &SUBNETS[..1];
    let [first, second] = both();
    [Interface { subnets, runs: runs[0], ..first }, Interface { subnets, runs: runs[1], ..second }]
}

fn runs(all: &[u64]) -> BTreeSet<Incarnation> {
    all.iter().copied().map(Incarnation).collect()
}

/// A cable is plugged in, and neither interface hears the other. Every address that could lie on the new interface
/// could lie on the one in use as well.
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
    assert!(!twins.is_deciding(ms(10_000)), "the interface stands by permanently");
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

/// The protocol is dropped at the port of either interface: the one that yields goes on yielding, and no second
/// incarnation speaks in the name of the node.
#[test_case(&[1], &[]; "of the one that yields")]
#[test_case(&[], &[1]; "of the one in use")]
fn interface_that_yields_goes_on_when_the_protocol_is_dropped_at_a_port(first: &[u64], second: &[u64]) {
    let (first, second) = (runs(first), runs(second));
    let interfaces = alike([&first, &second]);
    let mut twins = twinned();
    for at in (200..60_000).step_by(100) {
        assert_eq!(decide(&mut twins, at, &interfaces, ""), [Role::Speaks, Role::Yields(2)], "{at}");
    }
    assert_eq!(twins.standing_by().next(), None, "eth1 is on the segment of eth0, as far as is known");
}

/// Other nodes come to the wire of one of two interfaces that speak.
#[test_case(false => [Role::Speaks, Role::Tried]; "nothing lies on the other")]
#[test_case(true => [Role::Speaks, Role::Speaks]; "something lies on the other")]
fn interface_that_hears_no_node_ceases_to_speak_unless_it_is_in_use(in_use: bool) -> [Role; 2] {
    let mut twins = Twins::default();
    let alone = Others { heard: false, listed: false };
    for at in [0, 1000, 5000] {
        twins.decide(ms(at), INTERVAL, &alike([&NO_RUNS, &NO_RUNS]), alone, |_| false);
    }
    assert_eq!([2, 3].map(|index| twins.role(index)), [Role::Speaks, Role::Speaks]);
    assert_eq!(twins.poll_timeout(), Some(ms(6000)), "the pair is due for a check");
    let heard = runs(&[1]);
    let [first, second] = alike([&heard, &NO_RUNS]);
    let interfaces = [Interface { in_use: true, ..first }, Interface { in_use, ..second }];
    decide(&mut twins, 6000, &interfaces, "")
}
