//! All nodes carry the exclude label, as control planes do: no node announces, and the VirtualIP reports why. One
//! setting makes controller and speakers ignore the label (docs/install.md), and then every node announces an address
//! whose home it is.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use herald_crds::virtual_ip::AnnouncedReason;

use crate::testbed::{Expose, TestNamespace, install};

/// At most two for each of three nodes. One for each is enough if every speaker runs within the 0.2 s after which the
/// next in rank claims a new address.
const SERVICES: u8 = 6;

/// The ConfigMap with the setting (deploy/herald).
const SETTINGS: &str = "herald";

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let label = names::LABEL_EXCLUDE_NODE;
    ns.kubectl(&["label", "node", "--all", &format!("{label}=")])?;
    let result = try_each(ns);
    // The label and the setting are removed regardless of the result, for the next scenario.
    ns.kubectl(&["label", "node", "--all", &format!("{label}-")])?;
    ns.kubectl(&["delete", "configmap", "-n", install::NAMESPACE, SETTINGS, "--ignore-not-found"])?;
    install::restart(ns.bed.lab())?;
    result
}

fn try_each(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    ns.expose(&Expose::ours("before"))?;
    let address = ns.external_ip("before")?;
    let sentence = ns.eventually("the VirtualIP to report that no node may announce it", || {
        let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
        let condition = vip.announced().filter(|c| c.reason == AnnouncedReason::NoEligibleNode.as_str());
        Ok(condition.map(|condition| condition.message.clone()))
    })?;
    ensure!(sentence.contains("exclude label"), "the sentence names the label: {sentence}");

    let setting = "--from-literal=includeExcludedNodes=true";
    ns.kubectl(&["create", "configmap", "-n", install::NAMESPACE, SETTINGS, setting])?;
    install::restart(ns.bed.lab())?;
    ns.announcer(address)?;
    ns.reachable(address)?;
    let nodes: BTreeSet<_> = ns.bed.lab().nodes()?.iter().map(|node| node.name().to_owned()).collect();
    let (mut homes, mut at_home) = (Vec::new(), BTreeSet::new());
    for number in 1..=SERVICES {
        if at_home == nodes {
            break;
        }
        let name = format!("web{number}");
        ns.expose(&Expose::ours(&name))?;
        let address = ns.external_ip(&name)?;
        let announcer = ns.announcer(address)?;
        let home = ns.virtual_ip(address)?.and_then(|vip| vip.spec.home_node).context("a home")?;
        if announcer == home {
            at_home.insert(announcer.clone());
        }
        homes.push((address, home, announcer));
    }
    ensure!(at_home == nodes, "every node announces one whose home it is (address, home, announcer): {homes:?}");
    Ok(())
}
