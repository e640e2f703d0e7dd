//! Services that were created for Gateways.

use herald_crds::names::{ANNOTATION_ADDRESSES, LABEL_GATEWAY_NAME};
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::{
    tests::fake_cluster::{World, address},
    *,
};

/// Returns a world whose leader honours Gateways.
fn honouring() -> World {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.9"]}));
    world.honours_gateways = true;
    world.restart();
    world.settle();
    world.log.clear();
    world
}

/// Returns the labels of a Service that a Gateway implementation creates for Gateway `front`.
fn of_front() -> Value {
    json!({"metadata": {"labels": {LABEL_GATEWAY_NAME: "front"}}})
}

#[track_caller]
fn refused(world: &World, reason: &str, parts: &[&str]) {
    assert_eq!(world.condition("web"), format!("False {reason}"));
    let message = world.service_condition("web").unwrap().message;
    for part in parts {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn service_gets_the_addresses_of_its_gateway_and_follows_a_change() {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.live();
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec!["192.0.2.7".to_owned()], "True Assigned"));
    world.gateway("front", &["192.0.2.5"]);
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.5"]);
    assert!(!world.vips.contains_key(&address("192.0.2.7")), "the former address is free");
}

#[test]
fn gateway_of_another_namespace_or_name_is_not_asked() {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("late-web", of_front());
    world.namespace("late", json!({}));
    world.create("plain", json!({}));
    world.live();
    assert_eq!(world.condition("late-web"), "False GatewayNotFound");
    assert_eq!(world.ingress("plain"), ["192.0.2.1"]);
}

#[test]
fn gateways_are_honoured_only_with_the_flag() {
    let mut world = World::new();
    world.gateway("front", &["192.0.2.3"]);
    world.create("web", of_front());
    world.live();
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec!["192.0.2.1".to_owned()], "True Assigned"));
}

#[test]
fn service_waits_for_its_gateway_and_is_served_when_it_comes() {
    let mut world = honouring();
    world.create("web", of_front());
    world.live();
    refused(&world, "GatewayNotFound", &["Gateway ns/front", LABEL_GATEWAY_NAME, "create it"]);
    world.gateway("front", &[]);
    world.live();
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec!["192.0.2.1".to_owned()], "True Assigned"));
}

/// An implementation deletes the Service after its Gateway: nothing is reported in between.
#[test]
fn address_stays_unreported_when_the_gateway_is_deleted_or_asks_for_none() {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.live();
    world.log.clear();
    world.gateway("front", &[]);
    world.live();
    world.delete_gateway("front");
    world.live();
    world.wrote_nothing();
    assert_eq!(world.ingress("web"), ["192.0.2.7"]);
}

#[test_case(&["198.51.100.1"], "AddressNotInPool", &["198.51.100.1", "any AddressPool", "spec.addresses of Gateway ns/front asks for it: change it there"]; "in no pool")]
#[test_case(&["192.0.2.2"], "AddressInUse", &["192.0.2.2", "Service ns/other", "spec.addresses of Gateway ns/front"]; "taken")]
#[test_case(&["2001:db8::1"], "FamilyNotServed", &["2001:db8::1", "IPv6", "spec.addresses of Gateway ns/front"]; "of a family that the Service lacks")]
#[test_case(&["192.0.2.4", "192.0.2.5"], "BadRequest", &["spec.addresses of Gateway ns/front: 192.0.2.4 and 192.0.2.5 are both IPv4", "heraldlb.io/address-count"]; "two of one family")]
fn refusal_names_the_gateway_and_a_served_address_stays(asks: &[&str], reason: &str, parts: &[&str]) {
    let mut world = honouring();
    world.create("other", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.live();
    world.gateway("front", asks);
    world.live();
    refused(&world, reason, parts);
    refused(&world, reason, &["until then the Service keeps 192.0.2.7"]);
    assert_eq!(world.ingress("web"), ["192.0.2.7"]);
    // A new Service gets no address.
    world.change("web", json!({"spec": {"type": "ClusterIP"}}));
    world.live();
    world.create("new", of_front());
    world.live();
    assert_eq!(world.condition("new"), format!("False {reason}"));
    assert!(world.ingress("new").is_empty());
}

#[test]
fn service_that_waits_for_the_address_of_its_gateway_gets_it_once_it_is_free() {
    let mut world = honouring();
    world.create("other", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    world.gateway("front", &["192.0.2.2"]);
    world.create("web", of_front());
    world.live();
    refused(&world, "AddressInUse", &[]);
    world.delete("other");
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.2"]);
}

#[test]
fn own_request_wins_and_is_noted() {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.change("web", json!({"metadata": {"annotations": {ANNOTATION_ADDRESSES: "192.0.2.4"}}}));
    world.live();
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec!["192.0.2.4".to_owned()], "True Assigned"));
    let told =
        |world: &World| world.events().iter().filter(|event| event.reason == "GatewayAddressesOverruled").count();
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains("Gateway ns/front asks for 192.0.2.7"), "{message}");
    assert_eq!(told(&world), 1);
    world.gateway("front", &["192.0.2.4"]);
    world.live();
    let message = world.service_condition("web").unwrap().message;
    assert!(!message.contains("Gateway"), "{message}");
    // A Service without a request of its own follows the Gateway, which asks for the same address.
    world.log.clear();
    world.change("web", json!({"metadata": {"annotations": {ANNOTATION_ADDRESSES: null}}}));
    world.live();
    world.wrote_nothing();
}

