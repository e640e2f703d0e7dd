//! Services that share an address, from the first to the last.

use serde_json::{Value, json};
use test_case::test_case;

use crate::index::tests::fake_cluster::{World, address};

/// Returns a Service of sharing key `k` with these ports.
fn sharer(ports: &[(&str, i32)], more: Value) -> Value {
    let ports: Vec<_> = ports.iter().map(|(protocol, port)| json!({"protocol": protocol, "port": port})).collect();
    let mut object = json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": "k"}},
        "spec": {"selector": {"app": "dns"}, "ports": ports}});
    super::fake_cluster::merge(&mut object, more);
    object
}

fn named(world: &World, at: &str) -> Vec<String> {
    world.vips[&address(at)].spec.services.iter().map(|s| s.name.clone()).collect()
}

#[test]
fn sharers_of_one_key_get_one_address_and_leave_independently() {
    let mut world = World::new();
    world.create("tcp", sharer(&[("TCP", 53)], json!({})));
    world.live();
    world.log.clear();
    world.create("udp", sharer(&[("UDP", 53)], json!({})));
    world.live();
    assert_eq!((world.ingress("tcp"), world.ingress("udp")), (vec!["192.0.2.1".into()], vec!["192.0.2.1".into()]));
    let writes: Vec<_> = world.writes().into_iter().filter(|w| w != "PatchPoolStatus").collect();
    assert_eq!(writes, ["UpdateVirtualIpSpec", "PatchServiceStatus", "Event"], "the VirtualIP names it first");
    assert_eq!(named(&world, "192.0.2.1"), ["tcp", "udp"]);
    world.log.clear();
    world.restart();
    world.pass(60);
    assert!(world.log.is_empty(), "a restart writes {:?}", world.log);
    world.delete("tcp");
    world.live();
    assert!(!world.services.contains_key(&super::fake_cluster::key("tcp")));
    assert_eq!((world.ingress("udp"), named(&world, "192.0.2.1")), (vec!["192.0.2.1".into()], vec!["udp".into()]));
    // The port of the deleted Service is free again for another.
    world.create("other", sharer(&[("TCP", 53)], json!({})));
    world.live();
    assert_eq!(world.ingress("other"), ["192.0.2.1"]);
    for name in ["udp", "other"] {
        world.change(name, json!({"spec": {"type": "ClusterIP"}}));
    }
    world.live();
    assert!(world.vips.is_empty() && world.finalizers("udp").is_empty() && world.finalizers("other").is_empty());
}

/// A Service that may not share gets an address of its own; a Service that asks for that one address gets a sentence.
#[test_case(sharer(&[("TCP", 53)], json!({})), "SharingRefused", "both have port TCP 53"; "port")]
#[test_case(sharer(&[("TCP", 80)], json!({"spec": {"externalTrafficPolicy": "Local", "selector": {"app": "web"}}})),
    "SharingRefused", "spec.selector differs"; "Local with another selector")]
#[test_case(sharer(&[("TCP", 80)], json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": "j"}}})),
    "SharingRefused", "is \"k\", not \"j\""; "another key")]
#[test_case(sharer(&[("TCP", 80)], json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": null}}})),
    "AddressInUse", "annotation heraldlb.io/allow-shared-ip"; "no key")]
fn service_that_may_not_share_is_refused_with_the_reason(second: Value, reason: &str, sentence: &str) {
    let mut world = World::new();
    world.create("first", sharer(&[("TCP", 53)], json!({})));
    world.live();
    world.create("second", second.clone());
    world.live();
    assert_eq!(world.ingress("second"), ["192.0.2.2"]);
    let mut asks = second;
    super::fake_cluster::merge(&mut asks, json!({"spec": {"loadBalancerIP": "192.0.2.1"}}));
    world.create("third", asks);
    world.live();
    assert_eq!(world.condition("third"), format!("False {reason}"));
    let message = world.service_condition("third").unwrap().message;
    assert!(message.contains(sentence) && message.contains("Service ns/first"), "{message}");
}

#[test]
fn metallbs_annotation_shares_a_requested_address() {
    let mut world = World::new();
    let key = json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": null, "metallb.io/allow-shared-ip": "k"}},
        "spec": {"loadBalancerIP": "192.0.2.3"}});
    world.create("tcp", sharer(&[("TCP", 53)], key.clone()));
    world.create("udp", sharer(&[("UDP", 53)], key));
    world.live();
    assert_eq!((world.ingress("tcp"), world.ingress("udp")), (vec!["192.0.2.3".into()], vec!["192.0.2.3".into()]));
}

/// An edit that makes sharers collide moves neither: both conditions say so, and each is reported once.
#[test]
fn colliding_edit_moves_no_sharer_and_is_reported() {
    let mut world = World::new();
    world.create("tcp", sharer(&[("TCP", 53)], json!({})));
    world.create("udp", sharer(&[("UDP", 53)], json!({})));
    world.live();
    world.log.clear();
    world.change("udp", json!({"spec": {"ports": [{"protocol": "TCP", "port": 53}]}}));
    world.live();
    for name in ["tcp", "udp"] {
        assert_eq!((world.ingress(name), &*world.condition(name)), (vec!["192.0.2.1".into()], "True Assigned"));
        assert!(world.service_condition(name).unwrap().message.contains("both have port TCP 53"));
    }
    let told: Vec<_> = world.events().iter().map(|e| e.reason).collect();
    assert_eq!(told, ["SharingConflict", "SharingConflict"]);
    world.log.clear();
    world.restart();
    world.pass(60);
    assert!(world.log.is_empty(), "{:?}", world.log);
    world.change("udp", json!({"spec": {"ports": [{"protocol": "UDP", "port": 53}]}}));
    world.live();
    assert_eq!(world.service_condition("tcp").unwrap().message, "192.0.2.1 from AddressPool lan");
}

