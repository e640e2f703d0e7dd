//! Addresses that another host holds: the Services that get another, those that keep theirs, and the reports.

use herald_crds::{
    names::{ANNOTATION_RELEASE_QUARANTINE, CONDITION_ACCEPTED, CONDITION_CONFLICT, LABEL_ADOPTED},
    virtual_ip::AnnouncedReason,
};
use serde_json::json;
use test_case::test_case;

use crate::index::{
    tests::fake_cluster::{STRANGER, World, address, key},
    *,
};

/// Returns a world whose pool has `n` addresses from .1 on, of which strangers hold the first `strangers`.
fn world(n: u8, strangers: u8) -> World {
    let mut world = World::new();
    world.pool("lan", json!({"addresses": [format!("192.0.2.1-192.0.2.{n}")]}));
    for held in 1..=strangers {
        world.stranger(&format!("192.0.2.{held}"));
    }
    world
}

fn warnings(world: &World) -> Vec<&'static str> {
    world.events().into_iter().filter(|e| e.warning).map(|e| e.reason).collect()
}

fn annotate(world: &mut World, value: &str) {
    let mut pool = world.pools["lan"].clone();
    pool.metadata.annotations = Some([(ANNOTATION_RELEASE_QUARANTINE.to_owned(), value.to_owned())].into());
    world.pools.insert("lan".to_owned(), pool.clone());
    world.index.apply(Object::Pool(Box::new(pool)));
}

#[test]
fn address_of_a_stranger_is_quarantined_and_the_service_gets_another() {
    let mut world = world(40, 1);
    world.create("web", json!({}));
    world.settle();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    world.log.clear();
    world.speakers_act();
    world.settle();
    assert_eq!(world.ingress("web"), ["192.0.2.2"]);
    assert_eq!(world.condition("web"), "True Assigned");
    let order: Vec<_> = world.writes().into_iter().filter(|w| w != "Event").collect();
    // The address is in quarantine before the Service gives it up: a restart in between forgets nothing.
    assert_eq!(order[..4], ["PatchPoolStatus", "CreateVirtualIp", "PatchServiceStatus", "DeleteVirtualIp"]);
    let quarantined = world.pools["lan"].status.as_ref().unwrap().quarantined[0].clone();
    assert_eq!((&*quarantined.address, &*quarantined.mac_address), ("192.0.2.1", STRANGER));
    assert_eq!(quarantined.service.name, "web");
    assert_eq!(warnings(&world), ["AddressQuarantined"]);
    let event = world.events().into_iter().find(|e| e.warning).unwrap().clone();
    for word in ["192.0.2.1", STRANGER, "gets 192.0.2.2", "for an hour"] {
        assert!(event.note.contains(word), "{}", event.note);
    }
    world.live();
    assert!(!world.vips.contains_key(&address("192.0.2.1")));
    world.create("next", json!({}));
    world.live();
    assert_eq!(world.ingress("next"), ["192.0.2.3"], "not what is in quarantine");
    let usage = world.pools["lan"].status.as_ref().unwrap().ipv4.clone().unwrap();
    assert_eq!((&*usage.capacity, &*usage.assigned, &*usage.available), ("40", "2", "37"));
}

#[test]
fn restart_after_any_write_forgets_nothing() {
    for writes in 0..12 {
        let mut world = world(40, 1);
        world.create("web", json!({}));
        world.settle();
        world.speakers_act();
        for _ in 0..writes {
            if let Some(action) = world.index.poll_action(world.now) {
                world.carry_out(&action);
            }
        }
        world.restart();
        world.live();
        assert_eq!(world.ingress("web"), ["192.0.2.2"], "after {writes} writes");
        assert_eq!(world.quarantined("lan"), ["192.0.2.1"], "after {writes} writes");
        world.log.clear();
        world.restart();
        world.pass(60);
        assert!(world.log.is_empty(), "{:?}", world.log);
    }
}

#[test]
fn quarantine_ends_after_an_hour() {
    let mut world = world(40, 1);
    world.create("web", json!({}));
    world.live();
    world.pass(3590);
    assert_eq!(world.quarantined("lan"), ["192.0.2.1"]);
    world.restart();
    world.pass(20);
    assert!(world.quarantined("lan").is_empty());
    world.held_by_others.clear();
    world.create("next", json!({}));
    world.live();
    assert_eq!((world.ingress("next"), world.ingress("web")), (vec!["192.0.2.1".into()], vec!["192.0.2.2".into()]));
}

#[test_case("192.0.2.1")]
#[test_case("192.0.2.9, 192.0.2.1")]
#[test_case("all")]
fn annotation_releases_addresses_from_quarantine(annotation: &str) {
    let mut world = world(40, 1);
    world.create("web", json!({}));
    world.live();
    annotate(&mut world, "192.0.2.9");
    world.live();
    assert_eq!(world.quarantined("lan"), ["192.0.2.1"]);
    annotate(&mut world, annotation);
    world.live();
    assert!(world.quarantined("lan").is_empty());
    // The stranger is still there. The address stays out of quarantine as long as the annotation exists.
    world.create("next", json!({}));
    world.live();
    assert_eq!(
        (world.ingress("next"), world.condition("next")),
        (vec!["192.0.2.1".into()], "True AddressConflict".into())
    );
    annotate(&mut world, "");
    world.live();
    assert_eq!((world.ingress("next"), world.condition("next")), (vec!["192.0.2.3".into()], "True Assigned".into()));
}

