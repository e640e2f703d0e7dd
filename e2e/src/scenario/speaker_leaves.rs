//! The DaemonSet leaves a node for good: the node's addresses move, and its SpeakerStatus is deleted, so that the node
//! is no longer a candidate. The default delay is an hour; the scenario sets it to seconds.

use std::collections::BTreeSet;

use anyhow::Result;
use herald_crds::SpeakerStatus;
use serde_json::{Value, json};

use crate::testbed::{TestNamespace, install};

const FORGET: &str = "HERALD_FORGET_SPEAKERS_AFTER";

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    controller_with(ns, &format!("{FORGET}=5"))?;
    let result = leaves(ns, address, &node);
    // The settings are restored regardless of the result, for the next scenario.
    speakers_where(ns, &Value::Null)?;
    ns.bed.wait_for(&format!("{node}'s speaker to report again"), install::ROLLOUT, || {
        Ok(ns.get_cluster::<SpeakerStatus>(&node)?.and_then(|speaker| speaker.status).map(drop))
    })?;
    controller_with(ns, &format!("{FORGET}-"))?;
    result
}

fn leaves(ns: &TestNamespace<'_>, address: std::net::IpAddr, node: &str) -> Result<()> {
    let elsewhere = json!([{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]}]);
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": elsewhere}]});
    speakers_where(ns, &json!({"requiredDuringSchedulingIgnoredDuringExecution": terms}))?;
    ns.bed.wait_for(&format!("the SpeakerStatus of {node} to go with its speaker"), install::ROLLOUT, || {
        Ok(ns.get_cluster::<SpeakerStatus>(node)?.is_none().then_some(()))
    })?;
    let successor = ns.successor(address, node)?;
    ns.answered_by(address, &successor)?;
    // The other speakers are replaced too: on a busy machine a node may be without a pod for longer than the configured
    // delay, and its speaker then reports again.
    let nodes = ns.bed.lab().nodes()?;
    let others: BTreeSet<String> =
        nodes.iter().map(|node| node.name().to_owned()).filter(|name| name != node).collect();
    ns.bed.wait_for("the other nodes' SpeakerStatuses, and no others", install::ROLLOUT, || {
        let left = ns.list_cluster::<SpeakerStatus>()?;
        let names: BTreeSet<String> = left.iter().filter_map(|speaker| speaker.metadata.name.clone()).collect();
        Ok((names == others).then_some(()))
    })
}

/// Rolls out the speakers to the nodes of this node affinity, or to all nodes.
fn speakers_where(ns: &TestNamespace<'_>, node_affinity: &Value) -> Result<()> {
    let patch = json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": node_affinity}}}}});
    let namespace = install::NAMESPACE;
    let patch = patch.to_string();
    ns.kubectl(&["patch", "-n", namespace, "daemonset/herald-speaker", "--type=merge", "-p", &patch]).map(drop)
}

/// Rolls out the controller with a variable set (`NAME=value`) or unset (`NAME-`).
fn controller_with(ns: &TestNamespace<'_>, variable: &str) -> Result<()> {
    ns.kubectl(&["set", "env", "-n", install::NAMESPACE, "deployment/herald-controller", variable])?;
    install::wait_for_rollout(ns.bed.lab())
}
