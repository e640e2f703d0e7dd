//! Several addresses of one family for a Service (annotation `heraldlb.io/address-count`).

use std::collections::BTreeSet;

use herald_crds::names::ANNOTATION_COUNT;
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::tests::fake_cluster::{World, address, merge};

fn count(value: &str) -> Value {
    json!({"metadata": {"annotations": {ANNOTATION_COUNT: value}}})
}

/// Returns a world whose pool has nine IPv4 addresses, with `web`, which asks for this number of them.
fn world(asks: &str) -> World {
    let mut world = World::new();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.9"]}));
    world.create("web", count(asks));
    world.live();
    world
}

/// Checks that nothing is written at rest, nor by a process that starts.
fn at_rest(world: &mut World) {
    world.pass(60);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

#[test]
fn service_gets_the_requested_number_of_each_family_on_different_nodes() {
    let mut world = world("1");
    world.pool("six", json!({"addresses": ["2001:db8::4-2001:db8::7"]}));
    let mut both = json!({"spec": {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}});
    merge(&mut both, count("2"));
    world.create("dual", both);
    world.live();
    assert_eq!(world.ingress("dual"), ["2001:db8::4", "2001:db8::5", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(
        (&*world.condition("dual"), world.allocated_from("dual").as_deref()),
        ("True Assigned", Some("six,lan"))
    );
    for pair in [["2001:db8::4", "2001:db8::5"], ["192.0.2.2", "192.0.2.3"]] {
        let homes: BTreeSet<_> = pair.iter().map(|at| world.vips[&address(at)].spec.home_node.clone()).collect();
        assert_eq!(homes.len(), 2, "{homes:?}");
    }
    at_rest(&mut world);
}

#[test]
fn larger_number_adds_addresses_and_smaller_one_releases_the_last_added() {
    let mut world = world("1");
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    world.change("web", json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.7"}}}));
    world.live();
    world.change("web", json!({"metadata": {"annotations": {"heraldlb.io/addresses": null}}}));
    world.change("web", count("3"));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.7", "192.0.2.1", "192.0.2.2"], "the former address is first");
    at_rest(&mut world);
    world.change("web", count("2"));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.7", "192.0.2.1"]);
    assert!(!world.vips.contains_key(&address("192.0.2.2")), "its VirtualIP is withdrawn");
    at_rest(&mut world);
    world.change("web", json!({"metadata": {"annotations": {ANNOTATION_COUNT: null}}}));
    world.create("next", json!({}));
    world.live();
    assert_eq!((world.ingress("web"), world.ingress("next")), (vec!["192.0.2.7".into()], vec!["192.0.2.2".into()]));
}

#[test_case("0")]
#[test_case("-1")]
#[test_case("x")]
#[test_case("33")]
#[test_case("1.5")]
fn unreadable_number_is_refused_and_changes_nothing(bad: &str) {
    let mut world = world("3");
    world.create("new", count(bad));
    world.change("web", count(bad));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!((world.ingress("new").len(), &*world.condition("new")), (0, "False BadRequest"));
    assert_eq!(world.condition("web"), "False BadRequest");
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains(&format!("{bad:?} is not a number from 1 to 32")), "{message}");
    at_rest(&mut world);
    world.change("web", count("3"));
    world.live();
    assert_eq!((world.ingress("web").len(), &*world.condition("web")), (3, "True Assigned"));
}

/// The available addresses are published, and the condition gives both numbers and the reason.
#[test_case("SingleStack")]
#[test_case("PreferDualStack")]
fn fewer_addresses_than_requested_are_published_and_the_rest_is_awaited(policy: &str) {
    let mut world = World::new();
    let families = if policy == "SingleStack" { json!(["IPv4"]) } else { json!(["IPv4", "IPv6"]) };
    let mut asks = json!({"spec": {"ipFamilies": families, "ipFamilyPolicy": policy}});
    merge(&mut asks, count("5"));
    world.create("web", asks);
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(world.condition("web"), "False PoolFull");
    let message = world.service_condition("web").unwrap().message;
    for part in ["has 3 of the 5 IPv4 addresses", "every IPv4 address of AddressPool lan is taken", "keeps 192.0.2.1"] {
        assert!(message.contains(part), "{message}");
    }
    at_rest(&mut world);
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.9"]}));
    world.live();
    assert_eq!((world.ingress("web").len(), &*world.condition("web")), (5, "True Assigned"));
}

#[test]
fn both_families_or_none_is_kept_with_several_addresses() {
    let mut world = World::new();
    let mut asks = json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}});
    merge(&mut asks, count("2"));
    world.create("web", asks);
    world.live();
    assert_eq!((world.ingress("web").len(), &*world.condition("web")), (0, "False NoPoolAllows"));
    assert!(world.vips.is_empty() && world.index.allocator.occupants().next().is_none());
}

