//! Another program that undoes the controller's writes: few writes, one event.

use std::time::Duration;

use herald_crds::{VirtualIP, virtual_ip::AnnouncedReason};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::json;
use test_case::test_case;

use crate::index::{
    tests::fake_cluster::{World, address, key},
    *,
};

const VIP: &str = "192.0.2.1";

/// Time for which the other program goes on.
const CONTEST: Duration = Duration::from_secs(600);

/// Returns the times of the writes that `undo` undoes at once, for ten minutes. `undo` returns whether it undoes a
/// write.
fn contested(world: &mut World, undo: impl Fn(&mut World, &Action) -> bool) -> Vec<Duration> {
    let end = world.now + CONTEST;
    let mut writes = Vec::new();
    loop {
        while let Some(action) = world.index.poll_action(world.now) {
            world.carry_out(&action);
            if undo(world, &action) {
                writes.push(world.now);
            }
            assert!(writes.len() < 200, "a storm: {writes:?}");
        }
        match world.index.poll_timeout().filter(|at| *at <= end) {
            Some(at) => world.now = world.now.max(at),
            None => return writes,
        }
    }
}

fn edit_vip(world: &mut World, edit: impl Fn(&mut VirtualIP)) {
    let mut vip = world.vips[&address(VIP)].clone();
    edit(&mut vip);
    world.store_vip(vip);
}

/// Empties the status, as MetalLB without a pool does with each Service without a class (its issue 2887).
fn empties_the_service(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::PatchServiceStatus { .. });
    if undoes {
        world.change("web", json!({"status": null}));
    }
    undoes
}

fn takes_the_condition(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::PatchServiceStatus { .. });
    if undoes {
        world.change("web", json!({"status": {"conditions": null}}));
    }
    undoes
}

/// Undoes as two programs in turn, of which one empties the addresses and the other removes the condition: no write
/// equals the one before.
fn undo_different_parts_in_turn(world: &mut World, action: &Action) -> bool {
    let turn = world.writes().iter().filter(|write| *write == "PatchServiceStatus").count() % 2;
    let undo = [empties_the_addresses, takes_the_condition][turn];
    undo(world, action)
}

fn empties_the_addresses(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::PatchServiceStatus { .. });
    if undoes {
        world.change("web", json!({"status": {"loadBalancer": null}}));
    }
    undoes
}

/// Writes another sentence into the condition each time.
fn rewords_the_condition(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::PatchServiceStatus { .. });
    if undoes {
        let mut condition = world.service_condition("web").unwrap();
        condition.message = format!("at {:?}", world.now);
        world.change("web", json!({"status": {"conditions": [condition]}}));
    }
    undoes
}

/// Deletes the VirtualIP each time, as a program does that removes the finalizer as well.
fn deletes_the_vip(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::CreateVirtualIp { .. });
    if undoes {
        let mut vip = world.vips[&address(VIP)].clone();
        vip.metadata.finalizers = None;
        vip.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        world.store_vip(vip);
    }
    undoes
}

fn edits_the_spec(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::UpdateVirtualIpSpec { .. } | Action::CreateVirtualIp { .. });
    if undoes {
        edit_vip(world, |vip| vip.spec.advertisements.clear());
    }
    undoes
}

/// Behaves like the speaker of the dead node, with a new announcement each time.
fn insists_on_the_dead_node(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::CorrectVirtualIpStatus { .. });
    if undoes {
        let since = Time(Timestamp::UNIX_EPOCH.checked_add(world.now).unwrap());
        edit_vip(world, |vip| {
            let status = vip.status.get_or_insert_default();
            (status.node, status.since) = (Some("a".to_owned()), Some(since.clone()));
            status.conditions = vec![AnnouncedReason::Announcing.condition(String::new(), None, since.clone())];
        });
    }
    undoes
}

fn empties_the_vip_status(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::CorrectVirtualIpStatus { .. });
    if undoes {
        edit_vip(world, |vip| vip.status = None);
    }
    undoes
}

fn empties_the_pool(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::PatchPoolStatus { .. });
    if undoes {
        let mut pool = world.pools["lan"].clone();
        pool.status = None;
        pool.metadata.resource_version = Some(world.next_version());
        world.pools.insert("lan".to_owned(), pool.clone());
        world.index.apply(Object::Pool(Box::new(pool)));
    }
    undoes
}

fn empties_the_advertisement(world: &mut World, action: &Action) -> bool {
    let undoes = matches!(action, Action::PatchAdvertisementStatus { .. });
    if undoes {
        let mut advertisement = world.advertisements["front"].clone();
        advertisement.status = None;
        advertisement.metadata.resource_version = Some(world.next_version());
        world.advertisements.insert("front".to_owned(), advertisement.clone());
        world.index.apply(Object::Advertisement(Box::new(advertisement)));
    }
    undoes
}

fn all_is_well(_: &mut World) {}

fn announcer_is_lost(world: &mut World) {
    world.live();
    world.node("a", false);
}

fn no_node_is_ready(world: &mut World) {
    world.node("a", false);
    world.node("b", false);
}

type Undo = fn(&mut World, &Action) -> bool;

