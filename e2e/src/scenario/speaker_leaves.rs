//! A node that the DaemonSet leaves for good: its addresses move, and its SpeakerStatus goes, so that it is no candidate any
//! more. By default that takes an hour; the scenario asks for seconds.

use std::collections::BTreeSet;

use anyhow::Result;
use herald_crds::SpeakerStatus;
use serde_json::{Value, json};

use super::{Scene, install};

const FORGET: &str = "HERALD_FORGET_SPEAKERS_AFTER";

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let (address, node) = scene.announced_service(1)?;
    controller_with(scene, &format!("{FORGET}=5"))?;
    let result = leaves(scene, address, &node);
    // Whatever was found, the next scenario gets a whole cluster.
    speakers_where(scene, &Value::Null)?;
    scene.bed.wait_for(&format!("{node}'s speaker to report again"), install::ROLLOUT, || {
        Ok(scene.get_cluster::<SpeakerStatus>(&node)?.and_then(|speaker| speaker.status).map(drop))
    })?;
    controller_with(scene, &format!("{FORGET}-"))?;
    result
}

fn leaves(scene: &Scene<'_>, address: std::net::IpAddr, node: &str) -> Result<()> {
    let elsewhere = json!([{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]}]);
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": elsewhere}]});
    speakers_where(scene, &json!({"requiredDuringSchedulingIgnoredDuringExecution": terms}))?;
    scene.bed.wait_for(&format!("the SpeakerStatus of {node} to go with its speaker"), install::ROLLOUT, || {
        Ok(scene.get_cluster::<SpeakerStatus>(node)?.is_none().then_some(()))
    })?;
    let successor = scene.successor(address, node)?;
    scene.answered_by(address, &successor)?;
    // The other speakers are replaced as well: on a busy machine one is without a pod for longer than it is remembered for
    // here, and reports anew.
    let nodes = scene.bed.lab().nodes()?;
    let others: BTreeSet<String> =
        nodes.iter().map(|node| node.name().to_owned()).filter(|name| name != node).collect();
    scene.bed.wait_for("the other nodes' SpeakerStatuses, and no more", install::ROLLOUT, || {
        let left = scene.list_cluster::<SpeakerStatus>()?;
        let names: BTreeSet<String> = left.iter().filter_map(|speaker| speaker.metadata.name.clone()).collect();
        Ok((names == others).then_some(()))
    })
}

/// Rolls out the speakers to the nodes of this node affinity, or to all.
fn speakers_where(scene: &Scene<'_>, node_affinity: &Value) -> Result<()> {
    let patch = json!({"spec": {"template": {"spec": {"affinity": {"nodeAffinity": node_affinity}}}}});
    let namespace = install::NAMESPACE;
    let patch = patch.to_string();
    scene.kubectl(&["patch", "-n", namespace, "daemonset/herald-speaker", "--type=merge", "-p", &patch]).map(drop)
}

/// Rolls out the controller with a variable set (`NAME=value`) or not set any more (`NAME-`).
fn controller_with(scene: &Scene<'_>, variable: &str) -> Result<()> {
    scene.kubectl(&["set", "env", "-n", install::NAMESPACE, "deployment/herald-controller", variable])?;
    install::wait_for_rollout(scene.bed.lab())
}
