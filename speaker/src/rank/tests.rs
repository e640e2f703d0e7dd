//! Tables and properties of the order; the tests of the coordinator use the builders too.

use std::net::IpAddr;

use herald_crds::{
    address::IpFamily,
    advertisement::{InterfacePattern, NodePreference},
    placement::Interface,
    virtual_ip::{AdvertisementRule, ServiceReference, VirtualIPStatus},
};
use herald_protocol::{claim::Birth, mac::MacAddr, node::NodeName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::prelude::*;

use super::*;
use crate::{
    api_objects::{Change, Keyed, Local, ServiceName},
    interfaces::Segment,
};

pub(crate) fn vip(address: &str) -> Vip {
    Vip {
        address: address.parse().unwrap(),
        name: address.to_owned(),
        uid: format!("uid-{address}"),
        birth: Birth(1),
        resource_version: "1".to_owned(),
        generation: Some(1),
        deleting: false,
        services: vec![web_reference()],
        local: None,
        rules: vec![AdvertisementRule::everywhere()],
        home_node: None,
        status: VirtualIPStatus::default(),
    }
}

pub(crate) fn node(name: &str) -> Node {
    Node {
        name: name.to_owned(),
        id: NodeName::new(name).id(),
        internal_ips: vec![IpAddr::from([192, 0, 2, 100 + name.bytes().last().unwrap() % 32])],
        uid: format!("uid-{name}"),
        labels: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        ready: true,
        network_unavailable: false,
        excluded: None,
        interfaces: None,
        cordoned: false,
    }
}

pub(crate) fn segment(interface: &str, last: u8, prefix: &str) -> Segment {
    let interface = Interface {
        name: interface.to_owned(),
        prefixes: vec![prefix.parse().unwrap()],
        default_route: false,
        speaks_for: vec![],
    };
    Segment { interface, mac: MacAddr([2, 0, 0, 0, 0, last]), address: None }
}

pub(crate) fn speaker(name: &str) -> Speaker {
    Speaker {
        held: Default::default(),
        node: name.to_owned(),
        resource_version: String::new(),
        segments: vec![segment("eth0", name.bytes().last().unwrap(), "192.0.2.0/24")],
        own: None,
    }
}

/// `externalTrafficPolicy: Local`.
pub(crate) const LOCAL: Option<Local> = Some(Local { health_check_node_port: Some(30_000) });

fn web_reference() -> ServiceReference {
    let ServiceName { namespace, name } = web();
    ServiceReference { namespace, name, uid: "uid-web".to_owned() }
}

pub(crate) fn web() -> ServiceName {
    ServiceName { namespace: "default".to_owned(), name: "web".to_owned() }
}

pub(crate) fn slice(nodes: &[(&str, Endpoint)]) -> Slice {
    Slice {
        service: web(),
        name: "web-1".to_owned(),
        family: IpFamily::V4,
        nodes: nodes.iter().map(|(n, e)| ((*n).to_owned(), *e)).collect(),
    }
}

fn collection<T: Keyed + PartialEq>(items: impl IntoIterator<Item = T>) -> Collection<T> {
    let mut collection = Collection::default();
    for item in items {
        collection.apply(Change::Applied(item));
    }
    collection
}

/// Three nodes a, b, c that may announce 192.0.2.10, of which c is its home.
struct World {
    vip: Vip,
    nodes: Vec<Node>,
    speakers: Vec<Speaker>,
    slices: Vec<Slice>,
    unsynced: Option<String>,
}

impl World {
    fn new() -> Self {
        let mut vip = vip("192.0.2.10");
        vip.home_node = Some("c".to_owned());
        Self {
            vip,
            nodes: ["a", "b", "c"].map(node).to_vec(),
            speakers: ["a", "b", "c"].map(speaker).to_vec(),
            slices: vec![],
            unsynced: None,
        }
    }

    fn order(&self) -> (Vec<String>, BTreeMap<String, Refusal>) {
        let (nodes, speakers, slices) =
            (collection(self.nodes.clone()), collection(self.speakers.clone()), collection(self.slices.clone()));
        let mut scores = Scores::default();
        let ranking = rank(
            &self.vip,
            View { nodes: &nodes, speakers: &speakers, slices: &slices, unsynced: self.unsynced.as_deref() },
            &mut scores,
        );
        (
            ranking.order.iter().map(|c| c.node.name.clone()).collect(),
            ranking.refused.into_iter().map(|(n, r)| (n.to_owned(), r)).collect(),
        )
    }

    fn incumbent(&mut self, node: &str) {
        self.vip.status.node = Some(node.to_owned());
    }

    fn prefer(&mut self, node: &str, weight: i32) {
        self.vip.rules[0].preferred_node_selectors.push(NodePreference { weight, preference: selects(node) });
    }
}

fn selects(node: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([("name".to_owned(), node.to_owned())])),
        match_expressions: None,
    }
}

