//! Speakers whose pods are gone or not Ready.

use herald_crds::virtual_ip::{AdvertisementRule, AnnouncedReason};
use serde_json::json;
use test_case::test_case;

use crate::{
    index::{
        speakers::SILENT_AFTER,
        tests::fake_cluster::{World, address},
        *,
    },
    view::SpeakerView,
};

const VIP: &str = "192.0.2.1";

/// Returns a world in which node a has announced the address of `web` for a while.
fn announced() -> World {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.pass(60);
    assert_eq!(reason(&world), "Announcing");
    world.log.clear();
    world
}

fn reason(world: &World) -> String {
    world.vips[&address(VIP)].announced().unwrap().reason.clone()
}

fn message(world: &World) -> String {
    world.vips[&address(VIP)].announced().unwrap().message.clone()
}

fn of_several(_: &mut World) {}

/// Reduces the cluster to one node: no other speaker could write anything.
fn alone(world: &mut World) {
    world.nodes.remove("b");
    world.speakers.remove("b");
    world.pods.remove("speaker-b");
    for kind in [Kind::Node, Kind::Speaker, Kind::SpeakerPod] {
        world.relist(kind);
    }
}

fn crashes(world: &mut World) {
    world.pod("a", false);
}

fn is_deleted(world: &mut World) {
    world.delete_pod("a");
}

#[test_case(of_several, crashes, "pod speaker-a"; "of several nodes, crashes")]
#[test_case(of_several, is_deleted, "node a has had no speaker pod"; "of several nodes, is deleted")]
#[test_case(alone, crashes, "kubectl -n herald-system logs speaker-a"; "of the only node, crashes")]
#[test_case(alone, is_deleted, "node a has had no speaker pod"; "of the only node, is deleted")]
fn status_of_an_uncovered_speakers_address_is_corrected(begin: fn(&mut World), stop: fn(&mut World), sentence: &str) {
    let mut world = announced();
    begin(&mut world);
    world.settle();
    world.log.clear();
    stop(&mut world);
    world.pass(SILENT_AFTER.as_secs() - 1);
    world.wrote_nothing();
    world.pass(1);
    assert_eq!(
        (&*reason(&world), world.vips[&address(VIP)].status.as_ref().unwrap().node.as_ref()),
        ("SpeakerNotReady", None)
    );
    assert!(message(&world).contains(sentence), "{}", message(&world));
    assert_eq!(
        world.events().iter().map(|e| (e.reason, e.warning)).collect::<Vec<_>>(),
        [("UnAvailableLoadBalancer", true)]
    );
    world.log.clear();
    world.pass(600);
    world.wrote_nothing();
    assert_eq!(world.ingress("web"), [VIP], "the Service keeps it");
}

#[test]
fn roll_out_writes_nothing() {
    let mut world = announced();
    for node in ["a", "b"] {
        world.delete_pod(node);
        world.pass(3);
        world.pod(node, false);
        world.pass(6);
        world.pod(node, true);
        world.pass(30);
    }
    world.wrote_nothing();
}

/// The speaker's peers answer in its place, with its link-layer address: the status is true.
#[test]
fn covered_speaker_counts_as_ready() {
    let mut world = announced();
    world.delete_pod("a");
    world.pass(6);
    world.covers("b", &["a"]);
    world.pass(600);
    world.wrote_nothing();
    world.covers("b", &[]);
    world.pass(SILENT_AFTER.as_secs() + 1);
    assert_eq!(reason(&world), "SpeakerNotReady");
}

/// The report of a speaker outlives the speaker.
#[test]
fn cover_ends_with_the_coverer() {
    let mut world = announced();
    world.delete_pod("a");
    world.pass(6);
    world.covers("b", &["a"]);
    world.pass(60);
    world.pod("b", false);
    world.pass(SILENT_AFTER.as_secs() - 1);
    world.wrote_nothing();
    world.pass(2);
    assert_eq!(reason(&world), "SpeakerNotReady");
}

#[test]
fn cover_does_not_count_where_a_rule_forbids_it() {
    let mut world = announced();
    world.advertisement("bare", json!({"cover": false}));
    world.settle();
    let rules: &[AdvertisementRule] = &world.vips[&address(VIP)].spec.advertisements;
    assert!(!rules[0].cover);
    world.covers("b", &["a"]);
    world.delete_pod("a");
    world.pass(SILENT_AFTER.as_secs() + 1);
    assert_eq!(reason(&world), "SpeakerNotReady");
}

