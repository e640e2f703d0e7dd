//! Takeovers between two writes of one edit: the process that follows ends where the first one would have ended.

use herald_crds::names::{ANNOTATION_ADDRESSES, ANNOTATION_COUNT, LABEL_GATEWAY_NAME};
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::{
    Kind,
    tests::fake_cluster::{World, merge},
};

/// More steps than any of the edits takes.
const STEPS: usize = 24;

fn annotate(annotation: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {annotation: value}}})
}

fn dual(policy: &str) -> Value {
    json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy}})
}

fn both(mut one: Value, other: Value) -> Value {
    merge(&mut one, other);
    one
}

/// Returns a world with a pool of nine IPv4 and four IPv6 addresses, a smaller pool `dmz`, and Gateways.
fn world() -> World {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.9"]}));
    world.pool("six", json!({"addresses": ["2001:db8::4-2001:db8::7"]}));
    world.pool("dmz", json!({"addresses": ["192.0.2.20-192.0.2.21"], "autoAssign": false}));
    world.honours_gateways = true;
    world.gateway("front", &["192.0.2.7"]);
    world.restart();
    world
}

/// Returns a world in which `web` has just been edited, beside a Service that would share an address, and in which
/// another has come.
fn edited(before: &Value, edit: &Value) -> World {
    let mut world = world();
    world.create("web", before.clone());
    let shares = both(annotate("heraldlb.io/allow-shared-ip", Some("k")), json!({"spec": {"ports": [{"port": 82}]}}));
    world.create("beside", shares);
    world.live();
    world.live();
    world.change("web", edit.clone());
    world.create("later", json!({}));
    world
}

/// Returns the addresses and the condition of each Service once nothing happens any longer.
fn ends(world: &mut World) -> Vec<(Vec<String>, String)> {
    for _ in 0..4 {
        world.live();
    }
    world.pass(120);
    ["web", "beside", "later"].iter().map(|name| (world.ingress(name), world.condition(name))).collect()
}

/// Each case is the Service before the edit, and the edit.
#[test_case(json!({}), annotate(ANNOTATION_COUNT, Some("3")); "more")]
#[test_case(annotate(ANNOTATION_COUNT, Some("3")), annotate(ANNOTATION_COUNT, None); "fewer")]
#[test_case(annotate(ANNOTATION_COUNT, Some("3")), annotate(ANNOTATION_COUNT, Some("x")); "unreadable")]
#[test_case(annotate(ANNOTATION_COUNT, Some("2")), annotate(ANNOTATION_COUNT, Some("20")); "too many")]
#[test_case(annotate(ANNOTATION_COUNT, Some("3")), both(annotate(ANNOTATION_COUNT, Some("2")), annotate(ANNOTATION_ADDRESSES, Some("192.0.2.8"))); "fewer, one of them named")]
#[test_case(annotate(ANNOTATION_COUNT, Some("3")), annotate("heraldlb.io/address-pool", Some("dmz")); "a pool too small")]
#[test_case(both(dual("RequireDualStack"), annotate(ANNOTATION_COUNT, Some("2"))), annotate(ANNOTATION_COUNT, Some("9")); "two families, too many")]
#[test_case(both(dual("PreferDualStack"), annotate(ANNOTATION_COUNT, Some("3"))), json!({"spec": {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}}); "a family goes")]
#[test_case(annotate(ANNOTATION_COUNT, Some("2")), dual("RequireDualStack"); "a family comes")]
#[test_case(json!({}), annotate(ANNOTATION_ADDRESSES, Some("192.0.2.6")); "another address")]
#[test_case(json!({}), json!({"metadata": {"labels": {LABEL_GATEWAY_NAME: "front"}}}); "a Gateway comes")]
#[test_case(json!({"metadata": {"labels": {LABEL_GATEWAY_NAME: "front"}}}), json!({"metadata": {"labels": null}}); "a Gateway goes")]
#[test_case(json!({"metadata": {"labels": {LABEL_GATEWAY_NAME: "front"}}}), json!({"metadata": {"labels": {LABEL_GATEWAY_NAME: "absent"}}}); "an absent Gateway")]
#[test_case(json!({"metadata": {"labels": {LABEL_GATEWAY_NAME: "front"}}}), annotate("heraldlb.io/address-pool", Some("dmz")); "a Gateway that disagrees with the pool")]
#[test_case(json!({}), annotate("heraldlb.io/allow-shared-ip", Some("k")); "a sharing key")]
#[test_case(both(annotate("heraldlb.io/allow-shared-ip", Some("k")), json!({"spec": {"ports": [{"port": 80}]}})), both(annotate(ANNOTATION_COUNT, Some("3")), json!({"spec": {"ports": [{"port": 81}]}})); "shared and more")]
fn process_that_takes_over_between_two_writes_ends_where_the_first_would(before: Value, edit: Value) {
    let expected = ends(&mut edited(&before, &edit));
    for (step, gateways_late) in (0..STEPS).flat_map(|step| [(step, false), (step, true)]) {
        let mut world = edited(&before, &edit);
        for _ in 0..step {
            match world.index.poll_action(world.now) {
                Some(action) => world.carry_out(&action),
                None => world.speakers_act(),
            }
        }
        if gateways_late {
            world.restart_without(Kind::Gateway);
            for _ in 0..3 {
                world.live();
            }
            world.relist(Kind::Gateway);
        } else {
            world.restart();
        }
        assert_eq!(ends(&mut world), expected, "after {step} steps; Gateways late: {gateways_late}");
        world.log.clear();
        world.restart();
        world.pass(120);
        world.wrote_nothing();
    }
}
