//! Which node announces an address: an order of the nodes that may. Pure; the same inputs give the same order on every
//! node.
//!
//! A node **may announce** an address if its Node exists and is not excluded (label, deletion, taints), an
//! advertisement rule of the address selects it, its SpeakerStatus lists an interface that fits, and, for a Service
//! with `externalTrafficPolicy: Local`, it has a usable endpoint.
//!
//! Those are ordered by, in this sequence:
//! 1. endpoint: ready before serving-while-terminating (Local only);
//! 2. Ready before NotReady;
//! 3. the incumbent (`VirtualIP.status.node`), where no rule says `failback: Always`;
//! 4. the weight of the preferred-node selectors it matches;
//! 5. the incumbent;
//! 6. the home node;
//! 7. a rendezvous hash of address, object and node: it spreads what nothing else decides, and when a node goes, only
//!    that node's addresses move.
//!
//! Where no node that otherwise could is Ready, nothing moves: the incumbent stays first, with or without an endpoint
//! (the pods of a NotReady node are marked unready with it).

use std::{cmp::Reverse, collections::BTreeMap};

use herald_crds::{
    advertisement::Failback,
    selector::{self, SelectorError},
};
use sha2::{Digest, Sha256};

use crate::{
    cluster::{Collection, Endpoint, Exclusion, Node, Slice, Speaker, Vip},
    interfaces,
};

/// A node that may announce an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The node.
    pub node: &'a str,
    /// The interface it would announce on, by its own account.
    pub interface: &'a str,
}

/// Why a node may not announce an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are advertisements, and none selects the address.
    #[error("no L2Advertisement selects this address")]
    NoAdvertisement,
    /// A selector cannot be read.
    #[error("L2Advertisement {advertisement}: {source}")]
    Selector {
        /// The advertisement.
        advertisement: String,
        /// What is wrong.
        #[source]
        source: SelectorError,
    },
    /// The Node object is not there.
    #[error("the Node object is gone")]
    NoNode,
    /// The node is excluded.
    #[error("{}", match .0 {
        Exclusion::Label => "the node carries the label node.kubernetes.io/exclude-from-external-load-balancers",
        Exclusion::Deleted => "the Node object is being deleted",
        Exclusion::AutoscalerTaint => "the cluster autoscaler is about to delete the node",
        Exclusion::DrainTaint => "the node carries the taint heraldlb.io/drain",
    })]
    Excluded(Exclusion),
    /// No rule selects the node.
    #[error("no L2Advertisement of this address selects the node")]
    NotSelected,
    /// The node's speaker has not said where it can announce.
    #[error("the node's speaker has not reported its interfaces")]
    NoSpeaker,
    /// No interface fits.
    #[error("no interface of the node has the address in its subnet or is otherwise chosen for it")]
    NoInterface,
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

/// Orders the nodes for an address.
pub fn rank<'a>(vip: &'a Vip, view: View<'a>) -> Ranking<'a> {
    let mut ranking = Ranking::default();
    let mut able = Vec::new();
    let on_link = |speaker: &Speaker| speaker.segments.iter().any(|s| s.longest_match(vip.address).is_some());
    let has_subnet = view.speakers.iter().any(on_link);
    for node in view.nodes.iter() {
        match ability(vip, node, view, has_subnet) {
            Ok(ability) => able.push((node, ability)),
            Err(refusal) => {
                ranking.refused.insert(&node.name, refusal);
            }
        }
    }
    let incumbent = vip.status.node.as_deref();
    let frozen = !able.iter().any(|(node, _)| node.ready);
    let failback = vip.rules.iter().any(|rule| rule.failback == Failback::Always);
    let mut candidates = Vec::new();
    for (node, ability) in able {
        let incumbent = incumbent == Some(node.name.as_str());
        let stays = frozen && incumbent;
        if ability.endpoint == Endpoint::None && !stays {
            ranking.refused.insert(&node.name, Refusal::NoEndpoint);
            continue;
        }
        let home = vip.home_node.as_ref() == Some(&node.name);
        let place = (
            stays,
            (ability.endpoint, node.ready),
            (incumbent && !failback, ability.weight, incumbent, home),
            (rendezvous(vip, &node.name), &node.name),
        );
        candidates.push((Reverse(place), Candidate { node: &node.name, interface: ability.interface }));
    }
    candidates.sort_by_key(|(place, _)| *place);
    ranking.order = candidates.into_iter().map(|(_, candidate)| candidate).collect();
    ranking
}

/// What a node that may announce has to offer.
struct Ability<'a> {
    interface: &'a str,
    weight: i64,
    endpoint: Endpoint,
}

/// All conditions but the endpoint, which is judged in the light of the other nodes. `has_subnet`: the address lies in
/// the subnet of some node, so that a node outside it, which could only announce to the wrong segment by way of its
/// default route, may not, unless a rule names its interface.
fn ability<'a>(vip: &Vip, node: &Node, view: View<'a>, has_subnet: bool) -> Result<Ability<'a>, Refusal> {
    if let Some(exclusion) = node.excluded {
        return Err(Refusal::Excluded(exclusion));
    }
    if vip.rules.is_empty() {
        return Err(Refusal::NoAdvertisement);
    }
    let speaker = view.speakers.get(&node.name).ok_or(Refusal::NoSpeaker)?;
    let (mut interface, mut weight) = (None, 0_i64);
    let mut refusal = Refusal::NotSelected;
    for rule in &vip.rules {
        let named = |source| Refusal::Selector { advertisement: rule.name.clone().unwrap_or_default(), source };
        match selector::any_matches(&rule.node_selectors, &node.labels) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                refusal = named(error);
                continue;
            }
        }
        // The first rule with an interface that fits decides; the weights of all add up.
        let chosen = interfaces::choose(vip.address, &speaker.segments, &rule.interfaces).filter(|segment| {
            !has_subnet || interfaces::names_any(&rule.interfaces) || segment.longest_match(vip.address).is_some()
        });
        match (interface, chosen) {
            (None, Some(segment)) => interface = Some(segment.interface.as_str()),
            (None, None) => refusal = Refusal::NoInterface,
            (Some(_), _) => {}
        }
        // A preference that cannot be read prefers nobody, on every node alike: no reason not to announce.
        let preferred = rule.preferred_node_selectors.iter();
        let preferred = preferred.filter(|p| selector::matches(&p.preference, &node.labels) == Ok(true));
        weight += preferred.map(|p| i64::from(p.weight)).sum::<i64>();
    }
    let endpoint = match &vip.local_to {
        Some(services) => view.slices.best(services, &node.name),
        None => Endpoint::Ready,
    };
    Ok(Ability { interface: interface.ok_or(refusal)?, weight, endpoint })
}

/// Highest random weight (Thaler and Ravishankar 1998).
fn rendezvous(vip: &Vip, node: &str) -> [u8; 32] {
    // NUL cannot occur in any of the three, so no two inputs run together.
    let mut hash = Sha256::new();
    for part in [vip.address.to_string().as_str(), &vip.uid, node] {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().into()
}

#[cfg(test)]
pub(crate) mod tests;
