//! Controller and speakers are restarted with 20 Services in place: no write changes an object, and no address changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use herald_crds::{AddressPool, SpeakerStatus};
use k8s_openapi::api::core::v1::Service;
use kube::{Resource, ResourceExt};

use crate::testbed::{Expose, TestNamespace, install};
use herald_lab::probe::Mac;

const SERVICES: u8 = 20;

/// Maximum number of new Services after the restart.
const NEW_SERVICES: u8 = 8;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("restart", &[ns.range(1, 40)])?;
    ns.deploy_echo(1)?;
    let names: Vec<String> = (1..=SERVICES).map(|n| format!("web{n}")).collect();
    for name in &names {
        ns.expose(&Expose::ours(name))?;
    }
    for name in &names {
        let address = ns.external_ip(name)?;
        ns.announcer(address)?;
    }
    // The pool's counts follow within about a second; afterwards nothing is left to write.
    ns.eventually("the pool to count 20", || {
        let pool: AddressPool = ns.get_cluster("restart")?.context("the pool")?;
        let assigned = pool.status.and_then(|s| s.ipv4).map(|u| u.assigned);
        Ok((assigned.as_deref() == Some("20")).then_some(()))
    })?;
    // Nothing may be left either of what earlier scenarios did to speakers.
    ns.speakers_say_all_is_well()?;
    let before = versions(ns)?;
    let macs = answered(ns, &names)?;

    install::restart(ns.bed.lab())?;
    // New Services that are served on each node prove that the controller and every speaker have caught up: they are
    // balanced over the nodes. 20 Services on three nodes make 7, 7 and 6, so four new ones are enough unless a speaker
    // was kept from running for 0.2 s and left an address to the next node.
    let nodes: BTreeSet<_> = ns.bed.lab().nodes()?.iter().map(|node| node.name().to_owned()).collect();
    let mut heard = BTreeSet::new();
    for number in 1..=NEW_SERVICES {
        if heard == nodes {
            break;
        }
        let name = format!("new{number}");
        ns.expose(&Expose::ours(&name))?;
        let address = ns.external_ip(&name)?;
        let node = ns.announcer(address)?;
        ns.answered_by(address, &node)?;
        heard.insert(node);
    }
    ensure!(heard == nodes, "every node announces one of the new addresses: {heard:?}");

    let mut after = versions(ns)?;
    after.retain(|object, _| before.contains_key(object));
    // The pool's counts have changed with the new Services.
    let but_the_pool = |all: BTreeMap<String, String>| -> BTreeMap<String, String> {
        all.into_iter().filter(|(object, _)| !object.starts_with("AddressPool")).collect()
    };
    let (before, after) = (but_the_pool(before), but_the_pool(after));
    let changed: Vec<_> = before.iter().filter(|(object, version)| after.get(*object) != Some(version)).collect();
    ensure!(changed.is_empty(), "written by a restart: {changed:?}");
    let now = answered(ns, &names)?;
    ensure!(now == macs, "announced by {now:?}, before by {macs:?}");
    Ok(())
}

/// Waits until each Service's address is answered, and returns every MAC that answered meanwhile. An address without
/// any answer means that the machine is busy, so the addresses are solicited again.
fn answered(ns: &TestNamespace<'_>, names: &[String]) -> Result<BTreeMap<IpAddr, BTreeSet<Mac>>> {
    let addresses: Vec<IpAddr> = names.iter().map(|name| ns.external_ip(name)).collect::<Result<_>>()?;
    let mut answering: BTreeMap<IpAddr, BTreeSet<Mac>> = BTreeMap::new();
    ns.eventually("an answer for each address", || {
        for (address, macs) in ns.who_have(&addresses)? {
            answering.entry(address).or_default().extend(macs);
        }
        Ok(answering.values().all(|macs| !macs.is_empty()).then_some(()))
    })?;
    Ok(answering)
}

/// Returns the resourceVersion of every object that Herald could have written.
fn versions(ns: &TestNamespace<'_>) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    record(&mut versions, ns.list::<Service>()?);
    record(&mut versions, ns.virtual_ips()?);
    record(&mut versions, ns.list_cluster::<AddressPool>()?);
    record(&mut versions, ns.list_cluster::<SpeakerStatus>()?);
    let kinds: BTreeSet<_> = versions.keys().filter_map(|k| k.split('/').next()).collect();
    ensure!(kinds.len() == 4, "something to compare of each kind: {kinds:?}");
    Ok(versions)
}

fn record<K: Resource<DynamicType = ()>>(versions: &mut BTreeMap<String, String>, objects: Vec<K>) {
    for object in objects {
        let key = format!("{}/{}", K::kind(&()), object.name_any());
        versions.insert(key, object.resource_version().unwrap_or_default());
    }
}
