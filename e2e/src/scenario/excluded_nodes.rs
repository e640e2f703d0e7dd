//! All nodes carry the exclude label, as control planes do: nobody announces, and says why; one setting lets controller and
//! speakers alike disregard it (docs/install.md), and each address is announced by its home.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use herald_crds::virtual_ip::AnnouncedReason;

use super::{Expose, Scene, install};

/// Two for each node of three.
const SERVICES: usize = 6;

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
    let mut homes: BTreeMap<String, usize> = BTreeMap::new();
    for number in 1..=SERVICES {
        let name = format!("web{number}");
        scene.expose(&Expose::ours(&name))?;
        let address = scene.external_ip(&name)?;
        let announcer = scene.announcer(address)?;
        let home = scene.virtual_ip(address)?.and_then(|vip| vip.spec.home_node).context("a home")?;
        ensure!(announcer == home, "{address} is at home on {home}, and announced by {announcer}");
        *homes.entry(home).or_default() += 1;
    }
    let nodes = scene.bed.lab().nodes()?.len();
    ensure!(homes.len() == nodes, "every node is the home of some: {homes:?}");
    Ok(())
}
