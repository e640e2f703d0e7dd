//! All nodes carry the exclude label, as control planes do: nobody announces, and says why; one setting lets controller and
//! speakers alike disregard it (docs/install.md), and every node announces an address whose home it is.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use herald_crds::virtual_ip::AnnouncedReason;

use super::{Expose, Scene, install};

/// Two for each node of three, at most: one for each does if no speaker is kept from running for the 0.2 s after which the next
/// in rank claims a new address.
const SERVICES: u8 = 6;

/// The ConfigMap with the setting (deploy/herald).
const SETTINGS: &str = "herald";

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let label = names::LABEL_EXCLUDE_NODE;
    scene.kubectl(&["label", "node", "--all", &format!("{label}=")])?;
    let result = try_each(scene);
    // Whatever was found, the next scenario gets a whole cluster.
    scene.kubectl(&["label", "node", "--all", &format!("{label}-")])?;
    scene.kubectl(&["delete", "configmap", "-n", install::NAMESPACE, SETTINGS, "--ignore-not-found"])?;
    install::restart(scene.bed.lab())?;
    result
}

fn try_each(scene: &Scene<'_>) -> Result<()> {
    scene.pool(&scene.namespace, &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    scene.expose(&Expose::ours("before"))?;
    let address = scene.external_ip("before")?;
    let sentence = scene.eventually("the VirtualIP to say that no node may announce it", || {
        let vip = scene.virtual_ip(address)?.context("the VirtualIP")?;
        let condition = vip.announced().filter(|c| c.reason == AnnouncedReason::NoEligibleNode.as_str());
        Ok(condition.map(|condition| condition.message.clone()))
    })?;
    ensure!(sentence.contains("exclude label"), "it names the label: {sentence}");

    let setting = "--from-literal=includeExcludedNodes=true";
    scene.kubectl(&["create", "configmap", "-n", install::NAMESPACE, SETTINGS, setting])?;
    install::restart(scene.bed.lab())?;
    scene.announcer(address)?;
    scene.reachable(address)?;
    let nodes: BTreeSet<_> = scene.bed.lab().nodes()?.iter().map(|node| node.name().to_owned()).collect();
    let (mut homes, mut at_home) = (Vec::new(), BTreeSet::new());
    for number in 1..=SERVICES {
        if at_home == nodes {
            break;
        }
        let name = format!("web{number}");
        scene.expose(&Expose::ours(&name))?;
        let address = scene.external_ip(&name)?;
        let announcer = scene.announcer(address)?;
        let home = scene.virtual_ip(address)?.and_then(|vip| vip.spec.home_node).context("a home")?;
        if announcer == home {
            at_home.insert(announcer.clone());
        }
        homes.push((address, home, announcer));
    }
    ensure!(at_home == nodes, "every node announces one whose home it is (address, home, announcer): {homes:?}");
    Ok(())
}
