//! Addresses that are deleted, and created again under the same name.

use herald_protocol::{Input, claim::Reason};

use crate::bus::{Bus, address, mac, ms};

#[test]
fn address_deleted_while_a_lone_node_restarted_is_not_resumed() {
    let mut bus = Bus::with_addresses(1, &[1, 2]);
    let saved = bus.kill(1);
    bus.unpublish(address(1));
    bus.run(ms(500));
    let since = bus.now;
    bus.start(1, Some((saved, true)));
    bus.tell(1, Input::Vip(address(1), None));
    bus.run(ms(3000));
    assert_eq!(bus.claims_since(since), [(1, Reason::Resumed)]);
    assert_eq!((bus.reached(address(1)), bus.reached(address(2))), (None, Some(1)));
}

#[test]
fn deleted_address_is_not_covered() {
    let mut bus = Bus::with_addresses(3, &[1, 2]);
    bus.kill(1);
    bus.until(ms(500), |bus| bus.reached(address(1)) == Some(1) && bus.reached(address(2)) == Some(1));
    bus.unpublish(address(1));
    assert_eq!(bus.answers(address(1)), []);
    bus.run(ms(5000));
    assert_eq!((bus.reached(address(1)), bus.reached(address(2))), (None, Some(1)));
}

#[test]
fn deleted_address_is_not_resurrected_by_nodes_with_an_old_view() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.tell(1, Input::Vip(address(1), None));
    bus.run(ms(5000));
    assert_eq!(bus.answers(address(1)), []);
    assert_eq!(bus.claims_since(since), []);
    bus.publish(address(1), 2, &[(3, 0), (1, 0), (2, 0)]);
    bus.run(ms(1000));
    assert_eq!(bus.answers(address(1)), [(3, mac(3))]);
}

#[test]
fn owner_that_missed_the_deletion_is_superseded_by_the_new_object() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.speakers.remove(&1).map(|cut_off| {
        bus.publish(address(1), 2, &[(3, 0), (1, 0), (2, 0)]);
        bus.speakers.insert(1, cut_off)
    });
    bus.run(ms(1000));
    assert_eq!(bus.answers(address(1)), [(3, mac(3))]);
}
