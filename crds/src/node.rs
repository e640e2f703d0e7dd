//! What the API says of a node that bears on every address: whether it may announce at all, and how fit it is. The controller,
//! which chooses homes, and the speakers, which choose announcers, both go by this.

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

/// Why a node must not announce, whatever the address. Cordon alone is no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exclusion {
    /// By `node.kubernetes.io/exclude-from-external-load-balancers`.
    Label,
    /// The Node object is being deleted.
    Deleted,
    /// By the cluster autoscaler's taint.
    AutoscalerTaint,
    /// By the operator's taint.
    DrainTaint,
}

impl Exclusion {
    /// Returns why a node must not announce, if anything says so. `include_excluded` is the setting of both programs that
    /// disregards the exclude label.
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
    /// Ready is True; `Unknown` is not.
    pub ready: bool,
    /// NetworkUnavailable is True: the pod network is not set up yet, as after a reboot.
    pub network_unavailable: bool,
}

impl NodeConditions {
    /// Reads them.
    pub fn of(conditions: &[NodeCondition]) -> Self {
        let is_true = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        Self { ready: is_true("Ready"), network_unavailable: is_true("NetworkUnavailable") }
    }

    /// Returns whether the node can serve what it announces. A node without a pod network is Ready and reaches no pod on other
    /// nodes, so that it would drop what it is sent: it counts as NotReady does. Addresses stay on such nodes where no
    /// other is better, and go to others first.
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
    fn is_fit(conditions: Value, expected: bool) {
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
    fn exclusion(metadata: Value, taints: &[&str], expected: Option<Exclusion>) {
        let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
        let taint = |key: &&str| Taint { key: (*key).to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        let taints: Vec<Taint> = taints.iter().map(taint).collect();
        assert_eq!(Exclusion::of(&metadata, &taints, false), expected);
        let disregarded = expected.filter(|exclusion| *exclusion != Exclusion::Label);
        assert_eq!(Exclusion::of(&metadata, &taints, true), disregarded, "with the setting");
    }
}
