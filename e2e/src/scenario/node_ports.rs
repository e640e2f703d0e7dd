//! `allocateLoadBalancerNodePorts: false` works, and node ports can be enabled without changing the address.

use anyhow::{Result, ensure};

use crate::testbed::{Expose, TestNamespace};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("node-ports", &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    ns.expose(&Expose { spec: "allocateLoadBalancerNodePorts: false,", ..Expose::ours("web") })?;
    let address = ns.external_ip("web")?;
    ensure!(ns.node_port("web")?.is_none(), "no node port was asked for");
    ns.reachable(address)?;

    ns.kubectl_here(&[
        "patch",
        "service",
        "web",
        "--type=merge",
        "-p",
        r#"{"spec":{"allocateLoadBalancerNodePorts":true}}"#,
    ])?;
    ns.eventually("a node port", || ns.node_port("web"))?;
    ensure!(ns.ingress("web")? == [address], "the address is the same");
    ns.reachable(address)?;
    ns.told_once("web", "EnsuredLoadBalancer").map(drop)
}
