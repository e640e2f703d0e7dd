//! The API's facts on a node that bear on every address: whether it may announce at all, and how fit it is. The
//! controller, which chooses homes, and the speakers, which choose announcers, both use these rules.

use std::fmt;

use k8s_openapi::{
    api::core::v1::{NodeCondition, Taint},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};

use crate::{
    names::{LABEL_EXCLUDE_NODE, TAINT_AUTOSCALER_DELETES, TAINT_DRAIN},
    service::excludes_node,
};

/// The reason why a node must not announce, whatever the address. Cordon alone does not exclude a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exclusion {
    /// The label `node.kubernetes.io/exclude-from-external-load-balancers`.
    Label,
    /// The Node object is being deleted.
    Deleted,
    /// The cluster autoscaler's taint.
    AutoscalerTaint,
    /// The operator's taint.
    DrainTaint,
}

impl Exclusion {
    /// Returns why a node must not announce, or `None` if it may. `include_excluded` is the setting of both programs
    /// that disregards the exclude label.
    pub fn of(metadata: &ObjectMeta, taints: &[Taint], include_excluded: bool) -> Option<Self> {
        let tainted = |key: &str| taints.iter().any(|taint| taint.key == key);
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_EXCLUDE_NODE));
        if metadata.deletion_timestamp.is_some() {
            Some(Self::Deleted)
        } else if tainted(TAINT_AUTOSCALER_DELETES) {
            Some(Self::AutoscalerTaint)
        } else if tainted(TAINT_DRAIN) {
            Some(Self::DrainTaint)
        } else if !include_excluded && excludes_node(label.map(String::as_str)) {
            Some(Self::Label)
        } else {
            None
        }
    }
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Label => "the node carries the label node.kubernetes.io/exclude-from-external-load-balancers",
            Self::Deleted => "the Node object is being deleted",
            Self::AutoscalerTaint => "the cluster autoscaler is about to delete the node",
            Self::DrainTaint => "the node carries the taint heraldlb.io/drain",
        })
    }
}

/// Conditions of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConditions {
    /// Whether Ready is True; `Unknown` does not count as Ready.
    pub ready: bool,
    /// Whether NetworkUnavailable is True: the pod network is not set up yet, as after a reboot.
    pub network_unavailable: bool,
}

impl NodeConditions {
    /// Reads the conditions.
    pub fn of(conditions: &[NodeCondition]) -> Self {
        let is_true = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        Self { ready: is_true("Ready"), network_unavailable: is_true("NetworkUnavailable") }
    }

    /// Returns whether the node can serve the addresses that it announces. A node without a pod network is Ready but
    /// reaches no pod on other nodes, so it would drop the traffic: it counts as NotReady. Addresses stay on such nodes
    /// where no other node is better, and move to other nodes first.
    pub fn is_fit(self) -> bool {
        self.ready && !self.network_unavailable
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    #[test_case(json!([{"type": "Ready", "status": "True"}]), true)]
    #[test_case(json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]), true; "network is up")]
    #[test_case(json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "True"}]), false; "no network yet")]
    #[test_case(json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "Unknown"}]), true; "not known")]
    #[test_case(json!([{"type": "Ready", "status": "False"}]), false; "not ready")]
    #[test_case(json!([{"type": "Ready", "status": "Unknown"}]), false; "unknown")]
    #[test_case(json!([{"type": "MemoryPressure", "status": "True"}]), false; "another condition")]
    #[test_case(json!([]), false; "no condition")]
    fn node_is_fit_by_its_conditions(conditions: Value, expected: bool) {
        let conditions: Vec<NodeCondition> = serde_json::from_value(conditions).unwrap();
        assert_eq!(NodeConditions::of(&conditions).is_fit(), expected);
    }

    #[test_case(json!({}), &[], None)]
    #[test_case(json!({"labels": {LABEL_EXCLUDE_NODE: ""}}), &[], Some(Exclusion::Label))]
    #[test_case(json!({"labels": {LABEL_EXCLUDE_NODE: "false"}}), &[], None; "the label lets it in")]
    #[test_case(json!({}), &[TAINT_DRAIN], Some(Exclusion::DrainTaint))]
    #[test_case(json!({}), &[TAINT_AUTOSCALER_DELETES], Some(Exclusion::AutoscalerTaint))]
    #[test_case(json!({}), &["node.kubernetes.io/unschedulable"], None; "cordon")]
    #[test_case(json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {LABEL_EXCLUDE_NODE: ""}}), &[], Some(Exclusion::Deleted))]
    fn node_is_excluded_by_label_taint_or_deletion(metadata: Value, taints: &[&str], expected: Option<Exclusion>) {
        let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
        let taint = |key: &&str| Taint { key: (*key).to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        let taints: Vec<Taint> = taints.iter().map(taint).collect();
        assert_eq!(Exclusion::of(&metadata, &taints, false), expected);
        let disregarded = expected.filter(|exclusion| *exclusion != Exclusion::Label);
        assert_eq!(Exclusion::of(&metadata, &taints, true), disregarded, "with the setting");
    }
}
