//! The addresses that a change of a node concerns. Pure.
//!
//! The order of the nodes for an address takes a look at every node; to see that a change of one node does not bear on
//! the address takes a look at that one. Nodes change all the time (labels, cordons, conditions), and their order
//! seldom does.

use std::collections::BTreeSet;

use herald_crds::virtual_ip::AdvertisementRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Refusal, View, ability, has_on_link, is_in_a_subnet, segment_of};
use crate::{
    api_objects::{Node, Speaker, Vip},
    interfaces::Segment,
};

/// A node at one moment, with its speaker.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The Node; `None`: the Node does not exist.
    pub node: Option<&'a Node>,
    /// The node's SpeakerStatus.
    pub speaker: Option<&'a Speaker>,
}

/// The change of a node.
#[derive(Clone, Debug)]
pub struct NodeChange<'a> {
    sides: [Side<'a>; 2],
    /// The keys of the labels that differ, if nothing else differs that any order depends on.
    only_labels: Option<BTreeSet<&'a str>>,
}

impl<'a> NodeChange<'a> {
    /// Returns the change from one moment to another.
    pub fn new(before: Side<'a>, after: Side<'a>) -> Self {
        let segments = |side: Side<'a>| side.speaker.map(|speaker| speaker.segments.as_slice());
        let only_labels = match (before.node, after.node) {
            (Some(was), Some(is))
                if (was.is_fit(), was.excluded) == (is.is_fit(), is.excluded)
                    && segments(before) == segments(after) =>
            {
                let differs = |key: &&String| was.labels.get(*key) != is.labels.get(*key);
                Some(was.labels.keys().chain(is.labels.keys()).filter(differs).map(String::as_str).collect())
            }
            _ => None,
        };
        Self { sides: [before, after], only_labels }
    }

    /// Returns whether the change is irrelevant to the order of every address.
    pub fn is_idle(&self) -> bool {
        self.only_labels.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Returns whether the order of an address may depend on the change. `view` is the view after the change; `own`
    /// holds the segments of the node by its own account, if the node itself asks.
    pub fn bears_on(&self, vip: &Vip, view: View<'_>, own: Option<&[&Segment]>) -> bool {
        if let Some(keys) = &self.only_labels
            && !vip.rules.iter().any(|rule| looks_at(rule, keys))
        {
            return false;
        }
        let [was_on_link, is_on_link] = self.sides.map(|side| side.speaker.is_some_and(|s| has_on_link(s, vip)));
        if was_on_link != is_on_link {
            return true;
        }
        let has_subnet = is_in_a_subnet(vip, view);
        let [before, after] = self.sides.map(|side| {
            let ability = side.node.ok_or(Refusal::NoNode).and_then(|node| {
                let ability = ability(vip, node, side.speaker, view, has_subnet)?;
                Ok((node.is_fit(), ability.segment, ability.weight))
            });
            // A node that may not announce does not count; only the node itself reports why it may not.
            let refusal = ability.as_ref().err().filter(|_| own.is_some()).cloned();
            let lies_on = own.and_then(|segments| segment_of(vip, view, side.node, segments.iter().copied()));
            (ability.ok(), refusal, lies_on)
        });
        before != after
    }
}

/// Returns whether a rule looks at one of these labels.
fn looks_at(rule: &AdvertisementRule, keys: &BTreeSet<&str>) -> bool {
    let preferences = rule.preferred_node_selectors.iter().map(|preferred| &preferred.preference);
    rule.node_selectors.iter().chain(preferences).any(|LabelSelector { match_labels, match_expressions }| {
        let names = match_labels.iter().flatten().map(|(key, _)| key);
        let mut all = names.chain(match_expressions.iter().flatten().map(|expression| &expression.key));
        all.any(|key| keys.contains(key.as_str()))
    })
}
