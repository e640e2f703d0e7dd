//! A node loses power: once Kubernetes marks it NotReady, another node announces its address. When the node returns, it
//! takes nothing back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::SpeakerStatus;

use crate::testbed::{TestNamespace, install};

/// The laboratory's node-monitor-grace-period is 20 s, and a booting node is Ready within 10 s. The rest is a margin
/// for a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, dead) = ns.announced_service(3)?;

    let lab = ns.bed.lab();
    lab.power_off(&dead)?;
    let survivor = ns.bed.wait_for(&format!("another node than {dead} to announce {address}"), LIMIT, || {
        Ok(Some(ns.announcer(address)?).filter(|node| *node != dead))
    })?;
    ns.answered_by(address, &survivor)?;
    ns.reachable(address)?;
    let moved = ns.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")?;
    ensure!(moved.transitions == 1, "one move is counted: {moved:?}");

    lab.power_on(&dead)?;
    ns.every_node_ready(LIMIT)?;
    install::wait_for_rollout(lab)?;
    // A new report of the revived speaker proves that it works: it had its chance to take the address back.
    ns.kubectl(&["delete", "speaker", &dead])?;
    ns.bed.wait_for(&format!("the speaker on {dead} to report"), LIMIT, || {
        Ok(ns.get_cluster::<SpeakerStatus>(&dead)?.and_then(|speaker| speaker.status))
    })?;
    ns.answered_by(address, &survivor)?;
    let after = ns.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")?;
    ensure!(after.transitions == 1 && after.node.as_ref() == Some(&survivor), "it stays where it is: {after:?}");
    Ok(())
}
