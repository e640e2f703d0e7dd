//! A node's kernel has a Service's address, as when another provider assigns it to a NIC. If another node announces the
//! address, one report names the node that answers, and the address stays where it is. If the node is the only one that
//! may announce the address, it reports that it has the address itself.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use herald_crds::names;
use herald_crds::virtual_ip::AnnouncedReason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::testbed::audit_log::{AuditLog, Request};
use crate::testbed::{Expose, TestNamespace, waits};
use herald_lab::cluster::Host;
use herald_lab::fault::{Fault, Faults, Link};
use herald_lab::probe::frame::arp_request;
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers};

/// Time from the assignment of the address to the other kernel until the status reports it. No frame on the wire
/// announces the address: the speaker on that node sees it.
const REPORTED_WITHIN: Duration = Duration::from_secs(5);

/// Duration of the conflict while writes are counted.
const GOES_ON: Duration = Duration::from_secs(30);

/// Interval between announcements of the node that took the address: keepalived and kube-vip repeat theirs.
const ANNOUNCED_EVERY: Duration = Duration::from_secs(2);

/// Two status writes for the conflict and its changed message, an Event and one update of it; and from the controller
/// the Service's condition, which names the node that has the address, and its Event. The bound detects a write for
/// each announcement, which would be fifteen.
const MOST_WRITES: usize = 6;

/// Reason of the Warning from the speaker that announces the address.
const CONFLICT_WARNING: &str = "AnsweredByClusterNode";

/// Reason of the Warning from the controller, which knows the links of the nodes.
const RESERVED_WARNING: &str = "ReservedAddress";

/// A conflict is over when no other host has claimed the address for 60 s (CONFLICT_OVER,
/// speaker/src/coordinator/address_state.rs); the rest is a margin for a busy machine.
const OVER_WITHIN: Duration = Duration::from_secs(75);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, owner) = ns.announced_service(1)?;
    // This event is the last write about the Service before the conflict.
    ns.told_once("web", "EnsuredLoadBalancer")?;
    let lab = ns.bed.lab();
    let other = lab.nodes()?.into_iter().find(|node| node.name() != owner).context("another node")?;
    let faults = Faults::of(lab);
    let taken = takes(&other, address);
    let log = AuditLog::from_now(&lab.audit_log())?;
    faults.inject(taken.clone())?;
    let result = conflict(ns, log, address, &owner, &other);
    // Only this fault is healed, regardless of the result: other scenarios may run at the same time.
    faults.heal(&taken)?;
    result?;
    ns.bed.wait_for("the conflict to be over", OVER_WITHIN, || {
        Ok(conflict_of(ns, address)?.filter(|condition| condition.status == "False").map(drop))
    })?;
    ns.answered_by(address, &owner)?;
    ns.reachable(address)?;
    Ok(())
}

fn conflict(ns: &TestNamespace<'_>, mut log: AuditLog, address: IpAddr, owner: &str, other: &Host) -> Result<()> {
    let IpAddr::V4(ip) = address else { bail!("{address} is not IPv4") };
    let found = ns.bed.wait_for("the VirtualIP to report the conflict", REPORTED_WITHIN, || {
        Ok(conflict_of(ns, address)?.filter(|condition| condition.status == "True"))
    })?;
    ensure!(found.reason == AnnouncedReason::AnsweredByClusterNode.as_str(), "the reason of {found:?}");
    ensure!(found.message.contains(other.name()), "it names {}: {}", other.name(), found.message);
    still_announced(ns, address, owner)?;

    let faults = Faults::of(ns.bed.lab());
    let begun = Instant::now();
    while begun.elapsed() < GOES_ON {
        // The pause is the interval of the other node's announcements, not a wait for a condition.
        std::thread::sleep(ANNOUNCED_EVERY);
        announces(&faults, other, ip)?;
    }
    // The controller learns of the address from a SpeakerStatus, whose next write may be delayed after frequent ones.
    ns.bed.wait_for("the Warnings of the conflict", waits::REPORTED_WITHIN, || {
        let told = ns.events("web")?;
        let has = |wanted: &str| told.iter().any(|(_, reason, _)| reason == wanted);
        Ok((has(CONFLICT_WARNING) && has(RESERVED_WARNING)).then_some(()))
    })?;
    let about = |write: &Request| write.name == address.to_string() || write.namespace == ns.namespace;
    let writes: Vec<_> = log.writes()?.iter().filter(|write| about(write)).map(ToString::to_string).collect();
    ensure!(writes.len() <= MOST_WRITES, "{} writes about one conflict: {writes:#?}", writes.len());
    still_announced(ns, address, owner)?;
    let warnings: Vec<_> = ns.events("web")?.into_iter().filter(|(kind, ..)| kind == "Warning").collect();
    let mut reasons: Vec<&str> = warnings.iter().map(|(_, reason, _)| reason.as_str()).collect();
    reasons.sort_unstable();
    // One Warning from the speaker, which saw the frames on the wire, and one from the controller, which knows the
    // nodes' links.
    ensure!(reasons == [CONFLICT_WARNING, RESERVED_WARNING], "the Warnings of one conflict: {warnings:?}");
    let named = warnings.iter().filter(|(.., note)| note.contains(other.name())).count();
    ensure!(named == warnings.len(), "they name {}: {warnings:?}", other.name());
    Ok(())
}