#[test_case(all_is_well, empties_the_service; "status of a Service")]
#[test_case(all_is_well, takes_the_condition; "condition of a Service")]
#[test_case(all_is_well, undo_different_parts_in_turn; "different parts of the status of a Service in turn")]
#[test_case(all_is_well, rewords_the_condition; "condition of a Service with other words each time")]
#[test_case(all_is_well, deletes_the_vip; "a VirtualIP")]
#[test_case(all_is_well, edits_the_spec; "spec of a VirtualIP")]
#[test_case(announcer_is_lost, insists_on_the_dead_node; "status of a VirtualIP whose node is lost")]
#[test_case(no_node_is_ready, empties_the_vip_status; "status of a VirtualIP without an announcer")]
#[test_case(all_is_well, empties_the_pool; "status of a pool")]
#[test_case(all_is_well, empties_the_advertisement; "status of an advertisement")]
fn contested_object_is_written_ever_less_often_and_reported_once(begin: fn(&mut World), undo: Undo) {
    let mut world = World::new();
    world.create("web", json!({}));
    begin(&mut world);
    world.advertisement("front", json!({}));
    let writes = contested(&mut world, undo);
    // Five writes come at once, then one after 0.5, 1, 2, 4, 8 and 16 s, then one every 30 s: 30 in ten minutes.
    assert!((10..=31).contains(&writes.len()), "{writes:?}");
    let last: Vec<_> = writes.windows(2).map(|pair| pair[1] - pair[0]).rev().take(3).collect();
    // The corrections of a status have a grace of their own on top.
    assert!(last.iter().all(|pause| *pause >= Duration::from_secs(30)), "{last:?}");
    let mut told: Vec<_> = world.events().iter().map(|e| (e.reason, e.note.clone(), e.regarding.clone())).collect();
    let all = told.len();
    told.dedup();
    assert_eq!(told.len(), all, "{told:?}");
    assert!(all <= 2, "{told:?}");
}

#[test_case(empties_the_service; "addresses")]
#[test_case(takes_the_condition; "condition")]
#[test_case(undo_different_parts_in_turn; "different parts in turn")]
#[test_case(rewords_the_condition; "words of the condition")]
fn owner_of_a_service_learns_once_that_another_program_writes_its_status(undo: Undo) {
    let mut world = World::new();
    world.create("web", json!({}));
    contested(&mut world, undo);
    let told: Vec<_> = world.events().into_iter().filter(|event| event.warning).collect();
    let [event] = told[..] else { panic!("{told:?}") };
    assert_eq!(event.reason, "StatusOverwritten");
    assert!(event.note.contains("kubectl get service -n ns web"), "{}", event.note);
    // The next write stays when the other program stops.
    world.pass(31);
    assert_eq!((world.ingress("web"), &*world.condition("web")), (vec![VIP.to_owned()], "True Assigned"));
}

/// Frequent edits of a Service do not count as another program's writes.
#[test]
fn edits_of_a_service_do_not_count_as_a_contest() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.settle();
    for n in (2..=5).cycle().take(40) {
        world.change("web", json!({"spec": {"loadBalancerIP": format!("192.0.2.{n}")}}));
        world.live();
    }
    assert!(world.events().iter().all(|event| event.reason != "StatusOverwritten"), "{:?}", world.events());
}

/// The API server empties the status of a Service that has another type for a while.
#[test]
fn changes_of_type_do_not_count_as_a_contest() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.settle();
    for type_ in ["ClusterIP", "LoadBalancer"].into_iter().cycle().take(20) {
        let class = (type_ == "LoadBalancer").then_some("heraldlb.io/l2");
        world.change("web", json!({"spec": {"type": type_, "loadBalancerClass": class}}));
        world.live();
    }
    assert!(world.events().iter().all(|event| event.reason != "StatusOverwritten"), "{:?}", world.events());
}

/// An address that is assigned, edited and corrected is written at once each time.
#[test]
fn burst_of_five_writes_of_one_object_is_not_delayed() {
    let mut world = World::new();
    let writes = |world: &World, word: &str| world.writes().iter().filter(|write| *write == word).count();
    let ranges = |text: Option<&str>| json!({"metadata": {"annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": text}}});
    world.create("web", json!({}));
    world.settle();
    assert_eq!((world.ingress("web"), writes(&world, "PatchServiceStatus")), (vec![VIP.to_owned()], 1));
    for (n, range) in [Some("10.0.0.0/8"), None, Some("10.1.0.0/16"), Some("10.2.0.0/16")].into_iter().enumerate() {
        world.change("web", ranges(range));
        world.settle();
        assert_eq!(writes(&world, "PatchServiceStatus"), n + 2);
    }
    assert_eq!(writes(&world, "CreateVirtualIp"), 1);
    for n in 1..=4 {
        world.change("web", json!({"spec": {"externalTrafficPolicy": "Local", "healthCheckNodePort": 30_000 + n}}));
        world.settle();
        assert_eq!(writes(&world, "UpdateVirtualIpSpec"), n);
    }
    assert_eq!(world.now, Duration::from_secs(0), "no time has passed");
}

/// Services that come and go change the counts of their pool each time: no other program has written it.
#[test]
fn counts_of_a_pool_follow_its_services_without_a_pause() {
    let mut world = World::new();
    world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.100"]}));
    world.live();
    for n in 1..=60 {
        world.create(&format!("s{n}"), json!({}));
        world.pass(1);
        let usage = world.pools["lan"].status.as_ref().unwrap().ipv4.clone().unwrap();
        assert_eq!(usage.assigned, n.to_string());
    }
}

/// The pauses of a contest do not apply to a Service of the same name that is created afterwards.
#[test]
fn recreated_service_is_served_at_once_after_a_contest() {
    let mut world = World::new();
    world.create("web", json!({}));
    contested(&mut world, empties_the_service);
    world.delete("web");
    world.pass(60);
    assert!(!world.services.contains_key(&key("web")));
    world.create("web", json!({}));
    world.settle();
    assert_eq!(world.ingress("web"), [VIP]);
}
