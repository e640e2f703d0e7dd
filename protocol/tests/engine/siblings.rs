//! A node with another interface, on the same segment or on another one: what the run here makes of that.

use std::time::Duration;

use herald_protocol::{Event, Input, Output, api_view::Packet, claim::Reason, node::Incarnation};
use test_case::test_case;

use crate::bus::{Bus, address, mac, ms};

const SECOND: Duration = Duration::from_secs(1);

/// The run on the other interface, and its link-layer address.
fn other_interface() -> Input {
    Input::Siblings([(Incarnation(1_000_000), mac(9))].into())
}

/// An interface that listens beside another one is without carrier to its run, and hears all the same.
#[test]
fn run_without_carrier_resumes_nothing() {
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

/// Peers tell a run that has just started what its node claims: on the other interface.
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

/// The node's other interface announces an address that the run here owns.
#[test_case(true => false; "its own")]
#[test_case(false => true; "a host outside the cluster")]
fn another_interface_of_the_node_is_no_stranger(is_own: bool) -> bool {
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

/// Cut off together with its other interface, a node hears nobody.
#[test_case(true => false; "its own")]
#[test_case(false => true; "another host")]
fn another_interface_of_the_node_is_nobody_who_is_heard(is_own: bool) -> bool {
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

/// The node of the run here is cut off from the API, and hears from the owner that an object is gone.
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
fn deletion_is_shared_with_the_other_run_once() {
    let (mut bus, learner) = told_of_a_deletion();
    let learner = bus.speakers.get_mut(&learner).unwrap();
    let shared: Vec<_> = learner.take_deletions().into_iter().map(|deletion| deletion.address).collect();
    assert_eq!(shared, [address(1)]);
    assert_eq!(learner.take_deletions(), []);
}

/// The other run follows the one that was told, and its view shows the object still.
#[test_case(true => None; "it was told")]
#[test_case(false => Some(1); "it was not told")]
fn run_that_was_told_of_a_deletion_does_not_claim(is_told: bool) -> Option<usize> {
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

/// A run that another one takes the place of is not counted any more from its last word on.
#[test]
fn run_that_is_superseded_is_not_missed_first() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let hears = |bus: &Bus, node: usize| bus.speakers[&node].totals().peers;
    assert_eq!(hears(&bus, 2), 2);
    bus.tell(1, Input::Superseded);
    bus.run(ms(2));
    assert_eq!((hears(&bus, 2), hears(&bus, 3)), (1, 1));
}
