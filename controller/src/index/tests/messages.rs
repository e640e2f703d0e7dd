//! The reports of Services and pools, made once, for as long as their causes hold.

use std::collections::BTreeSet;

use herald_crds::names::CONDITION_ACCEPTED;
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::{
    Kind,
    tests::fake_cluster::{World, address},
};
use crate::view::NodeView;

/// Each caveat is a sentence while it holds and one Warning, whether the Service has an address or waits.
#[test_case(json!({"metadata": {"annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8"}}}),
    json!({"metadata": {"annotations": null}}), "SourceRangesNotEnforced")]
#[test_case(json!({"spec": {"externalTrafficPolicy": "Local"}}), json!({"spec": {"externalTrafficPolicy": "Cluster"}}), "LocalWithoutSelector")]
#[test_case(json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}), json!({"metadata": {"labels": null}}), "SkippedByKubeProxy")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.1"}}, "spec": {"loadBalancerIP": "192.0.2.2"}}),
    json!({"spec": {"loadBalancerIP": null}}), "LoadBalancerIPOverruled")]
fn caveat_is_reported_once_and_withdrawn(with: Value, mended: Value, reason: &str) {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.log.clear();
    world.change("web", with.clone());
    world.live();
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec!["192.0.2.1".to_owned()], "True Assigned"));
    assert_eq!(world.events().iter().map(|e| (e.warning, e.reason)).collect::<Vec<_>>(), [(true, reason)]);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    world.change("web", mended);
    world.live();
    assert_eq!(world.service_condition("web").unwrap().message, "192.0.2.1 from AddressPool lan");
    assert!(world.events().is_empty());

    let mut world = World::empty();
    world.restart();
    world.create("waits", with);
    world.live();
    let told: BTreeSet<_> = world.events().iter().map(|e| e.reason).collect();
    assert_eq!(told, BTreeSet::from([reason, "SyncLoadBalancerFailed"]));
    assert_eq!(world.events().len(), 2);
}

/// Two parts of one condition are reported apart, and a restart does not report again the one that stays. The text of
/// the condition does not show where its parts end: the request that cannot be read looks like a note.
#[test]
fn part_of_a_condition_that_stays_is_not_reported_again() {
    let mut world = World::new();
    let unreadable = json!({"heraldlb.io/addresses": "192.0.2.1; note: soon"});
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    let told = |world: &mut World| {
        world.live();
        let told: Vec<_> = world.events().iter().map(|e| e.reason).collect();
        world.log.clear();
        told
    };
    world.create("web", json!({"metadata": {"annotations": unreadable}}));
    assert_eq!(told(&mut world), ["SyncLoadBalancerFailed"]);
    world.change("web", local);
    assert_eq!(told(&mut world), ["LocalWithoutSelector"]);
    world.restart();
    assert_eq!(told(&mut world), Vec::<&str>::new());
    world.change("web", json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}));
    assert_eq!(told(&mut world), ["SkippedByKubeProxy"], "neither the verdict nor the other note");
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    world.change("web", json!({"metadata": {"annotations": {"heraldlb.io/addresses": null}}}));
    assert_eq!(told(&mut world), ["EnsuredLoadBalancer"], "the notes stay");
}

