//! Interfaces and addresses that appear while the speaker runs: an address is announced on the interface of its subnet.

use anyhow::{Result, ensure};
use herald_crds::SpeakerStatus;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

use crate::testbed::waits::REPORTED_WITHIN;
use crate::testbed::{Expose, TestNamespace};
use herald_lab::fault::{Fault, Faults, Link};

/// Subnets that no host has at first.
const PLUGGED: u8 = 30;
const ADDED: u8 = 31;

/// Adds an interface to one node and an address to another: each in a subnet that holds a Service's address.
pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = try_each(ns, &faults);
    // The faults are healed regardless of the result, for the next scenario.
    faults.heal_all()?;
    result
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    let address = |subnet| IpAddr::from(Ipv4Addr::new(10, subnet, ns.block(), 1));
    let own = |subnet, low| Ok::<_, anyhow::Error>(IpNet::from(Ipv4Net::new(Ipv4Addr::new(10, subnet, 0, low), 16)?));
    let nodes = ns.bed.lab().nodes()?;
    let [first, second, ..] = nodes.as_slice() else { anyhow::bail!("two nodes are needed") };
    let link = |host: &str| Link { host: host.to_owned(), segment: 0 };
    // The client is on the same link in every subnet.
    for subnet in [PLUGGED, ADDED] {
        let link = link(ns.client()?.name());
        faults.inject(Fault::AddressAdded { link, address: own(subnet, 99)? })?;
    }
    ns.pool(&ns.namespace, &[address(PLUGGED).to_string(), address(ADDED).to_string()])?;
    ns.deploy_echo(1)?;
    for (name, subnet) in [("plugged", PLUGGED), ("added", ADDED)] {
        let annotations = format!("{{heraldlb.io/addresses: {:?}}}", address(subnet).to_string());
        ns.expose(&Expose { annotations: &annotations, ..Expose::ours(name) })?;
        ensure!(ns.external_ip(name)? == address(subnet), "{name} gets the address it asks for");
    }

    let number = faults.next_interface(first.name())?;
    let plugged = Fault::InterfaceAdded { link: link(first.name()), number, address: Some(own(PLUGGED, 11)?) };
    faults.inject(plugged.clone())?;
    // The new interface is on the wire of the first one, so that one announces for it.
    announced_on(ns, address(PLUGGED), first.name(), first.interface(0)?)?;

    faults.inject(Fault::AddressAdded { link: link(second.name()), address: own(ADDED, 12)? })?;
    announced_on(ns, address(ADDED), second.name(), second.interface(0)?)?;

    faults.heal(&plugged)?;
    ns.bed.wait_for("the subnet of the unplugged interface to be left", REPORTED_WITHIN, || {
        let status = ns.get_cluster::<SpeakerStatus>(first.name())?.and_then(|speaker| speaker.status);
        let subnet = own(PLUGGED, 0)?.to_string();
        Ok(status.is_some_and(|s| !s.segments.iter().any(|segment| segment.prefixes.contains(&subnet))).then_some(()))
    })
}

/// Waits until a node announces the address on this interface, and checks that this node answers.
fn announced_on(ns: &TestNamespace<'_>, address: IpAddr, node: &str, interface: &str) -> Result<()> {
    let mac = ns.announced_on(address, node, interface)?;
    ns.eventually(&format!("{address} to be answered by {mac} alone"), || {
        let macs = ns.who_has(address)?;
        Ok((macs.iter().map(ToString::to_string).collect::<Vec<_>>() == [mac.clone()]).then_some(()))
    })?;
    ns.reachable(address)?;
    Ok(())
}