#[test]
fn first_node_follows_the_order_of_criteria() {
    type Case = (&'static str, fn(&mut World), Option<&'static str>);
    let cases: &[Case] = &[
        ("the home node", |_| (), Some("c")),
        ("the incumbent before the home node", |w| w.incumbent("b"), Some("b")),
        ("an incumbent that is gone counts for nothing", |w| w.incumbent("x"), Some("c")),
        (
            "Ready before the incumbent",
            |w| {
                w.incumbent("b");
                w.nodes[1].ready = false;
            },
            Some("c"),
        ),
        (
            "a pod network before the incumbent",
            |w| {
                w.incumbent("b");
                w.nodes[1].network_unavailable = true;
            },
            Some("c"),
        ),
        (
            "if one is not Ready and the others are without a pod network nothing moves",
            |w| {
                w.incumbent("b");
                w.nodes.iter_mut().for_each(|n| n.network_unavailable = true);
                w.nodes[0].network_unavailable = false;
                w.nodes[0].ready = false;
            },
            Some("b"),
        ),
        ("weight before the home node", |w| w.prefer("a", 1), Some("a")),
        (
            "the incumbent before weight",
            |w| {
                w.prefer("a", 1);
                w.incumbent("b");
            },
            Some("b"),
        ),
        (
            "weight before the incumbent, with failback",
            |w| {
                w.prefer("a", 1);
                w.incumbent("b");
                w.vip.rules[0].failback = Failback::Always;
            },
            Some("a"),
        ),
        (
            "weights add up",
            |w| {
                w.prefer("a", 3);
                w.prefer("b", 2);
                w.prefer("b", 2);
            },
            Some("b"),
        ),
        (
            "Ready before weight",
            |w| {
                w.prefer("a", 100);
                w.nodes[0].ready = false;
            },
            Some("c"),
        ),
        (
            "if none is Ready nothing moves",
            |w| {
                w.incumbent("b");
                w.nodes.iter_mut().for_each(|n| n.ready = false);
            },
            Some("b"),
        ),
        (
            "if none is Ready and none announces, one does",
            |w| w.nodes.iter_mut().for_each(|n| n.ready = false),
            Some("c"),
        ),
        (
            "an excluded incumbent",
            |w| {
                w.incumbent("b");
                w.nodes[1].excluded = Some(Exclusion::DrainTaint);
            },
            Some("c"),
        ),
        (
            "no speaker on the home node",
            |w| {
                w.speakers.remove(2);
                w.prefer("b", 1);
            },
            Some("b"),
        ),
        (
            "no interface on the home node",
            |w| {
                w.speakers[2].segments = vec![segment("eth0", 1, "10.0.0.0/8")];
                w.prefer("b", 1);
            },
            Some("b"),
        ),
        ("selected by a rule", |w| w.vip.rules[0].node_selectors = vec![selects("a")], Some("a")),
        (
            "selected by a second rule",
            |w| {
                w.vip.rules[0].node_selectors = vec![selects("x")];
                let mut rule = AdvertisementRule::everywhere();
                rule.node_selectors = vec![selects("b")];
                w.vip.rules.push(rule);
            },
            Some("b"),
        ),
        ("no rule", |w| w.vip.rules.clear(), None),
        ("no such interface", |w| w.vip.rules[0].interfaces = vec![InterfacePattern("!eth0".to_owned())], None),
        ("an address in no subnet", |w| w.vip.address = IpAddr::from([203, 0, 113, 1]), None),
        (
            "Local: with an endpoint",
            |w| {
                w.vip.local = LOCAL;
                w.slices.push(slice(&[("a", Endpoint::Ready)]));
            },
            Some("a"),
        ),
        (
            "Local: ready before terminating, before the incumbent and Ready",
            |w| {
                w.vip.local = LOCAL;
                w.incumbent("b");
                w.slices.push(slice(&[("a", Endpoint::Ready), ("b", Endpoint::ServingTerminating)]));
                w.nodes[0].ready = false;
            },
            Some("a"),
        ),
        (
            "Local: terminating before none",
            |w| {
                w.vip.local = LOCAL;
                w.slices.push(slice(&[("b", Endpoint::ServingTerminating)]));
            },
            Some("b"),
        ),
        (
            "Local: no endpoint anywhere",
            |w| {
                w.vip.local = LOCAL;
                w.incumbent("b");
            },
            None,
        ),
        (
            "Local: not before kube-proxy has a rule",
            |w| {
                w.vip.local = LOCAL;
                w.slices.push(slice(&[("a", Endpoint::Ready), ("b", Endpoint::Ready)]));
                w.incumbent("a");
                w.unsynced = Some("a".to_owned());
            },
            Some("b"),
        ),
        (
            "Local: if none is Ready nothing moves",
            |w| {
                w.vip.local = LOCAL;
                w.incumbent("b");
                w.nodes.iter_mut().for_each(|n| n.ready = false);
            },
            Some("b"),
        ),
    ];
    for (what, change, expected) in cases {
        let mut world = World::new();
        change(&mut world);
        assert_eq!(world.order().0.first().map(String::as_str), *expected, "{what}");
    }
}

