//! The speakers' options for unusual networks (docs/networks.md): repeated announcements in both forms of ARP, no probe
//! before the first claim, and promiscuous interfaces.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::names;

use crate::testbed::{Expose, TestNamespace, install};
use herald_lab::cluster::netns;
use herald_lab::fault::{Fault, Faults, Link};
use herald_lab::probe::{AnnouncementKind, Mac, Probe, ProbeSpec, Probers};

const OPTIONS: [&str; 4] = [
    "HERALD_ANNOUNCE_EVERY=1s",
    "HERALD_ANNOUNCE_WITH_REPLY=true",
    "HERALD_FIRST_CLAIM_PROBE=false",
    "HERALD_PROMISCUOUS=true",
];

/// Time for which the client listens: seven refreshes fit in this time.
const LISTEN: Duration = Duration::from_secs(8);

/// The minimum of refreshes, as one may be late. The initial announcements of a new address alone are at most four
/// more.
const REFRESHES: usize = 6;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = speakers_with(ns, OPTIONS.map(str::to_owned)).and_then(|()| try_each(ns, &faults));
    // The cluster is restored regardless of the result, for the next scenario.
    faults.heal_all()?;
    let unset = OPTIONS.map(|option| option.split('=').next().map(|name| format!("{name}-")).unwrap_or_default());
    speakers_with(ns, unset)?;
    result
}

/// Rolls out the speakers with variables set (`NAME=value`) or unset (`NAME-`).
fn speakers_with(ns: &TestNamespace<'_>, variables: [String; 4]) -> Result<()> {
    let mut command = vec!["set", "env", "-n", install::NAMESPACE, "daemonset/herald-speaker"];
    command.extend(variables.iter().map(String::as_str));
    ns.kubectl(&command)?;
    install::wait_for_rollout(ns.bed.lab())
}

fn try_each(ns: &TestNamespace<'_>, faults: &Faults<'_>) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    let host = ns.bed.lab().host(&node)?;
    announced_again(ns, address, Mac::from(host.mac(0)?))?;

    let shown =
        netns::output_of(host.net_command("ip").args(["-details", "-json", "link", "show", host.interface(0)?]))?;
    let links: serde_json::Value = serde_json::from_str(&shown).context("reading `ip -details -json link`")?;
    let listeners = links.pointer("/0/promiscuity").and_then(serde_json::Value::as_u64);
    ensure!(listeners > Some(0), "{node}'s interface is not promiscuous:\n{shown}");

    // A host has the next address. The speaker must not probe it, as in a network where a proxy answers for all
    // addresses.
    let taken = ns.address(2);
    let stranger = ns.bed.lab().clients()?.into_iter().nth(1).context("a second client")?;
    let link = Link { host: stranger.name().to_owned(), segment: 0 };
    faults.inject(Fault::AddressAdded { link, address: taken.into() })?;
    let annotations = format!("{{{}: {:?}}}", names::ANNOTATION_ADDRESSES, taken.to_string());
    ns.expose(&Expose { annotations: &annotations, ..Expose::ours("second") })?;
    ensure!(ns.external_ip("second")? == taken, "the address is given to the Service that asks for it");
    ns.announcer(taken).context("it is announced without asking").map(drop)
}

/// Listens for announcements, starting with the first one.
fn announced_again(ns: &TestNamespace<'_>, address: IpAddr, mac: Mac) -> Result<()> {
    let spec = ProbeSpec::all([address]).with(Probers { neighbour: false, ..Probers::NEIGHBOUR });
    let recording = Probe::start(ns.bed.lab(), ns.client()?.name(), &spec)?;
    // The scenario counts the announcements within a fixed time, so there is no condition to wait for.
    std::thread::sleep(LISTEN);
    let heard = recording.stop()?.announcements;
    for kind in [AnnouncementKind::ArpRequest, AnnouncementKind::ArpReply] {
        let said = heard.iter().find(|heard| heard.kind == kind && heard.address == address && heard.mac == mac);
        let count = said.map_or(0, |said| said.count);
        ensure!(count >= REFRESHES, "{count} announcements as {kind:?}, not {REFRESHES}: {heard:?}");
    }
    Ok(())
}
