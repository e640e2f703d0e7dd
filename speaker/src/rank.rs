//! The order of the nodes that may announce an address. Pure; the same inputs give the same order on every node.
//!
//! A node **may announce** an address if its Node exists and is not excluded (label, deletion, taints), an
//! advertisement rule of the address selects it, its SpeakerStatus lists an interface that fits, and, for a Service
//! with `externalTrafficPolicy: Local`, it has a usable endpoint of the address's family.
//!
//! These nodes are ordered by, in this sequence:
//! 1. their **class**, better first: endpoint (ready before serving-while-terminating, Local only), then fit before
//!    unfit (NotReady, or without a pod network), then, where a rule has `failback: Always`, the weight of the
//!    preferred-node selectors;
//! 2. the incumbent (`VirtualIP.status.node`);
//! 3. the weight of the preferred-node selectors;
//! 4. the home node;
//! 5. a rendezvous hash of address, object and node: it spreads the addresses that nothing else decides, and when a
//!    node goes, only that node's addresses move.
//!
//! The segment protocol moves an address from a live node for a better *class* alone. The rest of the order decides
//! which node first claims an address that no node holds.
//!
//! If no node that otherwise could announce is fit, nothing moves: all are of one class, with or without an endpoint
//! (the pods of a NotReady node are marked unready with it).
//!
//! All candidates are on one segment: nodes on others, which could announce the address to other hosts by way of their
//! default route, may not while the first in the order can.

mod change;
mod rendezvous;

use std::{cmp::Reverse, collections::BTreeMap};

use herald_crds::{
    advertisement::Failback,
    node::Exclusion,
    placement::{self, Place, Unplaced},
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
    /// The segment that the node would announce on, by its own account.
    pub segment: &'a Segment,
    /// The class of the node.
    pub class: Class,
}

/// The reason why a node may not announce an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No advertisement selects the node, or no interface fits.
    #[error(transparent)]
    Unplaced(#[from] Unplaced),
    /// The Node object does not exist.
    #[error("the Node object is gone")]
    NoNode,
    /// The node is excluded.
    #[error("{0}")]
    Excluded(Exclusion),
    /// The candidates are on another segment.
    #[error("the node is on another segment than the nodes that announce the address")]
    OtherSegment,
    /// The Service is Local, and the node has no endpoint.
    #[error("the node has no usable endpoint of the Service (externalTrafficPolicy: Local)")]
    NoEndpoint,
}

/// The facts that the order is made from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// All Nodes.
    pub nodes: &'a Collection<Node>,
    /// All SpeakerStatuses.
    pub speakers: &'a Collection<Speaker>,
    /// EndpointSlices of the Services with `externalTrafficPolicy: Local`.
    pub slices: &'a Collection<Slice>,
    /// The node whose endpoints of this address do not count yet: its kube-proxy has no rule for them.
    pub unsynced: Option<&'a str>,
}

/// The nodes that may announce, best first, and why the others may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking<'a> {
    /// The candidates, best first.
    pub order: Vec<Candidate<'a>>,
    /// The other nodes, with the reasons.
    pub refused: BTreeMap<&'a str, Refusal>,
}

impl Ranking<'_> {
    /// Returns why a node may not announce.
    pub fn refusal(&self, node: &str) -> Refusal {
        self.refused.get(node).cloned().unwrap_or(Refusal::NoNode)
    }
}

/// Orders the nodes for an address. `scores` holds hashes that were computed before, and changes nothing about the
/// order.
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

/// Number of weights that make a class of their own, at most; lighter ones share the last.
const WEIGHT_CLASSES: u8 = 50;

/// Returns the class, of which a lower one is better: there are four kinds of nodes, and in each the heavier come
/// before the lighter. `heavier` is the number of heavier weights.
fn class(endpoint: Endpoint, fit: bool, heavier: usize) -> Class {
    const { assert!(2 * WEIGHT_CLASSES == Class::ENDING.0, "the kinds of nodes whose endpoint is ready come before") };
    let kind = 2 * u8::from(endpoint != Endpoint::Ready) + u8::from(!fit);
    Class(kind * WEIGHT_CLASSES + u8::try_from(heavier).unwrap_or(u8::MAX).min(WEIGHT_CLASSES - 1))
}

/// Returns whether the address lies in the subnet of some node. If it does, a node outside the subnet, which could only
/// announce to the wrong segment by way of its default route, may not announce, unless a rule names its interface.
fn is_in_a_subnet(vip: &Vip, view: View<'_>) -> bool {
    view.speakers.iter().any(|speaker| has_on_link(speaker, vip))
}

fn has_on_link(speaker: &Speaker, vip: &Vip) -> bool {
    speaker.segments.iter().any(|segment| segment.interface.longest_match(vip.address).is_some())
}

/// Returns the one of the given segments of a node on which an address lies, whether or not the node may announce it:
/// the node hears of the address there and covers for others.
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
        .or_else(|| segments.clone().find(|segment| segment.interface.longest_match(vip.address).is_some()))
}

/// Returns how well an address lies on a segment of a node: the place of the first rule that chooses the segment (the
/// number of rules, if none does), and the length of the prefix that holds the address.
pub fn fit(vip: &Vip, view: View<'_>, node: Option<&Node>, segment: &Segment) -> (usize, Option<u8>) {
    let has_subnet = is_in_a_subnet(vip, view);
    let chooses = |rule: &AdvertisementRule| {
        let selects = node.is_some_and(|node| selector::any_matches(&rule.node_selectors, &node.labels) == Ok(true));
        selects && placement::choose_by(vip.address, [segment], rule, has_subnet).is_some()
    };
    let rule = vip.rules.iter().position(chooses).unwrap_or(vip.rules.len());
    (rule, segment.interface.longest_match(vip.address))
}

/// The facts about a node that may announce.
struct Ability<'a> {
    segment: &'a Segment,
    weight: i64,
    endpoint: Endpoint,
}

/// Checks all conditions but the endpoint, which depends on the other nodes.
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
