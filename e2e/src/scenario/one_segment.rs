//! A second interface is plugged into the network of the first one: each address keeps a single link-layer address all
//! the time, nothing moves, and the node reports what it does. The same holds when its speaker starts with both
//! interfaces. When the first interface fails, another node takes over.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use herald_crds::SpeakerStatus;
use herald_crds::speaker_status::WarningKind;
use ipnet::{IpNet, Ipv4Net};

use super::unnoticed::Unnoticed;
use crate::testbed::waits::REPORTED_WITHIN;
use crate::testbed::{TestNamespace, install};
use herald_lab::cluster::netns;
use herald_lab::fault::{Fault, Faults, Link};

/// Upper bound for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of a macvlan on the node's first interface.
const MACVLAN: &str = "shim";

/// Enough Services for each node to announce one.
const SERVICES: u8 = 6;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = try_each(ns, &faults);
    // The cluster is restored regardless of the result, for the next scenario.
    faults.heal_all()?;
    for node in ns.bed.lab().nodes()? {
        if node.net_command("ip").args(["link", "show", MACVLAN]).output()?.status.success() {
            netns::run(node.net_command("ip").args(["link", "delete", MACVLAN]))?;
        }
    }
    result
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    let owners = ns.announced_services(SERVICES)?;
    let unnoticed = Unnoticed::from_here(ns, owners.clone())?;
    // The nodes have their first interfaces in 10.10.0.0/16.
    for (node, low) in ns.bed.lab().nodes()?.iter().zip(111..) {
        let number = faults.next_interface(node.name())?;
        let address = IpNet::from(Ipv4Net::new(Ipv4Addr::new(10, 10, 0, low), 16)?);
        let link = Link { host: node.name().to_owned(), segment: 0 };
        faults.inject(Fault::InterfaceAdded { link, number, address: Some(address) })?;
        said_of(ns, node.name(), node.interface(0)?, &format!("eth{number}"))?;
    }
    // A macvlan and its parent: the kernel passes no frame between the two.
    let nodes = ns.bed.lab().nodes()?;
    let last = nodes.last().context("a node")?;
    let parent = last.interface(0)?;
    let on_last = |arguments: &str| netns::run(last.net_command("ip").args(arguments.split(' ')));
    on_last(&format!("link add {MACVLAN} link {parent} type macvlan mode bridge"))?;
    on_last(&format!("address add 10.10.0.121/16 dev {MACVLAN}"))?;
    on_last(&format!("link set {MACVLAN} up"))?;
    said_of(ns, last.name(), parent, MACVLAN)?;
    ns.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, "daemonset/herald-speaker"])?;
    install::wait_for_rollout(ns.bed.lab())?;
    unnoticed.until_here(ns)?;
    first_fails(ns, faults, &owners)
}

/// Pulls the cable of a node's first interface: another node alone answers for its addresses.
fn first_fails(ns: &TestNamespace<'_>, faults: &Faults<'_>, owners: &BTreeMap<IpAddr, String>) -> Result<()> {
    let (address, node) = owners.iter().next().context("an address")?;
    let cut = Fault::Cut(Link { host: node.clone(), segment: 0 });
    faults.inject(cut.clone())?;
    let successor = ns.successor(*address, node)?;
    ns.answered_by(*address, &successor)?;
    faults.heal(&cut)?;
    ns.every_node_ready(LIMIT)?;
    ns.answered_by(*address, &successor).context("nothing moves back")?;
    ns.reachable(*address).map(drop)
}

/// Waits until the node reports that it does not use the second interface.
fn said_of(ns: &TestNamespace<'_>, node: &str, first: &str, second: &str) -> Result<()> {
    ns.bed.wait_for(&format!("the SpeakerStatus of {node} to report {second}"), REPORTED_WITHIN, || {
        let status = ns.get_cluster::<SpeakerStatus>(node)?.and_then(|speaker| speaker.status);
        let Some(status) = status else { return Ok(None) };
        let interfaces: Vec<&str> = status.segments.iter().map(|segment| segment.interface.as_str()).collect();
        let is_about = |message: &str| message.contains(first) && message.contains(second);
        let told = status
            .warnings
            .iter()
            .any(|warning| warning.kind == WarningKind::InterfacesOnOneSegment && is_about(&warning.message));
        Ok((told && interfaces == [first]).then_some(()))
    })
}
