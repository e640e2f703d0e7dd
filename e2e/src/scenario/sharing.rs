//! Two Services of one sharing key on one address; a third that collides waits, says with whom, and comes when it can.

use anyhow::{Context, Result, ensure};
use herald_crds::names;

use super::Scene;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.pool("sharing", &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    expose(scene, "web", 80, "")?;
    let address = scene.external_ip("web")?;
    expose(scene, "admin", 81, "")?;
    ensure!(scene.external_ip("admin")? == address, "one key, one address");
    let vip = scene.virtual_ip(address)?.context("the VirtualIP")?;
    ensure!(vip.spec.services.len() == 2, "it names both: {:?}", vip.spec.services);
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    scene.reachable(address)?;

    // Port 80 is taken: with the address asked for by name it waits and says why.
    expose(scene, "second-web", 80, &format!("loadBalancerIP: {address},"))?;
    let sentence = scene.refusal("second-web", "SharingRefused")?;
    ensure!(sentence.contains("TCP 80") && sentence.contains("sharing/web"), "port and Service: {sentence}");

    // The first goes: its finalizer does not wait for the other, and the one who waits takes its place.
    scene.kubectl_here(&["delete", "service", "web", "--timeout=60s"])?;
    ensure!(scene.external_ip("second-web")? == address, "the freed port");
    ensure!(scene.ingress("admin")? == [address], "the other keeps the address");
    scene.reachable(address)?;

    // Nobody is moved by an edit that makes them collide; both are told.
    expose(scene, "admin", 80, "")?;
    for name in ["admin", "second-web"] {
        scene.eventually(&format!("a Warning on {name}"), || {
            Ok(scene.events(name)?.iter().any(|(_, reason, _)| reason == "SharingConflict").then_some(()))
        })?;
        ensure!(scene.ingress(name)? == [address], "{name} keeps the address");
    }
    Ok(())
}

fn expose(scene: &Scene<'_>, name: &str, port: u16, spec: &str) -> Result<()> {
    scene.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, annotations: {{{}: k}}}}, \
         spec: {{type: LoadBalancer, loadBalancerClass: {}, {spec} selector: {{app: echo}}, \
         ports: [{{name: http, port: {port}, targetPort: 8080}}]}}}}",
        names::ANNOTATION_SHARED,
        names::CLASS
    ))
}
