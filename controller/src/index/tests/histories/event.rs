//! The events of a history.

use std::net::IpAddr;

use herald_crds::names::{ANNOTATION_COUNT, LABEL_GATEWAY_NAME};
use proptest::prelude::*;
use serde_json::json;

use super::published;
use crate::index::{
    Kind,
    tests::fake_cluster::{Trouble, World, address, key, merge},
};

#[derive(Clone, Debug)]
pub(in crate::index) enum Event {
    Create(u8, Option<u8>),
    Delete(u8),
    Retype(u8, bool),
    Request(u8, Option<u8>),
    Families(u8, u8),
    Pool(u8, u8),
    Speakers,
    Step(u8),
    Settle,
    Pass(u8),
    Restart,
    Lease(bool),
    Stranger(u8, bool),
    /// The speaker of node a or b reports addresses of its links: the last octet and the length of the prefix of each.
    Links(bool, Vec<(u8, u8)>),
    /// The Node of a or b lists an address, or none.
    Node(bool, Option<u8>),
    /// The SpeakerStatus of node b is deleted.
    ReportGone,
    /// A Service of another provider shows an address, or is gone.
    Foreign(bool, Option<u8>),
    /// Another provider leaves an address in the status of a Service of ours that had none.
    Left(u8, u8),
    /// A person deletes a VirtualIP.
    DeleteVip(u8),
    /// The pool is deleted; it may be created again.
    NoPool,
    /// The watch of Services falls behind, or has caught up.
    Behind(bool),
    /// The watch of another kind falls behind, or has caught up.
    KindBehind(Kind, bool),
    /// A pool `dmz`, which overlaps `lan`: for namespaces of the zone, for all, or none.
    Dmz(Option<(u8, u8, bool)>),
    /// The pool `lan` gets another name: it is deleted, and made again as `lan-2`, or back.
    Rename,
    /// A Service asks for this number of addresses of each family; it may not ask for 0.
    Count(u8, Option<u8>),
    /// A Service asks for addresses of `lan`, of `dmz`, or of any pool.
    AskPool(u8, Option<bool>),
    /// A Service gets another sharing key, or none.
    ShareKey(u8, Option<bool>),
    /// A Service lists an external IP, or none.
    External(u8, Option<u8>),
    /// The namespace `late` joins the zone, or leaves it.
    Zone(bool),
    /// The next writes meet these troubles.
    Trouble(Vec<Trouble>),
    /// The leader has sent its next writes, and they have not arrived when another takes over.
    TakeOver(u8),
    /// One of these writes arrives.
    Arrives,
    /// The clock of the API server is ahead by this number of seconds, or behind.
    Clock(i8),
    /// Another provider wipes the status of a Service of ours.
    Wiped(u8),
    /// A Gateway asks for an address, or for none, or is deleted.
    Gateway(bool, Option<Option<u8>>),
    /// A Service gets the label of one of these Gateways, or of none.
    OfGateway(u8, Option<bool>),
    /// The process starts again, and has not listed the Gateways, or may not.
    RestartWithoutGateways(bool),
}

/// Lengths of the prefixes of links: with 29 and 30 bits, the network and broadcast addresses are among those of the
/// pool; the other lengths have none there.
const LENGTHS: [u8; 4] = [29, 30, 31, 32];

pub(in crate::index) fn event() -> impl Strategy<Value = Event> {
    let name = 0u8..6;
    let wanted = || prop::option::weighted(0.3, 1u8..7);
    prop_oneof![
        4 => (name.clone(), wanted()).prop_map(|(n, a)| Event::Create(n, a)),
        2 => name.clone().prop_map(Event::Delete),
        2 => (name.clone(), any::<bool>()).prop_map(|(n, lb)| Event::Retype(n, lb)),
        2 => (name, wanted()).prop_map(|(n, a)| Event::Request(n, a)),
        2 => (0u8..6, 0u8..3).prop_map(|(n, policy)| Event::Families(n, policy)),
        1 => (1u8..4, 0u8..5).prop_map(|(first, n)| Event::Pool(first, n)),
        3 => Just(Event::Speakers),
        4 => (1u8..4).prop_map(Event::Step),
        2 => Just(Event::Settle),
        1 => (1u8..15).prop_map(Event::Pass),
        1 => Just(Event::Restart),
        1 => any::<bool>().prop_map(Event::Lease),
        2 => (1u8..7, any::<bool>()).prop_map(|(n, there)| Event::Stranger(n, there)),
        2 => (any::<bool>(), prop::collection::vec((0u8..9, prop::sample::select(&LENGTHS[..])), 0..3))
            .prop_map(|(b, links)| Event::Links(b, links)),
        1 => (any::<bool>(), prop::option::of(1u8..9)).prop_map(|(b, n)| Event::Node(b, n)),
        1 => Just(Event::ReportGone),
    ]
}