/// The address is on a NIC of the only node that may announce it before any node has announced it: that node does not
/// announce it and reports why. Once the address is removed from the NIC, the node announces it.
pub(super) fn own(ns: &TestNamespace<'_>) -> Result<()> {
    let address = ns.address(1);
    let node = ns.bed.lab().nodes()?.into_iter().next().context("a node")?;
    ns.pool(&ns.namespace, &[address.to_string()])?;
    // The controller assigns no address that a node has, so the node takes it afterwards.
    ns.advertise_from("In", "nowhere")?;
    ns.deploy_echo(1)?;
    ns.expose(&Expose::ours("web"))?;
    ensure!(ns.external_ip("web")? == address, "the Service gets the pool's only address");
    let faults = Faults::of(ns.bed.lab());
    let has = takes(&node, address);
    faults.inject(has.clone())?;
    let result = not_announced(ns, address, &node);
    faults.heal(&has)?;
    result?;
    ensure!(ns.announcer(address)? == node.name(), "{} alone may announce it", node.name());
    ns.answered_by(address, node.name())?;
    ns.reachable(address)?;
    Ok(())
}

fn not_announced(ns: &TestNamespace<'_>, address: IpAddr, node: &Host) -> Result<()> {
    let recorder = Probers { neighbour: false, ..Probers::NEIGHBOUR };
    let recording = Probe::start(ns.bed.lab(), ns.client()?.name(), &ProbeSpec::all([address]).with(recorder))?;
    ns.advertise_from("In", node.name())?;
    let sentence = ns.eventually("the VirtualIP to report that the node has the address itself", || {
        let vip = ns.virtual_ip(address)?;
        let condition = vip.as_ref().and_then(|vip| vip.announced()).filter(|condition| condition.status == "False");
        Ok(condition.filter(|condition| condition.message.contains(node.name())).map(|c| c.message.clone()))
    })?;
    let said = recording.stop()?.announcements;
    ensure!(said.is_empty(), "it was announced all the same, while its status said {sentence:?}: {said:?}");
    Ok(())
}

fn takes(host: &Host, address: IpAddr) -> Fault {
    Fault::AddressAdded { link: Link { host: host.name().to_owned(), segment: 0 }, address: address.into() }
}

/// Sends the announcement of a host that has just taken the address (RFC 5227 section 2.3).
fn announces(faults: &Faults<'_>, host: &Host, ip: Ipv4Addr) -> Result<()> {
    faults.send_frame(host.name(), host.interface(0)?, &arp_request(Mac::from(host.mac(0)?), ip, ip))
}

fn conflict_of(ns: &TestNamespace<'_>, address: IpAddr) -> Result<Option<Condition>> {
    let conditions = ns.virtual_ip(address)?.and_then(|vip| vip.status).map(|status| status.conditions);
    Ok(conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == names::CONDITION_CONFLICT))
}

/// Checks that the status names the owner as the announcing node, and that the owner answers.
fn still_announced(ns: &TestNamespace<'_>, address: IpAddr, owner: &str) -> Result<()> {
    let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
    let announced = vip.announced().is_some_and(|condition| condition.status == "True");
    let node = vip.status.and_then(|status| status.node);
    ensure!(announced && node.as_deref() == Some(owner), "{owner} announced it, and now {node:?} does ({announced})");
    let mac = Mac::from(ns.bed.lab().host(owner)?.mac(0)?);
    let answering = ns.who_has(address)?;
    ensure!(answering.contains(&mac), "{owner} ({mac}) answers no longer, but {answering:?}");
    Ok(())
}