/// No Service gets an address of nodes, pods or cluster Services; the pool reports these addresses, and gives them once
/// the other use ends.
#[test]
fn pool_over_the_clusters_networks_keeps_their_addresses_back() {
    let mut world = World::new();
    let node = NodeView {
        addresses: vec![address("192.0.2.1")],
        pod_networks: vec!["192.0.2.128/25".parse().unwrap()],
        ..world.nodes["a"].clone()
    };
    world.nodes.insert("a".to_owned(), node);
    world.service_networks.insert("kubernetes".to_owned(), vec!["192.0.2.64/26".parse().unwrap()]);
    world.pool("lan", json!({"addresses": ["192.0.2.0/24"], "exclude": ["192.0.2.0", "192.0.2.255"]}));
    world.create("theirs", json!({"spec": {"loadBalancerClass": "x/y", "externalIPs": ["192.0.2.2"]}}));
    world.restart();
    world.create("web", json!({}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.3"]);
    let accepted = world.pool_condition("lan", CONDITION_ACCEPTED);
    assert_eq!((&*accepted.status, &*accepted.reason), ("True", "Overlaps"));
    for sentence in [
        "192.0.2.1 is in status.addresses of Node a",
        "192.0.2.128-192.0.2.254 are in spec.podCIDRs of Node a",
        "192.0.2.64-192.0.2.127 are in spec.cidrs of ServiceCIDR kubernetes",
        "192.0.2.2 is in spec.externalIPs of Service ns/theirs",
    ] {
        assert!(accepted.message.contains(sentence), "{}", accepted.message);
    }
    for wanted in ["192.0.2.1", "192.0.2.200", "192.0.2.100"] {
        world.create(wanted, json!({"spec": {"loadBalancerIP": wanted}}));
        world.live();
        assert_eq!(world.condition(wanted), "False AddressReserved");
    }
    // One address of the pool is assigned, and 192.0.2.2 is not given out.
    assert_eq!(world.pools["lan"].status.as_ref().unwrap().ipv4.as_ref().unwrap().available, "60");
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
    world.nodes.remove("a");
    world.service_networks.clear();
    world.delete("theirs");
    world.relist(Kind::Node);
    world.relist(Kind::ServiceNetwork);
    world.live();
    assert_eq!(world.pool_condition("lan", CONDITION_ACCEPTED).reason, "Valid");
    assert_eq!(world.ingress("192.0.2.1"), ["192.0.2.1"], "the waiting Service is woken");
    assert_eq!(world.ingress("web"), ["192.0.2.3"]);
}

/// No node may announce an address: the Service keeps it and gets one Warning, until there is a node again.
#[test]
fn address_without_a_node_stays_with_one_warning() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.log.clear();
    let exclude = |world: &mut World, excluded: bool| {
        for name in ["a", "b"] {
            let node = NodeView { eligible: !excluded, ..world.nodes[name].clone() };
            world.nodes.insert(name.to_owned(), node);
        }
        world.relist(Kind::Node);
    };
    for times in 1..=2 {
        exclude(&mut world, true);
        world.nobody_announces("192.0.2.1");
        world.pass(60);
        world.restart();
        world.pass(60);
        let told: Vec<_> = world.events().iter().map(|e| (e.warning, e.reason)).collect();
        assert_eq!(told, vec![(true, "UnAvailableLoadBalancer"); times]);
        assert!(world.events()[0].note.contains("192.0.2.1"), "{}", world.events()[0].note);
        assert_eq!(world.ingress("web"), ["192.0.2.1"]);
        exclude(&mut world, false);
        world.live();
    }
}

/// A Local address that no speaker has ever reported on says why, in the VirtualIP alone.
#[test]
fn local_address_without_endpoints_is_explained() {
    let mut world = World::new();
    world.create("web", json!({"spec": {"externalTrafficPolicy": "Local", "selector": {"app": "web"}}}));
    world.create("any", json!({}));
    world.pass(9);
    world.log.clear();
    world.pass(60);
    let reasons = ["192.0.2.1", "192.0.2.2"].map(|at| world.vips[&address(at)].announced().map(|c| c.reason.clone()));
    assert_eq!(reasons, [Some("NoEndpoint".to_owned()), None]);
    assert_eq!(world.writes(), ["CorrectVirtualIpStatus"]);
    world.restart();
    world.pass(60);
    assert_eq!(world.writes(), ["CorrectVirtualIpStatus"]);
}

/// Only an edit of its own helps such a Service. Otherwise a thousand of them would cost a thousand decisions whenever
/// some Service is deleted.
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.l"}}}), "BadRequest")]
#[test_case(json!({"spec": {"loadBalancerIP": "2001:db8::1"}}), "FamilyNotServed")]
fn service_that_only_its_own_edit_helps_is_not_decided_again_for_another(bad: Value, reason: &str) {
    let mut world = World::new();
    world.create("web", json!({}));
    for n in 0..50 {
        world.create(&format!("bad-{n}"), bad.clone());
    }
    world.live();
    assert_eq!(world.condition("bad-0"), format!("False {reason}"));
    world.delete("web");
    assert!(world.index.tally().queued < 5, "{} decisions", world.index.tally().queued);
    world.live();
    world.change("bad-0", json!({"metadata": {"annotations": null}, "spec": {"loadBalancerIP": null}}));
    world.live();
    assert_eq!(world.ingress("bad-0"), ["192.0.2.1"]);
}

/// An annotation holds up to 256 KiB. In full it would push the remedy out of condition and Event, and into the log.
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/addresses": "x".repeat(200_000)}}}), "write one address per family")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/address-count": "x".repeat(200_000)}}}), "write how many")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "x".repeat(200_000)}}}), "create it, or name one that does")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": "x".repeat(200_000)}}, "spec": {"loadBalancerIP": "192.0.2.1"}}), "give both the same value")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.1x,".repeat(20_000)}}}), "write one address per family")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.2"}}, "spec": {"loadBalancerIP": "x".repeat(200_000)}}), "give both the same value")]
#[test_case(json!({"metadata": {"annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": "x".repeat(200_000)}}}), "write the ranges there")]
fn value_of_any_length_leaves_room_for_the_remedy(asks: Value, remedy: &str) {
    let mut world = World::new();
    world.create("first", json!({"metadata": {"annotations": {"heraldlb.io/allow-shared-ip": "k"}}}));
    world.live();
    world.create("web", asks);
    world.live();
    let message = world.service_condition("web").unwrap().message;
    assert!(message.contains(remedy) && message.len() < 1024, "{} bytes: {:.200}", message.len(), message);
    assert!(world.events().iter().all(|event| event.note.len() < 1024));
}