/// Returns the classes of a, b and c.
fn classes(world: &World) -> [Option<Class>; 3] {
    let (nodes, speakers, slices) =
        (collection(world.nodes.clone()), collection(world.speakers.clone()), collection(world.slices.clone()));
    let view = View { nodes: &nodes, speakers: &speakers, slices: &slices, unsynced: None };
    let mut scores = Scores::default();
    let ranking = rank(&world.vip, view, &mut scores);
    ["a", "b", "c"].map(|name| ranking.order.iter().find(|c| c.node.name == name).map(|c| c.class))
}

#[test]
fn address_moves_for_a_class_alone() {
    let mut world = World::new();
    let [a, b, c] = classes(&world);
    assert!(a == b && b == c, "home and hash make no class");
    world.prefer("a", 5);
    world.incumbent("b");
    let [a, b, c] = classes(&world);
    assert!(a == b && b == c, "preference does not either");
    world.vip.rules[0].failback = Failback::Always;
    let [a, b, c] = classes(&world);
    assert!(a < b && b == c, "unless it fails back");
    world.nodes[0].ready = false;
    let [a, b, c] = classes(&world);
    assert!(b == c && b < a, "Ready comes before preference");
    world.nodes.iter_mut().for_each(|node| node.ready = false);
    let [a, b, c] = classes(&world);
    assert!(a == b && b == c, "if none is Ready nothing moves");
}

#[test]
fn classes_of_many_weights_do_not_overlap() {
    let worst_ready = class(Endpoint::Ready, true, usize::MAX);
    assert!(class(Endpoint::Ready, true, 48) < worst_ready);
    assert!(worst_ready < class(Endpoint::Ready, false, 0));
    assert!(class(Endpoint::Ready, false, 999) < class(Endpoint::ServingTerminating, true, 0));
    assert!(class(Endpoint::ServingTerminating, true, 999) < class(Endpoint::ServingTerminating, false, 0));
}

#[test]
fn every_refused_node_has_its_reason() {
    let mut world = World::new();
    world.nodes[0].excluded = Some(Exclusion::Label);
    world.speakers.remove(1);
    world.vip.local = LOCAL;
    let (order, refused) = world.order();
    assert_eq!(order, [""; 0]);
    assert_eq!(refused["a"], Refusal::Excluded(Exclusion::Label));
    assert_eq!(refused["b"], Refusal::Unplaced(Unplaced::NoSpeaker));
    assert_eq!(refused["c"], Refusal::NoEndpoint);
}

