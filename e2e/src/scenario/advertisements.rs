//! An L2Advertisement chooses the node; one that chooses none leaves the address silent, and the VirtualIP says why.

use anyhow::{Context, Result, ensure};
use herald_crds::virtual_ip::AnnouncedReason;

use super::Scene;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let (address, first) = scene.announced_service(1)?;

    let nodes = scene.bed.lab().nodes()?;
    let other = nodes.iter().find(|node| node.name() != first).context("a second node")?.name().to_owned();
    advertise_from(scene, &other)?;
    scene.eventually(&format!("{other} to announce {address}"), || {
        Ok((scene.announcer(address)? == other).then_some(()))
    })?;
    scene.answered_by(address, &other)?;
    scene.reachable(address)?;

    advertise_from(scene, "nowhere")?;
    let sentence = scene.eventually("the VirtualIP to say that no node may announce it", || {
        let vip = scene.virtual_ip(address)?.context("the VirtualIP")?;
        let condition = vip.announced().filter(|c| c.reason == AnnouncedReason::NoEligibleNode.as_str());
        Ok(condition.map(|c| c.message.clone()))
    })?;
    ensure!(sentence.contains("L2Advertisement"), "it names what selects no node: {sentence}");
    scene.silent(address)?;
    ensure!(scene.ingress("web")? == [address], "the Service keeps its address");

    // Without any advertisement, every node may again.
    scene.kubectl(&["delete", "l2adv", "advertisements"])?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)
}

fn advertise_from(scene: &Scene<'_>, hostname: &str) -> Result<()> {
    scene.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, \
         metadata: {{name: advertisements, labels: {{scenario: advertisements}}}}, \
         spec: {{addressPools: [advertisements], nodeSelectors: [{{matchLabels: {{kubernetes.io/hostname: {hostname}}}}}]}}}}"
    ))
}