#[test]
fn unreadable_annotation_releases_nothing_and_is_reported_by_the_pool() {
    let mut world = world(40, 1);
    world.create("web", json!({}));
    annotate(&mut world, "192.0.2.1 and more");
    world.live();
    world.pass(2);
    assert_eq!(world.quarantined("lan"), ["192.0.2.1"]);
    let accepted = world.pool_condition("lan", CONDITION_ACCEPTED);
    assert_eq!((&*accepted.status, &*accepted.reason), ("True", "InvalidAnnotation"));
    assert!(accepted.message.contains("192.0.2.1 and more"), "{}", accepted.message);
}

/// A Service keeps these addresses although a stranger holds them: there is one Warning and a condition that names the
/// holder and the reason, and no address is quarantined.
#[test_case(json!({"spec": {"loadBalancerIP": "192.0.2.1"}}), "asks for this address"; "requested")]
#[test_case(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}), "before Herald served it"; "adopted")]
fn requested_or_adopted_address_is_kept_with_a_warning(service: serde_json::Value, why: &str) {
    let mut world = world(40, 1);
    world.create("web", service);
    world.live();
    world.pass(600);
    assert_eq!(
        (world.ingress("web"), world.condition("web")),
        (vec!["192.0.2.1".into()], "True AddressConflict".into())
    );
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains(STRANGER) && message.contains(why), "{message}");
    assert_eq!(warnings(&world), ["AddressConflict"]);
    assert!(world.quarantined("lan").is_empty());
    world.held_by_others.clear();
    world.live();
    assert_eq!(world.condition("web"), "True Assigned");
    assert_eq!(warnings(&world), ["AddressConflict"]);
}

#[test]
fn contested_address_is_replaced_once_it_is_not_requested() {
    let mut world = world(40, 1);
    world.create("web", json!({"spec": {"loadBalancerIP": "192.0.2.1"}}));
    world.live();
    world.change("web", json!({"spec": {"loadBalancerIP": null}}));
    world.live();
    assert_eq!((world.ingress("web"), world.quarantined("lan")), (vec!["192.0.2.2".into()], vec!["192.0.2.1".into()]));
}

#[test]
fn adopted_address_is_labelled() {
    let mut world = World::new();
    world.create("old", json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}));
    world.create("new", json!({}));
    world.live();
    let adopted = |at: &str| world.vips[&address(at)].metadata.labels.as_ref().unwrap().contains_key(LABEL_ADOPTED);
    assert!(adopted("192.0.2.1") && !adopted("192.0.2.2"));
}

