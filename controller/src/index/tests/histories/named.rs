//! Histories that once went wrong.

use serde_json::json;

use super::{
    event::{Event, happen},
    verdict::{is_named, published},
};
use crate::index::{
    Kind,
    tests::fake_cluster::{World, address},
};

/// A Service stopped being a load balancer for a moment, and the controller restarted in that moment: an address that
/// is being withdrawn is not given back before it is gone.
#[test]
fn an_address_that_is_being_withdrawn_is_not_published_by_the_next_leader() {
    let mut world = World::new();
    let [no_balancer, balancer] = [false, true].map(|balancer| Event::Retype(1, balancer));
    for event in [Event::Create(1, None), Event::Settle, Event::Speakers, no_balancer, Event::Step(2), balancer] {
        happen(&mut world, &event);
    }
    assert!(world.vips.values().all(|vip| vip.metadata.deletion_timestamp.is_some()), "it is being withdrawn");
    for event in [Event::Restart, Event::Step(2)] {
        happen(&mut world, &event);
        let published = published(&world).remove("1").unwrap();
        let withdrawn =
            |a: &String| world.vips.get(&address(a)).is_none_or(|v| v.metadata.deletion_timestamp.is_some());
        assert!(!published.iter().any(withdrawn), "{published:?}");
    }
}

/// A new leader whose watch of Services is behind replaces an address that a stranger holds. The Service keeps an
/// address that it shows until a version is seen that does not show it.
#[test]
fn an_address_is_not_withdrawn_while_an_unseen_version_of_the_service_shows_it() {
    let mut world = World::new();
    world.pool("lan", json!({"addresses": ["192.0.2.3-192.0.2.4"]}));
    let first = [Event::Stranger(3, true), Event::Create(0, None), Event::Behind(true), Event::Step(2)];
    for event in first.iter().chain(&[Event::Speakers, Event::Restart, Event::Settle]) {
        happen(&mut world, event);
    }
    assert_eq!(world.ingress("0"), ["192.0.2.3"]);
    assert!(world.vips[&address("192.0.2.3")].metadata.deletion_timestamp.is_none(), "the Service shows it");
    world.catch_up_all();
    world.live();
    assert_eq!((world.ingress("0"), world.vips.len()), (vec!["192.0.2.4".to_owned()], 1));
}

/// A new leader whose watch of Services is behind sees an address that the Service has given up, and that a node has by
/// now: the Service does not get it again.
#[test]
fn an_address_that_only_an_old_version_of_the_service_shows_is_not_given_out() {
    let mut world = World::new();
    let first = [Event::Create(0, None), Event::Step(2), Event::Behind(true), Event::Stranger(1, true)];
    let then = [Event::Speakers, Event::Settle, Event::Links(false, vec![(1, 29)]), Event::Restart];
    for event in first.iter().chain(&then) {
        happen(&mut world, event);
    }
    assert_eq!(world.ingress("0"), ["192.0.2.2"]);
    for _ in 0..20 {
        happen(&mut world, &Event::Step(1));
        assert_eq!(world.vips.keys().collect::<Vec<_>>(), [&address("192.0.2.2")]);
    }
    world.catch_up_all();
    world.live();
    assert_eq!((world.ingress("0"), world.vips.len()), (vec!["192.0.2.2".to_owned()], 1));
}

/// Another provider has left the address of a Service that Herald serves in the status of an older Service, and the
/// VirtualIP is gone when a new leader starts: the finalizer shows which Service owns the address.
#[test]
fn an_address_without_a_virtual_ip_belongs_to_the_service_with_a_finalizer() {
    let mut world = World::new();
    let created = [Event::Create(0, Some(9)), Event::Create(1, None), Event::Settle];
    let lost = [Event::DeleteVip(1), Event::Step(1), Event::Lease(false), Event::Left(0, 1), Event::Restart];
    for event in created.iter().chain(&lost) {
        happen(&mut world, event);
    }
    world.live();
    assert!(is_named(&world, "1", "192.0.2.1") && !is_named(&world, "0", "192.0.2.1"));
    assert_eq!((&*world.condition("1"), &*world.condition("0")), ("True Assigned", "False AddressInUse"));
}

