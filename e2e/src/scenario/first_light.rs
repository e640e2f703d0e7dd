//! An address, one node that answers, pods behind it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::privileges::nothing_denied;
use super::{Expose, Scene};

/// EXTERNAL-IP appears; exactly one node answers ARP, with its own MAC; HTTP reaches all three pods; `kubectl get vip`
/// tells the truth.
pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.pool("first-light", &[scene.range(1, 9)])?;
    scene.deploy_echo(3)?;
    scene.expose(&Expose::ours("web"))?;

    let address = scene.external_ip("web")?;
    ensure!(address == scene.address(1), "the pool's first address is {}, the Service got {address}", scene.address(1));
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;

    // kube-proxy picks a backend at random, of those it has rules for already.
    scene.reachable(address)?;
    let mut pods = BTreeSet::new();
    scene
        .eventually("requests to reach three pods", || {
            pods.insert(scene.fetch(address)?["pod"].as_str().context("the pod's name")?.to_owned());
            Ok((pods.len() == 3).then_some(()))
        })
        .with_context(|| format!("reached were {pods:?}"))?;

    let shown = scene.kubectl(&["get", "vip"])?;
    let row = shown.lines().find(|l| l.starts_with(&address.to_string())).context("a row of kubectl get vip")?;
    for word in [address.to_string().as_str(), "first-light/web", node.as_str(), "eth0", "Announcing"] {
        ensure!(row.split_whitespace().any(|w| w == word), "kubectl get vip does not say {word}:\n{shown}");
    }
    let vip = scene.virtual_ip(address)?.and_then(|v| v.status).context("the VirtualIP's status")?;
    let mac = scene.bed.lab().host(&node)?.mac(0)?;
    ensure!(vip.mac_address == Some(mac.to_string()), "the status says {:?}, {node} has {mac}", vip.mac_address);

    let note = scene.told_once("web", "EnsuredLoadBalancer")?;
    ensure!(note.contains(&address.to_string()) && note.contains("first-light"), "address and pool are named: {note}");
    Ok(())
}

/// `externalTrafficPolicy: Local`: the node with the endpoint announces, the client's address is preserved, and with
/// no endpoint nobody answers while the address stays.
pub(super) fn local(scene: &Scene<'_>) -> Result<()> {
    scene.pool("local-policy", &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    scene.expose(&Expose { spec: "externalTrafficPolicy: Local,", ..Expose::ours("web") })?;

    let address = scene.external_ip("web")?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    let answer = scene.reachable(address)?;
    ensure!(answer["node"] == node.as_str(), "{node} announces, but the endpoint is on {}", answer["node"]);
    let client = scene.client()?.addresses(0)[0];
    let seen = answer["client"].as_str().context("the client's address")?;
    ensure!(seen.contains(&client.to_string()), "the pod saw {seen}, the client is {client}");

    scene.kubectl_here(&["scale", "deployment/echo", "--replicas=0"])?;
    scene
        .eventually("nobody to answer without an endpoint", || Ok(scene.who_has(address)?.is_empty().then_some(())))?;
    ensure!(scene.ingress("web")? == [address], "the address stays without endpoints");
    // The wire is silent before the status says so, which names the former node until then.
    scene.unannounced(address)?;

    scene.kubectl_here(&["scale", "deployment/echo", "--replicas=1"])?;
    scene.echo_rolled_out()?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    let answer = scene.reachable(address)?;
    ensure!(answer["node"] == node.as_str(), "{node} announces, but the endpoint is on {}", answer["node"]);
    Ok(())
}

/// A cluster of one or two nodes: assigned, announced, reachable.
pub(super) fn small(scene: &Scene<'_>) -> Result<()> {
    let nodes = scene.bed.lab().nodes()?.len();
    scene.pool("small", &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    // As many Services as nodes, and each node gets one. A speaker that a busy machine keeps from running for 0.2 s leaves an
    // address to the next node (docs/protocol.md), and gets another.
    let mut announcers = BTreeSet::new();
    for number in 1..=2 * nodes {
        if announcers.len() == nodes {
            break;
        }
        let name = format!("web{number}");
        scene.expose(&Expose::ours(&name))?;
        let address = scene.external_ip(&name)?;
        let node = scene.announcer(address)?;
        scene.answered_by(address, &node)?;
        scene.reachable(address)?;
        announcers.insert(node);
    }
    ensure!(announcers.len() == nodes, "{} addresses on {nodes} nodes, announced by {announcers:?}", 2 * nodes);
    nothing_denied(scene)?;
    Ok(())
}
