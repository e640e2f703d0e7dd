//! Two Services with one sharing key have one address. A third one with a colliding port waits, names the other
//! Service, and gets the address when the port is free.

use anyhow::{Context, Result, ensure};
use herald_crds::names;

use crate::testbed::TestNamespace;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("sharing", &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    expose(ns, "web", 80, "")?;
    let address = ns.external_ip("web")?;
    expose(ns, "admin", 81, "")?;
    ensure!(ns.external_ip("admin")? == address, "one key, one address");
    let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
    ensure!(vip.spec.services.len() == 2, "the VirtualIP names both Services: {:?}", vip.spec.services);
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    ns.reachable(address)?;

    // Port 80 is taken: a Service that requests this address waits and reports why.
    expose(ns, "second-web", 80, &format!("loadBalancerIP: {address},"))?;
    let sentence = ns.refusal("second-web", "SharingRefused")?;
    ensure!(sentence.contains("TCP 80") && sentence.contains("sharing/web"), "port and Service: {sentence}");

    // The first Service is deleted: its finalizer does not wait for the other one, and the waiting Service takes its
    // place.
    ns.kubectl_here(&["delete", "service", "web", "--timeout=60s"])?;
    ensure!(ns.external_ip("second-web")? == address, "the freed port");
    ensure!(ns.ingress("admin")? == [address], "the other keeps the address");
    ns.reachable(address)?;

    // An edit that makes two Services collide moves neither; both get a Warning.
    expose(ns, "admin", 80, "")?;
    for name in ["admin", "second-web"] {
        ns.eventually(&format!("a Warning on {name}"), || {
            Ok(ns.events(name)?.iter().any(|(_, reason, _)| reason == "SharingConflict").then_some(()))
        })?;
        ensure!(ns.ingress(name)? == [address], "{name} keeps the address");
    }
    Ok(())
}

fn expose(ns: &TestNamespace<'_>, name: &str, port: u16, spec: &str) -> Result<()> {
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, annotations: {{{}: k}}}}, \
         spec: {{type: LoadBalancer, loadBalancerClass: {}, {spec} selector: {{app: echo}}, \
         ports: [{{name: http, port: {port}, targetPort: 8080}}]}}}}",
        names::ANNOTATION_SHARED,
        names::CLASS
    ))
}
