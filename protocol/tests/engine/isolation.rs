//! Nodes that hear nothing or are not heard, and nodes that were stalled: such a node takes no address, and loses those
//! that it owned.

use herald_protocol::{Event, Input, claim::Reason};

use crate::bus::{Bus, address, mac, ms, name};

#[test]
fn owner_that_hears_again_announces_after_its_successor_died() {
    let mut bus = Bus::new(3);
    bus.run(ms(1000));
    bus.publish(address(1), 1, &[(1, 0), (2, 0)]);
    bus.run(ms(5000));
    let deaf = bus.now;
    bus.deaf.insert(1);
    bus.run(ms(5000));
    assert_eq!(bus.claims_since(deaf), [(2, Reason::Deaf)]);
    bus.power_off(2);
    bus.run(ms(3000));
    let hears = bus.now;
    bus.deaf.clear();
    bus.run(ms(1000));
    assert_eq!(bus.claims_since(hears), [], "the claim of node 1 is the best, and old");
    let told: Vec<_> = bus.announced.iter().filter(|(at, ..)| *at > hears).map(|(_, node, _)| *node).collect();
    assert_eq!(told, [1]);
}

#[test]
fn deaf_node_takes_no_address_and_loses_its_own() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.deaf.insert(1);
    bus.run(ms(3000));
    assert_eq!(bus.claims_since(since), [(2, Reason::Deaf)]);
    let since = bus.now;
    bus.deaf.insert(3);
    bus.run(ms(3000));
    assert_eq!(bus.claims_since(since), []);
    bus.deaf.clear();
    bus.run(ms(3000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
    assert_eq!(bus.claims_since(since), []);
}

#[test]
fn node_that_becomes_deaf_while_it_contends_does_not_claim() {
    // The owner loses power, the first candidate loses power soon after, and the second candidate becomes deaf before
    // it knows that: when the turn of the second candidate comes, no other node could claim before it.
    for (off, deaf) in (0..100).step_by(20).flat_map(|off| (200..340).step_by(20).map(move |deaf| (off, deaf))) {
        let mut bus = Bus::with_addresses(3, &[1]);
        let begun = bus.now;
        bus.power_off(1);
        bus.run(ms(off));
        bus.power_off(2);
        bus.run(ms(deaf).saturating_sub(ms(off)));
        bus.deaf.insert(3);
        bus.run(ms(2000));
        assert_eq!(bus.claims_since(begun), [], "first candidate dead after {off} ms, deaf after {deaf} ms");
        bus.deaf.clear();
        bus.run(ms(1000));
        assert_eq!(bus.claims_since(begun), [(3, Reason::Dead)]);
    }
}

#[test]
fn node_that_becomes_deaf_leaves_the_last_announcements_to_its_successor() {
    let mut bus = Bus::new(3);
    bus.publish(address(1), 1, &[(1, 0), (2, 0), (3, 0)]);
    bus.until(ms(1000), |bus| bus.answers(address(1)) == [(1, mac(1))]);
    bus.deaf.insert(1);
    let since = bus.now;
    bus.run(ms(5000));
    let taken = bus.announced.iter().find(|(at, node, _)| *at > since && *node == 2).unwrap().0;
    let late = bus.announced.iter().filter(|(at, node, _)| *at > taken && *node == 1).count();
    assert_eq!(late, 0, "{:?}", bus.announced);
}

#[test]
fn deaf_owner_does_not_claim_for_a_new_object() {
    let mut bus = Bus::with_addresses(1, &[1]);
    let since = bus.now;
    bus.deaf.insert(1);
    bus.publish(address(1), 2, &[(1, 0)]);
    bus.run(ms(5000));
    assert_eq!(bus.claims_since(since), []);
    bus.deaf.clear();
    bus.run(ms(2000));
    assert_eq!(bus.claims_since(since), [(1, Reason::Recreated)]);
}

#[test]
fn mute_owner_is_succeeded_and_stops() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.mute.insert(1);
    bus.run(ms(1000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
}

#[test]
fn stalled_owner_listens_before_it_answers() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let stalled = bus.speakers.remove(&1).unwrap();
    bus.power_off_kernel(1);
    bus.run(ms(2000));
    bus.kernels.insert(1);
    bus.speakers.insert(1, stalled);
    // The speaker is scheduled, and notices the stall.
    bus.run(ms(1));
    bus.until(ms(300), |bus| {
        assert!(bus.answers(address(1)).iter().all(|(_, given)| *given == mac(2)), "{:?}", bus.answers(address(1)));
        bus.events.iter().any(|(_, node, event)| *node == 1 && matches!(event, Event::Lost { .. }))
    });
    assert_eq!(bus.reached(address(1)), Some(2), "{}", name(2));
}

#[test]
fn fitter_node_that_returns_takes_over_only_when_it_has_settled() {
    let mut bus = Bus::new(3);
    bus.publish(address(1), 1, &[(1, 0), (2, 1), (3, 1)]);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(1)), [(1, mac(1))]);
    bus.tell(1, Input::Carrier(false));
    bus.deaf.insert(1);
    bus.mute.insert(1);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
    bus.deaf.clear();
    bus.mute.clear();
    bus.refresh();
    bus.tell(1, Input::Carrier(true));
    let taken = bus.until(ms(10_000), |bus| bus.answers(address(1)) == [(1, mac(1))]);
    assert!(taken >= herald_protocol::timers::SETTLED, "after {taken:?}");
}
