//! The conditions that hold at every step of a history, and at its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::names::{ANNOTATION_COUNT, LABEL_GATEWAY_NAME};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::json;

use super::event::{Event, happen, service_name};
use crate::{
    action::{Action, Change, ServicePatch},
    allocator::Sharing,
    index::{
        Kind,
        tests::fake_cluster::{World, address, key},
    },
    view::ServiceView,
};

/// A world, and the part of its past that the verdict needs.
pub(super) struct History {
    pub(super) world: World,
    /// The Services on which another provider has left an address.
    left: BTreeSet<String>,
    /// The addresses whose VirtualIP a person or a former leader has deleted.
    deleted: BTreeSet<String>,
    /// Whether a Gateway has asked for an address.
    gateways_ask: bool,
}

impl History {
    pub(super) fn new() -> Self {
        let mut world = World::new();
        world.honours_gateways = true;
        world.restart();
        world.pool("six", json!({"addresses": ["2001:db8::4-2001:db8::7"]}));
        Self { world, left: BTreeSet::new(), deleted: BTreeSet::new(), gateways_ask: false }
    }

    pub(super) fn step(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let (before, known_before) = (published(&self.world), known(&self.world));
        let announced: BTreeSet<_> = self.world.vips.keys().filter(|a| self.world.was_announced(a)).copied().collect();
        let there = undeleted(&self.world);
        happen(&mut self.world, event);
        let after = published(&self.world);
        match event {
            Event::Left(n, _) if after != before => drop(self.left.insert(service_name(*n))),
            Event::Gateway(_, Some(Some(_))) => self.gateways_ask = true,
            Event::DeleteVip(n) => drop(self.deleted.insert(format!("192.0.2.{n}"))),
            Event::Arrives => self.deleted.extend(there.difference(&undeleted(&self.world)).map(IpAddr::to_string)),
            _ => {}
        }
        let world = &self.world;
        // Each exemption of this function and of `keeps` was taken away once, and some history of a thousand failed.
        // Entries that another provider writes into a status are its own doing, then and for as long as both Services
        // show them.
        if !matches!(event, Event::Foreign(..) | Event::Left(..)) {
            let twice: Vec<_> =
                assigned_twice(world, &after).into_iter().filter(|pair| !both_show(&before, pair)).collect();
            prop_assert!(twice.is_empty(), "an address twice: {twice:?}");
            // A former leader could not know the address.
            let is_late = matches!(event, Event::Arrives);
            for address in known(world).difference(&known_before).filter(|_| !is_late) {
                prop_assert!(!is_taken_by_a_node(world, *address), "{address} is given out");
            }
        }
        // An address that another provider has left has no VirtualIP of Herald's, and an address whose VirtualIP was
        // deleted by hand has none until it is made again.
        let ours = |name: &str| !name.starts_with('f') && !self.left.contains(name);
        for (name, addresses) in after.iter().filter(|(name, _)| ours(name)) {
            for address in addresses.iter().filter(|address| !self.deleted.contains(*address)) {
                let vip = world.vips.get(&address.parse().unwrap());
                let is_deleted = world.services[&key(name)].metadata.deletion_timestamp.is_some();
                prop_assert!(vip.is_some() || is_deleted, "{name} has {address} without a VirtualIP");
                prop_assert!(!world.finalizers(name).is_empty(), "{name} has {address} without a finalizer");
            }
        }
        self.keeps(event, &before, &after, &announced)
    }

    /// Checks that a Service without an edit of its own keeps its address once that was announced, and keeps any
    /// address unless a stranger holds it.
    fn keeps(
        &self,
        event: &Event,
        before: &BTreeMap<String, Vec<String>>,
        after: &BTreeMap<String, Vec<String>>,
        announced: &BTreeSet<IpAddr>,
    ) -> Result<(), TestCaseError> {
        let world = &self.world;
        // A change of type and another provider change the status in the same moment.
        let owner = match event {
            Event::Retype(n, _) | Event::Wiped(n) => Some(service_name(*n)),
            Event::Foreign(n, _) => Some(if *n { "f1" } else { "f0" }.to_owned()),
            _ => None,
        };
        for (name, had) in before.iter().filter(|(name, _)| Some(*name) != owner.as_ref()) {
            let Some(service) = world.services.get(&key(name)).filter(|service| !self.asks(service)) else { continue };
            let has = &after[name];
            let families = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
            let is_served = |a: &String| a.contains('.') || families.iter().any(|family| family == "IPv6");
            let in_excess = |a: &String| asked_count(service).is_some_and(|count| place_in_family(had, a) >= count);
            let kept = |a: &&String| is_served(a) && !in_excess(a);
            for lost in had.iter().filter(kept).filter(|address| !has.contains(address)) {
                let quarantined = world.pools.keys().any(|pool| world.quarantined(pool).contains(lost));
                prop_assert!(quarantined && !announced.contains(&address(lost)), "{name} had {had:?}, has {has:?}");
                prop_assert!(has.len() >= had.iter().filter(kept).count(), "{name} lost {lost}, has {has:?}");
            }
        }
        // A second family comes and goes; the first address stays.
        if let Event::Families(n, _) = event
            && let Some(first) = before.get(&service_name(*n)).and_then(|had| had.first())
        {
            prop_assert_eq!(after[&service_name(*n)].first(), Some(first));
        }
        Ok(())
    }

