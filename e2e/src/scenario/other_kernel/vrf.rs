//! An interface that belongs to a VRF still receives its frames, so an address of its subnet is announced on it.
//!
//! Whether traffic gets from the VRF to a pod depends on the node's routes and is not checked.

use anyhow::{Context, Result, ensure};
use herald_crds::speaker_status::LinkUse;

use super::links::{VlanLink, address_in, expose_at, ip, nobody_hears_itself, report_of, segments_become};
use crate::testbed::TestNamespace;
use herald_lab::cluster::Host;

const ID: u16 = 200;

/// A subnet that no host has at first.
const SUBNET: u8 = 41;

const VRF: &str = "blue";

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let node = ns.bed.lab().nodes()?.into_iter().next().context("a node")?;
    let client = ns.client()?;
    let _of_client = VlanLink::add(&client, client.interface(0)?, ID, SUBNET)?;
    let vrf = Vrf::add(&node)?;
    let member = VlanLink::add(&node, node.interface(0)?, ID, SUBNET)?;
    ip(&node, &format!("link set {} master {VRF}", member.name))?;
    let result = announced_in_it(ns, &node, &member.name);
    drop((member, vrf));
    result?;
    segments_become(ns, node.name(), &[node.interface(0)?])
}

fn announced_in_it(ns: &TestNamespace<'_>, node: &Host, member: &str) -> Result<()> {
    segments_become(ns, node.name(), &[node.interface(0)?, member])?;
    let address = address_in(ns, SUBNET);
    ns.pool(&ns.namespace, &[address.to_string()])?;
    ns.deploy_echo(1)?;
    expose_at(ns, "web", address)?;
    ns.announced_on(address, node.name(), member)?;
    ns.answered_by(address, node.name())?;
    nobody_hears_itself(ns)?;
    let links = report_of(ns, node.name())?.links;
    let listed = links.iter().find(|link| link.interface == member).context("the member among the links")?;
    ensure!(listed.link_use == LinkUse::Segment, "{member} belongs to a VRF and is listed as {listed:?}");
    Ok(())
}

/// A VRF on a host; dropping it deletes the VRF.
struct Vrf(Host);

impl Vrf {
    fn add(host: &Host) -> Result<Self> {
        ip(host, &format!("link add {VRF} type vrf table {ID}"))?;
        let vrf = Self(host.clone());
        ip(host, &format!("link set {VRF} up"))?;
        Ok(vrf)
    }
}

impl Drop for Vrf {
    fn drop(&mut self) {
        if let Err(error) = ip(&self.0, &format!("link delete {VRF}")) {
            tracing::error!("the VRF stays on {}: {error:#}", self.0.name());
        }
    }
}
