//! A Gateway's `spec.addresses`: the Service that its implementation creates gets them, follows a change, and says what is
//! refused. The scenario plays the implementation: Herald needs the label only. The controller starts before the kind exists.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use herald_crds::names::{ANNOTATION_ADDRESSES, CLASS, LABEL_GATEWAY_NAME};

use crate::testbed::controllers;
use crate::testbed::manifests::Manifest;
use crate::testbed::{TestNamespace, install};
use herald_lab::binaries::gateway_definition;
use herald_lab::wait_factor::kubectl_timeout;

const DEFINITION: &str = "gateways.gateway.networking.k8s.io";
const SETTINGS: &str = "herald-gateway-addresses";
const CONTROLLER: &str = "deployment/herald-controller";

/// The controller asks again for a kind that the API server does not know after 60 s (controller/src/watch.rs). The rest is
/// for a busy machine.
const KIND_NOTICED_WITHIN: Duration = Duration::from_secs(90);

/// An address that is in no pool.
const OUTSIDE: &str = "203.0.113.7";

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.kubectl(&["apply", "-f", &Manifest::GATEWAY_ADDRESSES.file().to_string_lossy()])?;
    restart(ns)?;
    let result = without_the_kind(ns).and_then(|()| with_the_kind(ns));
    // Whatever was found, the next scenario gets an ordinary cluster. The ClusterRole goes last, so that nothing is denied.
    ns.kubectl(&["delete", "configmap", "-n", install::NAMESPACE, SETTINGS, "--ignore-not-found"])?;
    restart(ns)?;
    let manifest = Manifest::GATEWAY_ADDRESSES.file();
    ns.kubectl(&["delete", "-f", &manifest.to_string_lossy(), "--ignore-not-found"])?;
    ns.kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found"])?;
    result
}

fn restart(ns: &TestNamespace<'_>) -> Result<()> {
    ns.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, CONTROLLER])?;
    install::wait_for_rollout(ns.bed.lab())
}

/// A Service without a Gateway is served, and one with a Gateway waits.
fn without_the_kind(ns: &TestNamespace<'_>) -> Result<()> {
    ns.known_pool(&ns.namespace, &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    service(ns, "plain", "{}", "{}")?;
    ns.eventually("an address without Gateways", || Ok((ns.ingress("plain")? == [ns.address(1)]).then_some(())))?;
    of_gateway(ns, "{}")?;
    let sentence = ns.refusal("front", "GatewayNotFound")?;
    ensure!(sentence.contains(&format!("Gateway {}/front", ns.namespace)), "{sentence}");
    let logs: Vec<_> = controllers::all(ns)?.iter().map(|replica| replica.pod.name.clone()).collect();
    for pod in logs {
        let log = ns.kubectl(&["logs", "-n", install::NAMESPACE, &pod])?;
        let told = log.lines().filter(|line| line.contains("does not know the kind") && line.contains("Gateway"));
        ensure!(told.count() == 1, "{pod} says once that there are no Gateways:\n{log}");
    }
    Ok(())
}

fn with_the_kind(ns: &TestNamespace<'_>) -> Result<()> {
    ns.kubectl(&["apply", "--server-side", "-f", &gateway_definition(&ns.bed.progress)?.to_string_lossy()])?;
    let established =
        ["wait", "--for=condition=Established", &format!("crd/{DEFINITION}"), &kubectl_timeout(install::ROLLOUT)?];
    ns.kubectl(&established)?;
    gateway(ns, &ns.address(5).to_string())?;
    ns.bed.wait_for("the address of the Gateway", KIND_NOTICED_WITHIN, || has(ns, ns.address(5)))?;
    ns.reachable(ns.address(5))?;

    gateway(ns, &ns.address(6).to_string())?;
    ns.eventually("the Gateway's other address", || has(ns, ns.address(6)))?;
    ns.reachable(ns.address(6))?;
    ns.eventually("the former to be free", || Ok(ns.virtual_ip(ns.address(5))?.is_none().then_some(())))?;
    ns.silent(ns.address(5))?;

    gateway(ns, OUTSIDE)?;
    let sentence = ns.refusal("front", "AddressNotInPool")?;
    let parts = [OUTSIDE, &format!("spec.addresses of Gateway {}/front", ns.namespace), "until then the Service keeps"];
    ensure!(parts.iter().all(|part| sentence.contains(part)), "{sentence}");
    ensure!(has(ns, ns.address(6))?.is_some(), "the Service keeps what it has");

    // The Service's own request wins, and a note reports that.
    of_gateway(ns, &format!("{{{ANNOTATION_ADDRESSES}: \"{}\"}}", ns.address(7)))?;
    let note = ns.eventually("the Service's own request to win", || {
        let condition = ns.assigned("front")?.filter(|c| c.status == "True");
        Ok(condition.filter(|c| c.message.contains(&ns.address(7).to_string())).map(|c| c.message))
    })?;
    ensure!(note.contains(&format!("Gateway {}/front asks for {OUTSIDE}", ns.namespace)), "{note}");

    let managed = ns.kubectl_here(&["get", "gateway", "front", "-o", "yaml", "--show-managed-fields"])?;
    ensure!(!managed.contains("herald-controller"), "a Gateway is its implementation's:\n{managed}");

    // A kind that goes takes nothing with it.
    ns.kubectl(&["delete", "crd", DEFINITION])?;
    service(ns, "later", "{}", "{}")?;
    ns.eventually("an address after the kind has gone", || Ok(ns.ingress("later")?.first().copied()))?;
    ensure!(has(ns, ns.address(7))?.is_some(), "the Service keeps what it has");
    Ok(())
}

fn has(ns: &TestNamespace<'_>, address: IpAddr) -> Result<Option<()>> {
    Ok((ns.ingress("front")? == [address]).then_some(()))
}

/// Creates the Service that an implementation creates for Gateway `front`.
fn of_gateway(ns: &TestNamespace<'_>, annotations: &str) -> Result<()> {
    service(ns, "front", &format!("{{{LABEL_GATEWAY_NAME}: front}}"), annotations)
}

fn service(ns: &TestNamespace<'_>, name: &str, labels: &str, annotations: &str) -> Result<()> {
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, labels: {labels}, annotations: {annotations}}}, \
         spec: {{type: LoadBalancer, loadBalancerClass: {CLASS}, selector: {{app: echo}}, \
         ports: [{{name: http, port: 80, targetPort: 8080}}]}}}}"
    ))
}

fn gateway(ns: &TestNamespace<'_>, address: &str) -> Result<()> {
    ns.apply(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: front}}, \
         spec: {{gatewayClassName: example, listeners: [{{name: http, port: 80, protocol: HTTP}}], \
         addresses: [{{type: IPAddress, value: {address}}}]}}}}"
    ))
}
