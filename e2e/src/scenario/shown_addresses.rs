//! An address in a Service's status belongs to that Service: Herald does not assign another provider's address, and
//! recreates a VirtualIP that was deleted by hand while no controller ran for its Service, even though another Service
//! waits for an address.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use herald_crds::{address::name_of_address, names};
use k8s_openapi::api::apps::v1::Deployment;

use crate::testbed::{Expose, TestNamespace, install};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    of_another_provider(ns)?;
    without_its_virtual_ip(ns)
}

fn of_another_provider(ns: &TestNamespace<'_>) -> Result<()> {
    ns.expose(&Expose { class: Some("example.com/other"), ..Expose::ours("theirs") })?;
    let shown = ns.address(1);
    let status = format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{shown}"}}]}}}}}}"#);
    ns.kubectl_here(&["patch", "service", "theirs", "--subresource=status", "--type=merge", "-p", &status])?;
    ns.pool("shown-two", &[ns.range(1, 2)])?;
    ns.expose(&Expose::ours("ours"))?;
    ensure!(ns.external_ip("ours")? == ns.address(2), "{shown} is the other Service's");
    let asks = format!("{{{}: \"{shown}\"}}", names::ANNOTATION_ADDRESSES);
    ns.expose(&Expose { annotations: &asks, ..Expose::ours("asks") })?;
    let sentence = ns.refusal("asks", "AddressInUse")?;
    ensure!(
        sentence.contains(&format!("{}/theirs", ns.namespace)),
        "the sentence names the Service that shows the address: {sentence}"
    );
    ensure!(ns.ingress("theirs")? == [shown], "the other Service keeps what it shows");
    ns.kubectl_here(&["delete", "service", "theirs", "ours", "--timeout=60s"])?;
    ensure!(ns.external_ip("asks")? == shown, "the address is given out once no Service shows it");
    Ok(())
}

/// An older Service waits for the address of a younger one, whose VirtualIP is deleted while no controller runs.
fn without_its_virtual_ip(ns: &TestNamespace<'_>) -> Result<()> {
    let of = |pool: &str| format!("{{{}: {pool}}}", names::ANNOTATION_POOL);
    ns.expose(&Expose { annotations: &of("shown-none"), ..Expose::ours("old") })?;
    ns.refusal("old", "UnknownPool")?;
    ns.pool("shown-one", &[ns.address(9).to_string()])?;
    ns.deploy_echo(1)?;
    ns.expose(&Expose { annotations: &of("shown-one"), ..Expose::ours("web") })?;
    let address = ns.external_ip("web")?;
    ns.announcer(address)?;
    ns.expose(&Expose { annotations: &of("shown-one"), ..Expose::ours("old") })?;
    ns.refusal("old", "PoolFull")?;

    let replicas =
        |count: u8| ns.kubectl(&["scale", "-n", install::NAMESPACE, CONTROLLER, &format!("--replicas={count}")]);
    let shipped = replicas_of(ns)?;
    replicas(0)?;
    // `kubectl wait` would fail if the controllers ended before it looks.
    let result = ns.bed.wait_for("the controllers to end", install::ROLLOUT, || {
        let left = ns.kubectl(&["get", "pods", "-n", install::NAMESPACE, "-l", PODS, "-o", "name"])?;
        Ok(left.trim().is_empty().then_some(()))
    });
    let result = result.and_then(|()| delete_by_hand(ns, address));
    // The controllers are restored regardless of the result, for the next scenario.
    replicas(shipped)?;
    install::wait_for_rollout(ns.bed.lab())?;
    let uid = result?;
    ns.eventually("a VirtualIP in the place of the one that was deleted", || {
        let vip = ns.virtual_ip(address)?.filter(|vip| vip.metadata.uid != uid);
        Ok(vip.filter(|vip| vip.spec.services.iter().map(|service| service.name.as_str()).eq(["web"])))
    })?;
    ensure!(ns.ingress("web")? == [address], "the Service keeps what it shows");
    ns.announcer(address)?;
    ns.reachable(address)?;
    ns.refusal("old", "PoolFull")?;
    ensure!(ns.ingress("old")?.is_empty(), "the waiting Service goes on waiting");
    Ok(())
}

const CONTROLLER: &str = "deployment/herald-controller";
const PODS: &str = "app.kubernetes.io/component=controller";

fn replicas_of(ns: &TestNamespace<'_>) -> Result<u8> {
    let text = ns.kubectl(&["get", "-n", install::NAMESPACE, CONTROLLER, "-o", "json"])?;
    let deployment: Deployment = serde_json::from_str(&text)?;
    Ok(deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1).try_into()?)
}

/// Deletes the VirtualIP, which its finalizer keeps until a controller runs, and returns its UID.
fn delete_by_hand(ns: &TestNamespace<'_>, address: IpAddr) -> Result<Option<String>> {
    let uid = ns.virtual_ip(address)?.and_then(|vip| vip.metadata.uid);
    ns.kubectl(&["delete", "vip", &name_of_address(address), "--wait=false"])?;
    Ok(uid)
}
