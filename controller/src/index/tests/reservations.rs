//! Addresses that no Service gets, and the consequences for a Service that has one already.

use herald_crds::names::CONDITION_ACCEPTED;
use serde_json::{Value, json};
use test_case::test_case;

use crate::{
    index::{
        tests::fake_cluster::{World, address},
        *,
    },
    view::SpeakerView,
};

fn shown(addresses: &[&str]) -> Value {
    let ingress: Vec<_> = addresses.iter().map(|a| json!({"ip": a})).collect();
    json!({"status": {"loadBalancer": {"ingress": ingress}}})
}

fn node_lists(world: &mut World, name: &str, addresses: &[&str]) {
    world.node_lists(name, addresses.iter().map(|a| address(a)).collect());
}

/// Returns the Warnings so far, by reason.
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
fn special_address_is_never_given_out(block: &str, wanted: &str, meaning: &str) {
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

/// k3s ServiceLB leaves such addresses.
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
    // The status is emptied by hand: the Service gets an address like any other.
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

/// The node is deleted: a Service whose status shows its address may keep that address.
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
    world.index.delete(&Identity::Node("b".to_owned()));
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

/// No Service is decided again for an address that no pool holds.
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
    // These are the pool, the Service that has the address, and the one that waits.
    assert_eq!(world.index.queue.depth(), queued + 3);
}

#[test_case("192.0.2.0/24", "192.0.2.1", &["192.0.2.0", "192.0.2.255"]; "of a segment")]
#[test_case("10.40.0.0/29", "10.40.0.1", &["10.40.0.0", "10.40.0.7"]; "of a second NIC")]
fn network_and_broadcast_addresses_are_not_given_out(block: &str, first: &str, kept_back: &[&str]) {
    let mut world = World::empty();
    world.links("b", &["10.40.0.2/29"]);
    world.pool("lan", json!({"addresses": [block]}));
    world.restart();
    world.create("any", json!({}));
    world.live();
    assert_eq!(world.ingress("any"), [first]);
    let accepted = world.pool_condition("lan", CONDITION_ACCEPTED);
    for (address, meaning) in kept_back.iter().zip(["network", "broadcast"]) {
        let sentence = format!("{address} is the {meaning} address of {block}, on link at a node");
        assert!(accepted.message.contains(&sentence), "{}", accepted.message);
        world.create(address, json!({"spec": {"loadBalancerIP": address}}));
        world.live();
        assert_eq!(world.condition(address), "False AddressReserved");
        let message = world.service_condition(address).unwrap().message;
        assert!(message.contains(&format!("the {meaning} address of {block}")), "{message}");
    }
}

#[test]
fn subnet_router_anycast_address_is_not_given_out() {
    let mut world = World::empty();
    world.pool("six", json!({"addresses": ["2001:db8::/126"]}));
    world.restart();
    let spec = json!({"ipFamilies": ["IPv6"]});
    world.create("any", json!({"spec": spec}));
    world.create("named", json!({"spec": {"ipFamilies": ["IPv6"], "loadBalancerIP": "2001:db8::"}}));
    world.live();
    assert_eq!(
        (world.ingress("any"), world.condition("named")),
        (vec!["2001:db8::1".into()], "False AddressReserved".into())
    );
    let accepted = world.pool_condition("six", CONDITION_ACCEPTED);
    let sentence = "2001:db8:: is the subnet-router anycast address of 2001:db8::/64, on link at a node";
    assert!(accepted.message.contains(sentence), "{}", accepted.message);
}

/// RFC 3021, RFC 6164.
#[test]
fn both_addresses_of_a_point_to_point_link_may_be_given_out() {
    let mut world = World::empty();
    world.links("a", &["198.51.100.0/31", "198.51.100.8/32", "2001:db8:1::/127"]);
    world.pool("lan", json!({"addresses": ["198.51.100.1", "2001:db8:1::1"]}));
    world.restart();
    world.create("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}}));
    world.live();
    assert_eq!(world.ingress("web"), ["198.51.100.1", "2001:db8:1::1"]);
}

/// Two nodes report one prefix: it is on link until the last of them is gone.
#[test]
fn prefix_counts_as_long_as_one_node_reports_it() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["10.40.0.7"]}));
    world.links("a", &["10.40.0.1/29"]);
    world.links("b", &["10.40.0.2/29"]);
    world.restart();
    world.create("web", json!({}));
    world.live();
    world.delete_pod("a");
    world.delete_report("a");
    world.pass(60);
    world.live();
    assert_eq!(world.condition("web"), "False PoolFull");
    world.links("b", &[]);
    world.live();
    assert_eq!(world.ingress("web"), ["10.40.0.7"]);
    assert_eq!(world.pool_condition("lan", CONDITION_ACCEPTED).reason, "Valid");
}

