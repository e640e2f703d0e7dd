//! Objects of one address whose creationTimestamps are not in the order in which they were created.

use std::time::Duration;

use herald_protocol::{Event, Input};

use crate::bus::{Bus, address, ms};

const ALL: [(usize, u8); 3] = [(1, 0), (2, 0), (3, 0)];

fn odd_births(bus: &Bus) -> usize {
    bus.events.iter().filter(|(.., event)| matches!(event, Event::BornOutOfOrder(_))).count()
}

/// The clocks of two API servers differ, or a clock is set back between two creations.
#[test]
fn younger_object_with_an_older_or_the_same_timestamp_is_announced() {
    for births in [[105, 103], [105, 105]] {
        let mut bus = Bus::with_addresses(3, &[]);
        for (round, birth) in births.into_iter().cycle().take(6).enumerate() {
            bus.publish_object(address(1), birth, &format!("uid-{round}"), &ALL);
            let took = bus.until(ms(1500), |bus| bus.reached(address(1)) == Some(1));
            assert!(took < ms(500), "{births:?}: {took:?}");
            bus.run(ms(3000));
            assert_eq!(bus.claims_since(bus.now - ms(2000)), [], "{births:?}: no node takes the address from another");
            bus.unpublish(address(1));
            bus.run(ms(2000));
            assert_eq!(bus.answers(address(1)), [], "{births:?}: the object is gone");
        }
        assert!(odd_births(&bus) > 0, "the order of the births is reported");
    }
}

/// The view of one node lags behind those of the others, by more than the life of an object.
#[test]
fn late_view_resurrects_nothing_and_learns_of_the_younger_object() {
    let mut bus = Bus::with_addresses(3, &[]);
    bus.publish_object(address(1), 105, "first", &[(3, 0), (1, 0)]);
    bus.run(ms(3000));
    assert_eq!(bus.reached(address(1)), Some(3));
    bus.late_views.insert(1);
    bus.unpublish(address(1));
    for _ in 0..4 {
        bus.run(Duration::from_secs(5));
        assert_eq!(bus.answers(address(1)), [], "node 1 still sees the object, and has heard that the object is gone");
    }
    bus.late_views.remove(&1);
    bus.publish_object(address(1), 103, "second", &[(1, 0)]);
    // The view of node 1 has not shown the deletion of the first object, so that view has to make progress first.
    bus.refresh();
    bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(1));
}

/// A speaker that restarts lists the younger object, and hears from others that the one before it is gone.
#[test]
fn restarted_speaker_claims_although_it_hears_of_an_earlier_deletion() {
    let mut bus = Bus::with_addresses(3, &[]);
    bus.publish_object(address(1), 105, "first", &ALL);
    bus.run(ms(3000));
    bus.unpublish(address(1));
    bus.run(ms(1000));
    bus.publish_object(address(1), 103, "second", &[(3, 0)]);
    bus.run(ms(3000));
    assert_eq!(bus.reached(address(1)), Some(3));
    bus.kill(3);
    bus.power_off_kernel(3);
    bus.kill(2);
    bus.start(2, None);
    bus.run(ms(2000));
    bus.publish_object(address(1), 103, "second", &[(2, 0)]);
    for _ in 0..4 {
        bus.run(Duration::from_secs(10));
        bus.refresh();
    }
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// A node's view shows that an object is gone before the owner's withdrawal arrives; the owner learns of the deletion
/// by the same watch.
#[test]
fn deleted_address_leaves_no_saved_floor() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.unpublish(address(1));
    bus.run(ms(2000));
    for node in 1..=3 {
        assert_eq!(bus.speakers[&node].saved_state().floors, [], "node{node}");
    }
}

/// A node cannot reach the API. The owner of an address tells that node that the object is gone, and the view with
/// which the node goes on after a restart still shows the object.
#[test]
fn deletion_outlives_a_restart() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let owner = bus.reached(address(1)).unwrap();
    bus.tell(owner, Input::Vip(address(1), None));
    bus.run(ms(1000));
    let saved: Vec<_> = (1..=3).map(|node| bus.kill(node)).collect();
    let other = (1..=3).find(|node| *node != owner).unwrap();
    bus.start(other, Some((saved[other - 1].clone(), true)));
    bus.run(ms(5000));
    assert_eq!(bus.reached(address(1)), None);
}
