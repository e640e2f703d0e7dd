//! A node with another interface, on the same segment or on another one: the effects on the incarnation here.

use std::time::Duration;

use herald_protocol::{Event, Input, Output, api_view::Packet, claim::Reason, node::Incarnation};
use test_case::test_case;

use crate::bus::{Bus, address, mac, ms};

const SECOND: Duration = Duration::from_secs(1);

/// Returns the input that names the incarnation on the other interface, and its link-layer address.
fn other_interface() -> Input {
    Input::Siblings([(Incarnation(1_000_000), mac(9))].into())
}

/// An interface that listens beside another one is without carrier to its incarnation, and hears all the same.
#[test]
fn incarnation_without_carrier_does_not_resume() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let owner = bus.reached(address(1)).unwrap();
    let saved = bus.kill(owner);
    let since = bus.now;
    bus.start(owner, Some((saved, true)));
    bus.tell(owner, Input::Carrier(false));
    bus.run(5 * SECOND);
    assert!(bus.claims_since(since).iter().all(|(node, _)| *node != owner), "{:?}", bus.claims_since(since));
    bus.tell(owner, Input::Carrier(true));
    let since = bus.now;
    bus.run(5 * SECOND);
    assert_eq!(bus.claims_since(since), [(owner, Reason::Resumed)]);
}

/// Peers send an incarnation that has just started the claims of its node, which the other interface may have made.
#[test_case(false => true; "it lies here")]
#[test_case(true => false; "it lies on the other interface")]
fn address_that_lies_on_the_other_interface_is_not_resumed(lies_elsewhere: bool) -> bool {
    let mut bus = Bus::with_addresses(3, &[1]);
    let owner = bus.reached(address(1)).unwrap();
    bus.kill(owner);
    let since = bus.now;
    bus.start(owner, None);
    bus.tell(owner, other_interface());
    let mut was_reminded = false;
    for _ in 0..300 {
        bus.run(ms(10));
        let reminded = bus.speakers.get_mut(&owner).unwrap().take_reminded();
        was_reminded |= reminded.contains(&address(1));
        if lies_elsewhere && reminded.contains(&address(1)) {
            bus.tell(owner, Input::LiesElsewhere(address(1)));
        }
    }
    assert!(was_reminded);
    bus.claims_since(since).contains(&(owner, Reason::Resumed))
}

/// The node's other interface, or a host outside the cluster, announces an address that the incarnation here owns.
#[test_case(true => false; "its own")]
#[test_case(false => true; "a host outside the cluster")]
fn other_interface_of_the_node_does_not_conflict(is_own: bool) -> bool {
    let mut bus = Bus::with_addresses(3, &[1]);
    let owner = bus.reached(address(1)).unwrap();
    if is_own {
        bus.tell(owner, other_interface());
    }
    let announced = Packet { source: mac(9), binding: Some((address(1), mac(9))), asks: Some(address(1)) };
    let (now, speaker) = (bus.now, bus.speakers.get_mut(&owner).unwrap());
    speaker.handle_packet(now, &announced);
    let conflict = |output: Output| matches!(output, Output::Event(Event::Conflict { .. }));
    std::iter::from_fn(|| speaker.poll_output()).any(conflict)
}

/// A node that is cut off together with its other interface hears no other host.
#[test_case(true => false; "its own")]
#[test_case(false => true; "another host")]
fn other_interface_of_the_node_does_not_count_as_heard(is_own: bool) -> bool {
    let mut bus = Bus::new(1);
    if is_own {
        bus.tell(1, other_interface());
    }
    let question = Packet { source: mac(9), binding: None, asks: Some(address(7)) };
    let (now, speaker) = (bus.now, bus.speakers.get_mut(&1).unwrap());
    assert!(!speaker.is_hearing());
    speaker.handle_packet(now, &question);
    speaker.is_hearing()
}

/// Returns a node with another interface that is cut off from the API, and that has heard from the owner of an address
/// that the object is gone.
fn told_of_a_deletion() -> (Bus, usize) {
    let mut bus = Bus::with_addresses(3, &[1]);
    let owner = bus.reached(address(1)).unwrap();
    let learner = (1..=3).find(|node| *node != owner).unwrap();
    bus.tell(learner, other_interface());
    bus.tell(owner, Input::Vip(address(1), None));
    bus.run(ms(100));
    (bus, learner)
}

#[test]
fn deletion_is_shared_with_the_other_incarnation_once() {
    let (mut bus, learner) = told_of_a_deletion();
    let learner = bus.speakers.get_mut(&learner).unwrap();
    let shared: Vec<_> = learner.take_deletions().into_iter().map(|deletion| deletion.address).collect();
    assert_eq!(shared, [address(1)]);
    assert_eq!(learner.take_deletions(), []);
}

/// Another incarnation follows the one that heard of the deletion, and its view still shows the object.
#[test_case(true => None; "it was told")]
#[test_case(false => Some(1); "it was not told")]
fn incarnation_that_knows_of_a_deletion_does_not_claim(is_told: bool) -> Option<usize> {
    let (mut bus, learner) = told_of_a_deletion();
    let deletions = bus.speakers.get_mut(&learner).unwrap().take_deletions();
    for node in 1..=3 {
        bus.kill(node);
    }
    bus.start(1, None);
    if is_told {
        bus.tell(1, Input::Deletions(deletions));
    }
    bus.run(5 * SECOND);
    bus.reached(address(1))
}

/// An incarnation that another one replaces does not count any longer once its last Hello has arrived.
#[test]
fn superseded_incarnation_stops_counting_at_once() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let hears = |bus: &Bus, node: usize| bus.speakers[&node].totals().peers;
    assert_eq!(hears(&bus, 2), 2);
    bus.tell(1, Input::Superseded);
    bus.run(ms(2));
    assert_eq!((hears(&bus, 2), hears(&bus, 3)), (1, 1));
}
