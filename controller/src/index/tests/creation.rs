//! The creation times of VirtualIPs, and the dates that the API server gives them.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::index::{
    tests::fake_cluster::{World, address},
    *,
};

const VIP: &str = "192.0.2.1";

/// Returns a world in which the address had a VirtualIP that has just been deleted, and the date of that VirtualIP.
fn released() -> (World, Timestamp) {
    let mut world = World::new();
    world.now = Duration::from_secs(100_000);
    world.create("web", json!({}));
    world.live();
    let date = dated(&world);
    world.delete("web");
    world.live();
    assert!(!world.vips.contains_key(&address(VIP)));
    world.log.clear();
    (world, date)
}

fn dated(world: &World) -> Timestamp {
    world.vips[&address(VIP)].metadata.creation_timestamp.as_ref().unwrap().0
}

fn creations(world: &World) -> usize {
    world.writes().iter().filter(|write| *write == "CreateVirtualIp").count()
}

#[test]
fn address_that_is_released_and_assigned_in_one_second_gets_a_later_date() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.settle();
    let date = dated(&world);
    world.delete("web");
    world.settle();
    world.speakers_act();
    world.settle();
    world.create("web", json!({}));
    world.settle();
    assert_eq!(world.ingress("web"), [] as [&str; 0], "in the same second");
    world.pass(1);
    assert_eq!(world.ingress("web"), [VIP]);
    assert!(dated(&world) > date);
    assert_eq!(creations(&world), 2);
}

/// An API server whose clock is three seconds behind handles the create, or its clock was set back.
#[test]
fn address_that_is_dated_too_early_is_created_again_before_it_is_published() {
    let (mut world, date) = released();
    world.clock_offset = -4;
    world.create("web", json!({}));
    world.settle();
    assert!(dated(&world) <= date);
    assert_eq!(world.ingress("web"), [] as [&str; 0]);
    world.pass(10);
    assert!(dated(&world) > date);
    assert_eq!((creations(&world), world.ingress("web")), (2, vec![VIP.to_owned()]));
    assert!(world.events().iter().all(|event| !event.warning), "{:?}", world.events());
    let labels = world.vips[&address(VIP)].metadata.labels.clone().unwrap();
    assert!(!labels.contains_key(herald_crds::names::LABEL_ADOPTED), "no watch has seen it before");
    world.live();
    world.log.clear();
    world.pass(3600);
    world.wrote_nothing();
}

/// The clock goes back with every create.
#[test]
fn address_that_cannot_be_dated_later_is_created_a_few_times_and_reported_once() {
    let (mut world, date) = released();
    world.create("web", json!({}));
    let end = world.now + Duration::from_secs(600);
    while world.now < end {
        world.clock_offset = date.as_second() - i64::try_from(world.now.as_secs()).unwrap() - 3;
        world.pass(1);
    }
    assert!((2..=5).contains(&creations(&world)), "{:?}", world.writes());
    let told: Vec<_> = world.events().into_iter().filter(|event| event.reason == MISDATED).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].note.contains("kubectl delete vip 192.0.2.1"), "{}", told[0].note);
    assert_eq!(world.ingress("web"), [VIP]);
}

#[test]
fn clock_that_was_set_back_by_an_hour_is_reported_at_once() {
    let (mut world, _) = released();
    world.clock_offset = -3600;
    world.create("web", json!({}));
    world.pass(5);
    assert_eq!(creations(&world), 1);
    assert_eq!(world.events().into_iter().filter(|event| event.reason == MISDATED).count(), 1);
    world.log.clear();
    world.pass(3600);
    assert!(
        world.writes().iter().all(|write| write == "PatchPoolStatus" || write == "CorrectVirtualIpStatus"),
        "{:?}",
        world.writes()
    );
    // The speakers have forgotten the earlier object, and announce this one.
    world.speakers_act();
    world.log.clear();
    world.pass(3600);
    world.wrote_nothing();
}
