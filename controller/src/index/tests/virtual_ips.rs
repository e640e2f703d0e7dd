//! The content of VirtualIPs, and the reports about them.

use herald_crds::virtual_ip::AnnouncedReason;
use serde_json::json;
use test_case::test_case;

use crate::{
    action::Outcome,
    index::{
        tests::fake_cluster::{World, address},
        *,
    },
};

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
fn only_a_home_that_left_the_cluster_is_replaced() {
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
fn status_without_a_living_author_is_corrected_once() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.log.clear();
    world.node("a", false);
    world.pass(2);
    world.wrote_nothing();
    world.pass(2);
    let vip = &world.vips[&address("192.0.2.1")];
    assert_eq!(vip.announced().unwrap().reason, AnnouncedReason::NodeLost.as_str());
    assert_eq!(vip.status.as_ref().unwrap().node, None);
    world.log.clear();
    world.speakers_act(); // the speaker insists
    world.pass(60);
    world.wrote_nothing();
}

/// Each of twenty writes meets a version that another writer has just made, with the intended content. The next failed
/// write waits no longer than the first did.
#[test]
fn conflicts_that_another_writer_mends_do_not_lengthen_the_pause() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    let edit = |world: &mut World, port: i32| {
        world.change("web", json!({"spec": {"externalTrafficPolicy": "Local", "healthCheckNodePort": port}}));
        let refused = world.refuse_next(Outcome::Failed);
        assert!(matches!(refused, Action::UpdateVirtualIpSpec { .. }), "{refused:?}");
        refused
    };
    for port in 30_000..30_020 {
        let refused = edit(&mut world, port);
        world.request(&refused);
        world.pass(60);
    }
    let failed_at = world.now;
    edit(&mut world, 30_020);
    assert_eq!(world.index.poll_action(world.now), None, "it has just failed");
    let pause = world.index.poll_timeout().unwrap() - failed_at;
    assert!(pause <= Duration::from_millis(50), "{pause:?}");
}

/// A control-plane node that dies takes a part of the API server with it: the first write is likely to fail.
#[test_case(Outcome::Failed; "conflict or server error")]
#[test_case(Outcome::Unavailable; "no API server")]
fn lost_node_is_reported_although_the_first_write_fails(outcome: Outcome) {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.node("a", false);
    let refused = world.refuse_next(outcome);
    assert!(matches!(refused, Action::CorrectVirtualIpStatus { .. }), "{refused:?}");
    world.pass(2);
    let vip = &world.vips[&address("192.0.2.1")];
    assert_eq!(vip.announced().unwrap().reason, AnnouncedReason::NodeLost.as_str());
}

/// The write that succeeds reports the Warning, once, whatever was reported of the address before.
#[test]
fn withdrawal_timeout_is_reported_after_a_failed_write_and_an_earlier_correction() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.node("a", false);
    world.pass(4);
    world.node("a", true);
    world.speakers_act();
    world.settle();
    world.log.clear();
    world.delete("web");
    world.settle();
    let refused = world.refuse_next(Outcome::Failed);
    assert!(matches!(refused, Action::RemoveVirtualIpFinalizer { .. }), "{refused:?}");
    assert_eq!(world.events(), [] as [&EventValue; 0], "no Event reports what has not happened");
    world.pass(2);
    let told: Vec<_> = world.events().iter().map(|event| event.reason).collect();
    assert_eq!(told, ["WithdrawalTimedOut", "DeletedLoadBalancer"]);
}

#[test]
fn address_that_no_node_can_announce_is_explained() {
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
