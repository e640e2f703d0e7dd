//! Requests and pools, and their changes.

use herald_crds::names::{CONDITION_ACCEPTED, CONDITION_CONTAINS_ASSIGNED};
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::{world::World, *};

#[test]
fn a_new_request_takes_over_before_the_old_address_goes() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.log.clear();
    world.change("web", json!({"spec": {"loadBalancerIP": "192.0.2.3"}}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.3"]);
    let order: Vec<_> = world.writes().into_iter().filter(|w| w != "PatchPoolStatus" && w != "Event").collect();
    let expected = ["CreateVirtualIp", "PatchServiceStatus", "DeleteVirtualIp", "RemoveVirtualIpFinalizer"];
    assert_eq!(order, expected);
}

#[test_case(json!({"spec": {"loadBalancerIP": "203.0.113.1"}}), "AddressNotInPool")]
#[test_case(json!({"spec": {"loadBalancerIP": "2001:db8::1"}}), "FamilyNotServed")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/addresses": "web"}}}), "BadRequest")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "dmz"}}}), "UnknownPool")]
fn a_request_that_cannot_be_met_costs_nothing(change: Value, reason: &str) {
    let mut world = World::new();
    world.create("has", json!({}));
    world.live();
    world.change("has", change.clone());
    world.create("has-not", change);
    world.live();
    assert_eq!((world.ingress("has"), world.ingress("has-not")), (vec!["192.0.2.1".to_owned()], Vec::new()));
    assert_eq!(
        (world.condition("has"), world.condition("has-not")),
        (format!("False {reason}"), format!("False {reason}"))
    );
    assert!(world.service_condition("has").unwrap().message.contains("keeps 192.0.2.1"));
}

#[test]
fn a_shrunk_or_deleted_pool_orphans_and_says_so() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.pool("lan", json!({"addresses": ["192.0.2.3"]}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    assert_eq!(world.condition("web"), "True OutsidePool");
    let condition = world.pool_condition("lan", CONDITION_CONTAINS_ASSIGNED);
    assert_eq!(condition.status, "False");
    assert!(condition.message.contains("192.0.2.1"));
    world.log.clear();
    world.delete_pool("lan");
    world.restart();
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    world.wrote_nothing();
    world.pool("lan", json!({"addresses": ["192.0.2.1"]}));
    world.live();
    assert_eq!(world.condition("web"), "True Assigned");
}

#[test]
fn a_pool_says_what_is_wrong_with_it() {
    let mut world = World::new();
    world.pool("bad", json!({"addresses": ["192.0.2.9-192.0.2.4"]}));
    world.pool("more", json!({"addresses": ["192.0.2.3-192.0.2.4"]}));
    world.live();
    let bad = world.pool_condition("bad", CONDITION_ACCEPTED);
    assert_eq!((&*bad.status, &*bad.reason), ("False", "InvalidAddresses"));
    assert!(bad.message.contains("spec.addresses[0]") && bad.message.contains("write 192.0.2.4-192.0.2.9"));
    for (pool, other) in [("lan", "more"), ("more", "lan")] {
        let overlap = world.pool_condition(pool, CONDITION_ACCEPTED);
        assert_eq!((&*overlap.status, &*overlap.reason), ("True", "Overlaps"));
        assert!(overlap.message.contains(&format!("192.0.2.3 also in AddressPool {other}")), "{}", overlap.message);
    }
}

#[test]
fn a_pool_that_comes_later_wakes_who_waits() {
    let mut world = World::empty();
    world.create("web", json!({}));
    world.restart();
    world.live();
    assert_eq!(world.condition("web"), "False NoPool");
    world.log.clear();
    world.pass(600);
    world.wrote_nothing();
    world.pool("lan", json!({"addresses": ["192.0.2.1"]}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

#[test]
fn a_pools_status_is_written_once_a_second() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.0/24"]}));
    world.restart();
    world.settle();
    world.log.clear();
    for i in 0..100 {
        world.create(&format!("s{i}"), json!({}));
        world.settle();
    }
    world.pass(5);
    assert_eq!(world.writes().iter().filter(|w| *w == "PatchPoolStatus").count(), 1);
    let usage = world.pools["lan"].status.as_ref().unwrap().ipv4.clone().unwrap();
    // Less the network and the broadcast address.
    assert_eq!((&*usage.capacity, &*usage.assigned, &*usage.available), ("256", "100", "154"));
}

/// A requested pool that is full moves nobody; once there is room the Service moves, the new address before the old.
#[test]
fn a_requested_pool_without_room_takes_nothing_away() {
    let mut world = World::new();
    world.pool("dmz", json!({"addresses": ["192.0.2.9"]}));
    let asks = json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "dmz"}}});
    world.create("first", asks.clone());
    world.create("web", json!({}));
    world.live();
    world.change("web", asks);
    world.live();
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec!["192.0.2.1".to_owned()], "False PoolFull"));
    world.log.clear();
    world.delete("first");
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.9"]);
    let emptied = |a: &Action| matches!(a, Action::PatchServiceStatus { service, patch, .. } if service.name == "web" && patch.ingress == crate::action::Change::Remove);
    assert!(!world.log.iter().any(emptied));
}
