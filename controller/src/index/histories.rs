//! Random histories: whatever happens, in whatever order, with a leader that comes and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::{
    Index,
    world::{World, address, key, merge},
};

#[derive(Clone, Debug)]
pub(super) enum Event {
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
}

/// Lengths of the prefixes of links: with 29 and 30 bits network and broadcast addresses lie among those of the pool; the
/// others have none there.
const LENGTHS: [u8; 4] = [29, 30, 31, 32];

pub(super) fn event() -> impl Strategy<Value = Event> {
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

/// Half of the Services carry one sharing key, on two ports: some of those may share, some not.
fn sharing(n: u8) -> serde_json::Value {
    let annotations = if n >= 3 { json!({"heraldlb.io/allow-shared-ip": "k"}) } else { json!({}) };
    json!({"metadata": {"annotations": annotations}, "spec": {"ports": [{"port": 80 + n % 2}]}})
}

fn may_share(one: &str, other: &str) -> bool {
    let number = |name: &str| name.parse::<u8>().unwrap();
    let (one, other) = (number(one), number(other));
    one >= 3 && other >= 3 && one % 2 != other % 2
}

fn wanted(address: Option<u8>) -> serde_json::Value {
    json!({"spec": {"loadBalancerIP": address.map(|n| format!("192.0.2.{n}"))}})
}

pub(super) fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Create(n, address) => {
            if !world.services.contains_key(&key(&n.to_string())) {
                let mut object = wanted(*address);
                merge(&mut object, sharing(*n));
                world.create(&n.to_string(), object);
            }
        }
        Event::Delete(n) => world.delete(&n.to_string()),
        Event::Retype(n, balancer) => {
            if world.services.contains_key(&key(&n.to_string())) {
                let class = balancer.then_some("heraldlb.io/l2");
                let new_type = if *balancer { "LoadBalancer" } else { "ClusterIP" };
                world.change(&n.to_string(), json!({"spec": {"type": new_type, "loadBalancerClass": class}}));
            }
        }
        Event::Request(n, address) => {
            if world.services.contains_key(&key(&n.to_string())) {
                world.change(&n.to_string(), wanted(*address));
            }
        }
        Event::Families(n, policy) => {
            if world.services.contains_key(&key(&n.to_string())) {
                let (policy, families) = match policy {
                    0 => ("SingleStack", json!(["IPv4"])),
                    1 => ("PreferDualStack", json!(["IPv4", "IPv6"])),
                    _ => ("RequireDualStack", json!(["IPv4", "IPv6"])),
                };
                let change = json!({"spec": {"ipFamilies": families, "ipFamilyPolicy": policy}});
                world.change(&n.to_string(), change);
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
            // An IPv6 address beside each: /125 to /128, of which the pool has the first few addresses.
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
        Event::Stranger(n, true) => world.stranger(&format!("192.0.2.{n}")),
        Event::Stranger(n, false) => {
            world.held_by_others.remove(&address(&format!("192.0.2.{n}")));
        }
    }
}

fn node_name(b: bool) -> &'static str {
    if b { "b" } else { "a" }
}

/// Returns whether a node has the address, or it is the network, broadcast or anycast address of a prefix on link: by
/// arithmetic on what the objects of the API say.
fn is_taken_by_a_node(world: &World, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let (wanted, width) = bits(address);
    let end_of_prefix = |net: &IpNet| {
        if net.addr().is_ipv4() != address.is_ipv4() || width - u32::from(net.prefix_len()) < 2 {
            return false;
        }
        let hosts = (1u128 << (width - u32::from(net.prefix_len()))) - 1;
        let inside = wanted & !hosts == bits(net.addr()).0 & !hosts;
        inside && (wanted & hosts == 0 || (address.is_ipv4() && wanted & hosts == hosts))
    };
    let listed = world.nodes.values().flat_map(|node| &node.addresses).any(|own| *own == address);
    let reported = world.speakers.values().any(|speaker| {
        let prefixes = speaker.segments.iter().flat_map(|segment| &segment.prefixes);
        speaker.link_addresses.iter().any(|own| own.addr() == address)
            || prefixes.chain(&speaker.link_addresses).any(end_of_prefix)
    });
    listed || reported
}

/// What has been planned, published or made.
fn known(world: &World) -> BTreeSet<IpAddr> {
    let planned = world.index.allocator.occupants().map(|(address, _)| address);
    let shown = published(world).into_values().flatten().map(|text| address(&text));
    planned.chain(shown).chain(world.vips.keys().copied()).collect()
}

/// Every address in a status, by Service.
pub(super) fn published(world: &World) -> BTreeMap<String, Vec<String>> {
    world.services.keys().map(|k| (k.name.clone(), world.ingress(&k.name))).collect()
}