    /// Checks the end: every Service that asks for an address has one, or its condition says why not; nothing else is
    /// left; and a new process has the same knowledge and writes nothing.
    pub(super) fn ends(mut self) -> Result<(), TestCaseError> {
        let world = &mut self.world;
        world.trouble.clear();
        world.catch_up_all();
        world.relist(Kind::Gateway);
        world.index.set_leading(true);
        for _ in 0..4 {
            world.live();
        }
        world.pass(60);
        let world = &self.world;
        for (key, service) in world.services.iter().filter(|(key, _)| !key.name.starts_with('f')) {
            prop_assert!(service.metadata.deletion_timestamp.is_none(), "{key} is stuck");
            let balancer = service.spec.as_ref().unwrap().type_.as_deref() == Some("LoadBalancer");
            let has = world.ingress(&key.name);
            let (told, foreign) = (world.condition(&key.name), self.left.contains(&key.name));
            prop_assert_eq!(balancer, !has.is_empty() || told.starts_with("False"), "{}", key);
            prop_assert_eq!(balancer, told != "none", "{}", key);
            for of_family in ["IPv4", "IPv6"].map(|family| of_family(&has, family)).iter().filter(|of| !of.is_empty()) {
                let all_there = asked_count(service) == Some(of_family.len());
                prop_assert!(all_there || told.starts_with("False"), "{key} has {has:?}, and is told {told}");
            }
            if told.starts_with("True") || !foreign {
                let is_ours = |a: &String| is_named(world, &key.name, a) || self.deleted.contains(a);
                prop_assert!(has.iter().all(is_ours), "{key} has {has:?}");
                prop_assert_eq!(has.is_empty(), world.finalizers(&key.name).is_empty(), "{}", key);
            }
        }
        let addresses: BTreeSet<String> = published(world).into_values().flatten().collect();
        let vips: BTreeSet<String> = world.vips.keys().map(ToString::to_string).collect();
        prop_assert!(vips.difference(&addresses).all(|vip| self.is_overwritten(vip)), "{vips:?} for {addresses:?}");
        // The page is complete and current: the example `reasons` compares it with the types.
        let page = include_str!("../../../../../docs/reasons.md");
        for reason in reasons(&world.log) {
            prop_assert!(page.contains(&format!("`{reason}`")), "docs/reasons.md does not know {reason}");
        }
        self.restart_writes_nothing()
    }

    fn restart_writes_nothing(mut self) -> Result<(), TestCaseError> {
        let world = &mut self.world;
        // A speaker that runs writes its status again, and until then the deleted one counts for a controller that knew
        // it.
        if !world.speakers.contains_key("b") {
            world.links("b", &[]);
            world.live();
        }
        let occupants =
            |world: &World| world.index.allocator.occupants().map(|(a, o)| (a, o.clone())).collect::<Vec<_>>();
        let live = occupants(world);
        world.log.clear();
        world.restart();
        world.pass(60);
        prop_assert!(world.log.is_empty(), "a restart writes {:?}", &world.log);
        prop_assert_eq!(live, occupants(world));
        Ok(())
    }

    /// Returns whether the Service asks for an address, or for a pool, or its Gateway may: it moves as soon as it can.
    fn asks(&self, service: &Service) -> bool {
        let annotations = service.metadata.annotations.as_ref();
        let pool = annotations.is_some_and(|annotations| annotations.contains_key("heraldlb.io/address-pool"));
        let labels = service.metadata.labels.as_ref();
        let of_gateway = labels.is_some_and(|labels| labels.contains_key(LABEL_GATEWAY_NAME));
        let address = service.spec.as_ref().is_some_and(|spec| spec.load_balancer_ip.is_some());
        pool || address || (of_gateway && self.gateways_ask)
    }