/// A Service that asks for another address leaves the others where they are.
#[test]
fn sharer_leaves_by_its_own_request() {
    let mut world = World::new();
    world.create("tcp", sharer(&[("TCP", 53)], json!({})));
    world.create("udp", sharer(&[("UDP", 53)], json!({})));
    world.live();
    world.change("tcp", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    world.live();
    assert_eq!((world.ingress("tcp"), world.ingress("udp")), (vec!["192.0.2.2".into()], vec!["192.0.2.1".into()]));
    assert_eq!((named(&world, "192.0.2.1"), named(&world, "192.0.2.2")), (vec!["udp".into()], vec!["tcp".into()]));
}

/// The policy for both families or none does not take a shared address from the others.
#[test]
fn dropped_plan_leaves_the_other_sharers_alone() {
    let mut world = World::new();
    world.create("tcp", sharer(&[("TCP", 53)], json!({})));
    world.live();
    world.log.clear();
    let both = json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}});
    world.create("udp", sharer(&[("UDP", 53)], both));
    world.live();
    assert_eq!((world.ingress("tcp"), world.ingress("udp").len()), (vec!["192.0.2.1".into()], 0));
    assert_eq!(named(&world, "192.0.2.1"), ["tcp"]);
}

/// A stranger's address stays because one Service asks for it: another that may share it does not join it, and a
/// Service that shares it already learns why it stays.
#[test]
fn contested_address_is_not_joined_unasked() {
    let mut world = World::new();
    world.stranger("192.0.2.2");
    world.create("asks", sharer(&[("TCP", 53)], json!({"spec": {"loadBalancerIP": "192.0.2.2"}})));
    world.live();
    assert_eq!(world.condition("asks"), "True AddressConflict");
    world.create("web", sharer(&[("TCP", 80)], json!({})));
    world.live();
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec!["192.0.2.1".into()], "True Assigned"));
}

/// Both planned the address before the stranger was heard: neither waits for a quarantine that does not come.
#[test]
fn both_sharers_of_a_contested_address_report_it() {
    let mut world = World::new();
    world.stranger("192.0.2.2");
    world.create("asks", sharer(&[("TCP", 53)], json!({"spec": {"loadBalancerIP": "192.0.2.2"}})));
    world.create("web", sharer(&[("TCP", 80)], json!({})));
    world.live();
    for name in ["asks", "web"] {
        assert_eq!((world.ingress(name), &*world.condition(name)), (vec!["192.0.2.2".into()], "True AddressConflict"));
    }
}

/// Two Services share a stranger's address, and the first has its maximum of addresses in quarantine. The pool checks
/// only that first Service's room; the second would wait for ever if it checked its own.
#[test]
fn sharer_of_one_that_has_three_addresses_in_quarantine_does_not_wait() {
    let mut world = World::new();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.200"]}));
    for n in 1..=3 {
        world.stranger(&format!("192.0.2.{n}"));
    }
    world.create("a", sharer(&[("TCP", 53)], json!({})));
    for _ in 0..3 {
        world.settle();
        world.speakers_act();
    }
    world.settle();
    assert_eq!((world.ingress("a"), world.quarantined("lan").len()), (vec!["192.0.2.4".into()], 3));
    world.create("b", sharer(&[("UDP", 53)], json!({})));
    world.settle();
    assert_eq!(world.ingress("b"), ["192.0.2.4"]);
    world.stranger("192.0.2.4");
    world.live();
    for name in ["a", "b"] {
        assert_eq!((world.ingress(name), &*world.condition(name)), (vec!["192.0.2.4".into()], "True AddressConflict"));
    }
}

/// The request of a Service cannot be read; its sharing terms can.
#[test]
fn unreadable_request_keeps_the_shared_address() {
    let mut world = World::new();
    world.create("tcp", sharer(&[("TCP", 53)], json!({})));
    world.create("udp", sharer(&[("UDP", 53)], json!({})));
    world.live();
    world.log.clear();
    world.change("udp", json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.300"}}}));
    world.live();
    assert_eq!((world.ingress("udp"), &*world.condition("udp")), (vec!["192.0.2.1".into()], "False BadRequest"));
    assert_eq!(world.service_condition("tcp").unwrap().message, "192.0.2.1 from AddressPool lan");
    let told: Vec<_> = world.events().iter().map(|e| e.reason).collect();
    assert_eq!(told, ["SyncLoadBalancerFailed"]);
}

/// A selector finds the VirtualIPs of each Service, also of one that has joined another.
#[test]
fn virtual_ip_has_a_label_for_each_service() {
    let mut world = World::new();
    world.create("tcp", sharer(&[("TCP", 53)], json!({})));
    world.create("udp", sharer(&[("UDP", 53)], json!({})));
    world.live();
    let labels = |world: &World| -> Vec<String> {
        let all = world.vips[&address("192.0.2.1")].metadata.labels.clone().unwrap();
        all.into_keys().filter(|label| label.contains(".service.heraldlb.io/")).collect()
    };
    assert_eq!(labels(&world), ["ns.service.heraldlb.io/tcp", "ns.service.heraldlb.io/udp"]);
    world.delete("tcp");
    world.live();
    assert_eq!(labels(&world), ["ns.service.heraldlb.io/udp"]);
    assert_eq!(world.vips[&address("192.0.2.1")].metadata.labels.as_ref().unwrap()["heraldlb.io/service-name"], "udp");
}
