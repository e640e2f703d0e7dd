//! The addresses that a change concerns, compared with the addresses that it changes.

use std::collections::BTreeMap;

use herald_crds::{
    advertisement::{Failback, NodePreference},
    node::Exclusion,
};
use herald_protocol::api_view::Class;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use proptest::prelude::*;

use super::*;
use crate::interfaces::Segment;
use crate::{
    api_objects::Endpoint,
    rank::{
        Refusal, Scores,
        tests::{LOCAL, node, segment, slice, speaker, vip, web},
    },
};

const NODES: [&str; 4] = ["a", "b", "c", "d"];
const OWN: &str = "a";

fn zone(value: &str) -> LabelSelector {
    let labels = BTreeMap::from([("zone".to_owned(), value.to_owned())]);
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// Returns addresses that any node may announce, that a zone may announce, that a zone is preferred for, that lie in no
/// node's subnet, and that depend on endpoints.
fn vips() -> Vec<Vip> {
    let mut zoned = vip("192.0.2.11");
    zoned.rules[0].node_selectors = vec![zone("x")];
    let mut preferred = vip("192.0.2.12");
    preferred.rules[0].preferred_node_selectors = vec![NodePreference { weight: 3, preference: zone("x") }];
    preferred.rules[0].failback = Failback::Always;
    let local = Vip { local: LOCAL, ..vip("192.0.2.13") };
    vec![vip("192.0.2.10"), zoned, preferred, local, vip("203.0.113.1")]
}

#[derive(Clone, Debug)]
enum Step {
    Ready(usize, bool),
    WithoutNetwork(usize, bool),
    Excluded(usize, bool),
    Cordoned(usize, bool),
    Label(usize, &'static str, &'static str),
    NodeGone(usize),
    Segments(usize, usize),
    SpeakerGone(usize),
    Incumbent(usize, usize),
    Slices(usize),
    /// This number of seconds passes.
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES.len();
    prop_oneof![
        (node(), any::<bool>()).prop_map(|(i, on)| Step::Ready(i, on)),
        (node(), any::<bool>()).prop_map(|(i, on)| Step::Excluded(i, on)),
        (node(), any::<bool>()).prop_map(|(i, on)| Step::WithoutNetwork(i, on)),
        (node(), any::<bool>()).prop_map(|(i, on)| Step::Cordoned(i, on)),
        (node(), prop::sample::select(vec!["zone", "other"]), prop::sample::select(vec!["x", "y"]))
            .prop_map(|(i, key, value)| Step::Label(i, key, value)),
        node().prop_map(Step::NodeGone),
        (node(), 0..4_usize).prop_map(|(i, kind)| Step::Segments(i, kind)),
        node().prop_map(Step::SpeakerGone),
        (0..5_usize, node()).prop_map(|(which, i)| Step::Incumbent(which, i)),
        (0..16_usize).prop_map(Step::Slices),
        (1..20_u64).prop_map(Step::Later),
    ]
}

fn segments(kind: usize) -> Vec<Segment> {
    let mut routed = segment("eth0", 9, "198.51.100.0/24");
    routed.interface.default_route = true;
    let mut both = segment("eth0", 8, "192.0.2.0/24");
    both.interface.default_route = true;
    match kind {
        0 => vec![],
        1 => vec![segment("eth0", 7, "192.0.2.0/24")],
        2 => vec![routed],
        _ => vec![both, segment("eth1", 6, "203.0.113.0/24")],
    }
}

/// Returns the fact of a step, or `None` for a step of time; a node or speaker that is gone returns with its next
/// change.
fn fact(view: &ClusterView, step: &Step) -> Option<ApiFact> {
    let present = |i: &usize| view.nodes.get(&NODES[*i].to_owned()).cloned().unwrap_or_else(|| node(NODES[*i]));
    let applied = |node| ApiFact::Node(Change::Applied(node));
    Some(match step {
        Step::Later(_) => return None,
        Step::WithoutNetwork(i, network_unavailable) => {
            applied(Node { network_unavailable: *network_unavailable, ..present(i) })
        }
        Step::Ready(i, ready) => applied(Node { ready: *ready, ..present(i) }),
        Step::Excluded(i, on) => applied(Node { excluded: on.then_some(Exclusion::Label), ..present(i) }),
        Step::Cordoned(i, cordoned) => applied(Node { cordoned: *cordoned, ..present(i) }),
        Step::Label(i, key, value) => {
            let mut node = present(i);
            node.labels.insert((*key).to_owned(), (*value).to_owned());
            applied(node)
        }
        Step::NodeGone(i) => ApiFact::Node(Change::Deleted(NODES[*i].to_owned())),
        Step::Segments(i, kind) => {
            ApiFact::Speaker(Change::Applied(Speaker { segments: segments(*kind), ..speaker(NODES[*i]) }))
        }
        Step::SpeakerGone(i) => ApiFact::Speaker(Change::Deleted(NODES[*i].to_owned())),
        Step::Incumbent(which, i) => {
            let mut vip = vips().remove(*which);
            vip.status.node = Some(NODES[*i].to_owned());
            ApiFact::Vip(Change::Applied(vip))
        }
        Step::Slices(mask) => {
            let with = NODES.into_iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0);
            let nodes: Vec<_> = with.map(|(_, name)| (name, Endpoint::Ready)).collect();
            ApiFact::Slice(Change::Applied(slice(&nodes)))
        }
    })
}

