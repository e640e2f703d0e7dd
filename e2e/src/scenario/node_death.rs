//! A node loses power: once Kubernetes calls it NotReady, another announces its address. It comes back and takes
//! nothing away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::SpeakerStatus;

use super::{Scene, install};

/// The laboratory's node-monitor-grace-period is 20 s; a booting node is Ready within 10 s. The rest is for a busy
/// machine.
const LIMIT: Duration = Duration::from_secs(90);

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let (address, dead) = scene.announced_service(3)?;

    let lab = scene.bed.lab();
    lab.power_off(&dead)?;
    let survivor = scene.bed.wait_for(&format!("another node than {dead} to announce {address}"), LIMIT, || {
        Ok(Some(scene.announcer(address)?).filter(|node| *node != dead))
    })?;
    scene.answered_by(address, &survivor)?;
    scene.reachable(address)?;
    let moved = scene.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")?;
    ensure!(moved.transitions == 1, "one move is counted: {moved:?}");

    lab.power_on(&dead)?;
    scene.every_node_ready(LIMIT)?;
    install::wait_for_rollout(lab)?;
    // What the revived speaker writes anew proves that it is at work: it had its chance to take the address back.
    scene.kubectl(&["delete", "speaker", &dead])?;
    scene.bed.wait_for(&format!("the speaker on {dead} to report"), LIMIT, || {
        Ok(scene.get_cluster::<SpeakerStatus>(&dead)?.and_then(|speaker| speaker.status))
    })?;
    scene.answered_by(address, &survivor)?;
    let after = scene.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")?;
    ensure!(after.transitions == 1 && after.node.as_ref() == Some(&survivor), "it stays where it is: {after:?}");
    Ok(())
}