/// A pod is not Ready to the kubelet, but its speaker answers nevertheless: the speaker reports that once, and the
/// controller does not contradict it again.
#[test]
fn insisting_speaker_is_corrected_once() {
    let mut world = announced();
    crashes(&mut world);
    world.pass(SILENT_AFTER.as_secs() + 1);
    assert_eq!(reason(&world), "SpeakerNotReady");
    world.log.clear();
    for _ in 0..5 {
        world.speakers_act();
        world.pass(120);
    }
    world.wrote_nothing();
    assert_eq!(reason(&world), "Announcing");
}

/// A speaker that is back announces the address before its pod is Ready: its report is the newer one.
#[test]
fn speaker_that_is_back_has_time_to_become_ready() {
    let mut world = announced();
    crashes(&mut world);
    world.pass(60);
    world.log.clear();
    let mut vip = world.vips[&address(VIP)].clone();
    let since = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(60).unwrap());
    let status = vip.status.get_or_insert_default();
    (status.node, status.since) = (Some("a".to_owned()), Some(since.clone()));
    status.conditions = vec![AnnouncedReason::Announcing.condition(String::new(), None, since)];
    world.store_vip(vip);
    world.pass(5);
    world.pod("a", true);
    world.pass(600);
    world.wrote_nothing();
}

/// A new controller does not know how long the state has lasted; it leaves the last one's writes as they are.
#[test]
fn restarted_controller_waits_again_and_writes_nothing_twice() {
    let mut world = announced();
    world.delete_pod("a");
    world.pass(SILENT_AFTER.as_secs() - 1);
    world.restart();
    world.pass(SILENT_AFTER.as_secs() - 1);
    world.wrote_nothing();
    world.pass(1);
    assert_eq!(reason(&world), "SpeakerNotReady");
    world.log.clear();
    world.delete_pod("b");
    world.restart();
    world.pass(600);
    world.wrote_nothing();
}

/// The DaemonSet has left the node.
#[test]
fn speaker_status_without_a_pod_is_deleted_after_an_hour() {
    let mut world = announced();
    world.delete_pod("b");
    world.pass(FORGET_SPEAKERS_AFTER.as_secs() - 1);
    assert!(world.speakers.contains_key("b"));
    world.restart();
    world.pass(FORGET_SPEAKERS_AFTER.as_secs() - 1);
    world.wrote_nothing();
    world.pass(1);
    assert_eq!(world.writes(), ["DeleteSpeakerStatus"]);
    assert!(!world.speakers.contains_key("b") && world.speakers.contains_key("a"));
    world.log.clear();
    world.pass(2 * FORGET_SPEAKERS_AFTER.as_secs());
    world.wrote_nothing();
}

#[test]
fn pod_that_returns_within_the_hour_keeps_its_speaker_status() {
    let mut world = announced();
    world.delete_pod("b");
    world.pass(FORGET_SPEAKERS_AFTER.as_secs() - 60);
    world.pod("b", false);
    world.pass(2 * FORGET_SPEAKERS_AFTER.as_secs());
    world.wrote_nothing();
}

/// A speaker whose pod has other labels writes its status again: the controller does not fight it.
#[test]
fn speaker_status_of_an_unseen_pod_is_deleted_once_an_hour() {
    let mut world = announced();
    world.delete_pod("b");
    let view = world.speakers["b"].clone();
    for life in 0..3 {
        world.pass(FORGET_SPEAKERS_AFTER.as_secs() + 1);
        assert_eq!(world.writes(), vec!["DeleteSpeakerStatus"; life + 1]);
        let again = SpeakerView { uid: format!("again-{life}"), ..view.clone() };
        world.speakers.insert("b".to_owned(), again.clone());
        world.index.apply(Object::Speaker("b".to_owned(), again));
    }
}

#[test]
fn node_without_a_speaker_pod_does_not_become_a_home() {
    let mut world = announced();
    world.delete_pod("b");
    world.pass(SILENT_AFTER.as_secs() + 1);
    // Node b has fewer addresses, and would be chosen among equals.
    world.create("other", json!({}));
    world.settle();
    let home = |world: &World, at: &str| world.vips[&address(at)].spec.home_node.clone();
    assert_eq!(home(&world, "192.0.2.2").as_deref(), Some("a"));
    world.pod("b", false);
    world.create("third", json!({}));
    world.settle();
    assert_eq!(home(&world, "192.0.2.3").as_deref(), Some("b"));
}

