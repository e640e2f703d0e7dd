//! Which node announces an address: an order of the nodes that may. Pure; the same inputs give the same order on every
//! node.
//!
//! A node **may announce** an address if its Node exists and is not excluded (label, deletion, taints), an
//! advertisement rule of the address selects it, its SpeakerStatus lists an interface that fits, and, for a Service
//! with `externalTrafficPolicy: Local`, it has a usable endpoint
//! of the address's family.
//!
//! Those are ordered by, in this sequence:
//! 1. their **class**, better first: endpoint (ready before serving-while-terminating, Local only), then fit before unfit
//!    (NotReady, or without a pod network), then, where a rule says `failback: Always`, the weight of the preferred-node selectors;
//! 2. the incumbent (`VirtualIP.status.node`);
//! 3. the weight of the preferred-node selectors;
//! 4. the home node;
//! 5. a rendezvous hash of address, object and node: it spreads what nothing else decides, and when a node goes, only
//!    that node's addresses move.
//!
//! The segment protocol moves an address from a live node for a better *class* alone. The rest of the order says who
//! claims first what nobody holds.
//!
//! Where no node that otherwise could is fit, nothing moves: all are of one class, with or without an endpoint (the
//! pods of a NotReady node are marked unready with it).
//!
//! All candidates are on one segment: nodes on others, which could announce the address to other hosts by way of their
//! default route, may not while the first in the order can.

mod change;
mod rendezvous;

use std::{cmp::Reverse, collections::BTreeMap};

use herald_crds::{
    advertisement::Failback,
    node::Exclusion,
    placement::{self, Interface, Place, Unplaced},
    selector,
    virtual_ip::AdvertisementRule,
};
use herald_protocol::api_view::Class;

use crate::{
    api_objects::{Collection, Endpoint, Node, Slice, Speaker, Vip},
    interfaces::Segment,
};
pub use change::{NodeChange, Side};
pub use rendezvous::Scores;
#[cfg(test)]
pub(crate) use rendezvous::tests::hashes;

/// A node that may announce an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a Node,
    /// The segment it would announce on, by its own account.
    pub segment: &'a Segment,
    /// How fit it is.
    pub class: Class,
}

/// Why a node may not announce an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No advertisement lets it, or no interface fits.
    #[error(transparent)]
    Unplaced(#[from] Unplaced),
    /// The Node object is not there.
    #[error("the Node object is gone")]
    NoNode,
    /// The node is excluded.
    #[error("{0}")]
    Excluded(Exclusion),
    /// The candidates are elsewhere.
    #[error("the node is on another segment than the nodes that announce the address")]
    OtherSegment,
    /// Local, and no endpoint.
    #[error("the node has no usable endpoint of the Service (externalTrafficPolicy: Local)")]
    NoEndpoint,
}

/// What the order is made from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Every Node.
    pub nodes: &'a Collection<Node>,
    /// Every SpeakerStatus.
    pub speakers: &'a Collection<Speaker>,
    /// EndpointSlices of the Services with `externalTrafficPolicy: Local`.
    pub slices: &'a Collection<Slice>,
    /// The node whose endpoints of this address do not count yet: its kube-proxy has no rule for them.
    pub unsynced: Option<&'a str>,
}

/// The nodes that may announce, best first, and why the others may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking<'a> {
    /// Best first.
    pub order: Vec<Candidate<'a>>,
    /// The others, by node.
    pub refused: BTreeMap<&'a str, Refusal>,
}

impl Ranking<'_> {
    /// Why a node may not announce.
    pub fn refusal(&self, node: &str) -> Refusal {
        self.refused.get(node).cloned().unwrap_or(Refusal::NoNode)
    }
}

/// Orders the nodes for an address. `scores` holds what was computed before, and changes nothing about the order.
pub fn rank<'a>(vip: &'a Vip, view: View<'a>, scores: &mut Scores) -> Ranking<'a> {
    let mut ranking = Ranking::default();
    let mut able = Vec::new();
    let has_subnet = is_in_a_subnet(vip, view);
    for node in view.nodes.iter() {
        match ability(vip, node, view.speakers.get(&node.name), view, has_subnet) {
            Ok(ability) => able.push((node, ability)),
            Err(refusal) => {
                ranking.refused.insert(&node.name, refusal);
            }
        }
    }
    let frozen = !able.iter().any(|(node, _)| node.is_fit());
    if !frozen {
        let (usable, without): (Vec<_>, Vec<_>) = able.into_iter().partition(|(_, a)| a.endpoint != Endpoint::None);
        ranking.refused.extend(without.into_iter().map(|(node, _)| (node.name.as_str(), Refusal::NoEndpoint)));
        able = usable;
    }
    let failback = vip.rules.iter().any(|rule| rule.failback == Failback::Always);
    let mut weights: Vec<i64> = able.iter().map(|(_, ability)| ability.weight).collect();
    weights.sort_unstable();
    weights.dedup();
    let mut candidates = Vec::new();
    for (node, ability) in able {
        let heavier = weights.iter().filter(|weight| failback && **weight > ability.weight).count();
        let class = if frozen { Class(0) } else { class(ability.endpoint, node.is_fit(), heavier) };
        let incumbent = vip.status.node.as_ref() == Some(&node.name);
        let home = vip.home_node.as_ref() == Some(&node.name);
        let tie = (scores.score(vip, &node.name), &node.name);
        let place = (class, Reverse((incumbent, ability.weight, home, tie)));
        candidates.push((place, Candidate { node, segment: ability.segment, class }));
    }
    candidates.sort_by_key(|(place, _)| *place);
    ranking.order = candidates.into_iter().map(|(_, candidate)| candidate).collect();
    let first = ranking.order.first().map(|candidate| candidate.segment);
    let (order, elsewhere) =
        ranking.order.into_iter().partition(|candidate| first.is_some_and(|first| first.meets(candidate.segment)));
    ranking.order = order;
    let elsewhere: Vec<Candidate> = elsewhere;
    ranking.refused.extend(elsewhere.into_iter().map(|c| (c.node.name.as_str(), Refusal::OtherSegment)));
    ranking
}

