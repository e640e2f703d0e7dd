//! kube-proxy in IPVS mode assigns every Service's address to kube-ipvs0 of every node. With strictARP the kernels do
//! not answer for these addresses; without it all nodes answer, and the speaker warns of that.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use herald_crds::speaker_status::WarningKind;

use super::links::report_of;
use crate::testbed::TestNamespace;
use herald_lab::cluster::{Host, ProxyMode, netns};
use herald_lab::probe::Mac;

/// The settings of strictARP: kube-proxy writes both when it starts and never afterwards (kubernetes,
/// pkg/proxy/ipvs/proxier.go, NewProxier), so `strictARP: false` leaves the kernel's defaults.
const STRICT: [(&str, &str); 2] = [("arp_ignore", "1"), ("arp_announce", "2")];
const DEFAULT: [(&str, &str); 2] = [("arp_ignore", "0"), ("arp_announce", "0")];

/// The link that holds the addresses.
const HOLDER: &str = "kube-ipvs0";

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let proxy = ns.bed.lab().spec().proxy;
    ensure!(proxy == ProxyMode::Ipvs, "kube-proxy is in mode {proxy} here: `herald-lab up --proxy ipvs`");
    let (address, announcer) = ns.announced_service(1)?;
    let nodes = ns.bed.lab().nodes()?;
    for node in &nodes {
        ns.eventually(&format!("{HOLDER} of {} to have {address}", node.name()), || {
            Ok(holds(node, address)?.then_some(()))
        })?;
        for (setting, value) in STRICT {
            let found = node.inside(|| Ok(std::fs::read_to_string(file_of(setting))?))?;
            ensure!(found.trim() == value, "{setting} of {} is {}, with strictARP", node.name(), found.trim());
        }
        warned(ns, node, false)?;
    }
    ns.answered_by(address, &announcer)?;
    ns.reachable(address)?;

    let result = without_it(ns, &nodes, address);
    // The settings are restored regardless of the result, for the next scenario.
    for node in &nodes {
        set(node, STRICT)?;
    }
    result?;
    for node in &nodes {
        warned(ns, node, false)?;
    }
    ns.answered_by(address, &ns.announcer(address)?)?;
    ns.reachable(address)?;
    Ok(())
}

fn without_it(ns: &TestNamespace<'_>, nodes: &[Host], address: IpAddr) -> Result<()> {
    let mut all = Vec::new();
    for node in nodes {
        set(node, DEFAULT)?;
        all.push(Mac::from(node.mac(0)?));
    }
    ns.eventually(&format!("every node to answer for {address}"), || {
        let answering = ns.who_has(address)?;
        Ok(all.iter().all(|mac| answering.contains(mac)).then_some(()))
    })?;
    nodes.iter().try_for_each(|node| warned(ns, node, true))
}

/// Waits until the node's speaker warns of arp_ignore, or no longer does.
fn warned(ns: &TestNamespace<'_>, node: &Host, wanted: bool) -> Result<()> {
    let what = if wanted { "to warn" } else { "not to warn" };
    ns.eventually(&format!("the speaker of {} {what} of arp_ignore", node.name()), || {
        let warnings = report_of(ns, node.name())?.warnings;
        let found = warnings.iter().any(|warning| warning.kind == WarningKind::ArpIgnore);
        Ok((found == wanted).then_some(()))
    })
}

fn holds(node: &Host, address: IpAddr) -> Result<bool> {
    let listed = netns::output_of(node.net_command("ip").args(["-oneline", "address", "show", "dev", HOLDER]))?;
    let wanted = format!("{address}/32");
    Ok(listed.split_whitespace().any(|word| word == wanted))
}

fn set(node: &Host, settings: [(&'static str, &'static str); 2]) -> Result<()> {
    node.inside(|| {
        for (setting, value) in settings {
            let file = file_of(setting);
            std::fs::write(&file, value).with_context(|| format!("{} of {}", file.display(), node.name()))?;
        }
        Ok(())
    })
}

/// Returns the file of a setting, which belongs to the network namespace of the thread that opens it.
fn file_of(setting: &str) -> std::path::PathBuf {
    Path::new("/proc/sys/net/ipv4/conf/all").join(setting)
}