/// A Service that shares a contested address keeps it because another asks for it, and its condition reports that
/// before a restart.
#[test]
fn request_for_a_contested_address_is_reported_to_its_sharers() {
    let mut world = World::new();
    let created = [4, 0, 5, 1].map(|n| Event::Create(n, None));
    let then = [Event::Settle, Event::Stranger(1, true), Event::Speakers, Event::Settle, Event::Request(4, Some(1))];
    for event in created.iter().chain(&then) {
        happen(&mut world, event);
    }
    for _ in 0..4 {
        world.live();
    }
    world.pass(60);
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

/// A new leader sees neither the VirtualIP of an address nor a pool that holds it. The finalizer stays, because it is
/// removed with the last address.
#[test]
fn the_finalizer_stays_while_an_address_is_shown() {
    let mut world = World::new();
    let first = [Event::Dmz(Some((7, 0, false))), Event::Create(0, None), Event::KindBehind(Kind::VirtualIp, true)];
    for event in first.iter().chain(&[Event::Settle, Event::Dmz(None), Event::Restart, Event::Settle]) {
        happen(&mut world, event);
    }
    assert_eq!((world.ingress("0"), world.finalizers("0").len()), (vec!["192.0.2.7".to_owned()], 1));
    world.catch_up_all();
    world.live();
    assert_eq!((world.ingress("0"), &*world.condition("0")), (vec!["192.0.2.7".to_owned()], "True OutsidePool"));
}

/// An address counts to the pool that one of its Services asks for, and all their conditions say so before a restart.
#[test]
fn pool_of_an_address_is_reported_to_all_sharers() {
    let mut world = World::new();
    let created = [Event::Create(3, None), Event::Create(4, None), Event::Settle, Event::Dmz(Some((1, 0, false)))];
    for event in created.iter().chain(&[Event::AskPool(4, Some(true)), Event::Settle]) {
        happen(&mut world, event);
    }
    for name in ["3", "4"] {
        assert_eq!(
            (world.ingress(name), world.allocated_from(name).as_deref()),
            (vec!["192.0.2.1".into()], Some("dmz"))
        );
    }
    world.live();
    world.log.clear();
    world.restart();
    world.pass(60);
    world.wrote_nothing();
}

/// A Service loses its sharing key before the address that it should share is published.
#[test]
fn a_share_that_an_edit_forbids_is_not_published() {
    let mut world = World::new();
    let created = [Event::Create(3, None), Event::Settle, Event::Create(4, None), Event::Step(1)];
    for event in created.iter().chain(&[Event::ShareKey(4, None), Event::Settle]) {
        happen(&mut world, event);
    }
    assert_eq!((world.ingress("3"), world.ingress("4")), (vec!["192.0.2.1".to_owned()], vec!["192.0.2.2".to_owned()]));
}

/// A Service that should share an address, by a plan that no VirtualIP has named, loses its sharing key. The other
/// Service does not go on reporting the conflict.
#[test]
fn sharing_conflict_is_withdrawn_when_the_services_part() {
    let mut world = World::new();
    let created = [Event::Create(0, None), Event::Create(7, None), Event::KindBehind(Kind::VirtualIp, true)];
    let then = [Event::Settle, Event::Speakers, Event::Create(6, None), Event::Step(1), Event::ShareKey(6, None)];
    for event in created.iter().chain(&then) {
        happen(&mut world, event);
    }
    world.catch_up_all();
    world.live();
    assert_eq!(world.service_condition("late-7").unwrap().message, "192.0.2.2 from AddressPool lan");
}

/// A leader deletes the VirtualIP of a deleted Service, and the answer shows that a former leader let another Service
/// share it. That Service gets the address once the VirtualIP has been made again.
#[test]
fn an_address_is_not_published_while_its_virtual_ip_is_being_deleted() {
    let mut world = World::new();
    let created = [Event::Create(3, None), Event::Settle, Event::Create(4, None), Event::TakeOver(1)];
    for event in created.iter().chain(&[Event::KindBehind(Kind::VirtualIp, true), Event::Delete(3), Event::Arrives]) {
        happen(&mut world, event);
    }
    for _ in 0..20 {
        happen(&mut world, &Event::Step(1));
        assert!(world.ingress("4").iter().all(|a| is_named(&world, "4", a)), "{:?}", world.ingress("4"));
    }
    world.catch_up_all();
    world.live();
    assert_eq!((&*world.condition("4"), world.vips.len()), ("True Assigned", 1));
}
