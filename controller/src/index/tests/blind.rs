//! A leader whose watches are broken: the steps that it takes nevertheless, and those that it leaves to a leader that
//! sees.

use serde_json::json;
use test_case::test_case;

use crate::index::{
    speakers::SILENT_AFTER,
    tests::fake_cluster::{World, address, key},
    *,
};

/// Returns a world in which node a announces the address of `web`.
fn announced() -> World {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.pass(60);
    world.log.clear();
    world
}

fn node_fails(world: &mut World) {
    world.node("a", false);
}

fn speaker_crashes(world: &mut World) {
    world.pod("a", false);
}

fn pod_goes(world: &mut World) {
    world.delete_pod("b");
}

/// The last observation of a blind leader may be out of date.
#[test_case(node_fails, 10, "CorrectVirtualIpStatus"; "node that is not ready")]
#[test_case(speaker_crashes, SILENT_AFTER.as_secs() + 1, "CorrectVirtualIpStatus"; "speaker that is not ready")]
#[test_case(pod_goes, FORGET_SPEAKERS_AFTER.as_secs() + 1, "DeleteSpeakerStatus"; "node without a speaker")]
fn blind_leader_corrects_and_deletes_nothing_until_it_sees(happens: fn(&mut World), within: u64, write: &str) {
    let mut world = announced();
    world.index.set_blind(true);
    happens(&mut world);
    world.pass(within);
    world.wrote_nothing();
    world.index.set_blind(false);
    world.settle();
    let writes = world.writes();
    assert_eq!(writes.iter().filter(|kind| *kind != "Event").collect::<Vec<_>>(), [write]);
}

#[test]
fn address_that_a_stranger_holds_is_replaced_only_by_a_leader_that_sees() {
    let mut world = World::new();
    world.stranger("192.0.2.1");
    world.create("web", json!({}));
    world.settle();
    world.index.set_blind(true);
    world.speakers_act();
    world.pass(600);
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    assert!(world.vips.contains_key(&address("192.0.2.1")) && world.quarantined("lan").is_empty());
    world.index.set_blind(false);
    world.settle();
    assert_eq!((world.ingress("web"), world.quarantined("lan")), (vec!["192.0.2.2".into()], vec!["192.0.2.1".into()]));
}

/// A leader that sees a part is better than none.
#[test]
fn blind_leader_gives_addresses_and_releases_those_of_deleted_services() {
    let mut world = announced();
    world.index.set_blind(true);
    world.create("next", json!({}));
    world.live();
    assert_eq!((world.ingress("next"), world.condition("next")), (vec!["192.0.2.2".into()], "True Assigned".into()));
    world.delete("web");
    world.live();
    assert!(!world.services.contains_key(&key("web")) && !world.vips.contains_key(&address("192.0.2.1")));
}
