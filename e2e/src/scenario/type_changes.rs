//! From ClusterIP to LoadBalancer and back: the node port is kept; the address appears, disappears from status and
//! wire, and can be assigned again.

use anyhow::{Context, Result, ensure};
use herald_crds::names;

use crate::testbed::{Expose, TestNamespace};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    // The pool has only one address: the next Service that gets it proves that it was free.
    ns.pool("type-changes", &[ns.address(1).to_string()])?;
    ns.deploy_echo(1)?;
    let address = ns.address(1);

    ns.expose(&Expose { service_type: "ClusterIP", class: None, ..Expose::ours("web") })?;
    let cluster_ip = cluster_ip(ns, "web")?;
    ns.expose(&Expose { service_type: "NodePort", class: None, ..Expose::ours("web") })?;
    let port = ns.node_port("web")?.context("a node port")?;

    ns.expose(&Expose::ours("web"))?;
    ensure!(ns.external_ip("web")? == address, "the only address of the pool");
    ensure!(ns.node_port("web")? == Some(port), "the node port is kept");
    ensure!(self::cluster_ip(ns, "web")? == cluster_ip, "the cluster IP is kept");
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    ns.reachable(address)?;

    gone_from_status_and_wire(ns, |ns| {
        ns.kubectl_here(&[
            "patch",
            "service",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"type":"ClusterIP","loadBalancerClass":null}}"#,
        ])
    })?;

    // The address is reusable: another Service gets it at once.
    ns.expose(&Expose::ours("other"))?;
    ensure!(ns.external_ip("other")? == address, "the freed address is given out again");
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    ns.kubectl_here(&["delete", "service", "other", "--timeout=60s"])?;
    ns.silent(address)?;
    ensure!(ns.virtual_ip(address)?.is_none(), "no VirtualIP once the Service is gone");

    // The change from LoadBalancer to ExternalName also clears cluster IPs and families.
    ns.expose(&Expose::ours("web"))?;
    ensure!(ns.external_ip("web")? == address, "the address again");
    ns.announcer(address)?;
    gone_from_status_and_wire(ns, |ns| {
        ns.kubectl_here(&[
            "patch", "service", "web", "--type=merge", "-p",
            r#"{"spec":{"type":"ExternalName","externalName":"example.com","loadBalancerClass":null,"clusterIP":"","clusterIPs":null}}"#,
        ])
    })?;
    ns.eventually("an Event of the release", || {
        Ok(ns.events("web")?.iter().any(|(_, reason, _)| reason == "DeletedLoadBalancer").then_some(()))
    })
}

/// Applies the change and checks that the Service then has no address, finalizer or condition of ours, and that the
/// wire is silent.
fn gone_from_status_and_wire(
    ns: &TestNamespace<'_>,
    change: impl FnOnce(&TestNamespace<'_>) -> Result<String>,
) -> Result<()> {
    change(ns)?;
    ns.eventually("the VirtualIP to go", || Ok(ns.virtual_ips()?.is_empty().then_some(())))?;
    ns.silent(ns.address(1))?;
    ns.eventually("the Service to be free of Herald", || {
        let service = ns.service("web")?;
        let ours = service.metadata.finalizers.unwrap_or_default().iter().any(|f| f.starts_with(names::GROUP));
        Ok((!ours && ns.ingress("web")?.is_empty() && ns.assigned("web")?.is_none()).then_some(()))
    })
}

fn cluster_ip(ns: &TestNamespace<'_>, name: &str) -> Result<Option<String>> {
    Ok(ns.service(name)?.spec.and_then(|s| s.cluster_ip))
}