/// Returns the events that also happen where Herald is not alone, or its watch is slow.
pub(super) fn event_among_others() -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => event(),
        2 => (any::<bool>(), prop::option::weighted(0.7, 1u8..7)).prop_map(|(n, a)| Event::Foreign(n, a)),
        3 => (0u8..6, 1u8..7).prop_map(|(n, a)| Event::Left(n, a)),
        2 => (1u8..7).prop_map(Event::DeleteVip),
        1 => Just(Event::NoPool),
        2 => any::<bool>().prop_map(Event::Behind),
    ]
}

/// Returns the events that also happen where users edit all that they may, and where the API server is in trouble.
pub(super) fn event_in_trouble() -> impl Strategy<Value = Event> {
    let name = || 0u8..8;
    let choice = || prop::option::of(any::<bool>());
    let kinds = [Kind::VirtualIp, Kind::Pool, Kind::Namespace, Kind::Service, Kind::Gateway];
    let trouble = prop::sample::select(vec![Trouble::Conflict, Trouble::Refused, Trouble::AnswerLost]);
    prop_oneof![
        30 => event_among_others(),
        3 => (6u8..8).prop_map(|n| Event::Create(n, None)),
        3 => prop::option::weighted(0.8, (1u8..8, 0u8..4, any::<bool>())).prop_map(Event::Dmz),
        2 => Just(Event::Rename),
        4 => (name(), prop::option::weighted(0.8, 0u8..4)).prop_map(|(n, count)| Event::Count(n, count)),
        3 => (name(), choice()).prop_map(|(n, pool)| Event::AskPool(n, pool)),
        3 => (name(), choice()).prop_map(|(n, share)| Event::ShareKey(n, share)),
        2 => (name(), prop::option::of(1u8..9)).prop_map(|(n, a)| Event::External(n, a)),
        2 => any::<bool>().prop_map(Event::Zone),
        4 => (prop::sample::select(kinds.to_vec()), any::<bool>()).prop_map(|(kind, behind)| Event::KindBehind(kind, behind)),
        3 => prop::collection::vec(trouble, 1..4).prop_map(Event::Trouble),
        2 => (1u8..4).prop_map(Event::TakeOver),
        3 => Just(Event::Arrives),
        1 => (-40i8..10).prop_map(Event::Clock),
        1 => name().prop_map(Event::Wiped),
        3 => (any::<bool>(), prop::option::weighted(0.8, prop::option::weighted(0.8, 1u8..7)))
            .prop_map(|(second, asks)| Event::Gateway(second, asks)),
        3 => (0u8..6, choice()).prop_map(|(n, second)| Event::OfGateway(n, second)),
        2 => any::<bool>().prop_map(Event::RestartWithoutGateways),
    ]
}

/// Returns the name of a Service: the last two are in a namespace of their own, which is created with the first of
/// them.
pub(super) fn service_name(n: u8) -> String {
    if n < 6 { n.to_string() } else { format!("late-{n}") }
}

/// Returns the sharing of a Service: half of the Services carry one sharing key, on two ports; some of them may share,
/// some may not.
fn sharing(n: u8) -> serde_json::Value {
    let annotations = if n >= 3 { json!({"heraldlb.io/allow-shared-ip": "k"}) } else { json!({}) };
    json!({"metadata": {"annotations": annotations}, "spec": {"ports": [{"port": 80 + n % 2}]}})
}

fn wanted(address: Option<u8>) -> serde_json::Value {
    json!({"spec": {"loadBalancerIP": address.map(|n| format!("192.0.2.{n}"))}})
}

