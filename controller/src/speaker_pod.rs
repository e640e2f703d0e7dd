//! A speaker's pod, reduced: its node, and whether it is Ready.

use kube::core::Object;
use serde::Deserialize;

/// The part of a pod's spec that is read: nothing else of it is ever decoded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpecPart {
    /// The node; absent until the pod is scheduled.
    #[serde(default)]
    pub node_name: Option<String>,
}

/// The part of a pod's status that is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodStatusPart {
    /// The pod's conditions.
    #[serde(default)]
    pub conditions: Vec<PodConditionPart>,
}

/// The part of a pod's condition that is read.
#[derive(Clone, Debug, Deserialize)]
pub struct PodConditionPart {
    /// The type of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// The status: "True", "False" or "Unknown".
    pub status: String,
}

/// A pod in the form in which it is watched.
pub type PodObject = Object<PodSpecPart, PodStatusPart>;

/// A speaker's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerPodView {
    /// The namespace of the pod.
    pub namespace: String,
    /// The node it runs on.
    pub node: String,
    /// Whether the condition Ready is True.
    pub ready: bool,
}

impl SpeakerPodView {
    /// Reduces a pod; `None` for a pod that is on no node yet.
    pub fn of(pod: &PodObject) -> Option<Self> {
        let conditions = pod.status.iter().flat_map(|status| &status.conditions);
        Some(Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            node: pod.spec.node_name.clone()?,
            ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    #[test_case(json!({"nodeName": "a"}), json!({"conditions": [{"type": "Ready", "status": "True"}]}), Some(true))]
    #[test_case(json!({"nodeName": "a"}), json!({"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]}), Some(false))]
    #[test_case(json!({"nodeName": "a"}), json!({"conditions": [{"type": "Initialized", "status": "True"}]}), Some(false))]
    #[test_case(json!({"nodeName": "a"}), json!({}), Some(false))]
    #[test_case(json!({}), json!({"conditions": [{"type": "Ready", "status": "True"}]}), None; "not scheduled")]
    fn pod_is_reduced_to_its_node_and_readiness(spec: Value, status: Value, expected: Option<bool>) {
        let pod = json!({"metadata": {"namespace": "herald-system", "name": "p"}, "spec": spec, "status": status});
        let view = SpeakerPodView::of(&serde_json::from_value(pod).unwrap());
        assert_eq!(view.as_ref().map(|view| view.ready), expected);
        assert!(view.is_none_or(|view| view.node == "a" && view.namespace == "herald-system"));
    }
}
