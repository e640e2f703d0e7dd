//! A Service's life, from its creation to its release.

use herald_crds::names::{FINALIZER_SERVICE_CLASS, FINALIZER_SERVICE_DEFAULT};
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::{
    tests::fake_cluster::{World, address, key},
    *,
};

#[test]
fn virtual_ip_then_status_then_event() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.settle();
    // With the speaker's status write: four for a Service.
    assert_eq!(world.writes(), ["CreateVirtualIp", "PatchServiceStatus", "Event"]);
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    assert_eq!(world.finalizers("web"), [FINALIZER_SERVICE_CLASS]);
    assert_eq!(world.condition("web"), "True Assigned");
    let events = world.events();
    assert_eq!((events[0].reason, &*events[0].note), ("EnsuredLoadBalancer", "192.0.2.1 from AddressPool lan"));
    let vip = &world.vips[&address("192.0.2.1")];
    assert_eq!(vip.spec.home_node.as_deref(), Some("a"));
    assert_eq!(vip.metadata.labels.as_ref().unwrap()["heraldlb.io/service-name"], "web");
    world.create("second", json!({}));
    world.settle();
    assert_eq!(world.vips[&address("192.0.2.2")].spec.home_node.as_deref(), Some("b"), "balanced");
}

#[test]
fn homes_are_balanced_before_the_creates_are_observed() {
    let mut world = World::new();
    for name in ["w", "x"] {
        world.create(name, json!({}));
    }
    let created: Vec<Action> = std::iter::from_fn(|| world.index.poll_action(world.now)).collect();
    let home = |a: &Action| match a {
        Action::CreateVirtualIp { spec, .. } => spec.home_node.clone(),
        _ => None,
    };
    assert_eq!(created.iter().filter_map(home).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn nothing_is_decided_before_every_kind_is_listed() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1"]}));
    world.create("web", json!({}));
    world.index = Index::new(Timestamp::UNIX_EPOCH);
    world.index.set_leading(true);
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_awaited()) {
        world.settle();
        world.wrote_nothing();
        world.relist(kind);
    }
    world.settle();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

#[test]
fn a_follower_writes_nothing_and_takes_over_from_what_it_sees() {
    let mut world = World::new();
    world.index.set_leading(false);
    world.create("web", json!({}));
    world.settle();
    world.wrote_nothing();
    world.index.set_leading(true);
    world.settle();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

#[test]
fn a_restart_with_nothing_changed_writes_nothing() {
    let mut world = World::new();
    for name in ["one", "two", "three", "refused"] {
        world.create(name, json!({}));
    }
    world.live();
    assert_eq!(world.condition("refused"), "False PoolFull");
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

#[test_case(json!({"spec": {"loadBalancerClass": "example.com/internal-vip"}}), true; "another class")]
#[test_case(json!({"spec": {"loadBalancerClass": null}}), false; "no class, not the default")]
#[test_case(json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}}), true; "no load balancer")]
#[test_case(json!({"spec": {"type": "NodePort", "loadBalancerClass": null}}), true; "node port")]
fn what_is_not_ours_is_not_touched(change: Value, default_provider: bool) {
    let mut world = World::new();
    world.default_provider = default_provider;
    world.restart();
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        "metadata": {"finalizers": [FINALIZER_SERVICE_DEFAULT]}});
    world.create("theirs", change);
    world.change("theirs", status);
    world.live();
    world.delete("theirs");
    world.live();
    // The pool says that the address is given to no other.
    let to_services: Vec<_> = world.writes().into_iter().filter(|write| write != "PatchPoolStatus").collect();
    assert_eq!(to_services, Vec::<String>::new());
}

#[test]
fn as_default_provider_upstreams_finalizer() {
    let mut world = World::new();
    world.default_provider = true;
    world.restart();
    world.create("web", json!({"spec": {"loadBalancerClass": null}}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    assert_eq!(world.finalizers("web"), [FINALIZER_SERVICE_DEFAULT]);
    world.change("web", json!({"spec": {"type": "NodePort"}}));
    world.live();
    assert!(world.finalizers("web").is_empty());
}

#[test]
fn a_conflict_is_decided_again_on_the_new_version() {
    let mut world = World::new();
    world.create("web", json!({}));
    let create = world.index.poll_action(world.now).unwrap();
    world.carry_out(&create);
    let patch = world.index.poll_action(world.now).unwrap();
    world.change("web", json!({"metadata": {"labels": {"a": "b"}}}));
    world.carry_out(&patch);
    assert_eq!((world.conflicts, world.ingress("web").len()), (1, 0));
    assert_eq!(world.index.poll_action(world.now), None, "not at once");
    world.pass(1);
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

/// Service to node port, external name, or away: silent first, free second, finalizer third.
#[test_case(Some("ClusterIP"))]
#[test_case(Some("ExternalName"))]
#[test_case(None; "deleted")]
fn release(new_type: Option<&str>) {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    for name in ["b", "c", "waits"] {
        world.create(name, json!({}));
    }
    world.live();
    assert_eq!(world.condition("waits"), "False PoolFull");
    world.log.clear();
    match new_type {
        Some(new_type) => world.change("web", json!({"spec": {"type": new_type}})),
        None => world.delete("web"),
    }
    world.settle();
    assert_eq!(world.writes(), ["DeleteVirtualIp"]);
    assert_eq!(world.finalizers("web"), [FINALIZER_SERVICE_CLASS], "until the announcer is silent");
    world.speakers_act();
    world.settle();
    assert!(world.finalizers("web").is_empty());
    assert_eq!(world.services.contains_key(&key("web")), new_type.is_some());
    world.live();
    assert_eq!(world.ingress("waits"), ["192.0.2.1"], "a freed address wakes who waits");
    let order: Vec<_> = world.writes().into_iter().filter(|w| w != "PatchPoolStatus").collect();
    assert_eq!(order[..2], ["DeleteVirtualIp", "RemoveVirtualIpFinalizer"]);
    assert!(world.events().iter().any(|e| e.reason == "DeletedLoadBalancer" && !e.warning));
}

#[test]
fn an_announcer_that_never_answers_holds_an_address_for_ten_seconds() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.delete("web");
    world.pass(9);
    assert_eq!(world.vips.len(), 1);
    world.pass(2);
    assert!(world.vips.is_empty() && world.services.is_empty());
    let warnings: Vec<_> = world.events().into_iter().filter(|e| e.warning).collect();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].note.contains("node a"), "{}", warnings[0].note);
}

#[test_case(true; "the node is not Ready")]
#[test_case(false; "the node is gone")]
fn a_lost_announcer_is_not_waited_for(there: bool) {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    if there {
        world.node("a", false);
    } else {
        world.nodes.remove("a");
        world.relist(Kind::Node);
    }
    world.delete("web");
    world.settle();
    assert!(world.vips.is_empty() && world.services.is_empty());
    assert!(world.events().iter().all(|e| !e.warning));
}

#[test]
fn recreated_under_its_name_the_old_one_is_released_first() {
    let mut world = World::new();
    world.create("web", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    world.live();
    // The finalizer was taken away by force; the watch missed the time between.
    world.create("web", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    world.settle();
    assert_eq!(world.condition("web"), "False AddressInUse");
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.2"]);
    assert_eq!(
        world.vips[&address("192.0.2.2")].spec.services[0].uid,
        world.services[&key("web")].metadata.uid.clone().unwrap()
    );
}

#[test]
fn the_flag_taken_away_releases() {
    let mut world = World::new();
    world.default_provider = true;
    world.restart();
    world.create("web", json!({"spec": {"loadBalancerClass": null}}));
    world.live();
    world.default_provider = false;
    world.restart();
    world.live();
    assert!(world.ingress("web").is_empty() && world.vips.is_empty() && world.finalizers("web").is_empty());
    assert_eq!(world.condition("web"), "none");
    assert!(world.events().iter().any(|e| e.reason == "DeletedLoadBalancer"));
}