pub(in crate::index) fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Create(n, address) => {
            if !world.services.contains_key(&key(&service_name(*n))) {
                if *n >= 6 && !world.namespaces.contains_key("late") {
                    world.namespace("late", json!({}));
                }
                let mut object = wanted(*address);
                merge(&mut object, sharing(*n));
                world.create(&service_name(*n), object);
            }
        }
        Event::Delete(n) => world.delete(&service_name(*n)),
        Event::Retype(n, balancer) => {
            if world.services.contains_key(&key(&service_name(*n))) {
                let class = balancer.then_some("heraldlb.io/l2");
                let new_type = if *balancer { "LoadBalancer" } else { "ClusterIP" };
                world.change(&service_name(*n), json!({"spec": {"type": new_type, "loadBalancerClass": class}}));
            }
        }
        Event::Request(n, address) => {
            if world.services.contains_key(&key(&service_name(*n))) {
                world.change(&service_name(*n), wanted(*address));
            }
        }
        Event::Families(n, policy) => {
            if world.services.contains_key(&key(&service_name(*n))) {
                let (policy, families) = match policy {
                    0 => ("SingleStack", json!(["IPv4"])),
                    1 => ("PreferDualStack", json!(["IPv4", "IPv6"])),
                    _ => ("RequireDualStack", json!(["IPv4", "IPv6"])),
                };
                let change = json!({"spec": {"ipFamilies": families, "ipFamilyPolicy": policy}});
                world.change(&service_name(*n), change);
            }
        }
        Event::Pool(first, n) => {
            let block = format!("192.0.2.{first}-192.0.2.{}", first + n);
            world.pool("lan", json!({"addresses": [block]}));
        }
        Event::Speakers => world.speakers_act(),
        Event::Step(n) => {
            for _ in 0..*n {
                if let Some(action) = world.index.poll_action(world.now) {
                    world.carry_out(&action);
                }
            }
        }
        Event::Settle => world.settle(),
        Event::Pass(seconds) => world.pass(u64::from(*seconds)),
        Event::Restart => world.restart(),
        Event::Lease(leading) => world.index.set_leading(*leading),
        Event::Links(b, links) => {
            // Each link has an IPv6 address as well: /125 to /128, of which the pool has the first few addresses.
            let four = links.iter().map(|(n, length)| format!("192.0.2.{n}/{length}"));
            let six = links.iter().map(|(n, length)| format!("2001:db8::{n}/{}", length + 96));
            let addresses: Vec<String> = four.chain(six).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            world.links(node_name(*b), &addresses);
        }
        Event::Node(b, address) => {
            let addresses = address.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect();
            world.node_lists(node_name(*b), addresses);
        }
        Event::ReportGone => world.delete_report("b"),
        Event::Foreign(..)
        | Event::Left(..)
        | Event::Wiped(_)
        | Event::DeleteVip(_)
        | Event::NoPool
        | Event::Behind(_)
        | Event::KindBehind(..) => happen_among_others(world, event),
        Event::Dmz(_)
        | Event::Rename
        | Event::Count(..)
        | Event::AskPool(..)
        | Event::ShareKey(..)
        | Event::External(..)
        | Event::Zone(_)
        | Event::Trouble(_)
        | Event::TakeOver(_)
        | Event::Arrives
        | Event::Gateway(..)
        | Event::OfGateway(..)
        | Event::RestartWithoutGateways(_)
        | Event::Clock(_) => happen_in_trouble(world, event),
        Event::Stranger(n, true) => world.stranger(&format!("192.0.2.{n}")),
        Event::Stranger(n, false) => {
            world.held_by_others.remove(&address(&format!("192.0.2.{n}")));
        }
    }
}

/// Applies an event, except for two that a leader which has not seen them cannot know: a Service shows an address while
/// the watch is behind, or shows one whose VirtualIP has been deleted.
fn happen_among_others(world: &mut World, event: &Event) {
    let shown = |n: &u8| json!({"status": {"loadBalancer": {"ingress": [{"ip": format!("192.0.2.{n}")}]}}});
    match event {
        Event::Behind(false) => world.catch_up(Kind::Service),
        Event::KindBehind(kind, false) => world.catch_up(*kind),
        Event::KindBehind(kind, true) => world.fall_behind(*kind),
        Event::Behind(true) => {
            let proved =
                |a: &String| world.vips.get(&address(a)).is_some_and(|v| v.metadata.deletion_timestamp.is_none());
            if published(world).into_values().flatten().all(|shown| proved(&shown)) {
                world.fall_behind(Kind::Service);
            }
        }
        _ if world.is_behind(Kind::Service) => {}
        Event::Foreign(n, shows) => {
            let name = if *n { "f1" } else { "f0" };
            match shows {
                None => world.delete(name),
                Some(at) if world.services.contains_key(&key(name)) => world.change(name, shown(at)),
                Some(at) => {
                    let mut theirs = json!({"spec": {"loadBalancerClass": "example.com/other"}});
                    merge(&mut theirs, shown(at));
                    world.create(name, theirs);
                }
            }
        }
        Event::Left(n, at) => {
            let name = service_name(*n);
            let service = world.services.get(&key(&name));
            let is_balancer = service.is_some_and(|s| s.spec.as_ref().unwrap().load_balancer_class.is_some());
            let deleted = service.is_some_and(|s| s.metadata.deletion_timestamp.is_some());
            if is_balancer && !deleted && world.ingress(&name).is_empty() {
                world.change(&name, shown(at));
            }
        }
        Event::Wiped(n) => {
            if !world.ingress(&service_name(*n)).is_empty() {
                world.change(&service_name(*n), json!({"status": {"loadBalancer": null}}));
            }
        }
        Event::DeleteVip(n) => {
            if world.vips.contains_key(&IpAddr::from([192, 0, 2, *n])) {
                world.delete_vip(&format!("192.0.2.{n}"));
            }
        }
        Event::NoPool => {
            if world.pools.contains_key("lan") {
                world.delete_pool("lan");
            }
        }
        _ => unreachable!("{event:?} has its own arm"),
    }
}