/// The facts that the segments receive about an address.
type Told = (Vec<(String, Class)>, Option<Refusal>, Option<Segment>, Option<Segment>);

fn told(view: &ClusterView, vip: &Vip, scores: &mut Scores, own: &[&Segment]) -> Told {
    let ranking = rank::rank(vip, view.view(None), scores);
    let order: Vec<_> = ranking.order.iter().map(|c| (c.node.name.clone(), c.class)).collect();
    let refusal = order.is_empty().then(|| ranking.refusal(OWN));
    let first = ranking.order.first().map(|candidate| candidate.segment.clone());
    let lies_on = rank::segment_of(vip, view.view(None), view.nodes.get(&OWN.to_owned()), own.iter().copied());
    (order, refusal, first, lies_on.cloned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    /// An order that is kept, and updated only where a change is reported to bear on it, equals the order computed from
    /// scratch.
    #[test]
    fn kept_order_is_the_order_from_scratch(steps in prop::collection::vec(step(), 1..40)) {
        let mut view = ClusterView::restored(View {
            vips: vips(),
            nodes: NODES.map(node).to_vec(),
            speakers: NODES.map(speaker).to_vec(),
            covered: BTreeSet::from([web()]),
            ..View::default()
        });
        let (eth0, eth1) = (segment("eth0", 1, "192.0.2.0/24"), segment("eth1", 2, "203.0.113.0/24"));
        let own = Own { node: OWN, segments: &[&eth0, &eth1], wires: &[] };
        let mut scores = Scores::default();
        let all = vips().into_iter().map(|vip| vip.address);
        let mut kept: BTreeMap<IpAddr, Told> =
            all.map(|at| (at, told(&view, view.vips.get(&at).unwrap(), &mut scores, own.segments))).collect();
        let mut now = Duration::ZERO;
        for step in steps {
            if let Step::Later(seconds) = step {
                now += Duration::from_secs(seconds);
            }
            let effects = match fact(&view, &step) {
                Some(fact) => view.take_in(now, fact, own),
                None => view.expire_speakers(now, own),
            };
            effects.gone.iter().for_each(|node| scores.forget_node(node));
            for address in effects.addresses {
                let vip = view.vips.get(&address).unwrap();
                kept.insert(address, told(&view, vip, &mut scores, own.segments));
            }
            for vip in view.vips.iter() {
                let scratch = told(&view, vip, &mut Scores::default(), own.segments);
                prop_assert_eq!(&kept[&vip.address], &scratch, "{} after {:?}", vip.address, step);
            }
        }
    }
}
