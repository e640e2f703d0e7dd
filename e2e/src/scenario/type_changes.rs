//! From ClusterIP to LoadBalancer and away again: the node port is kept, the address appears, disappears from status
//! and wire, and can be given out again.

use anyhow::{Context, Result, ensure};
use herald_crds::names;

use super::{Expose, Scene};

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    // One address only: whoever gets it next proves that it was free.
    scene.pool("type-changes", &[scene.address(1).to_string()])?;
    scene.deploy_echo(1)?;
    let address = scene.address(1);

    scene.expose(&Expose { service_type: "ClusterIP", class: None, ..Expose::ours("web") })?;
    let cluster_ip = cluster_ip(scene, "web")?;
    scene.expose(&Expose { service_type: "NodePort", class: None, ..Expose::ours("web") })?;
    let port = scene.node_port("web")?.context("a node port")?;

    scene.expose(&Expose::ours("web"))?;
    ensure!(scene.external_ip("web")? == address, "the only address of the pool");
    ensure!(scene.node_port("web")? == Some(port), "the node port is kept");
    ensure!(self::cluster_ip(scene, "web")? == cluster_ip, "the cluster IP is kept");
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    scene.reachable(address)?;

    gone_from_status_and_wire(scene, |scene| {
        scene.kubectl_here(&[
            "patch",
            "service",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"type":"ClusterIP","loadBalancerClass":null}}"#,
        ])
    })?;

    // Reusable: another Service gets it at once.
    scene.expose(&Expose::ours("other"))?;
    ensure!(scene.external_ip("other")? == address, "the freed address is given out again");
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    scene.kubectl_here(&["delete", "service", "other", "--timeout=60s"])?;
    scene.silent(address)?;
    ensure!(scene.virtual_ip(address)?.is_none(), "no VirtualIP once the Service is gone");

    // And back through LoadBalancer to ExternalName, which clears cluster IPs and families as well.
    scene.expose(&Expose::ours("web"))?;
    ensure!(scene.external_ip("web")? == address, "the address again");
    scene.announcer(address)?;
    gone_from_status_and_wire(scene, |scene| {
        scene.kubectl_here(&[
            "patch", "service", "web", "--type=merge", "-p",
            r#"{"spec":{"type":"ExternalName","externalName":"example.com","loadBalancerClass":null,"clusterIP":"","clusterIPs":null}}"#,
        ])
    })?;
    scene.eventually("an Event of the release", || {
        Ok(scene.events("web")?.iter().any(|(_, reason, _)| reason == "DeletedLoadBalancer").then_some(()))
    })
}

/// After the change the Service has neither address nor finalizer nor condition of ours, and the wire is silent.
fn gone_from_status_and_wire(scene: &Scene<'_>, change: impl FnOnce(&Scene<'_>) -> Result<String>) -> Result<()> {
    change(scene)?;
    scene.eventually("the VirtualIP to go", || Ok(scene.virtual_ips()?.is_empty().then_some(())))?;
    scene.silent(scene.address(1))?;
    scene.eventually("the Service to be free of Herald", || {
        let service = scene.service("web")?;
        let ours = service.metadata.finalizers.unwrap_or_default().iter().any(|f| f.starts_with(names::GROUP));
        Ok((!ours && scene.ingress("web")?.is_empty() && scene.assigned("web")?.is_none()).then_some(()))
    })
}

fn cluster_ip(scene: &Scene<'_>, name: &str) -> Result<Option<String>> {
    Ok(scene.service(name)?.spec.and_then(|s| s.cluster_ip))
}
