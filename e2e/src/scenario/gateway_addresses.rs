//! A Gateway's `spec.addresses`: the Service that its implementation creates gets them, follows a change, and says what is
//! refused. The scenario plays the implementation: Herald needs the label only. The controller starts before the kind exists.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use herald_crds::names::{ANNOTATION_ADDRESSES, CLASS, LABEL_GATEWAY_NAME};

use super::{Scene, install};
use crate::binaries::gateway_definition;
use crate::controllers;
use crate::manifests::Manifest;
use crate::wait_factor::kubectl_timeout;

const DEFINITION: &str = "gateways.gateway.networking.k8s.io";
const SETTINGS: &str = "herald-gateway-addresses";
const CONTROLLER: &str = "deployment/herald-controller";

/// The controller asks again for a kind that the API server does not know after 60 s (controller/src/watch.rs). The rest is
/// for a busy machine.
const KIND_NOTICED_WITHIN: Duration = Duration::from_secs(90);

/// An address that is in no pool.
const OUTSIDE: &str = "203.0.113.7";

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.kubectl(&["apply", "-f", &Manifest::GATEWAY_ADDRESSES.file().to_string_lossy()])?;
    restart(scene)?;
    let result = without_the_kind(scene).and_then(|()| with_the_kind(scene));
    // Whatever was found, the next scenario gets an ordinary cluster. The ClusterRole goes last, so that nothing is denied.
    scene.kubectl(&["delete", "configmap", "-n", install::NAMESPACE, SETTINGS, "--ignore-not-found"])?;
    restart(scene)?;
    let manifest = Manifest::GATEWAY_ADDRESSES.file();
    scene.kubectl(&["delete", "-f", &manifest.to_string_lossy(), "--ignore-not-found"])?;
    scene.kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found"])?;
    result
}

fn restart(scene: &Scene<'_>) -> Result<()> {
    scene.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, CONTROLLER])?;
    install::wait_for_rollout(scene.bed.lab())
}

/// What has nothing to do with Gateways is served, and what has waits.
fn without_the_kind(scene: &Scene<'_>) -> Result<()> {
    scene.known_pool(&scene.namespace, &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    service(scene, "plain", "{}", "{}")?;
    scene.eventually("an address without Gateways", || {
        Ok((scene.ingress("plain")? == [scene.address(1)]).then_some(()))
    })?;
    of_gateway(scene, "{}")?;
    let sentence = scene.refusal("front", "GatewayNotFound")?;
    ensure!(sentence.contains(&format!("Gateway {}/front", scene.namespace)), "{sentence}");
    let logs: Vec<_> = controllers::all(scene)?.iter().map(|replica| replica.pod.name.clone()).collect();
    for pod in logs {
        let log = scene.kubectl(&["logs", "-n", install::NAMESPACE, &pod])?;
        let told = log.lines().filter(|line| line.contains("does not know the kind") && line.contains("Gateway"));
        ensure!(told.count() == 1, "{pod} says once that there are no Gateways:\n{log}");
    }
    Ok(())
}

fn with_the_kind(scene: &Scene<'_>) -> Result<()> {
    scene.kubectl(&["apply", "--server-side", "-f", &gateway_definition(&scene.bed.progress)?.to_string_lossy()])?;
    let established =
        ["wait", "--for=condition=Established", &format!("crd/{DEFINITION}"), &kubectl_timeout(install::ROLLOUT)?];
    scene.kubectl(&established)?;
    gateway(scene, &scene.address(5).to_string())?;
    scene.bed.wait_for("the address of the Gateway", KIND_NOTICED_WITHIN, || has(scene, scene.address(5)))?;
    scene.reachable(scene.address(5))?;

    gateway(scene, &scene.address(6).to_string())?;
    scene.eventually("the Gateway's other address", || has(scene, scene.address(6)))?;
    scene.reachable(scene.address(6))?;
    scene.eventually("the former to be free", || Ok(scene.virtual_ip(scene.address(5))?.is_none().then_some(())))?;
    scene.silent(scene.address(5))?;

    gateway(scene, OUTSIDE)?;
    let sentence = scene.refusal("front", "AddressNotInPool")?;
    let parts =
        [OUTSIDE, &format!("spec.addresses of Gateway {}/front", scene.namespace), "until then the Service keeps"];
    ensure!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
    ensure!(has(scene, scene.address(6))?.is_some(), "the Service keeps what it has");

    // What the Service itself asks for wins, and a note says so.
    of_gateway(scene, &format!("{{{ANNOTATION_ADDRESSES}: \"{}\"}}", scene.address(7)))?;
    let note = scene.eventually("the Service's own request to win", || {
        let condition = scene.assigned("front")?.filter(|c| c.status == "True");
        Ok(condition.filter(|c| c.message.contains(&scene.address(7).to_string())).map(|c| c.message))
    })?;
    ensure!(note.contains(&format!("Gateway {}/front asks for {OUTSIDE}", scene.namespace)), "{note}");

    let managed = scene.kubectl_here(&["get", "gateway", "front", "-o", "yaml", "--show-managed-fields"])?;
    ensure!(!managed.contains("herald-controller"), "a Gateway is its implementation's:\n{managed}");

    // A kind that goes takes nothing with it.
    scene.kubectl(&["delete", "crd", DEFINITION])?;
    service(scene, "later", "{}", "{}")?;
    scene.eventually("an address after the kind has gone", || Ok(scene.ingress("later")?.first().copied()))?;
    ensure!(has(scene, scene.address(7))?.is_some(), "the Service keeps what it has");
    Ok(())
}

fn has(scene: &Scene<'_>, address: IpAddr) -> Result<Option<()>> {
    Ok((scene.ingress("front")? == [address]).then_some(()))
}

/// What an implementation creates for Gateway `front`.
fn of_gateway(scene: &Scene<'_>, annotations: &str) -> Result<()> {
    service(scene, "front", &format!("{{{LABEL_GATEWAY_NAME}: front}}"), annotations)
}

fn service(scene: &Scene<'_>, name: &str, labels: &str, annotations: &str) -> Result<()> {
    scene.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, labels: {labels}, annotations: {annotations}}}, \
         spec: {{type: LoadBalancer, loadBalancerClass: {CLASS}, selector: {{app: echo}}, \
         ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}"
    ))
}

fn gateway(scene: &Scene<'_>, address: &str) -> Result<()> {
    scene.apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: front}}, \
         spec: {{gatewayClassName: example, listeners: [{{name: http, port: 80, protocol: HTTP}}], \
         addresses: [{{type: IPAddress, value: {address}}}]}}}}"
    ))
}