/// Weights that make a class of their own, at most; lighter ones share the last.
const WEIGHT_CLASSES: u8 = 50;

/// Lower is better: four kinds of nodes, and in each the heavier before the lighter. `heavier`: how many weights are.
fn class(endpoint: Endpoint, fit: bool, heavier: usize) -> Class {
    const { assert!(2 * WEIGHT_CLASSES == Class::ENDING.0, "the kinds of nodes whose endpoint is ready come before") };
    let kind = 2 * u8::from(endpoint != Endpoint::Ready) + u8::from(!fit);
    Class(kind * WEIGHT_CLASSES + u8::try_from(heavier).unwrap_or(u8::MAX).min(WEIGHT_CLASSES - 1))
}

/// Does the address lie in the subnet of some node? Then a node outside it, which could only announce to the wrong
/// segment by way of its default route, may not, unless a rule names its interface.
fn is_in_a_subnet(vip: &Vip, view: View<'_>) -> bool {
    view.speakers.iter().any(|speaker| has_on_link(speaker, vip))
}

fn has_on_link(speaker: &Speaker, vip: &Vip) -> bool {
    speaker.segments.iter().any(|segment| segment.longest_match(vip.address).is_some())
}

/// The segment of a node, given its own, on which an address lies, whether or not the node may announce it: where it
/// hears of the address and covers for others.
pub fn segment_of<'a>(
    vip: &Vip,
    view: View<'_>,
    node: Option<&Node>,
    segments: impl Iterator<Item = &'a Segment> + Clone,
) -> Option<&'a Segment> {
    let has_subnet = is_in_a_subnet(vip, view);
    let selects = |rule: &AdvertisementRule| {
        node.is_some_and(|node| selector::any_matches(&rule.node_selectors, &node.labels) == Ok(true))
    };
    let by_rule = vip.rules.iter().filter(|rule| selects(rule));
    by_rule
        .flat_map(|rule| placement::choose_by(vip.address, segments.clone(), rule, has_subnet))
        .next()
        .or_else(|| segments.clone().find(|segment| segment.longest_match(vip.address).is_some()))
}

/// How well an address lies on a segment of a node: by the place of the first rule that chooses it (the number of rules, if
/// none does), and by the length of the prefix that holds the address.
pub fn fit(vip: &Vip, view: View<'_>, node: Option<&Node>, segment: &Segment) -> (usize, Option<u8>) {
    let has_subnet = is_in_a_subnet(vip, view);
    let chooses = |rule: &AdvertisementRule| {
        let selects = node.is_some_and(|node| selector::any_matches(&rule.node_selectors, &node.labels) == Ok(true));
        selects && placement::choose_by(vip.address, [segment], rule, has_subnet).is_some()
    };
    let rule = vip.rules.iter().position(chooses).unwrap_or(vip.rules.len());
    (rule, segment.longest_match(vip.address))
}

/// What a node that may announce has to offer.
struct Ability<'a> {
    segment: &'a Segment,
    weight: i64,
    endpoint: Endpoint,
}

/// All conditions but the endpoint, which is judged in the light of the other nodes.
fn ability<'a>(
    vip: &Vip,
    node: &Node,
    speaker: Option<&'a Speaker>,
    view: View<'a>,
    has_subnet: bool,
) -> Result<Ability<'a>, Refusal> {
    if let Some(exclusion) = node.excluded {
        return Err(Refusal::Excluded(exclusion));
    }
    let segments = speaker.map(|speaker| speaker.segments.as_slice());
    let Place { interface: segment, weight } =
        placement::place(vip.address, &vip.rules, &node.labels, segments, has_subnet)?;
    let endpoint = match vip.local_services() {
        [] => Endpoint::Ready,
        _ if view.unsynced == Some(node.name.as_str()) => Endpoint::None,
        services => view.slices.best(services, vip.address, &node.name),
    };
    Ok(Ability { segment, weight, endpoint })
}

#[cfg(test)]
pub(crate) mod tests;