#[test]
fn unreadable_rule_is_reported_and_harms_no_other() {
    let mut world = World::new();
    let broken: LabelSelector =
        serde_json::from_value(serde_json::json!({"matchExpressions": [{"key": "zone", "operator": "Near"}]})).unwrap();
    world.vip.rules[0].name = Some("edge".to_owned());
    world.vip.rules[0].node_selectors = vec![broken];
    let (order, refused) = world.order();
    assert_eq!(order, [""; 0]);
    assert!(refused["a"].to_string().starts_with("L2Advertisement edge: matchExpressions: operator \"Near\""));
    world.vip.rules.push(AdvertisementRule::everywhere());
    assert_eq!(world.order().0[0], "c");
    let broken = world.vip.rules.remove(0).node_selectors.remove(0);
    world.vip.rules[0].preferred_node_selectors = vec![NodePreference { weight: 9, preference: broken }];
    assert_eq!(world.order().0[0], "c", "a preference that cannot be read prefers no node");
}

#[test]
fn hash_spreads_addresses() {
    let mut world = World::new();
    world.vip.home_node = None;
    let mut firsts = BTreeMap::new();
    for last in 1..=240 {
        world.vip.address = IpAddr::from([192, 0, 2, last]);
        *firsts.entry(world.order().0[0].clone()).or_insert(0) += 1;
    }
    // Each node is first for 80 addresses on average; the hash is fixed, so the test cannot fail by chance.
    assert!(firsts.len() == 3 && firsts.values().all(|n| (50..110).contains(n)), "{firsts:?}");
}

proptest! {
    /// When a node goes, only the addresses that it announced move.
    #[test]
    fn node_that_goes_moves_only_its_own_addresses(last in 1u8..250, gone in 0usize..3) {
        let mut world = World::new();
        world.vip.home_node = None;
        world.vip.address = IpAddr::from([192, 0, 2, last]);
        let before = world.order().0;
        let name = world.nodes.remove(gone).name;
        let after = world.order().0;
        prop_assert_eq!(after, before.into_iter().filter(|n| *n != name).collect::<Vec<_>>());
    }

    /// Every node is either in the order or refused, never both.
    #[test]
    fn every_node_is_either_ordered_or_refused(ready: [bool; 3], excluded: [bool; 3], heard: [bool; 3], endpoints: [bool; 3], local: bool, incumbent in 0usize..4) {
        let mut world = World::new();
        for i in 0..3 {
            world.nodes[i].ready = ready[i];
            world.nodes[i].excluded = excluded[i].then_some(Exclusion::Label);
        }
        world.vip.local = LOCAL.filter(|_| local);
        let named: Vec<_> = ["a", "b", "c"].into_iter().enumerate().filter(|(i, _)| endpoints[*i]).map(|(_, n)| (n, Endpoint::Ready)).collect();
        world.slices = vec![slice(&named)];
        world.speakers = ["a", "b", "c"].into_iter().enumerate().filter(|(i, _)| heard[*i]).map(|(_, n)| speaker(n)).collect();
        if let Some(n) = ["a", "b", "c"].get(incumbent) { world.incumbent(n); }
        let (order, refused) = world.order();
        let mut all: Vec<_> = order.iter().cloned().chain(refused.keys().cloned()).collect();
        all.sort();
        prop_assert_eq!(all, ["a", "b", "c"]);
        for name in order {
            let i = usize::from(name.as_bytes()[0] - b'a');
            prop_assert!(!excluded[i] && heard[i]);
        }
    }
}

#[test]
fn node_outside_the_subnet_announces_only_where_no_node_is_in_it() {
    let mut world = World::new();
    let mut outside = segment("eth0", 3, "198.51.100.0/24");
    outside.interface.default_route = true;
    world.speakers[2].segments = vec![outside.clone()];
    let (order, refused) = world.order();
    assert!(!order.contains(&"c".to_owned()), "home or not, c is on another segment: {order:?}");
    assert_eq!(refused["c"], Refusal::Unplaced(Unplaced::NoInterface));

    // A rule that names the interface overrides; for an address in no node's subnet, the default route serves.
    world.vip.rules[0].interfaces = vec![InterfacePattern("eth0".to_owned())];
    let (order, refused) = world.order();
    assert_eq!(order, ["c"], "all candidates are on one segment");
    assert_eq!(refused["a"], Refusal::OtherSegment);
    world.vip.rules = vec![AdvertisementRule::everywhere()];
    world.speakers = vec![Speaker { segments: vec![outside], ..speaker("c") }];
    assert_eq!(world.order().0, ["c"]);
}