    /// Returns whether an address that is in no status may be kept, since it was published once next to another
    /// provider's entry.
    fn is_overwritten(&self, vip: &str) -> bool {
        let world = &self.world;
        let mut named = world.services.keys().filter(|key| is_named(world, &key.name, vip));
        named.any(|key| self.left.contains(&key.name) && world.condition(&key.name).starts_with("False"))
    }
}

/// Returns how many addresses of each family the Service asks for; `None` where that cannot be read.
fn asked_count(service: &Service) -> Option<usize> {
    let text = service.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_COUNT));
    text.map_or(Some(1), |text| text.parse().ok().filter(|count| *count > 0))
}

fn of_family<'a>(addresses: &'a [String], family: &str) -> Vec<&'a String> {
    addresses.iter().filter(|address| address.contains('.') == (family == "IPv4")).collect()
}

/// Returns the position of an address in a status, among those of its family.
fn place_in_family(addresses: &[String], address: &String) -> usize {
    let before = addresses.iter().take_while(|other| *other != address);
    before.filter(|other| other.contains('.') == address.contains('.')).count()
}

fn undeleted(world: &World) -> BTreeSet<IpAddr> {
    let stay = world.vips.iter().filter(|(_, vip)| vip.metadata.deletion_timestamp.is_none());
    stay.map(|(address, _)| *address).collect()
}

/// Returns whether a node has the address, or it is the network, broadcast or anycast address of an on-link prefix, by
/// arithmetic on the objects of the API.
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

/// Returns the addresses that have been planned, published or made.
fn known(world: &World) -> BTreeSet<IpAddr> {
    let planned = world.index.allocator.occupants().map(|(address, _)| address);
    let shown = published(world).into_values().flatten().map(|text| address(&text));
    planned.chain(shown).chain(world.vips.keys().copied()).collect()
}

/// Returns every address in a status, by Service.
pub(in crate::index) fn published(world: &World) -> BTreeMap<String, Vec<String>> {
    world.services.keys().map(|k| (k.name.clone(), world.ingress(&k.name))).collect()
}

type Pair = (String, String, String);

/// Returns the pairs of Services that have one address although they may not share it.
pub(in crate::index) fn assigned_twice(world: &World, published: &BTreeMap<String, Vec<String>>) -> BTreeSet<Pair> {
    let mut twice = BTreeSet::new();
    for (one, has) in published {
        let later = published.range(one.clone()..).skip(1);
        for (other, theirs) in later.filter(|(other, _)| !may_share(world, one, other)) {
            let both = has.iter().filter(|address| theirs.contains(address));
            twice.extend(both.map(|address| (one.clone(), other.clone(), address.clone())));
        }
    }
    twice
}

fn both_show(published: &BTreeMap<String, Vec<String>>, (one, other, address): &Pair) -> bool {
    let shows = |name| published.get(name).is_some_and(|has| has.contains(address));
    shows(one) && shows(other)
}

/// Returns whether two Services may share an address, as the API server has them, or as the controller has seen them:
/// it may let them share until it sees an edit.
fn may_share(world: &World, one: &str, other: &str) -> bool {
    let (one, other) = (key(one), key(other));
    let view = |key| ServiceView::of(&world.services[key], &world.selection()).and_then(|view| view.sharing);
    let seen = |key| world.index.services.get(key).and_then(|view| view.sharing.clone());
    let agree = |one: Option<Sharing>, other: Option<Sharing>| {
        let (Some(one), Some(other)) = (one, other) else { return false };
        one.key == other.key && one.ports.iter().all(|port| !other.ports.contains(port))
    };
    one.namespace == other.namespace && (agree(view(&one), view(&other)) || agree(seen(&one), seen(&other)))
}

/// Returns whether the VirtualIP of an address names the Service.
pub(super) fn is_named(world: &World, name: &str, address: &str) -> bool {
    let vip = world.vips.get(&address.parse().unwrap());
    vip.is_some_and(|vip| vip.spec.services.iter().any(|service| service.name == name))
}

/// Returns every reason in the conditions and events of these writes.
fn reasons(log: &[Action]) -> BTreeSet<String> {
    let of = |action: &Action| match action {
        Action::Event(event) => vec![event.reason.to_owned()],
        Action::PatchServiceStatus { patch: ServicePatch { condition: Change::Set(condition), .. }, .. } => {
            vec![condition.reason.clone()]
        }
        Action::PatchAdvertisementStatus { report, .. } => report.conditions.iter().map(|c| c.reason.clone()).collect(),
        Action::PatchPoolStatus { report, .. } => report.conditions.iter().map(|c| c.reason.clone()).collect(),
        _ => Vec::new(),
    };
    log.iter().flat_map(of).collect()
}
