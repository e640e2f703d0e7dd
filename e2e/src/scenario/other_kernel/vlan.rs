//! Nodes and client have a VLAN on their network cards. The kernel hands its frames to sockets on the network card as well,
//! without the tag; nevertheless the two are two networks: addresses of each are answered there alone, and no speaker
//! takes its own frames on the other for a second interface on one network.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::super::Scene;
use super::links::{VlanLink, address_in, expose_at, nobody_hears_itself, segments_become, who_answers_on};

const ID: u16 = 100;

/// A subnet that no host has at first.
const SUBNET: u8 = 40;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let nodes = scene.bed.lab().nodes()?;
    let client = scene.client()?;
    let links = nodes.iter().chain([&client]).map(|host| VlanLink::add(host, host.interface(0)?, ID, SUBNET));
    let links = links.collect::<Result<Vec<_>>>()?;
    let vlan = &links.first().context("a link")?.name;
    for node in &nodes {
        segments_become(scene, node.name(), &[node.interface(0)?, vlan])?;
    }
    let (tagged, plain) = (address_in(scene, SUBNET), scene.address(1));
    scene.pool(&scene.namespace, &[tagged.to_string(), plain.to_string()])?;
    scene.deploy_echo(1)?;
    for (name, address, interface, other) in
        [("tagged", tagged, vlan.as_str(), client.interface(0)?), ("plain", plain, client.interface(0)?, vlan)]
    {
        expose_at(scene, name, address)?;
        answered_on_one(scene, address, interface, other)?;
    }
    nobody_hears_itself(scene)
}

/// Checks that the address is announced on the interface, answered there by its node alone, and silent on the other.
fn answered_on_one(scene: &Scene<'_>, address: IpAddr, interface: &str, other: &str) -> Result<()> {
    let node = scene.announcer(address)?;
    scene.announced_on(address, &node, interface)?;
    scene.answered_by(address, &node)?;
    scene.reachable(address)?;
    let strangers = who_answers_on(scene, other, address)?;
    ensure!(strangers.is_empty(), "{address} is announced on {interface}, and answered on {other} by {strangers:?}");
    Ok(())
}
