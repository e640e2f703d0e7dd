//! A port of the switch forwards nothing for a while after its link has come up, as one with spanning tree does while it
//! listens and learns: the interface behind it takes nothing over, no address goes silent, none has two link-layer addresses.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::{IpNet, Ipv4Net};

use super::unnoticed::Unnoticed;
use crate::testbed::TestNamespace;
use herald_lab::cluster::netns;
use herald_lab::fault::{Direction, Fault, Faults, Link, Percent};

/// How long the port forwards nothing. Spanning tree's default is 30 s; here half a state's 15 s, which is many times what any
/// decision of a speaker waits for, and short enough that the node stays Ready.
const LEARNS_FOR: Duration = Duration::from_secs(8);

/// For a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The switch's table of rules for ports that learn.
const TABLE: &str = "learning-ports";

/// As many as it takes for each node to announce one.
const SERVICES: u8 = 6;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = try_each(ns, &faults);
    // Whatever was found, the next scenario gets a whole cluster.
    faults.heal_all()?;
    forward(ns)?;
    result
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    let owners = ns.announced_services(SERVICES)?;
    second_interfaces(ns, faults, &owners)?;
    returning_cable(ns, faults, &owners)
}

/// Each node gets a second interface in the network of the first, by a port that learns.
fn second_interfaces(ns: &TestNamespace<'_>, faults: &Faults<'_>, owners: &BTreeMap<IpAddr, String>) -> Result<()> {
    let unnoticed = Unnoticed::from_here(ns, owners.clone())?;
    let mut added = Vec::new();
    for (node, low) in ns.bed.lab().nodes()?.iter().zip(131..) {
        added.push((node.name().to_owned(), faults.next_interface(node.name())?, low));
    }
    learn(ns, &added.iter().map(|(node, number, _)| format!("{node}-{number}")).collect::<Vec<_>>())?;
    for (host, number, low) in added {
        // The nodes have their first interfaces in 10.10.0.0/16.
        let address = IpNet::from(Ipv4Net::new(Ipv4Addr::new(10, 10, 0, low), 16)?);
        faults.inject(Fault::InterfaceAdded { link: Link { host, segment: 0 }, number, address: Some(address) })?;
    }
    ns.bed.progress.step("learning-port: each node has a second interface, whose port learns");
    std::thread::sleep(LEARNS_FOR);
    forward(ns)?;
    ns.bed.progress.step("learning-port: the ports forward");
    std::thread::sleep(LEARNS_FOR);
    unnoticed.until_here(ns)?;
    faults.heal_where(|fault| matches!(fault, Fault::InterfaceAdded { .. }))?;
    Ok(())
}

/// The cable of a node that announces is pulled, and plugged in again into a port that learns: the others keep its addresses.
fn returning_cable(ns: &TestNamespace<'_>, faults: &Faults<'_>, owners: &BTreeMap<IpAddr, String>) -> Result<()> {
    let (address, node) = owners.iter().next().context("an address")?;
    let link = Link { host: node.clone(), segment: 0 };
    let cut = Fault::Cut(link.clone());
    let learning = Fault::Dropping { link, direction: Direction::Both, percent: Percent::ALL };
    faults.inject(cut.clone())?;
    let mut after = BTreeMap::new();
    for (address, owner) in owners {
        let now = if owner == node { ns.successor(*address, node)? } else { owner.clone() };
        after.insert(*address, now);
    }
    let unnoticed = Unnoticed::from_here(ns, after.clone())?;
    faults.inject(learning.clone())?;
    faults.heal(&cut)?;
    ns.bed.progress.step(format!("learning-port: {node} is plugged in again, and its port learns"));
    std::thread::sleep(LEARNS_FOR);
    faults.heal(&learning)?;
    ns.every_node_ready(LIMIT)?;
    std::thread::sleep(LEARNS_FOR);
    unnoticed.until_here(ns)?;
    ensure!(ns.announcer(*address)? == after[address], "nothing moves back to {node}");
    Ok(())
}

/// Makes these ports of the switch forward nothing, also those that are plugged in later.
fn learn(ns: &TestNamespace<'_>, ports: &[String]) -> Result<()> {
    let ports = ports.iter().map(|port| format!("{port:?}")).collect::<Vec<_>>().join(", ");
    let rules = format!(
        "table bridge {TABLE} {{\n\
         chain arriving {{ type filter hook prerouting priority filter; iifname {{ {ports} }} counter drop; }}\n\
         chain leaving {{ type filter hook forward priority filter; oifname {{ {ports} }} counter drop; }}\n}}\n"
    );
    let mut nft = ns.bed.lab().switch_command("nft");
    let mut child = nft.args(["--file", "-"]).stdin(Stdio::piped()).spawn().context("starting nft")?;
    child.stdin.take().context("nft has no input")?.write_all(rules.as_bytes()).context("writing to nft")?;
    ensure!(child.wait().context("waiting for nft")?.success(), "the switch refuses its rules:\n{rules}");
    Ok(())
}

/// Makes every port forward again.
fn forward(ns: &TestNamespace<'_>) -> Result<()> {
    let lists = ns.bed.lab().switch_command("nft").args(["list", "table", "bridge", TABLE]).output()?;
    if !lists.status.success() {
        return Ok(());
    }
    netns::run(ns.bed.lab().switch_command("nft").args(["delete", "table", "bridge", TABLE]))
}