#[test]
fn requested_addresses_are_among_those_assigned() {
    let mut world = world("2");
    let named = |list: &str| json!({"metadata": {"annotations": {"heraldlb.io/addresses": list}}});
    world.change("web", named("192.0.2.5"));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1", "192.0.2.5"], "one stays, the last added makes room");
    world.change("web", named("192.0.2.8,192.0.2.7"));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.8", "192.0.2.7"]);
    at_rest(&mut world);
    // A request for an address that another Service has removes nothing.
    world.create("other", named("192.0.2.9"));
    world.live();
    world.change("web", named("192.0.2.8,192.0.2.9"));
    world.live();
    assert_eq!(
        (world.ingress("web"), &*world.condition("web")),
        (vec!["192.0.2.8".into(), "192.0.2.7".into()], "False AddressInUse")
    );
    at_rest(&mut world);
}

#[test]
fn only_the_address_that_a_stranger_holds_is_replaced() {
    let mut world = World::new();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.40"]}));
    world.stranger("192.0.2.2");
    world.create("web", count("3"));
    world.live();
    assert_eq!(
        (world.ingress("web"), world.quarantined("lan")),
        (vec!["192.0.2.1".into(), "192.0.2.3".into(), "192.0.2.4".into()], vec!["192.0.2.2".to_owned()])
    );
    let told: Vec<_> = world.events().into_iter().filter(|event| event.reason == "AddressQuarantined").collect();
    assert!(told.len() == 1 && told[0].note.contains("gets 192.0.2.4"), "{told:?}");
    at_rest(&mut world);
}

#[test]
fn several_addresses_are_shared_one_by_one() {
    let mut world = World::new();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.9"]}));
    let shares = |port: i32, number: &str| {
        let mut asks = json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": "k"}}, "spec": {"ports": [{"port": port}]}});
        merge(&mut asks, count(number));
        asks
    };
    world.create("x", shares(80, "2"));
    world.create("y", shares(81, "3"));
    world.live();
    assert_eq!(
        (world.ingress("x"), world.ingress("y")),
        (
            vec!["192.0.2.1".into(), "192.0.2.2".into()],
            vec!["192.0.2.1".into(), "192.0.2.2".into(), "192.0.2.3".to_owned()]
        )
    );
    world.delete("x");
    world.live();
    assert_eq!(world.ingress("y").len(), 3);
    at_rest(&mut world);
}

#[test]
fn request_for_another_pool_moves_every_address() {
    let mut world = world("2");
    world.pool("dmz", json!({"addresses": ["192.0.2.20"]}));
    world.change("web", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "dmz"}}}));
    world.live();
    assert_eq!(
        (world.ingress("web"), &*world.condition("web")),
        (vec!["192.0.2.1".into(), "192.0.2.20".into()], "False PoolFull")
    );
    at_rest(&mut world);
    world.pool("dmz", json!({"addresses": ["192.0.2.20-192.0.2.21"]}));
    world.live();
    assert_eq!(
        (world.ingress("web"), &*world.condition("web")),
        (vec!["192.0.2.20".into(), "192.0.2.21".into()], "True Assigned")
    );
}
