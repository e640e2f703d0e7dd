//! An address, a node that answers, and pods behind it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::privileges::nothing_denied;
use crate::testbed::{Expose, TestNamespace};

/// EXTERNAL-IP appears; exactly one node answers ARP, with its own MAC; HTTP reaches all three pods; `kubectl get vip`
/// shows the actual state.
pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("first-light", &[ns.range(1, 9)])?;
    ns.deploy_echo(3)?;
    ns.expose(&Expose::ours("web"))?;

    let address = ns.external_ip("web")?;
    ensure!(address == ns.address(1), "the pool's first address is {}, the Service got {address}", ns.address(1));
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;

    // kube-proxy picks a backend at random, among those it already has rules for.
    ns.reachable(address)?;
    let mut pods = BTreeSet::new();
    ns.eventually("requests to reach three pods", || {
        pods.insert(ns.fetch(address)?["pod"].as_str().context("the pod's name")?.to_owned());
        Ok((pods.len() == 3).then_some(()))
    })
    .with_context(|| format!("the requests reached {pods:?}"))?;

    let shown = ns.kubectl(&["get", "vip"])?;
    let row = shown.lines().find(|l| l.starts_with(&address.to_string())).context("a row of kubectl get vip")?;
    for word in [address.to_string().as_str(), "first-light/web", node.as_str(), "eth0", "Announcing"] {
        ensure!(row.split_whitespace().any(|w| w == word), "kubectl get vip does not say {word}:\n{shown}");
    }
    let vip = ns.virtual_ip(address)?.and_then(|v| v.status).context("the VirtualIP's status")?;
    let mac = ns.bed.lab().host(&node)?.mac(0)?;
    ensure!(vip.mac_address == Some(mac.to_string()), "the status says {:?}, {node} has {mac}", vip.mac_address);

    let note = ns.told_once("web", "EnsuredLoadBalancer")?;
    ensure!(note.contains(&address.to_string()) && note.contains("first-light"), "address and pool are named: {note}");
    Ok(())
}

/// `externalTrafficPolicy: Local`: the node with the endpoint announces, and the client's address is preserved. Without
/// an endpoint no node answers, and the address stays assigned.
pub(super) fn local(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("local-policy", &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    ns.expose(&Expose { spec: "externalTrafficPolicy: Local,", ..Expose::ours("web") })?;

    let address = ns.external_ip("web")?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    let answer = ns.reachable(address)?;
    ensure!(answer["node"] == node.as_str(), "{node} announces, but the endpoint is on {}", answer["node"]);
    let client = ns.client()?.addresses(0)[0];
    let seen = answer["client"].as_str().context("the client's address")?;
    ensure!(seen.contains(&client.to_string()), "the pod saw {seen}, the client is {client}");

    ns.kubectl_here(&["scale", "deployment/echo", "--replicas=0"])?;
    ns.eventually("no node to answer without an endpoint", || Ok(ns.who_has(address)?.is_empty().then_some(())))?;
    ensure!(ns.ingress("web")? == [address], "the address stays without endpoints");
    // The wire is silent before the status is updated; until then the status names the former node.
    ns.unannounced(address)?;

    ns.kubectl_here(&["scale", "deployment/echo", "--replicas=1"])?;
    ns.echo_rolled_out()?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    let answer = ns.reachable(address)?;
    ensure!(answer["node"] == node.as_str(), "{node} announces, but the endpoint is on {}", answer["node"]);
    Ok(())
}

/// A cluster of one or two nodes: the address is assigned, announced and reachable.
pub(super) fn small(ns: &TestNamespace<'_>) -> Result<()> {
    let nodes = ns.bed.lab().nodes()?.len();
    ns.pool("small", &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    // One address for each node is enough as a rule. A speaker that a busy machine keeps from running for 0.2 s leaves
    // an address to the next node (docs/protocol/ownership.md#turn), so up to twice as many are created.
    let mut announcers = BTreeSet::new();
    for number in 1..=2 * nodes {
        if announcers.len() == nodes {
            break;
        }
        let name = format!("web{number}");
        ns.expose(&Expose::ours(&name))?;
        let address = ns.external_ip(&name)?;
        let node = ns.announcer(address)?;
        ns.answered_by(address, &node)?;
        ns.reachable(address)?;
        announcers.insert(node);
    }
    ensure!(announcers.len() == nodes, "{} addresses on {nodes} nodes, announced by {announcers:?}", 2 * nodes);
    nothing_denied(ns)?;
    Ok(())
}