/// Two Services that have one address, though they may not share it.
pub(super) fn assigned_twice(published: &BTreeMap<String, Vec<String>>) -> Option<(&str, &str)> {
    let pairs =
        published.iter().flat_map(|one| published.range(one.0.clone()..).skip(1).map(move |other| (one, other)));
    let mut twice = pairs.filter(|((name, has), (other, theirs))| {
        !may_share(name, other) && theirs.iter().any(|address| has.contains(address))
    });
    twice.next().map(|((one, _), (other, _))| (one.as_str(), other.as_str()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_history_assigns_twice_or_takes_away(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        world.pool("six", json!({"addresses": ["2001:db8::4-2001:db8::7"]}));
        for event in &events {
            let (before, known_before) = (published(&world), known(&world));
            let announced: BTreeSet<_> = world.vips.keys().filter(|a| world.was_announced(a)).copied().collect();
            happen(&mut world, event);
            let after = published(&world);
            prop_assert_eq!(assigned_twice(&after), None, "an address twice: {:?}", &after);
            for address in known(&world).difference(&known_before) {
                prop_assert!(!is_taken_by_a_node(&world, *address), "{address} is given out");
            }
            for (name, addresses) in &after {
                for address in addresses {
                    let vip = world.vips.get(&address.parse().unwrap());
                    prop_assert!(vip.is_some() || world.services[&key(name)].metadata.deletion_timestamp.is_some()
                        || !world.index.leading, "{name} has {address} without a VirtualIP");
                    prop_assert!(!world.finalizers(name).is_empty(), "{name} has {address} without a finalizer");
                }
            }
            // Without an edit of its own a Service keeps what it has, once it was announced, and anything unless a
            // stranger has it.
            let owner = match event {
                Event::Delete(n) | Event::Retype(n, _) | Event::Create(n, _) | Event::Request(n, _) => Some(n.to_string()),
                _ => None,
            };
            for (name, had) in before.iter().filter(|(name, _)| Some(*name) != owner.as_ref()) {
                let asks = world.services.get(&key(name)).and_then(|s| s.spec.as_ref()?.load_balancer_ip.clone());
                let Some(has) = after.get(name).filter(|_| asks.is_none()) else { continue };
                let families = world.services[&key(name)].spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
                let kept = |a: &&String| a.contains('.') || families.iter().any(|family| family == "IPv6");
                for lost in had.iter().filter(kept).filter(|address| !has.contains(address)) {
                    let quarantined = world.quarantined("lan").contains(lost);
                    prop_assert!(quarantined && !announced.contains(&address(lost)), "{name} had {had:?}, has {has:?}");
                    prop_assert!(has.len() >= had.iter().filter(kept).count(), "{name} lost {lost}, has {has:?}");
                }
            }
            // A second family comes and goes; the first address stays.
            if let Event::Families(n, _) = event
                && let Some(first) = before.get(&n.to_string()).and_then(|had| had.first())
            {
                prop_assert_eq!(after[&n.to_string()].first(), Some(first));
            }
        }
        world.index.set_leading(true);
        for _ in 0..4 { world.live(); }
        world.pass(60);
        // At rest: whoever asks has an address, or is told why not; nothing else is left.
        for (key, service) in &world.services {
            prop_assert!(service.metadata.deletion_timestamp.is_none(), "{key} is stuck");
            let balancer = service.spec.as_ref().unwrap().type_.as_deref() == Some("LoadBalancer");
            let has = !world.ingress(&key.name).is_empty();
            prop_assert_eq!(balancer, has || world.condition(&key.name).starts_with("False"), "{}", key);
            prop_assert_eq!(balancer, world.condition(&key.name) != "none", "{}", key);
            prop_assert_eq!(has, !world.finalizers(&key.name).is_empty());
        }
        let addresses: BTreeSet<String> = published(&world).into_values().flatten().collect();
        let vips: BTreeSet<String> = world.vips.keys().map(ToString::to_string).collect();
        prop_assert_eq!(addresses, vips);
        // A new process knows the same and wants nothing.
        let live: Vec<_> = world.index.allocator.occupants().map(|(a, o)| (a, o.clone())).collect();
        world.log.clear();
        world.restart();
        world.pass(60);
        prop_assert!(world.log.is_empty(), "a restart writes {:?}", &world.log);
        let rebuilt: Vec<_> = world.index.allocator.occupants().map(|(a, o)| (a, o.clone())).collect();
        prop_assert_eq!(live, rebuilt);
    }
}

/// The same inputs give the same writes.
#[test]
fn decisions_are_deterministic() {
    let run = || {
        let mut world = World::new();
        for name in ["x", "y", "z", "w"] {
            world.create(name, json!({}));
        }
        world.live();
        world.delete("y");
        world.live();
        world.log
    };
    assert_eq!(run(), run());
    assert!(Index::new(Timestamp::UNIX_EPOCH).poll_timeout().is_none());
}

/// A Service that was no balancer for a moment, and a restart in that moment: what is being withdrawn is not given back
/// before it is gone.
#[test]
fn an_address_that_is_being_withdrawn_is_not_published_by_the_next_leader() {
    let mut world = World::new();
    let [no_balancer, balancer] = [false, true].map(|balancer| Event::Retype(1, balancer));
    for event in [Event::Create(1, None), Event::Settle, Event::Speakers, no_balancer, Event::Step(1), balancer] {
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

/// Who shares an address that a stranger holds keeps it because another asks for it, and says so before a restart does.
#[test]
fn a_request_for_a_contested_address_is_told_to_those_who_share_it() {
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
