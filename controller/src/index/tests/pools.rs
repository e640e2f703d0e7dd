//! Requests and pools, and their changes.

use herald_crds::names::{CONDITION_ACCEPTED, CONDITION_CONTAINS_ASSIGNED};
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::{tests::fake_cluster::World, *};

#[test]
fn newly_requested_address_is_published_before_the_old_one_is_withdrawn() {
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
fn refused_request_removes_nothing(change: Value, reason: &str) {
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
fn shrunk_or_deleted_pool_reports_its_orphans() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.pool("lan", json!({"addresses": ["192.0.2.3"]}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    assert_eq!(world.condition("web"), "True OutsidePool");
    let message = world.service_condition("web").unwrap().message;
    let command = "kubectl -n ns annotate service web heraldlb.io/addresses=ADDRESS --overwrite";
    assert!(message.contains(command), "{message}");
    let condition = world.pool_condition("lan", CONDITION_CONTAINS_ASSIGNED);
    assert_eq!(condition.status, "False");
    assert!(condition.message.contains("192.0.2.1"));
    world.delete_pool("lan");
    world.live();
    assert!(world.service_condition("web").unwrap().message.contains("heraldlb.io/addresses=ADDRESS"));
    world.log.clear();
    world.restart();
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    world.wrote_nothing();
    world.pool("lan", json!({"addresses": ["192.0.2.1"]}));
    world.live();
    assert_eq!(world.condition("web"), "True Assigned");
}

/// The annotation that the condition of an address outside each pool advises.
#[test_case(&["lan"], "heraldlb.io/addresses=ADDRESS"; "no other pool")]
#[test_case(&["lan", "dmz"], "heraldlb.io/address-pool=dmz"; "another pool")]
fn advice_for_an_address_outside_its_pool_moves_the_service(pools: &[&str], advice: &str) {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    for (pool, address) in pools.iter().zip(["192.0.2.3", "192.0.2.9"]) {
        world.pool(pool, json!({"addresses": [address]}));
    }
    world.live();
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains(&format!("annotate service web {advice} --overwrite")), "{message}");
    let (annotation, value) = advice.split_once('=').unwrap();
    let value = value.replace("ADDRESS", "192.0.2.3");
    world.change("web", json!({"metadata": {"annotations": {annotation: value}}}));
    world.live();
    assert_eq!(world.condition("web"), "True Assigned");
    assert_ne!(world.ingress("web"), ["192.0.2.1"]);
}

#[test]
fn faults_of_a_pool_are_reported() {
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
fn new_pool_serves_waiting_services() {
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
fn status_of_a_pool_is_written_once_a_second() {
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
    // The network and the broadcast address are not available.
    assert_eq!((&*usage.capacity, &*usage.assigned, &*usage.available), ("256", "100", "154"));
}

/// A requested pool that is full moves no Service; once there is room the Service moves, and gets the new address
/// before it loses the old one.
#[test]
fn requested_pool_without_room_removes_nothing() {
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

/// Returns the names of the advertisements that an address has, and the pool it counts to.
fn announced_by(world: &World, at: &str) -> (String, Vec<String>) {
    let spec = &world.vips[&super::fake_cluster::address(at)].spec;
    (spec.pool.clone(), spec.advertisements.iter().filter_map(|rule| rule.name.clone()).collect())
}

fn by(pool: &str, names: &[&str]) -> (String, Vec<String>) {
    (pool.to_owned(), names.iter().map(|name| (*name).to_owned()).collect())
}

/// The pools change in the order of a careful person, and in that of a program that deletes first.
#[test_case(true; "the new pool first")]
#[test_case(false; "the old pool is deleted first")]
fn address_of_a_renamed_pool_stays_announced(new_first: bool) {
    let mut world = World::new();
    world.advertisement("a", json!({"addressPools": ["lan"]}));
    world.advertisement("other", json!({"addressPools": ["dmz"]}));
    world.create("web", json!({}));
    world.live();
    let new = json!({"addresses": ["192.0.2.1-192.0.2.3"]});
    if new_first {
        world.pool("lan2", new);
        world.live();
        assert_eq!(announced_by(&world, "192.0.2.1"), by("lan", &["a"]));
        world.advertisement("a", json!({"addressPools": ["lan2"]}));
        world.live();
        assert_eq!(announced_by(&world, "192.0.2.1"), by("lan", &["a"]), "it lies in the pool that a names now");
        world.delete_pool("lan");
    } else {
        world.delete_pool("lan");
        world.live();
        world.advertisement("a", json!({"addressPools": ["lan2"]}));
        world.live();
        assert_eq!(announced_by(&world, "192.0.2.1"), by("lan", &["a"]), "no pool holds it");
        world.pool("lan2", new);
    }
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.1"), by("lan2", &["a"]));
    assert_eq!(world.service_condition("web").unwrap().message, "192.0.2.1 from AddressPool lan2");
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

/// The advertisement is not edited: it names the old pool.
#[test]
fn address_of_a_renamed_pool_stays_announced_by_the_old_name() {
    let mut world = World::new();
    world.advertisement("a", json!({"addressPools": ["lan"]}));
    world.create("web", json!({}));
    world.live();
    world.delete_pool("lan");
    world.live();
    world.pool("lan2", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.1"), by("lan2", &["a"]));
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    // No advertisement selects the addresses that the pool gives out from now on.
    world.create("late", json!({}));
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.2"), by("lan2", &[]));
    world.advertisement("a", json!({"addressPools": ["other"]}));
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.1"), by("lan2", &[]), "an edit of the advertisement takes it away");
    world.advertisement("a", json!({"addressPools": ["lan2"]}));
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.1"), by("lan2", &["a"]));
    assert_eq!(world.vips[&super::fake_cluster::address("192.0.2.1")].spec.advertised_by, None);
}

/// A person deletes the VirtualIP of an address whose advertisement names a pool that is gone, or is not accepted: the
/// next VirtualIP has the same rules.
#[test_case(None, "a"; "the pool is renamed")]
#[test_case(Some("a"), "a"; "the advertisement is not accepted")]
fn virtual_ip_that_is_deleted_by_hand_keeps_its_advertisements(unaccepted: Option<&str>, expected: &str) {
    let mut world = World::new();
    world.advertisement("a", json!({"addressPools": ["lan"], "interfaces": ["eth1"]}));
    world.advertisement("b", json!({"addressPools": ["dmz"]}));
    world.create("web", json!({}));
    world.live();
    if let Some(name) = unaccepted {
        let typo = json!([{"matchExpressions": [{"key": "a", "operator": "Is"}]}]);
        world.advertisement(name, json!({"addressPools": ["lan"], "nodeSelectors": typo}));
    } else {
        world.delete_pool("lan");
        world.pool("lan2", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
    }
    world.live();
    let before = world.vips[&super::fake_cluster::address("192.0.2.1")].clone();
    world.delete_vip("192.0.2.1");
    world.live();
    world.live();
    let after = &world.vips[&super::fake_cluster::address("192.0.2.1")];
    assert_ne!(before.metadata.uid, after.metadata.uid);
    assert_eq!(announced_by(&world, "192.0.2.1").1, [expected]);
    assert_eq!(
        (&after.spec.advertisements, &after.spec.advertised_by),
        (&before.spec.advertisements, &before.spec.advertised_by)
    );
    world.delete("web");
    world.live();
    world.live();
    world.create("other", json!({}));
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.1").1, Vec::<String>::new(), "another Service does not inherit them");
}

#[test]
fn advertisement_by_labels_outlives_the_pool() {
    let mut world = World::new();
    let mut pool = world.pools["lan"].clone();
    pool.metadata.labels = Some([("net".to_owned(), "lan".to_owned())].into());
    pool.metadata.resource_version = Some(world.next_version());
    world.pools.insert("lan".to_owned(), pool.clone());
    world.index.apply(Object::Pool(Box::new(pool)));
    world.advertisement("a", json!({"addressPoolSelectors": [{"matchLabels": {"net": "lan"}}]}));
    world.create("web", json!({}));
    world.live();
    world.delete_pool("lan");
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.1"), by("lan", &["a"]));
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

#[test]
fn split_pool_keeps_each_address_in_the_part_that_holds_it() {
    let mut world = World::new();
    for name in ["x", "y"] {
        world.create(name, json!({}));
    }
    world.live();
    world.pool("low", json!({"addresses": ["192.0.2.1"]}));
    world.pool("high", json!({"addresses": ["192.0.2.2-192.0.2.3"]}));
    world.delete_pool("lan");
    world.live();
    assert_eq!(
        (announced_by(&world, "192.0.2.1").0, announced_by(&world, "192.0.2.2").0),
        ("low".into(), "high".into())
    );
    let assigned = |pool: &str| world.pools[pool].status.as_ref().unwrap().ipv4.as_ref().unwrap().assigned.clone();
    assert_eq!((assigned("low"), assigned("high")), ("1".into(), "1".into()));
}

/// The annotation on a Service that is served already is a request that moves it.
#[test]
fn named_pool_moves_a_served_service() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.pool("dmz", json!({"addresses": ["192.0.2.9"]}));
    world.pool("wide", json!({"addresses": ["192.0.2.0/28"]}));
    let asks = |pool: &str| json!({"metadata": {"annotations": {"heraldlb.io/address-pool": pool}}});
    world.change("web", asks("wide"));
    world.live();
    assert_eq!(announced_by(&world, "192.0.2.1").0, "wide", "its address lies in that pool, and counts to it");
    world.change("web", asks("dmz"));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.9"]);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

/// One bad entry is among good ones: nothing is written to the Services of the pool, and the others are given out.
#[test]
fn unreadable_entry_leaves_the_rest_of_the_pool_usable() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.200"]}));
    world.restart();
    for n in 0..100 {
        world.create(&format!("s{n}"), json!({}));
    }
    world.live();
    world.log.clear();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.200", "192.0.2.250-192.0.2.240"]}));
    world.live();
    assert_eq!(world.writes(), ["PatchPoolStatus"]);
    let accepted = world.pool_condition("lan", CONDITION_ACCEPTED);
    assert_eq!((&*accepted.status, &*accepted.reason), ("False", "InvalidAddresses"));
    assert!(accepted.message.contains("spec.addresses[1]") && accepted.message.contains("The other entries are used"));
    world.create("more", json!({}));
    world.live();
    assert_eq!(world.ingress("more"), ["192.0.2.101"]);
}

/// MetalLB reads such a CIDR in the same way.
#[test]
fn cidr_with_host_bits_is_read_as_its_network_and_reported() {
    let mut world = World::empty();
    world.pool("lan", json!({"addresses": ["198.51.100.9/30"]}));
    world.restart();
    world.create("web", json!({}));
    world.live();
    assert_eq!(world.ingress("web"), ["198.51.100.8"]);
    let accepted = world.pool_condition("lan", CONDITION_ACCEPTED);
    assert_eq!((&*accepted.status, &*accepted.reason), ("True", "HostBits"));
    assert!(accepted.message.contains("write 198.51.100.8/30"), "{}", accepted.message);
}

/// Pools for some Services come first, and a priority of 0 counts as none, as in MetalLB.
#[test_case(json!({}), json!({"namespaces": ["ns"]}), "192.0.2.2"; "for some Services before for all")]
#[test_case(json!({"namespaces": ["ns"], "priority": 0}), json!({"namespaces": ["ns"], "priority": 7}), "192.0.2.2"; "0 comes last")]
#[test_case(json!({"namespaces": ["ns"], "priority": 1}), json!({"namespaces": ["ns"], "priority": 7}), "192.0.2.1"; "the smaller number")]
fn pools_are_tried_in_order(first: Value, second: Value, expected: &str) {
    let mut world = World::empty();
    for (name, at, allocation) in [("a", "192.0.2.1", first), ("b", "192.0.2.2", second)] {
        let allocation = if allocation == json!({}) { Value::Null } else { allocation };
        world.pool(name, json!({"addresses": [at], "serviceAllocation": allocation}));
    }
    world.restart();
    world.create("web", json!({}));
    world.live();
    assert_eq!(world.ingress("web"), [expected]);
}

#[test]
fn each_family_comes_from_the_first_pool_named_that_has_it() {
    let mut world = World::new();
    world.pool("four", json!({"addresses": ["192.0.2.9"]}));
    world.pool("six", json!({"addresses": ["2001:db8::9"]}));
    let both = json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "four,six"}},
        "spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}});
    world.create("web", both);
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.9", "2001:db8::9"]);
    assert_eq!(world.allocated_from("web").as_deref(), Some("four,six"));
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    world.change("web", json!({"spec": {"type": "ClusterIP"}}));
    world.live();
    assert_eq!(world.allocated_from("web"), None);
}

/// The pool has a finalizer of another program, as a GitOps tool or an inventory adds one.
#[test_case(json!({}); "any address")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "lan"}}}); "requested by pool")]
#[test_case(json!({"spec": {"loadBalancerIP": "192.0.2.3"}}); "requested by address")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": "k"}}, "spec": {"ports": [{"port": 81}]}}); "with a shared address")]
fn pool_that_is_being_deleted_gives_nothing(asks: Value) {
    let mut world = World::new();
    let shares =
        json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": "k"}}, "spec": {"ports": [{"port": 80}]}});
    world.create("has", shares);
    world.live();
    world.begin_to_delete_pool("lan");
    world.create("late", asks);
    world.live();
    assert_eq!((world.ingress("has"), &*world.condition("has")), (vec!["192.0.2.1".to_owned()], "True Assigned"));
    assert_eq!((world.ingress("late").len(), &*world.condition("late")), (0, "False NoPoolAllows"));
    let message = world.service_condition("late").unwrap().message;
    assert!(message.contains("lan: it is being deleted"), "{message}");
    let accepted = world.pool_condition("lan", CONDITION_ACCEPTED);
    assert_eq!((&*accepted.status, &*accepted.reason), ("False", "Deleting"));
    assert!(accepted.message.contains("example.com/inventory"), "{}", accepted.message);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

#[test]
fn another_pool_serves_services_that_wait_for_a_deleted_one() {
    let mut world = World::new();
    world.create("has", json!({}));
    world.live();
    world.begin_to_delete_pool("lan");
    world.create("late", json!({}));
    world.live();
    world.pool("next", json!({"addresses": ["192.0.2.8-192.0.2.9"]}));
    world.live();
    assert_eq!((world.ingress("has"), world.ingress("late")), (vec!["192.0.2.1".into()], vec!["192.0.2.8".into()]));
    world.delete_pool("lan");
    world.live();
    assert_eq!((world.ingress("has"), &*world.condition("has")), (vec!["192.0.2.1".to_owned()], "True OutsidePool"));
}
