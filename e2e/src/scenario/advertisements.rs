//! An L2Advertisement chooses the node. One that selects no node leaves the address silent, and the VirtualIP reports
//! why.

use anyhow::{Context, Result, ensure};
use herald_crds::virtual_ip::AnnouncedReason;

use crate::testbed::TestNamespace;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, first) = ns.announced_service(1)?;

    let nodes = ns.bed.lab().nodes()?;
    let other = nodes.iter().find(|node| node.name() != first).context("a second node")?.name().to_owned();
    advertise_from(ns, &other)?;
    ns.eventually(&format!("{other} to announce {address}"), || Ok((ns.announcer(address)? == other).then_some(())))?;
    ns.answered_by(address, &other)?;
    ns.reachable(address)?;

    advertise_from(ns, "nowhere")?;
    let sentence = ns.eventually("the VirtualIP to report that no node may announce it", || {
        let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
        let condition = vip.announced().filter(|c| c.reason == AnnouncedReason::NoEligibleNode.as_str());
        Ok(condition.map(|c| c.message.clone()))
    })?;
    ensure!(sentence.contains("L2Advertisement"), "the sentence names the selector that selects no node: {sentence}");
    ns.silent(address)?;
    ensure!(ns.ingress("web")? == [address], "the Service keeps its address");

    // Without an L2Advertisement every node may announce again.
    ns.kubectl(&["delete", "l2adv", "advertisements"])?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)
}

fn advertise_from(ns: &TestNamespace<'_>, hostname: &str) -> Result<()> {
    ns.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, \
         metadata: {{name: advertisements, labels: {{scenario: advertisements}}}}, \
         spec: {{addressPools: [advertisements], nodeSelectors: [{{matchLabels: {{kubernetes.io/hostname: {hostname}}}}}]}}}}"
    ))
}
