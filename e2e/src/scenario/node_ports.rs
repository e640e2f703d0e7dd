//! `allocateLoadBalancerNodePorts: false` works, and can be switched on without changing the address.

use anyhow::{Result, ensure};

use super::{Expose, Scene};

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.pool("node-ports", &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    scene.expose(&Expose { spec: "allocateLoadBalancerNodePorts: false,", ..Expose::ours("web") })?;
    let address = scene.external_ip("web")?;
    ensure!(scene.node_port("web")?.is_none(), "no node port was asked for");
    scene.reachable(address)?;

    scene.kubectl_here(&[
        "patch",
        "service",
        "web",
        "--type=merge",
        "-p",
        r#"{"spec":{"allocateLoadBalancerNodePorts":true}}"#,
    ])?;
    scene.eventually("a node port", || scene.node_port("web"))?;
    ensure!(scene.ingress("web")? == [address], "the address is the same");
    scene.reachable(address)?;
    scene.told_once("web", "EnsuredLoadBalancer").map(drop)
}
