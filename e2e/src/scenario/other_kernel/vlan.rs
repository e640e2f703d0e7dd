//! Nodes and client have a VLAN on their network cards. The kernel also passes its frames, without the tag, to sockets
//! on the network card. Nevertheless the two are separate networks: an address of one is answered only there, and no
//! speaker mistakes its own frames on the other for a second interface on the same network.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::links::{VlanLink, address_in, expose_at, nobody_hears_itself, segments_become, who_answers_on};
use crate::testbed::TestNamespace;

const ID: u16 = 100;

/// A subnet that no host has at first.
const SUBNET: u8 = 40;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let nodes = ns.bed.lab().nodes()?;
    let client = ns.client()?;
    let links = nodes.iter().chain([&client]).map(|host| VlanLink::add(host, host.interface(0)?, ID, SUBNET));
    let links = links.collect::<Result<Vec<_>>>()?;
    let vlan = &links.first().context("a link")?.name;
    for node in &nodes {
        segments_become(ns, node.name(), &[node.interface(0)?, vlan])?;
    }
    let (tagged, plain) = (address_in(ns, SUBNET), ns.address(1));
    ns.pool(&ns.namespace, &[tagged.to_string(), plain.to_string()])?;
    ns.deploy_echo(1)?;
    for (name, address, interface, other) in
        [("tagged", tagged, vlan.as_str(), client.interface(0)?), ("plain", plain, client.interface(0)?, vlan)]
    {
        expose_at(ns, name, address)?;
        answered_on_one(ns, address, interface, other)?;
    }
    nobody_hears_itself(ns)
}

/// Checks that the address is announced on the interface, that its node alone answers there, and that it is silent on
/// the other interface.
fn answered_on_one(ns: &TestNamespace<'_>, address: IpAddr, interface: &str, other: &str) -> Result<()> {
    let node = ns.announcer(address)?;
    ns.announced_on(address, &node, interface)?;
    ns.answered_by(address, &node)?;
    ns.reachable(address)?;
    let strangers = who_answers_on(ns, other, address)?;
    ensure!(strangers.is_empty(), "{address} is announced on {interface}, and answered on {other} by {strangers:?}");
    Ok(())
}
