//! A node that the DaemonSet leaves for good: its addresses move, and its SpeakerStatus goes, so that it is no candidate any
//! more. By default that takes an hour; the scenario asks for seconds.

use anyhow::{Result, ensure};
use herald_crds::SpeakerStatus;

use super::{Scene, install};

/// The DaemonSet's node selector has it.
const LABEL: &str = "kubernetes.io/os";
const FORGET: &str = "HERALD_FORGET_SPEAKERS_AFTER";

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let (address, node) = scene.announced_service(1)?;
    controller_with(scene, &format!("{FORGET}=5"))?;
    let result = leaves(scene, address, &node);
    // Whatever was found, the next scenario gets a whole cluster.
    scene.kubectl(&["label", "node", &node, &format!("{LABEL}=linux"), "--overwrite"])?;
    scene.eventually(&format!("{node}'s speaker to report again"), || {
        Ok(scene.get_cluster::<SpeakerStatus>(&node)?.and_then(|speaker| speaker.status).map(drop))
    })?;
    controller_with(scene, &format!("{FORGET}-"))?;
    result
}

fn leaves(scene: &Scene<'_>, address: std::net::IpAddr, node: &str) -> Result<()> {
    scene.kubectl(&["label", "node", node, &format!("{LABEL}-")])?;
    scene.eventually(&format!("the SpeakerStatus of {node} to go with its speaker"), || {
        Ok(scene.get_cluster::<SpeakerStatus>(node)?.is_none().then_some(()))
    })?;
    let successor = scene.announcer(address)?;
    ensure!(successor != node, "{address} is announced by {node}, which has no speaker");
    scene.answered_by(address, &successor)?;
    let nodes = scene.bed.lab().nodes()?.len();
    let left = scene.list_cluster::<SpeakerStatus>()?.len();
    ensure!(left + 1 == nodes, "{left} SpeakerStatuses are left of {nodes}");
    Ok(())
}

/// Rolls out the controller with a variable set (`NAME=value`) or not set any more (`NAME-`).
fn controller_with(scene: &Scene<'_>, variable: &str) -> Result<()> {
    scene.kubectl(&["set", "env", "-n", install::NAMESPACE, "deployment/herald-controller", variable])?;
    install::wait_for_rollout(scene.bed.lab())
}
