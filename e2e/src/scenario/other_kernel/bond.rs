//! A node's network card and a second one become a bond (active-backup), which gets the addresses and carries a VLAN.
//! The port of the active card fails: the bond continues with the other one, so its addresses stay where they are, with
//! their link-layer address.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::links::{VlanLink, address_in, expose_at, ip, nobody_hears_itself, segments_become};
use crate::testbed::TestNamespace;
use herald_lab::cluster::{Host, Lab};
use herald_lab::fault::{Fault, Faults, Link};
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers};

const BOND: &str = "bond0";
const ID: u16 = 100;

/// A subnet that no host has at first.
const SUBNET: u8 = 42;

/// Upper bound for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let node = ns.bed.lab().nodes()?.into_iter().next().context("a node")?;
    let result = with_second_card(ns, &faults, &node);
    // The faults are healed regardless of the result, for the next scenario.
    faults.heal_all()?;
    result?;
    segments_become(ns, node.name(), &[node.interface(0)?])?;
    ns.every_node_ready(LIMIT)
}

fn with_second_card(ns: &TestNamespace<'_>, faults: &Faults<'_>, node: &Host) -> Result<()> {
    let number = faults.next_interface(node.name())?;
    let link = Link { host: node.name().to_owned(), segment: 0 };
    faults.inject(Fault::InterfaceAdded { link: link.clone(), number, address: None })?;
    let (first, second) = (node.interface(0)?, format!("eth{number}"));
    let bond = Bond::over(ns.bed.lab(), node, first, &second)?;
    segments_become(ns, node.name(), &[BOND])?;
    let client = ns.client()?;
    let of_client = VlanLink::add(&client, client.interface(0)?, ID, SUBNET)?;
    let on_bond = VlanLink::add(node, BOND, ID, SUBNET)?;
    segments_become(ns, node.name(), &[BOND, &on_bond.name])?;

    let (plain, tagged) = (ns.address(1), address_in(ns, SUBNET));
    ns.pool(&ns.namespace, &[plain.to_string(), tagged.to_string()])?;
    ns.advertise_from("In", node.name())?;
    ns.deploy_echo(1)?;
    for (name, address, interface) in [("plain", plain, BOND), ("tagged", tagged, &on_bond.name)] {
        expose_at(ns, name, address)?;
        ns.announced_on(address, node.name(), interface)?;
        ns.answered_by(address, node.name())?;
        ns.reachable(address)?;
    }

    let active = bond.active_port()?;
    ensure!(active == first, "{first} was the first card of {BOND}, and {active} is the active one");
    let probers = Probers { announcements: false, ..Probers::NEIGHBOUR };
    let mut watch = Probe::start(ns.bed.lab(), client.name(), &ProbeSpec::all([plain, tagged]).with(probers))?;
    watch.steady(LIMIT)?;
    faults.inject(Fault::Cut(link))?;
    ns.eventually(&format!("{second} to be the active port of {BOND}"), || {
        Ok((bond.active_port()? == second).then_some(()))
    })?;
    watch.steady_again(LIMIT)?;
    let report = watch.stop()?;
    let mac = Mac::from(node.mac(0)?);
    for (address, interface) in [(plain, BOND), (tagged, &on_bond.name)] {
        let seen = report.target(address).and_then(|target| target.neighbour.as_ref()).context("what was seen")?;
        let macs: Vec<_> = seen.macs.iter().map(|seen| seen.mac).collect();
        ensure!(macs == [mac], "{address} was answered by {macs:?}, and is {}'s ({mac})", node.name());
        let gap = seen.answers.gaps.max_ms;
        ns.bed.progress.step(format!("bond: {address} was unanswered for {gap:.0} ms while {first} failed"));
        ns.announced_on(address, node.name(), interface)?;
        ns.reachable(address)?;
    }
    nobody_hears_itself(ns)?;
    drop((on_bond, of_client, bond));
    Ok(())
}

/// A bond that replaces a host's first interface. Dropping it deletes the bond and gives the interface its addresses
/// back.
struct Bond<'a> {
    lab: &'a Lab,
    host: &'a Host,
    first: &'a str,
}

impl<'a> Bond<'a> {
    /// Creates the bond from two cards; the first one has the host's addresses and is the active one.
    fn over(lab: &'a Lab, host: &'a Host, first: &'a str, second: &str) -> Result<Self> {
        // miimon: the bond checks the link every 100 ms, as the kernel's bonding.rst recommends.
        ip(host, &format!("link add {BOND} type bond mode active-backup miimon 100"))?;
        let bond = Self { lab, host, first };
        ip(host, &format!("address flush dev {first}"))?;
        for card in [first, second] {
            ip(host, &format!("link set {card} down"))?;
            ip(host, &format!("link set {card} master {BOND}"))?;
        }
        lab.give_first_addresses(host, BOND)?;
        Ok(bond)
    }

    fn active_port(&self) -> Result<String> {
        let text = self.host.inside(|| {
            let file = format!("/proc/thread-self/net/bonding/{BOND}");
            std::fs::read_to_string(&file).context(file)
        })?;
        let line = text.lines().find_map(|line| line.strip_prefix("Currently Active Slave: "));
        line.map(ToOwned::to_owned).with_context(|| format!("{BOND} names no active port:\n{text}"))
    }
}

impl Drop for Bond<'_> {
    fn drop(&mut self) {
        let restored = ip(self.host, &format!("link delete {BOND}"))
            .and_then(|()| self.lab.give_first_addresses(self.host, self.first));
        if let Err(error) = restored {
            tracing::error!("{} does not get its interface {} back: {error:#}", self.host.name(), self.first);
        }
    }
}
