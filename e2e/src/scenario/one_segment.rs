//! A second interface is plugged into the network that the first is in: each address has one link-layer address all the time,
//! nothing moves, and the node says what it does; also when its speaker starts with both, and when the first one fails.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use herald_crds::SpeakerStatus;
use herald_crds::speaker_status::WarningKind;
use ipnet::{IpNet, Ipv4Net};

use super::unnoticed::Unnoticed;
use super::waits::REPORTED_WITHIN;
use super::{Expose, Scene, install};
use crate::fault::{Fault, Faults, Link};
use crate::lab::netns;

/// For a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of a macvlan beside its parent.
const MACVLAN: &str = "shim";

/// As many as it takes for each node to announce one.
const SERVICES: u8 = 6;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let faults = Faults::of(scene.bed.lab());
    let result = try_each(scene, &faults);
    // Whatever was found, the next scenario gets a whole cluster.
    faults.heal_all()?;
    for node in scene.bed.lab().nodes()? {
        if node.net_command("ip").args(["link", "show", MACVLAN]).output()?.status.success() {
            netns::run(node.net_command("ip").args(["link", "delete", MACVLAN]))?;
        }
    }
    result
}

fn try_each(scene: &Scene<'_>, faults: &Faults<'_>) -> Result<()> {
    scene.pool(&scene.namespace, &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    let mut owners = BTreeMap::new();
    for number in 1..=SERVICES {
        let name = format!("web{number}");
        scene.expose(&Expose::ours(&name))?;
        let address = scene.external_ip(&name)?;
        owners.insert(address, scene.announcer(address)?);
    }

    let unnoticed = Unnoticed::from_here(scene, owners.clone())?;
    // The nodes have their first interfaces in 10.10.0.0/16.
    for (node, low) in scene.bed.lab().nodes()?.iter().zip(111..) {
        let number = faults.next_interface(node.name())?;
        let address = IpNet::from(Ipv4Net::new(Ipv4Addr::new(10, 10, 0, low), 16)?);
        let link = Link { host: node.name().to_owned(), segment: 0 };
        faults.inject(Fault::InterfaceAdded { link, number, address: Some(address) })?;
        said_of(scene, node.name(), node.interface(0)?, &format!("eth{number}"))?;
    }
    // A macvlan beside its parent: the kernel passes no frame from the one to the other.
    let nodes = scene.bed.lab().nodes()?;
    let last = nodes.last().context("a node")?;
    let parent = last.interface(0)?;
    let on_last = |arguments: &str| netns::run(last.net_command("ip").args(arguments.split(' ')));
    on_last(&format!("link add {MACVLAN} link {parent} type macvlan mode bridge"))?;
    on_last(&format!("address add 10.10.0.121/16 dev {MACVLAN}"))?;
    on_last(&format!("link set {MACVLAN} up"))?;
    said_of(scene, last.name(), parent, MACVLAN)?;
    scene.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, "daemonset/herald-speaker"])?;
    install::wait_for_rollout(scene.bed.lab())?;
    unnoticed.until_here(scene)?;
    first_fails(scene, faults, &owners)
}

/// The cable of a node's first interface is pulled: another node answers for its addresses, alone.
fn first_fails(scene: &Scene<'_>, faults: &Faults<'_>, owners: &BTreeMap<IpAddr, String>) -> Result<()> {
    let (address, node) = owners.iter().next().context("an address")?;
    let cut = Fault::Cut(Link { host: node.clone(), segment: 0 });
    faults.inject(cut.clone())?;
    let successor = scene.successor(*address, node)?;
    scene.answered_by(*address, &successor)?;
    faults.heal(&cut)?;
    scene.every_node_ready(LIMIT)?;
    scene.answered_by(*address, &successor).context("nothing moves back")?;
    scene.reachable(*address).map(drop)
}

/// Waits until the node says that the second interface is left alone.
fn said_of(scene: &Scene<'_>, node: &str, first: &str, second: &str) -> Result<()> {
    scene.bed.wait_for(&format!("the SpeakerStatus of {node} to say so of {second}"), REPORTED_WITHIN, || {
        let status = scene.get_cluster::<SpeakerStatus>(node)?.and_then(|speaker| speaker.status);
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
