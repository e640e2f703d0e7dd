//! A pool is deleted, and another pool with another name contains its addresses: an announced address stays where it
//! is, under the rules it has, and counts for the pool that contains it now. The annotation with another pool moves the
//! Service.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use herald_crds::{names, virtual_ip::VirtualIPStatus};

use crate::testbed::TestNamespace;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, node) = ns.announced_service(2)?;
    // The L2Advertisement names the old pool, but not the one that replaces it: the address is announced by the rule of
    // the old pool alone.
    ns.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, metadata: {{name: {name}, labels: {{scenario: {name}}}}}, \
         spec: {{addressPools: [{name}, renamed-other]}}}}",
        name = ns.namespace
    ))?;
    ns.eventually("the advertisement to be the address's", || {
        let vip = ns.virtual_ip(address)?;
        Ok(vip
            .filter(|vip| vip.spec.advertisements.iter().any(|rule| rule.name.as_ref() == Some(&ns.namespace)))
            .map(drop))
    })?;
    let before = announced(ns, address)?;

    ns.kubectl(&["delete", "pool", &ns.namespace])?;
    ns.eventually("the Service to report that no pool holds its address", || {
        Ok(ns.assigned("web")?.filter(|c| c.status == "True" && c.reason == "OutsidePool"))
    })?;
    stays(ns, address, &node, &before)?;

    ns.pool("renamed-new", &[ns.range(1, 9)])?;
    ns.eventually("the address to count to the new pool", || {
        let service = ns.service("web")?;
        let from = service.metadata.annotations.unwrap_or_default().remove(names::ANNOTATION_ALLOCATED_FROM);
        Ok((from.as_deref() == Some("renamed-new")).then_some(()))
    })?;
    stays(ns, address, &node, &before)?;

    ns.pool("renamed-other", &[ns.range(20, 29)])?;
    let annotation = format!("{}=renamed-other", names::ANNOTATION_POOL);
    ns.kubectl_here(&["annotate", "service", "web", &annotation])?;
    let moved = ns.address(20);
    ns.eventually("the Service to move to the pool it asks for", || Ok((ns.ingress("web")? == [moved]).then_some(())))?;
    ns.announcer(moved)?;
    ns.reachable(moved)?;
    // The old address is released once the Service shows the new one.
    ns.eventually(&format!("{address} to be free"), || Ok(ns.virtual_ip(address)?.is_none().then_some(())))?;
    ns.silent(address)
}

fn announced(ns: &TestNamespace<'_>, address: IpAddr) -> Result<VirtualIPStatus> {
    ns.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")
}

/// Checks that the same node has announced the address since the same time.
fn stays(ns: &TestNamespace<'_>, address: IpAddr, node: &str, before: &VirtualIPStatus) -> Result<()> {
    let now = announced(ns, address)?;
    ensure!((&now.node, &now.since) == (&before.node, &before.since), "{address}: {before:?}, then {now:?}");
    ns.answered_by(address, node)?;
    ns.reachable(address)?;
    Ok(())
}