/// Pods are not awaited: a restarted controller may have made every decision before.
#[test]
fn pods_count_as_missing_from_a_late_list_on() {
    let mut world = announced();
    world.pods.remove("speaker-a");
    world.index = Index::new(Timestamp::UNIX_EPOCH);
    world.index.set_leading(true);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::SpeakerPod) {
        world.relist(kind);
    }
    world.pass(60);
    world.wrote_nothing();
    world.relist(Kind::SpeakerPod);
    world.pass(SILENT_AFTER.as_secs() - 1);
    world.wrote_nothing();
    world.pass(1);
    assert_eq!(reason(&world), "SpeakerNotReady");
    world.pass(FORGET_SPEAKERS_AFTER.as_secs());
    assert!(!world.speakers.contains_key("a") && world.speakers.contains_key("b"));
}

/// A controller that may not list pods concludes nothing from that, and gives out addresses.
#[test]
fn unlisted_pods_are_not_missing() {
    let mut world = World::new();
    world.index = Index::new(Timestamp::UNIX_EPOCH);
    world.index.set_leading(true);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::SpeakerPod) {
        world.relist(kind);
    }
    world.create("web", json!({}));
    world.live();
    world.pass(2 * FORGET_SPEAKERS_AFTER.as_secs());
    assert_eq!((&*reason(&world), world.ingress("web")), ("Announcing", vec![VIP.to_owned()]));
    assert_eq!(world.speakers.len(), 2);
}

/// `kubectl delete node` removes the Node, and the kubelet registers it again at once. The pod garbage collector waits
/// 40 s before it deletes the pods of a missing node (pkg/controller/podgc, quarantineTime), so nothing happens to the
/// speaker's pod.
#[test]
fn pod_that_outlives_its_node_object_is_not_missing() {
    let mut world = announced();
    let view = world.nodes.remove("a").unwrap();
    world.relist(Kind::Node);
    world.settle();
    world.nodes.insert("a".to_owned(), view);
    world.relist(Kind::Node);
    world.log.clear();
    world.pass(SILENT_AFTER.as_secs() + 1);
    assert_eq!(reason(&world), "Announcing", "its speaker's pod is Ready and always was");
    world.pass(2 * FORGET_SPEAKERS_AFTER.as_secs());
    world.wrote_nothing();
    assert!(world.speakers.contains_key("a"));
}

/// `kubectl delete speaker b` deletes the status of the speaker that covers for a; it takes a moment until the speaker
/// writes it again.
#[test]
fn coverer_whose_status_was_deleted_still_covers() {
    let mut world = announced();
    world.delete_pod("a");
    world.pass(6);
    world.covers("b", &["a"]);
    world.pass(60);
    let view = world.speakers["b"].clone();
    world.delete_report("b");
    world.pass(2);
    world.report("b", SpeakerView { uid: "again".to_owned(), ..view });
    world.pass(600);
    world.wrote_nothing();
}

/// The CustomResourceDefinition is deleted, and made again a while later.
#[test]
fn deleted_definition_of_the_speaker_statuses_changes_nothing() {
    let mut world = announced();
    let views = world.speakers.clone();
    world.delete_report("a");
    world.delete_report("b");
    world.pass(300);
    world.relist(Kind::Speaker);
    world.pass(300);
    world.wrote_nothing();
    world.create("other", json!({}));
    world.settle();
    assert!(world.vips[&address("192.0.2.2")].spec.home_node.is_some(), "a home is found as before");
    world.live();
    world.log.clear();
    views.into_iter().for_each(|(node, view)| world.report(&node, view));
    world.pass(600);
    world.wrote_nothing();
}

#[test]
fn deleted_status_of_a_node_without_a_ready_pod_is_forgotten_after_a_while() {
    let mut world = announced();
    world.delete_report("b");
    world.pass(60);
    world.pod("b", false);
    world.pass(14);
    assert!(world.index.speakers.contains_key("b"));
    world.pass(1);
    assert!(!world.index.speakers.contains_key("b"));
    world.wrote_nothing();
}

#[test]
fn deleted_status_of_a_node_that_is_gone_is_forgotten_at_once() {
    let mut world = announced();
    world.delete_report("b");
    world.settle();
    assert!(world.index.speakers.contains_key("b"));
    world.nodes.remove("b");
    world.relist(Kind::Node);
    assert!(!world.index.speakers.contains_key("b"));
    world.delete_report("a");
    world.report("a", world.speakers.values().next().cloned().unwrap_or_default());
    world.nodes.remove("a");
    world.relist(Kind::Node);
    assert!(world.index.speakers.contains_key("a"), "the API lists it");
    world.delete_report("a");
    assert!(!world.index.speakers.contains_key("a"));
}
