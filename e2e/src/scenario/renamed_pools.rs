//! A pool is deleted, and another of another name holds its addresses: what is announced stays where it is, by the rules it
//! has, and counts to the pool that holds it now. A pool asked for by annotation moves the Service.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use herald_crds::{names, virtual_ip::VirtualIPStatus};

use super::Scene;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let (address, node) = scene.announced_service(2)?;
    // An advertisement that names the pool, and not the one that comes in its place: by its rule alone the address is announced.
    scene.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, metadata: {{name: {name}, labels: {{scenario: {name}}}}}, \
         spec: {{addressPools: [{name}, renamed-other]}}}}",
        name = scene.namespace
    ))?;
    scene.eventually("the advertisement to be the address's", || {
        let vip = scene.virtual_ip(address)?;
        Ok(vip
            .filter(|vip| vip.spec.advertisements.iter().any(|rule| rule.name.as_ref() == Some(&scene.namespace)))
            .map(drop))
    })?;
    let before = announced(scene, address)?;

    scene.kubectl(&["delete", "pool", &scene.namespace])?;
    scene.eventually("the Service to say that no pool holds its address", || {
        Ok(scene.assigned("web")?.filter(|c| c.status == "True" && c.reason == "OutsidePool"))
    })?;
    stays(scene, address, &node, &before)?;

    scene.pool("renamed-new", &[scene.range(1, 9)])?;
    scene.eventually("the address to count to the new pool", || {
        let service = scene.service("web")?;
        let from = service.metadata.annotations.unwrap_or_default().remove(names::ANNOTATION_ALLOCATED_FROM);
        Ok((from.as_deref() == Some("renamed-new")).then_some(()))
    })?;
    stays(scene, address, &node, &before)?;

    scene.pool("renamed-other", &[scene.range(20, 29)])?;
    let annotation = format!("{}=renamed-other", names::ANNOTATION_POOL);
    scene.kubectl_here(&["annotate", "service", "web", &annotation])?;
    let moved = scene.address(20);
    scene.eventually("the Service to move to the pool it asks for", || {
        Ok((scene.ingress("web")? == [moved]).then_some(()))
    })?;
    scene.announcer(moved)?;
    scene.reachable(moved)?;
    // It is given up once the Service shows the other.
    scene.eventually(&format!("{address} to be free"), || Ok(scene.virtual_ip(address)?.is_none().then_some(())))?;
    scene.silent(address)
}

fn announced(scene: &Scene<'_>, address: IpAddr) -> Result<VirtualIPStatus> {
    scene.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")
}

/// The same node announces it, since the same time.
fn stays(scene: &Scene<'_>, address: IpAddr, node: &str, before: &VirtualIPStatus) -> Result<()> {
    let now = announced(scene, address)?;
    ensure!((&now.node, &now.since) == (&before.node, &before.since), "{address}: {before:?}, then {now:?}");
    scene.answered_by(address, node)?;
    scene.reachable(address)?;
    Ok(())
}