/// Applies an edit of an object that addresses depend on, or a trouble of the API server: it accepts a write late,
/// twice or not at all.
fn happen_in_trouble(world: &mut World, event: &Event) {
    let change = |world: &mut World, n: &u8, change: serde_json::Value| {
        if world.services.contains_key(&key(&service_name(*n))) {
            world.change(&service_name(*n), change);
        }
    };
    let annotate = |annotation: &str, value: Option<&str>| json!({"metadata": {"annotations": {annotation: value}}});
    match event {
        Event::Dmz(None) => {
            if world.pools.contains_key("dmz") {
                world.delete_pool("dmz");
            }
        }
        Event::Dmz(Some((first, n, of_zone))) => {
            let block = format!("192.0.2.{first}-192.0.2.{}", first + n);
            let zone = json!({"namespaceSelectors": [{"matchLabels": {"zone": "dmz"}}]});
            world.pool("dmz", json!({"addresses": [block], "serviceAllocation": of_zone.then_some(zone)}));
        }
        Event::Rename => {
            let (old, new) = if world.pools.contains_key("lan") { ("lan", "lan-2") } else { ("lan-2", "lan") };
            if let Some(pool) = world.pools.get(old).cloned() {
                world.delete_pool(old);
                world.pool(new, serde_json::to_value(pool.spec).unwrap());
            }
        }
        Event::Count(n, count) => {
            let count = count.map(|count| count.to_string());
            change(world, n, annotate(ANNOTATION_COUNT, count.as_deref()));
        }
        Event::AskPool(n, dmz) => {
            let pool = dmz.map(|dmz| if dmz { "dmz" } else { "lan" });
            change(world, n, annotate("heraldlb.io/address-pool", pool));
        }
        Event::ShareKey(n, other) => {
            let share = other.map(|other| if other { "j" } else { "k" });
            change(world, n, annotate("heraldlb.io/allow-shared-ip", share));
        }
        Event::External(n, address) => {
            let list: Vec<_> = address.iter().map(|a| format!("192.0.2.{a}")).collect();
            change(world, n, json!({"spec": {"externalIPs": list}}));
        }
        Event::Zone(of_zone) => {
            if world.namespaces.contains_key("late") {
                world.namespace("late", json!({"zone": of_zone.then_some("dmz").unwrap_or("lab")}));
            }
        }
        Event::Trouble(next) => world.trouble = next.iter().copied().collect(),
        Event::TakeOver(n) => {
            let (index, now) = (&mut world.index, world.now);
            let sent = std::iter::from_fn(|| index.poll_action(now)).take((*n).into());
            let sent: Vec<_> = sent.collect();
            world.late.extend(sent);
            world.restart();
        }
        Event::Arrives => {
            if let Some(action) = world.late.pop() {
                world.request(&action);
            }
        }
        Event::Gateway(second, asks) => {
            let name = gateway_name(*second);
            match asks {
                Some(asks) => {
                    let addresses: Vec<_> = asks.iter().map(|n| format!("192.0.2.{n}")).collect();
                    world.gateway(name, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
                }
                None if world.has_gateway(name) => world.delete_gateway(name),
                None => {}
            }
        }
        Event::OfGateway(n, second) => {
            let labels = second.map(|second| json!({LABEL_GATEWAY_NAME: gateway_name(second)}));
            change(world, n, json!({"metadata": {"labels": labels}}));
        }
        Event::RestartWithoutGateways(unreadable) => {
            world.restart_without(Kind::Gateway);
            if *unreadable {
                world.index.note_broken(Kind::Gateway);
            }
        }
        Event::Clock(ahead) => world.clock_offset = (*ahead).into(),
        _ => unreachable!("{event:?} has its own arm"),
    }
}

fn gateway_name(second: bool) -> &'static str {
    if second { "g1" } else { "g0" }
}

fn node_name(b: bool) -> &'static str {
    if b { "b" } else { "a" }
}
