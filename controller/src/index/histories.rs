//! Random histories: whatever happens, in whatever order, with a leader that comes and goes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::{
    Index,
    world::{World, key},
};

#[derive(Clone, Debug)]
enum Event {
    Create(u8, Option<u8>),
    Delete(u8),
    Retype(u8, bool),
    Request(u8, Option<u8>),
    Pool(u8, u8),
    Speakers,
    Step(u8),
    Settle,
    Pass(u8),
    Restart,
    Lease(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let name = 0u8..6;
    let wanted = || prop::option::weighted(0.3, 1u8..7);
    prop_oneof![
        4 => (name.clone(), wanted()).prop_map(|(n, a)| Event::Create(n, a)),
        2 => name.clone().prop_map(Event::Delete),
        2 => (name.clone(), any::<bool>()).prop_map(|(n, lb)| Event::Retype(n, lb)),
        2 => (name, wanted()).prop_map(|(n, a)| Event::Request(n, a)),
        1 => (1u8..4, 0u8..5).prop_map(|(first, n)| Event::Pool(first, n)),
        3 => Just(Event::Speakers),
        4 => (1u8..4).prop_map(Event::Step),
        2 => Just(Event::Settle),
        1 => (1u8..15).prop_map(Event::Pass),
        1 => Just(Event::Restart),
        1 => any::<bool>().prop_map(Event::Lease),
    ]
}

fn wanted(address: Option<u8>) -> serde_json::Value {
    json!({"spec": {"loadBalancerIP": address.map(|n| format!("192.0.2.{n}"))}})
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Create(n, address) => {
            if !world.services.contains_key(&key(&n.to_string())) {
                world.create(&n.to_string(), wanted(*address));
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
    }
}

/// Every address in a status, by Service.
fn published(world: &World) -> BTreeMap<String, Vec<String>> {
    world.services.keys().map(|k| (k.name.clone(), world.ingress(&k.name))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_history_assigns_twice_or_takes_away(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        for event in &events {
            let before = published(&world);
            happen(&mut world, event);
            let after = published(&world);
            let all: Vec<_> = after.values().flatten().collect();
            let distinct: BTreeSet<_> = all.iter().collect();
            prop_assert_eq!(all.len(), distinct.len(), "an address twice: {:?}", &after);
            for (name, addresses) in &after {
                for address in addresses {
                    let vip = world.vips.get(&address.parse().unwrap());
                    prop_assert!(vip.is_some() || world.services[&key(name)].metadata.deletion_timestamp.is_some()
                        || !world.index.leading, "{name} has {address} without a VirtualIP");
                    prop_assert!(!world.finalizers(name).is_empty(), "{name} has {address} without a finalizer");
                }
            }
            // Without an edit of its own a Service keeps what it has.
            let owner = match event {
                Event::Delete(n) | Event::Retype(n, _) | Event::Create(n, _) | Event::Request(n, _) => Some(n.to_string()),
                _ => None,
            };
            for (name, had) in before.iter().filter(|(name, _)| Some(*name) != owner.as_ref()) {
                let asks = world.services.get(&key(name)).and_then(|s| s.spec.as_ref()?.load_balancer_ip.clone());
                if !had.is_empty() && asks.is_none() && after.contains_key(name) {
                    prop_assert_eq!(had, &after[name]);
                }
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
    assert!(Index::new().poll_timeout().is_none());
}
