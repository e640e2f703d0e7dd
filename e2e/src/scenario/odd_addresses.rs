//! Addresses that no host may have are never assigned or adopted, and a condition reports them where a user looks
//! (docs/install.md).

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use ipnet::{IpNet, Ipv4Net};

use crate::testbed::waits::REPORTED_WITHIN;
use crate::testbed::{Expose, TestNamespace};
use herald_lab::cluster::plan::node_subnets;
use herald_lab::fault::{Fault, Faults, Link};

/// A subnet in which only a node's second interface has an address: six of its eight addresses are host addresses.
const SMALL: Ipv4Addr = Ipv4Addr::new(10, 40, 0, 0);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = try_each(ns, &faults);
    // The faults are healed regardless of the result, for the next scenario.
    faults.heal_all()?;
    result
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    ends_of_the_nodes_subnet(ns)?;
    first_of_an_ipv6_subnet(ns)?;
    small_subnet_of_a_second_interface(ns, faults)?;
    a_node_in_the_status(ns)
}

/// The nodes' subnet begins with its network address and ends with its broadcast address.
fn ends_of_the_nodes_subnet(ns: &TestNamespace<'_>) -> Result<()> {
    let (subnet, _) = node_subnets(0);
    for (what, odd) in [("network", subnet.network()), ("broadcast", subnet.broadcast())] {
        ns.pool(what, &[odd.to_string()])?;
        let sentence = overlaps(ns, what, &format!("the {what} address of {}", subnet.trunc()))?;
        ensure!(sentence.contains(&odd.to_string()), "the sentence names {odd}: {sentence}");
        let from_pool = format!("{{{}: {what}}}", names::ANNOTATION_POOL);
        ns.expose(&Expose { annotations: &from_pool, ..Expose::ours(what) })?;
        ns.refusal(what, "PoolFull")?;
        let by_name = format!("{{{}: {odd}}}", names::ANNOTATION_ADDRESSES);
        ns.expose(&Expose { annotations: &by_name, ..Expose::ours(what) })?;
        let refused = ns.refusal(what, "AddressReserved")?;
        ensure!(refused.contains(&format!("the {what} address of {}", subnet.trunc())), "the reason: {refused}");
        ensure!(ns.virtual_ip(odd.into())?.is_none(), "no node may announce {odd}");
    }
    Ok(())
}

/// The first address of an IPv6 subnet is the anycast address of all its routers, and every node forwards (RFC 4291,
/// 2.6.1).
fn first_of_an_ipv6_subnet(ns: &TestNamespace<'_>) -> Result<()> {
    let (_, subnet) = node_subnets(0);
    let first = subnet.network();
    ns.pool("routers", &[format!("{first}/126")])?;
    overlaps(ns, "routers", &format!("the subnet-router anycast address of {}", subnet.trunc()))?;
    let from_pool = format!("{{{}: routers}}", names::ANNOTATION_POOL);
    ns.expose(&Expose { annotations: &from_pool, spec: "ipFamilies: [IPv6],", ..Expose::ours("routers") })?;
    let next = IpAddr::from(std::net::Ipv6Addr::from_bits(first.to_bits() + 1));
    let given = ns.external_ip("routers")?;
    ensure!(given == next, "the Service got {given}, not {next}");
    Ok(())
}

/// A second interface of a node has a subnet of its own: both ends of it and the address of the interface are skipped,
/// the other addresses are assigned.
fn small_subnet_of_a_second_interface(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    let node = ns.bed.lab().nodes()?.into_iter().next().context("a node")?;
    let host = |low| Ipv4Addr::from_bits(SMALL.to_bits() + low);
    let (own, small) = (IpNet::from(Ipv4Net::new(host(2), 29)?), Ipv4Net::new(SMALL, 29)?);
    let number = faults.next_interface(node.name())?;
    let link = Link { host: node.name().to_owned(), segment: 0 };
    faults.inject(Fault::InterfaceAdded { link, number, address: Some(own) })?;
    ns.pool("small", &[small.to_string()])?;
    let sentence = overlaps(ns, "small", &format!("the broadcast address of {small}"))?;
    ensure!(sentence.contains(&format!("the network address of {small}")), "both ends: {sentence}");
    let owner = format!("status.links of SpeakerStatus {}", node.name());
    ensure!(sentence.contains(&owner), "{own} is a node's, though no Node lists it: {sentence}");

    let free = [1, 3, 4, 5, 6].map(|low| IpAddr::from(host(low)));
    let from_pool = format!("{{{}: small}}", names::ANNOTATION_POOL);
    for address in free {
        let name = format!("small-{}", address.to_string().replace('.', "-"));
        ns.expose(&Expose { annotations: &from_pool, ..Expose::ours(&name) })?;
        let given = ns.external_ip(&name)?;
        ensure!(given == address, "the Service got {given}, not {address}");
    }
    ns.expose(&Expose { annotations: &from_pool, ..Expose::ours("small-none") })?;
    ns.refusal("small-none", "PoolFull").map(drop)
}

/// A provider that publishes nodes' addresses (k3s ServiceLB) has left one in the status: Herald neither adopts nor
/// overwrites it. When the status is emptied, the Service gets an address of its own.
fn a_node_in_the_status(ns: &TestNamespace<'_>) -> Result<()> {
    let lab = ns.bed.lab();
    let node = lab.nodes()?.into_iter().next().context("a node")?;
    let theirs = *node.addresses(0).first().context("an address of the node")?;
    let from_pool = format!("{{{}: nodes}}", names::ANNOTATION_POOL);
    ns.expose(&Expose { annotations: &from_pool, ..Expose::ours("legacy") })?;
    let show = |ingress: serde_json::Value| {
        let patch = serde_json::json!({"status": {"loadBalancer": {"ingress": ingress}}}).to_string();
        ns.kubectl_here(&["patch", "service", "legacy", "--subresource=status", "--type=merge", "-p", &patch])
    };
    show(serde_json::json!([{"ip": theirs.to_string()}]))?;
    ns.pool("nodes", &[theirs.to_string(), ns.range(1, 9)])?;
    let sentence = ns.refusal("legacy", "AddressNotAdopted")?;
    ensure!(sentence.contains(&format!("Node {}", node.name())), "the sentence names the node: {sentence}");
    ensure!(ns.ingress("legacy")? == [theirs], "the other provider's status stays");
    ensure!(ns.virtual_ip(theirs)?.is_none(), "no node may announce {theirs}");

    show(serde_json::json!([]))?;
    let given = ns.external_ip("legacy")?;
    ensure!(given == ns.address(1), "the Service got {given}, not the pool's first free address");
    Ok(())
}

/// Waits until the pool reports with this reason that some of its addresses are excluded, and returns the message. The
/// reason may come from a SpeakerStatus alone.
fn overlaps(ns: &TestNamespace<'_>, pool: &str, why: &str) -> Result<String> {
    ns.bed.wait_for(&format!("pool {pool} to report {why:?}"), REPORTED_WITHIN, || {
        let (reason, sentence) = ns.pool_condition(pool, names::CONDITION_ACCEPTED, "True")?;
        Ok((reason == "Overlaps" && sentence.contains(why)).then_some(sentence))
    })
}