#[test]
fn address_that_a_cluster_node_answers_for_is_not_quarantined() {
    let mut world = World::new();
    let sentence = "node b answers for it without having claimed it".to_owned();
    world.held_by_others.insert(address("192.0.2.1"), (AnnouncedReason::AnsweredByClusterNode, sentence.clone()));
    world.create("web", json!({}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    assert_eq!(world.condition("web"), "True AnsweredByClusterNode");
    assert!(world.service_condition("web").unwrap().message.contains(&sentence));
    assert_eq!(warnings(&world), ["AnsweredByClusterNode"]);
    assert!(world.quarantined("lan").is_empty());
}

#[test]
fn announced_address_is_never_replaced() {
    let mut world = world(40, 0);
    world.create("web", json!({}));
    world.live();
    // The node of the address is gone, so no node announces it; then a stranger takes it.
    world.node("a", false);
    world.pass(10);
    let mut vip = world.vips[&address("192.0.2.1")].clone();
    assert_eq!(vip.status.as_ref().unwrap().node, None);
    let sentence = format!("a host with the link-layer address {STRANGER} answered");
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
    vip.status.as_mut().unwrap().conditions = vec![AnnouncedReason::Conflict.condition(sentence, None, now)];
    world.store_vip(vip);
    world.settle();
    assert_eq!((world.ingress("web"), world.quarantined("lan").len()), (vec!["192.0.2.1".into()], 0));
}

#[test]
fn at_most_three_addresses_of_a_service_are_quarantined() {
    let mut world = world(200, 9);
    world.create("web", json!({}));
    for _ in 0..8 {
        world.live();
    }
    assert_eq!(world.quarantined("lan"), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(
        (world.ingress("web"), world.condition("web")),
        (vec!["192.0.2.4".into()], "True AddressConflict".into())
    );
    assert_eq!(warnings(&world), ["AddressQuarantined", "AddressQuarantined", "AddressQuarantined", "AddressConflict"]);
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains("3 addresses it had before are in quarantine already"), "{message}");
    // There is room again after an hour.
    world.held_by_others.clear();
    world.stranger("192.0.2.4");
    world.pass(3700);
    assert_eq!((world.ingress("web"), world.quarantined("lan")), (vec!["192.0.2.1".into()], vec!["192.0.2.4".into()]));
}

#[test_case(10, 1; "at least one")]
#[test_case(60, 3; "five per cent")]
fn router_that_answers_for_everything_does_not_use_up_a_pool(size: u8, limit: usize) {
    let mut world = world(size, size);
    for name in ["v", "w", "x"] {
        world.create(name, json!({}));
    }
    for _ in 0..12 {
        world.live();
    }
    world.pass(120);
    assert_eq!(world.quarantined("lan").len(), limit);
    for name in ["v", "w", "x"] {
        assert_eq!((world.ingress(name).len(), world.condition(name)), (1, "True AddressConflict".into()), "{name}");
    }
}

#[test]
fn contested_address_is_kept_while_there_is_no_other() {
    let mut world = world(1, 1);
    world.create("web", json!({}));
    world.live();
    assert_eq!((world.ingress("web"), world.condition("web")), (vec!["192.0.2.1".into()], "False PoolFull".into()));
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains(STRANGER), "{message}");
    world.create("late", json!({}));
    world.live();
    world.pool("more", json!({"addresses": ["192.0.2.7-192.0.2.8"]}));
    world.live();
    assert_eq!((world.ingress("web"), world.ingress("late")), (vec!["192.0.2.7".into()], vec!["192.0.2.8".into()]));
}

#[test]
fn only_the_family_in_conflict_is_replaced() {
    let mut world = world(40, 1);
    world.pool("six", json!({"addresses": ["2001:db8::/64"]}));
    world.create("web", json!({"spec": {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}}));
    world.live();
    assert_eq!(world.ingress("web"), ["2001:db8::1", "192.0.2.2"]);
}

#[test]
fn overlapping_pool_gives_a_quarantined_address_only_on_request() {
    let mut world = world(40, 1);
    world.create("web", json!({}));
    world.live();
    world.pool("other", json!({"addresses": ["192.0.2.1-192.0.2.5"]}));
    world.create("any", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "other"}}}));
    world.create("named", json!({"spec": {"loadBalancerIP": "192.0.2.1"}}));
    world.live();
    assert_eq!((world.ingress("any"), world.ingress("named")), (vec!["192.0.2.3".into()], vec!["192.0.2.1".into()]));
    assert_eq!(world.condition("named"), "True AddressConflict");
    world.held_by_others.clear();
    world.live();
    assert!(world.quarantined("lan").is_empty(), "it is announced");
}

#[test]
fn address_that_is_announced_later_leaves_quarantine() {
    let mut world = world(40, 1);
    world.create("web", json!({}));
    world.live();
    world.held_by_others.clear();
    world.create("named", json!({"spec": {"loadBalancerIP": "192.0.2.1"}}));
    world.live();
    assert_eq!((world.condition("named"), world.quarantined("lan").len()), ("True Assigned".into(), 0));
}

/// No Service joins an address that a stranger holds; a waiting Service joins it once the stranger is gone.
#[test]
fn waiting_sharer_is_served_once_the_stranger_is_gone() {
    let key = json!({"annotations": {"heraldlb.io/allow-shared-ip": "k"}});
    let shares = |port: u16| json!({"metadata": key, "spec": {"ports": [{"port": port}]}});
    let mut world = world(1, 1);
    let mut first = shares(80);
    // The request keeps the address, so that the quarantine does not change.
    first["spec"]["loadBalancerIP"] = json!("192.0.2.1");
    world.create("first", first);
    world.live();
    world.create("second", shares(81));
    world.live();
    assert_eq!((world.ingress("second").len(), &*world.condition("second")), (0, "False PoolFull"));
    world.held_by_others.clear();
    world.live();
    assert_eq!((world.ingress("second"), &*world.condition("second")), (vec!["192.0.2.1".to_owned()], "True Assigned"));
}

#[test]
fn request_for_another_pool_creates_one_address() {
    let mut world = world(3, 0);
    world.create("web", json!({}));
    world.live();
    world.pool("dmz", json!({"addresses": ["192.0.2.100-192.0.2.109"], "autoAssign": false}));
    world.change("web", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "dmz"}}}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.100"]);
    let created = world.writes().iter().filter(|w| *w == "CreateVirtualIp").count();
    assert_eq!((created, world.vips.len()), (2, 1));
}

/// A speaker's condition about a later conflict outlives a correction of ours.
#[test]
fn correction_keeps_the_other_conditions() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    let mut vip = world.vips[&address("192.0.2.1")].clone();
    let conditions = &mut vip.status.as_mut().unwrap().conditions;
    let mut conflict = conditions[0].clone();
    conflict.type_ = CONDITION_CONFLICT.to_owned();
    conditions.push(conflict);
    world.store_vip(vip);
    world.node("a", false);
    world.pass(10);
    let status = world.vips[&address("192.0.2.1")].status.clone().unwrap();
    let types: Vec<_> = status.conditions.iter().map(|c| (&*c.type_, &*c.reason)).collect();
    assert_eq!(types, [(CONDITION_CONFLICT, "Announcing"), ("Announced", "NodeLost")]);
    assert!(world.services.contains_key(&key("web")));
}
