use herald_crds::{
    names::{CONDITION_ACCEPTED, CONDITION_CONTAINS_ASSIGNED, FINALIZER_SERVICE_CLASS, FINALIZER_SERVICE_DEFAULT},
    virtual_ip::AnnouncedReason,
};
use serde_json::{Value, json};
use test_case::test_case;

use super::{
    world::{World, address, key},
    *,
};

fn no_writes(world: &World) {
    assert!(world.log.is_empty(), "{:?}", world.log);
}

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
    for kind in Kind::ALL {
        world.settle();
        no_writes(&world);
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
    no_writes(&world);
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
    no_writes(&world);
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
    no_writes(&world);
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

/// A deleted Service has two addresses, of which one still has an announcer. What its status shows is nobody else's,
/// also for a new leader.
#[test]
fn what_a_deleted_service_shows_is_not_given_out_after_a_restart() {
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
fn an_address_already_carried_is_adopted() {
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
fn what_another_wrote_is_not_overwritten(entry: Value, reason: &str) {
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
    let warnings: Vec<_> = world.events().into_iter().filter(|e| e.warning).collect();
    assert_eq!((warnings.len(), warnings[0].reason), (1, "SyncLoadBalancerFailed"));
}

#[test]
fn the_api_server_refuses_a_double_assignment_and_the_next_address_is_tried() {
    let mut world = World::new();
    world.create("theirs", json!({"spec": {"loadBalancerClass": "x/y"}}));
    let theirs = ServiceView::of(&world.services[&key("theirs")], false).unwrap().reference;
    world.foreign_vip("192.0.2.1", theirs);
    world.create("web", json!({}));
    world.settle();
    assert_eq!((world.conflicts, world.ingress("web").len()), (1, 0));
    world.relist(Kind::VirtualIp);
    world.settle();
    assert_eq!(world.ingress("web"), ["192.0.2.2"]);
}

#[test]
fn a_virtual_ip_of_a_service_that_is_not_ours_is_taken_back_without_touching_the_service() {
    let mut world = World::new();
    world.create("theirs", json!({"spec": {"loadBalancerClass": "x/y"}}));
    let theirs = ServiceView::of(&world.services[&key("theirs")], false).unwrap().reference;
    world.foreign_vip("192.0.2.1", theirs);
    world.relist(Kind::VirtualIp);
    world.live();
    assert!(world.vips.is_empty());
    assert!(!world.writes().contains(&"PatchServiceStatus".to_owned()));
}

#[test]
fn a_virtual_ip_deleted_by_hand_comes_back() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    let before = world.vips[&address("192.0.2.1")].metadata.uid.clone();
    world.delete_vip("192.0.2.1");
    world.live();
    assert_ne!(world.vips[&address("192.0.2.1")].metadata.uid, before);
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

#[test]
fn a_new_request_takes_over_before_the_old_address_goes() {
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
fn a_request_that_cannot_be_met_costs_nothing(change: Value, reason: &str) {
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
fn a_shrunk_or_deleted_pool_orphans_and_says_so() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.pool("lan", json!({"addresses": ["192.0.2.3"]}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    assert_eq!(world.condition("web"), "True OutsidePool");
    let condition = world.pool_condition("lan", CONDITION_CONTAINS_ASSIGNED);
    assert_eq!(condition.status, "False");
    assert!(condition.message.contains("192.0.2.1"));
    world.log.clear();
    world.delete_pool("lan");
    world.restart();
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    no_writes(&world);
    world.pool("lan", json!({"addresses": ["192.0.2.1"]}));
    world.live();
    assert_eq!(world.condition("web"), "True Assigned");
}

#[test]
fn a_pool_says_what_is_wrong_with_it() {
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
fn a_pool_that_comes_later_wakes_who_waits() {
    let mut world = World::empty();
    world.create("web", json!({}));
    world.restart();
    world.live();
    assert_eq!(world.condition("web"), "False NoPool");
    world.log.clear();
    world.pass(600);
    no_writes(&world);
    world.pool("lan", json!({"addresses": ["192.0.2.1"]}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

#[test]
fn a_pools_status_is_written_once_a_second() {
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
    assert_eq!((&*usage.capacity, &*usage.assigned, &*usage.available), ("256", "100", "156"));
}

#[test]
fn dual_stack_in_the_order_of_the_families() {
    let mut world = World::new();
    world.pool("six", json!({"addresses": ["2001:db8::/64"]}));
    world.create("web", json!({"spec": {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}}));
    world.settle();
    assert_eq!(world.ingress("web"), ["2001:db8::", "192.0.2.1"]);
    let writes: Vec<_> = world.writes().into_iter().filter(|w| w != "PatchPoolStatus").collect();
    assert_eq!(writes, ["CreateVirtualIp", "CreateVirtualIp", "PatchServiceStatus", "Event"]);
    world.change("web", json!({"spec": {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}}));
    world.live();
    assert_eq!(world.ingress("web"), ["2001:db8::"]);
    assert_eq!(world.vips.len(), 1);
}

#[test_case("RequireDualStack", &[], "False NoPoolAllows"; "both or none")]
#[test_case("PreferDualStack", &["192.0.2.1"], "True Assigned"; "one now, the other later")]
fn one_family_lacks(policy: &str, expected: &[&str], condition: &str) {
    let mut world = World::new();
    world.create("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy}}));
    world.live();
    assert_eq!(
        (world.ingress("web"), &*world.condition("web")),
        (expected.iter().map(|a| (*a).to_owned()).collect(), condition)
    );
    world.pool("six", json!({"addresses": ["2001:db8::7"]}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1", "2001:db8::7"]);
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

#[test]
fn spec_follows_service_and_advertisements() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    let spec = |world: &World| world.vips[&address("192.0.2.1")].spec.clone();
    assert_eq!(spec(&world).advertisements, [herald_crds::virtual_ip::AdvertisementRule::everywhere()]);
    world.change("web", json!({"spec": {"externalTrafficPolicy": "Local", "healthCheckNodePort": 30123}}));
    world.advertisement("adv", json!({"addressPools": ["dmz"]}));
    world.live();
    assert_eq!(spec(&world).health_check_node_port, Some(30123));
    assert!(spec(&world).advertisements.is_empty());
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

#[test]
fn a_home_that_left_the_cluster_is_replaced_and_no_other() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.node("a", false);
    world.live();
    assert_eq!(world.vips[&address("192.0.2.1")].spec.home_node.as_deref(), Some("a"));
    world.nodes.remove("a");
    world.relist(Kind::Node);
    world.settle();
    assert_eq!(world.vips[&address("192.0.2.1")].spec.home_node.as_deref(), Some("b"));
}

#[test]
fn a_status_nobody_takes_back_is_corrected_once() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.log.clear();
    world.node("a", false);
    world.pass(2);
    no_writes(&world);
    world.pass(2);
    let vip = &world.vips[&address("192.0.2.1")];
    assert_eq!(vip.announced().unwrap().reason, AnnouncedReason::NodeLost.as_str());
    assert_eq!(vip.status.as_ref().unwrap().node, None);
    world.log.clear();
    world.speakers_act(); // it insists
    world.pass(60);
    no_writes(&world);
}

#[test]
fn an_address_no_node_can_announce_says_why() {
    let mut world = World::new();
    world.pool("far", json!({"addresses": ["192.0.2.200"], "autoAssign": false}));
    world.node("a", false);
    world.node("b", false);
    world.create("web", json!({}));
    world.pass(20);
    let announced = world.vips[&address("192.0.2.1")].announced().unwrap().clone();
    assert_eq!(announced.reason, AnnouncedReason::NoEligibleNode.as_str());
    assert!(announced.message.contains("no node is Ready"), "{}", announced.message);
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

/// Dual stack comes and goes, and the first address stays; the second is free for others.
#[test_case("RequireDualStack")]
#[test_case("PreferDualStack")]
fn a_second_family_comes_and_goes(policy: &str) {
    let mut world = World::new();
    world.pool("six", json!({"addresses": ["2001:db8::7"]}));
    world.create("web", json!({}));
    world.live();
    for _ in 0..2 {
        world.change("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy}}));
        world.live();
        assert_eq!(world.ingress("web"), ["192.0.2.1", "2001:db8::7"]);
        world.change("web", json!({"spec": {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}}));
        world.live();
        assert_eq!(world.ingress("web"), ["192.0.2.1"]);
        assert_eq!(world.vips.len(), 1);
    }
    // An upgrade that cannot be had takes nothing away.
    world.delete_pool("six");
    world.change("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy}}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

/// A requested pool that is full moves nobody; once there is room the Service moves, the new address before the old.
#[test]
fn a_requested_pool_without_room_takes_nothing_away() {
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