/// A new leader knows its Gateways some milliseconds after its Services.
#[test]
fn nothing_moves_or_is_reported_before_the_gateways_are_listed() {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.live();
    world.create("new", of_front());
    world.change("new", json!({"metadata": {"labels": {LABEL_GATEWAY_NAME: "second"}}}));
    world.gateway("second", &["192.0.2.8"]);
    world.log.clear();
    world.restart_without(Kind::Gateway);
    world.pass(5);
    world.wrote_nothing();
    world.relist(Kind::Gateway);
    world.live();
    assert_eq!(
        (world.ingress("web"), world.ingress("new")),
        (vec!["192.0.2.7".to_owned()], vec!["192.0.2.8".to_owned()])
    );
    assert!(world.events().iter().all(|event| !event.warning), "{:?}", world.events());
}

/// The flag is set without the ClusterRole: only the Services that need a Gateway wait, and the condition of each says
/// for what.
#[test]
fn gateways_that_cannot_be_listed_keep_only_their_own_new_services_waiting() {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.live();
    world.restart_without(Kind::Gateway);
    world.index.note_broken(Kind::Gateway);
    world.create("new", of_front());
    world.create("plain", json!({}));
    world.live();
    assert_eq!(
        (world.ingress("web"), world.ingress("plain")),
        (vec!["192.0.2.7".to_owned()], vec!["192.0.2.1".to_owned()])
    );
    assert_eq!(world.condition("new"), "False GatewaysUnreadable");
    let message = world.service_condition("new").unwrap().message;
    assert!(message.contains("Gateway ns/front") && message.contains("herald-gateway-addresses.yaml"), "{message}");
    world.gateway("front", &[]);
    world.relist(Kind::Gateway);
    world.live();
    assert_eq!((world.ingress("new"), &*world.condition("new")), (vec!["192.0.2.2".to_owned()], "True Assigned"));
}

/// The owner asks for the address by the Gateway, so a stranger that answers for it does not cost the Service its
/// address.
#[test]
fn address_that_a_gateway_asks_for_is_not_replaced() {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.settle();
    world.stranger("192.0.2.7");
    world.live();
    world.pass(120);
    assert_eq!(world.ingress("web"), ["192.0.2.7"]);
}

/// Starts a process that has listed everything but the Gateways, which it may not list or has not listed yet.
fn restart_without_gateways(world: &mut World, unreadable: bool) {
    world.restart_without(Kind::Gateway);
    if unreadable {
        world.index.note_broken(Kind::Gateway);
    }
}

/// The new process does not know that the Gateway asks for the address, so the address counts as asked for.
#[test_case(false; "not listed yet")]
#[test_case(true; "unreadable")]
fn address_that_an_unknown_gateway_may_ask_for_is_not_replaced(unreadable: bool) {
    let mut world = honouring();
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.settle();
    world.stranger("192.0.2.7");
    world.live();
    world.pass(120);
    assert_eq!(
        (world.ingress("web"), &*world.condition("web")),
        (vec!["192.0.2.7".to_owned()], "True AddressConflict")
    );
    restart_without_gateways(&mut world, unreadable);
    world.live();
    world.pass(120);
    assert_eq!((world.ingress("web"), world.quarantined("lan")), (vec!["192.0.2.7".to_owned()], Vec::new()));
    world.relist(Kind::Gateway);
    world.live();
    assert_eq!((world.ingress("web"), world.quarantined("lan")), (vec!["192.0.2.7".to_owned()], Vec::new()));
}

#[test_case(false; "not listed yet")]
#[test_case(true; "unreadable")]
fn service_stays_where_it_is_while_its_gateway_is_unknown(unreadable: bool) {
    let mut world = honouring();
    world.pool("dmz", json!({"addresses": ["192.0.2.20-192.0.2.21"], "autoAssign": false}));
    world.gateway("front", &["192.0.2.7"]);
    world.create("web", of_front());
    world.live();
    world.change("web", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "dmz"}}}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.7"], "the Gateway asks for it");
    world.log.clear();
    restart_without_gateways(&mut world, unreadable);
    world.live();
    world.pass(120);
    assert_eq!(world.ingress("web"), ["192.0.2.7"]);
    world.relist(Kind::Gateway);
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.7"]);
}
