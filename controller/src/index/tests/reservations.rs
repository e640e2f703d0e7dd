//! Addresses that no Service is given, and what becomes of one that a Service has already.

use herald_crds::names::CONDITION_ACCEPTED;
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::{
    world::{World, address},
    *,
};

fn shown(addresses: &[&str]) -> Value {
    let ingress: Vec<_> = addresses.iter().map(|a| json!({"ip": a})).collect();
    json!({"status": {"loadBalancer": {"ingress": ingress}}})
}

/// The Node lists these addresses from now on.
fn node_lists(world: &mut World, name: &str, addresses: &[&str]) {
    let addresses = addresses.iter().map(|a| address(a)).collect();
    let node = NodeView { addresses, ..world.nodes[name].clone() };
    world.nodes.insert(name.to_owned(), node.clone());
    world.index.apply(Object::Node(name.to_owned(), node));
}

/// Warnings told so far, by reason.
fn warnings(world: &World) -> Vec<&'static str> {
    world.events().iter().filter(|event| event.warning).map(|event| event.reason).collect()
}

#[test_case("0.0.0.0/8", "0.0.0.7", "unspecified")]
#[test_case("127.0.0.0/8", "127.0.0.1", "loopback")]
#[test_case("169.254.0.0/16", "169.254.1.1", "link-local")]
#[test_case("224.0.0.0/4", "239.1.1.1", "multicast")]
#[test_case("240.0.0.0/4", "255.255.255.255", "broadcast")]
#[test_case("::/127", "::1", "loopback"; "IPv6 loopback")]
#[test_case("fe80::/64", "fe80::7", "link-local"; "IPv6 link-local")]
#[test_case("ff02::/16", "ff02::1", "multicast"; "IPv6 multicast")]
#[test_case("::ffff:0:0/96", "::ffff:10.0.0.1", "IPv4-mapped")]
fn address_that_no_host_has_is_never_given_out(block: &str, wanted: &str, meaning: &str) {
    let mut world = World::empty();
    world.pool("odd", json!({"addresses": [block]}));
    world.restart();
    let family = if wanted.contains(':') { "IPv6" } else { "IPv4" };
    let spec = json!({"ipFamilies": [family]});
    world.create("any", json!({"spec": spec}));
    world.create("named", json!({"spec": {"ipFamilies": [family], "loadBalancerIP": wanted}}));
    world.live();
    assert_eq!(world.condition("any"), "False PoolFull");
    assert_eq!(world.condition("named"), "False AddressReserved");
    let message = world.service_condition("named").unwrap().message;
    assert!(message.contains(wanted) && message.contains(meaning), "{message}");
    assert!(world.vips.is_empty());
    let accepted = world.pool_condition("odd", CONDITION_ACCEPTED);
    assert_eq!((&*accepted.status, &*accepted.reason), ("True", "Overlaps"));
    assert!(accepted.message.contains(meaning) && accepted.message.contains("None of these is given out"));
}

#[test]
fn pool_that_holds_special_addresses_gives_the_others() {
    let mut world = World::empty();
    world.pool("odd", json!({"addresses": ["126.255.255.255-128.0.0.0"]}));
    world.restart();
    for name in ["x", "y", "z"] {
        world.create(name, json!({}));
    }
    world.live();
    assert_eq!(world.ingress("x"), ["126.255.255.255"]);
    assert_eq!(world.ingress("y"), ["128.0.0.0"]);
    assert_eq!(world.condition("z"), "False PoolFull");
    assert_eq!(world.pools["odd"].status.as_ref().unwrap().ipv4.as_ref().unwrap().available, "0");
}

/// As k3s ServiceLB leaves them.
#[test]
fn address_of_a_node_in_a_status_is_not_adopted() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.0/24"]}));
    node_lists(&mut world, "a", &["192.0.2.11"]);
    world.create("web", json!({}));
    world.change("web", shown(&["192.0.2.11"]));
    world.restart();
    world.live();
    assert!(world.vips.is_empty());
    assert_eq!(
        (world.condition("web"), world.ingress("web")),
        ("False AddressNotAdopted".into(), vec!["192.0.2.11".into()])
    );
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains("192.0.2.11, which is in status.addresses of Node a"), "{message}");
    assert_eq!(warnings(&world), ["SyncLoadBalancerFailed"]);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    // Emptied by hand: it gets one like any other.
    world.change("web", json!({"status": {"loadBalancer": {"ingress": null}}}));
    world.live();
    assert_eq!(world.condition("web"), "True Assigned");
    assert!(!world.ingress("web").is_empty() && !world.ingress("web").contains(&"192.0.2.11".to_owned()));
}

#[test]
fn special_address_in_a_status_is_not_adopted() {
    let mut world = World::empty();
    world.pool("odd", json!({"addresses": ["127.0.0.0/24", "192.0.2.1"]}));
    world.create("web", json!({}));
    world.change("web", shown(&["127.0.0.1"]));
    world.restart();
    world.live();
    assert_eq!((world.condition("web"), world.vips.len()), ("False AddressNotAdopted".into(), 0));
}

/// The node goes: whose status shows its address may keep that.
#[test]
fn service_that_shows_the_address_of_a_node_is_woken_when_the_node_goes() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    node_lists(&mut world, "b", &["192.0.2.2"]);
    world.create("web", json!({}));
    world.change("web", shown(&["192.0.2.2"]));
    world.restart();
    world.live();
    assert_eq!(world.condition("web"), "False AddressNotAdopted");
    world.nodes.remove("b");
    world.index.delete(&Object::Node("b".to_owned(), NodeView::default()));
    world.live();
    assert_eq!((world.condition("web"), world.ingress("web")), ("True Assigned".into(), vec!["192.0.2.2".into()]));
}

#[test]
fn address_that_becomes_a_nodes_stays_with_a_warning() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.log.clear();
    node_lists(&mut world, "b", &["192.0.2.1"]);
    world.live();
    assert_eq!((world.ingress("web"), world.condition("web")), (vec!["192.0.2.1".into()], "True Assigned".into()));
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains("192.0.2.1 is in status.addresses of Node b"), "{message}");
    assert_eq!(warnings(&world), ["ReservedAddress"]);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    assert!(world.vips.contains_key(&address("192.0.2.1")));
    node_lists(&mut world, "b", &[]);
    world.live();
    assert_eq!(world.service_condition("web").unwrap().message, "192.0.2.1 from AddressPool lan");
}

/// Nobody is asked again for an address that no pool holds.
#[test]
fn reservation_outside_every_pool_marks_nothing() {
    let mut world = World::new();
    for name in ["x", "y", "z", "waits"] {
        world.create(name, json!({}));
    }
    world.live();
    let queued = world.index.queue.depth();
    world.index.reserve(Reservation::Node("c".to_owned()), ["198.51.100.7".parse().unwrap()]);
    assert_eq!(world.index.queue.depth(), queued);
    world.index.reserve(Reservation::Node("c".to_owned()), ["192.0.2.2".parse().unwrap()]);
    // The pool, the Service that has it, and the one that waits.
    assert_eq!(world.index.queue.depth(), queued + 3);
}
