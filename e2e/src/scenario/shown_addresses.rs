//! What a Service shows in its status belongs to it: another provider's address is not given out, and a VirtualIP that was
//! deleted by hand while no controller ran is made anew for its Service, though another waits for an address.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use herald_crds::{address::name_of_address, names};
use k8s_openapi::api::apps::v1::Deployment;

use super::{Expose, Scene, install};

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    of_another_provider(scene)?;
    without_its_virtual_ip(scene)
}

fn of_another_provider(scene: &Scene<'_>) -> Result<()> {
    scene.expose(&Expose { class: Some("example.com/other"), ..Expose::ours("theirs") })?;
    let shown = scene.address(1);
    let status = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{shown}"}}]}}}}}}"#);
    scene.kubectl_here(&["patch", "service", "theirs", "--subresource=status", "--type=merge", "-p", &status])?;
    scene.pool("shown-two", &[scene.range(1, 2)])?;
    scene.expose(&Expose::ours("ours"))?;
    ensure!(scene.external_ip("ours")? == scene.address(2), "{shown} is the other Service's");
    let asks = format!("{{{}: \"{shown}\"}}", names::ANNOTATION_ADDRESSES);
    scene.expose(&Expose { annotations: &asks, ..Expose::ours("asks") })?;
    let sentence = scene.refusal("asks", "AddressInUse")?;
    ensure!(sentence.contains(&format!("{}/theirs", scene.namespace)), "it names who shows it: {sentence}");
    ensure!(scene.ingress("theirs")? == [shown], "the other Service keeps what it shows");
    scene.kubectl_here(&["delete", "service", "theirs", "ours", "--timeout=60s"])?;
    ensure!(scene.external_ip("asks")? == shown, "once nobody shows it, it is given out");
    Ok(())
}

/// The steps of the review: an older Service waits for the address of a younger one, whose VirtualIP goes while nobody looks.
fn without_its_virtual_ip(scene: &Scene<'_>) -> Result<()> {
    let of = |pool: &str| format!("{{{}: {pool}}}", names::ANNOTATION_POOL);
    scene.expose(&Expose { annotations: &of("shown-none"), ..Expose::ours("old") })?;
    scene.refusal("old", "UnknownPool")?;
    scene.pool("shown-one", &[scene.address(9).to_string()])?;
    scene.deploy_echo(1)?;
    scene.expose(&Expose { annotations: &of("shown-one"), ..Expose::ours("web") })?;
    let address = scene.external_ip("web")?;
    scene.announcer(address)?;
    scene.expose(&Expose { annotations: &of("shown-one"), ..Expose::ours("old") })?;
    scene.refusal("old", "PoolFull")?;

    let replicas =
        |count: u8| scene.kubectl(&["scale", "-n", install::NAMESPACE, CONTROLLER, &format!("--replicas={count}")]);
    let shipped = replicas_of(scene)?;
    replicas(0)?;
    // Not by `kubectl wait`, which fails if they have ended before it looks.
    let result = scene.bed.wait_for("the controllers to end", install::ROLLOUT, || {
        let left = scene.kubectl(&["get", "pods", "-n", install::NAMESPACE, "-l", PODS, "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    });
    let result = result.and_then(|()| delete_by_hand(scene, address));
    // Whatever is found, the next scenario gets a whole cluster.
    replicas(shipped)?;
    install::wait_for_rollout(scene.bed.lab())?;
    let uid = result?;
    scene.eventually("a VirtualIP in the place of the one that was deleted", || {
        let vip = scene.virtual_ip(address)?.filter(|vip| vip.metadata.uid != uid);
        Ok(vip.filter(|vip| vip.spec.services.iter().map(|service| service.name.as_str()).eq(["web"])))
    })?;
    ensure!(scene.ingress("web")? == [address], "the Service keeps what it shows");
    scene.announcer(address)?;
    scene.reachable(address)?;
    scene.refusal("old", "PoolFull")?;
    ensure!(scene.ingress("old")?.is_empty(), "who waits goes on waiting");
    Ok(())
}

const CONTROLLER: &str = "deployment/herald-controller";
const PODS: &str = "app.kubernetes.io/component=controller";

fn replicas_of(scene: &Scene<'_>) -> Result<u8> {
    let text = scene.kubectl(&["get", "-n", install::NAMESPACE, CONTROLLER, "-o", "json"])?;
    let deployment: Deployment = serde_json::from_str(&text)?;
    Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1).try_into()?)
}

/// Deletes the VirtualIP, which its finalizer keeps until a controller runs. Returns its UID.
fn delete_by_hand(scene: &Scene<'_>, address: IpAddr) -> Result<Option<String>> {
    let uid = scene.virtual_ip(address)?.and_then(|vip| vip.metadata.uid);
    scene.kubectl(&["delete", "vip", &name_of_address(address), "--wait=false"])?;
    Ok(uid)
}