#[test]
fn address_of_a_link_is_reserved_as_the_nodes() {
    let mut world = World::empty();
    node_lists(&mut world, "a", &["192.0.2.1"]);
    world.links("a", &["192.0.2.1/24", "192.0.2.2/24"]);
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    world.restart();
    world.create("any", json!({}));
    world.create("named", json!({"spec": {"loadBalancerIP": "192.0.2.2"}}));
    world.live();
    assert_eq!(world.ingress("any"), ["192.0.2.3"]);
    assert_eq!(world.condition("named"), "False AddressReserved");
    let message = world.service_condition("named").unwrap().message;
    assert!(message.contains("192.0.2.2, which is in status.links of SpeakerStatus a"), "{message}");
    let accepted = world.pool_condition("lan", CONDITION_ACCEPTED).message;
    assert!(
        accepted.contains("192.0.2.1 is in status.addresses of Node a, 192.0.2.2 is in status.links"),
        "{accepted}"
    );
    world.links("a", &["192.0.2.1/24"]);
    world.live();
    assert_eq!(world.ingress("named"), ["192.0.2.2"], "the waiting Service is woken");
}

/// kube-vip and PureLB bind a Service's address to a NIC.
#[test]
fn address_that_only_a_link_has_is_adopted_by_the_service_that_shows_it() {
    let mut world = World::empty();
    world.links("b", &["192.0.2.12/24", "192.0.2.2/32"]);
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    world.create("other", json!({}));
    world.create("web", json!({}));
    world.change("web", shown(&["192.0.2.2"]));
    world.restart();
    world.live();
    assert_eq!((world.ingress("web"), world.condition("web")), (vec!["192.0.2.2".into()], "True Assigned".into()));
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains("192.0.2.2 is in status.links of SpeakerStatus b"), "{message}");
    assert_eq!(world.ingress("other"), ["192.0.2.1"]);
    assert_eq!(warnings(&world), ["ReservedAddress"]);
    // The other provider is removed.
    world.links("b", &["192.0.2.12/24"]);
    world.live();
    assert_eq!(world.service_condition("web").unwrap().message, "192.0.2.2 from AddressPool lan");
}

/// A NIC with that address is plugged in, then its prefix makes the other address a broadcast address.
#[test]
fn address_that_a_link_takes_later_stays_with_a_warning() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.create("db", json!({"spec": {"loadBalancerIP": "192.0.2.3"}}));
    world.live();
    world.log.clear();
    world.links("a", &["192.0.2.1/30"]);
    world.live();
    assert_eq!((world.ingress("web"), world.ingress("db")), (vec!["192.0.2.1".into()], vec!["192.0.2.3".into()]));
    let message = world.service_condition("db").unwrap().message;
    assert!(message.contains("192.0.2.3 is the broadcast address of 192.0.2.0/30, on link at a node"), "{message}");
    assert_eq!(warnings(&world), ["ReservedAddress"; 2]);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

/// All nodes of a segment report its prefixes: the reports of the second to the thousandth node need no decision.
#[test]
fn prefix_that_another_node_has_reported_marks_nothing() {
    let mut world = World::new();
    for name in ["x", "y", "z", "waits"] {
        world.create(name, json!({}));
    }
    world.links("a", &["192.0.2.0/30", "198.51.100.1/24"]);
    world.live();
    assert_eq!(world.index.queue.depth(), 0);
    let segments = world.speakers["a"].segments.clone();
    for n in 2..=200 {
        let link_addresses = BTreeSet::from([format!("198.51.100.{n}/24").parse().unwrap()]);
        let (uid, segments) = (format!("speaker-{n}"), segments.clone());
        let view = SpeakerView { uid, segments, link_addresses, ..SpeakerView::default() };
        world.index.reserve_for_prefixes(&BTreeSet::new(), &view.on_link_prefixes());
        assert_eq!(world.index.queue.depth(), 0, "{n}");
    }
    // The report differs only in an address that no pool holds.
    world.links("a", &["192.0.2.0/30", "198.51.100.201/24"]);
    assert_eq!(world.index.queue.depth(), 0);
}
