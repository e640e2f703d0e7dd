//! The only interface on which an address may be announced goes down or loses its own address: the status reports it
//! within seconds, and also reports the recovery.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::virtual_ip::AnnouncedReason;
use ipnet::{IpNet, Ipv4Net};

use crate::testbed::{Expose, TestNamespace};
use herald_lab::fault::{Fault, Faults, Link};

/// A subnet that no host has at first.
const SUBNET: u8 = 32;

/// Time from the change of the interface until the status reports it.
const REPORTED_WITHIN: Duration = Duration::from_secs(5);

/// Reason of the Warning on the Service (docs/observe.md).
const WARNING: &str = "AddressNotAnnounced";

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = try_each(ns, &faults);
    // The faults are healed regardless of the result, for the next scenario.
    faults.heal_all()?;
    result
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    let address = IpAddr::from(Ipv4Addr::new(10, SUBNET, ns.block(), 1));
    let own = |low| Ok::<_, anyhow::Error>(IpNet::from(Ipv4Net::new(Ipv4Addr::new(10, SUBNET, 0, low), 16)?));
    let node = ns.bed.lab().nodes()?.into_iter().next().context("a node")?;
    let link = |host: &str| Link { host: host.to_owned(), segment: 0 };
    faults.inject(Fault::AddressAdded { link: link(ns.client()?.name()), address: own(99)? })?;
    let number = faults.next_interface(node.name())?;
    faults.inject(Fault::InterfaceAdded { link: link(node.name()), number, address: Some(own(11)?) })?;
    let (host, interface) = (node.name().to_owned(), format!("eth{number}"));

    ns.pool(&ns.namespace, &[address.to_string()])?;
    ns.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, \
         metadata: {{name: {namespace}, labels: {{scenario: {namespace}}}}}, spec: {{addressPools: [{namespace}], \
         interfaces: [{interface}], nodeSelectors: [{{matchLabels: {{kubernetes.io/hostname: {host}}}}}]}}}}",
        namespace = ns.namespace,
    ))?;
    ns.deploy_echo(1)?;
    ns.expose(&Expose::ours("web"))?;
    ensure!(ns.external_ip("web")? == address, "the Service gets the pool's only address");
    ensure!(ns.announcer(address)? == host, "{host} alone may announce it");
    ns.reachable(address)?;

    for (round, fault) in [
        Fault::InterfaceDown { host: host.clone(), interface: interface.clone() },
        Fault::AddressRemoved { host: host.clone(), interface: interface.clone(), address: own(11)? },
    ]
    .into_iter()
    .enumerate()
    {
        ns.bed.progress.step(format!("interface-lost: {fault}"));
        faults.inject(fault.clone())?;
        let said = ns.bed.wait_for(&format!("Announced to be False while {fault}"), REPORTED_WITHIN, || {
            let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
            Ok(vip.announced().filter(|condition| condition.status == "False").cloned())
        })?;
        let expected = AnnouncedReason::InterfaceLost.as_str();
        ensure!(said.reason == expected, "{expected} while {fault}, not {}: {}", said.reason, said.message);
        let sentence = &said.message;
        ensure!(
            sentence.contains(&host) && sentence.contains(&interface),
            "the sentence names {host}, {interface}: {sentence}"
        );
        ns.silent(address)?;
        ns.eventually("a Warning on the Service", || {
            let warnings =
                ns.events("web")?.into_iter().filter(|(kind, reason, _)| kind == "Warning" && reason == WARNING);
            Ok((warnings.count() > 0).then_some(()))
        })?;

        faults.heal(&fault)?;
        let after =
            ns.bed.wait_for(&format!("the address to be announced again after {fault}"), REPORTED_WITHIN, || {
                let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
                let announced = vip.announced().is_some_and(|condition| condition.status == "True");
                Ok(vip.status.filter(|_| announced))
            })?;
        let place = (after.node.as_deref(), after.interface.as_deref());
        ensure!(place == (Some(&*host), Some(&*interface)), "announced by {place:?} in round {}", round + 1);
        ns.reachable(address)?;
    }
    Ok(())
}
