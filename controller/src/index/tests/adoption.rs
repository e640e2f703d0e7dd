//! Addresses that exist already: on Services, in VirtualIPs of others, after a restart.

use herald_crds::names::FINALIZER_SERVICE_CLASS;
use serde_json::{Value, json};
use test_case::test_case;

use crate::action::Regarding;
use crate::index::{
    tests::fake_cluster::{World, address, key},
    *,
};

/// A deleted Service has two addresses, of which one still has an announcer. No other Service gets an address that its
/// status shows, even under a new leader.
#[test]
fn address_that_a_deleted_service_shows_is_not_given_out_after_a_restart() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.settle();
    world.speakers_act();
    world.change("web", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    while world.ingress("web") != ["192.0.2.2"] {
        let action = world.index.poll_action(world.now).unwrap();
        world.carry_out(&action);
    }
    world.delete("web");
    world.settle();
    assert_eq!((world.ingress("web"), world.vips.len()), (vec!["192.0.2.2".into()], 1));
    world.restart();
    world.create("other", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    world.settle();
    assert!(world.ingress("other").is_empty());
    world.live();
    assert_eq!(world.ingress("other"), ["192.0.2.2"]);
    assert!(!world.services.contains_key(&key("web")));
}

#[test]
fn address_in_a_status_is_adopted() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"], "drain": true}));
    world.create("web", json!({}));
    world.change("web", json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}}));
    world.restart();
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.2"]);
    assert!(world.vips.contains_key(&address("192.0.2.2")));
    assert_eq!(world.finalizers("web"), [FINALIZER_SERVICE_CLASS]);
    let ingress_written = |a: &Action| matches!(a, Action::PatchServiceStatus { patch, .. } if patch.ingress != crate::action::Change::Keep);
    assert!(!world.log.iter().any(ingress_written));
}

#[test]
fn adoption_comes_before_assignment() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    world.create("new", json!({}));
    world.create("old", json!({}));
    world.change("old", json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}));
    world.restart();
    world.live();
    assert_eq!((world.ingress("old"), world.ingress("new")), (vec!["192.0.2.1".into()], vec!["192.0.2.2".into()]));
}

#[test_case(json!({"ip": "203.0.113.9"}), "ForeignIngress")]
#[test_case(json!({"hostname": "lb.example.com"}), "ForeignIngress")]
#[test_case(json!({"ip": "192.0.2.1"}), "AddressInUse"; "another Service's")]
fn entry_of_another_provider_is_not_overwritten(entry: Value, reason: &str) {
    let mut world = World::new();
    world.create("first", json!({}));
    world.live();
    world.create("web", json!({}));
    let ingress = json!({"status": {"loadBalancer": {"ingress": [entry]}}});
    world.change("web", ingress.clone());
    world.live();
    let status = serde_json::to_value(&world.services[&key("web")]).unwrap()["status"]["loadBalancer"].clone();
    assert_eq!(status, ingress["status"]["loadBalancer"]);
    assert_eq!(world.condition("web"), format!("False {reason}"));
    assert!(world.finalizers("web").is_empty());
    let about_web = |e: &&&EventValue| matches!(&e.regarding, Regarding::Service(service) if service.name == "web");
    let events = world.events();
    let warnings: Vec<_> = events.iter().filter(|e| e.warning).filter(about_web).map(|e| e.reason).collect();
    assert_eq!(warnings, ["SyncLoadBalancerFailed"]);
}

#[test]
fn next_address_is_tried_after_a_refused_double_assignment() {
    let mut world = World::new();
    world.create("theirs", json!({"spec": {"loadBalancerClass": "x/y"}}));
    let theirs = ServiceView::of(&world.services[&key("theirs")], &world.selection()).unwrap().reference;
    world.foreign_vip("192.0.2.1", theirs);
    world.create("web", json!({}));
    world.settle();
    assert_eq!((world.conflicts, world.ingress("web").len()), (1, 0));
    world.relist(Kind::VirtualIp);
    world.settle();
    assert_eq!(world.ingress("web"), ["192.0.2.2"]);
}

#[test]
fn virtual_ip_of_a_foreign_service_is_deleted_without_touching_the_service() {
    let mut world = World::new();
    world.create("theirs", json!({"spec": {"loadBalancerClass": "x/y"}}));
    let theirs = ServiceView::of(&world.services[&key("theirs")], &world.selection()).unwrap().reference;
    world.foreign_vip("192.0.2.1", theirs);
    world.relist(Kind::VirtualIp);
    world.live();
    assert!(world.vips.is_empty());
    assert!(!world.writes().contains(&"PatchServiceStatus".to_owned()));
}

#[test]
fn virtual_ip_deleted_by_hand_is_made_again() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    let before = world.vips[&address("192.0.2.1")].metadata.uid.clone();
    world.delete_vip("192.0.2.1");
    world.live();
    assert_ne!(world.vips[&address("192.0.2.1")].metadata.uid, before);
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}
