//! Links that a scenario creates on hosts, and what speakers report about them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use herald_crds::speaker_status::{SpeakerStatusStatus, WarningKind};
use herald_crds::{SpeakerStatus, names};

use crate::testbed::{Expose, TestNamespace};
use herald_lab::cluster::{Host, Role, netns};
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers};

/// Runs `ip` in a host's network.
pub(super) fn ip(host: &Host, arguments: &str) -> Result<()> {
    netns::run(host.net_command("ip").args(arguments.split_whitespace()))
}

/// A VLAN's link on a host.
pub(super) struct VlanLink {
    host: Host,
    pub(super) name: String,
}

impl VlanLink {
    /// Creates the link on a host's interface, with an address of 10.`subnet`.0.0/16.
    pub(super) fn add(host: &Host, parent: &str, id: u16, subnet: u8) -> Result<Self> {
        let name = format!("{parent}.{id}");
        ip(host, &format!("link add link {parent} name {name} type vlan id {id}"))?;
        let link = Self { host: host.clone(), name };
        // The last octet is the host's on every network. Clients are numbered like nodes, so they get an offset outside
        // the nodes' range.
        let [.., low] = first_ipv4(host)?.octets();
        let low = if matches!(host.role(), Role::Client(_)) { low + CLIENTS_FROM } else { low };
        ip(host, &format!("address add 10.{subnet}.0.{low}/16 dev {}", link.name))?;
        ip(host, &format!("link set {} up", link.name))?;
        Ok(link)
    }
}

impl Drop for VlanLink {
    /// Deletes the link regardless of the result of the scenario, for the next one.
    fn drop(&mut self) {
        // The link may have been deleted together with its bond.
        if let Err(error) = ip(&self.host, &format!("link delete {}", self.name)) {
            tracing::debug!("{error:#}");
        }
    }
}

/// Offset of the clients' addresses to those of nodes, in a subnet that both have.
const CLIENTS_FROM: u8 = 100;

fn first_ipv4(host: &Host) -> Result<Ipv4Addr> {
    let addresses = host.addresses(0);
    let found = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    found.with_context(|| format!("{} has no IPv4 address on lan0", host.name()))
}

/// Returns the address of a scenario in 10.`subnet`.0.0/16.
pub(super) fn address_in(ns: &TestNamespace<'_>, subnet: u8) -> IpAddr {
    Ipv4Addr::new(10, subnet, ns.block(), 1).into()
}

/// Creates a Service that requests this address, which must be in the scenario's pool.
pub(super) fn expose_at(ns: &TestNamespace<'_>, name: &str, address: IpAddr) -> Result<()> {
    let annotations = format!("{{{}: \"{address}\"}}", names::ANNOTATION_ADDRESSES);
    ns.expose(&Expose { annotations: &annotations, ..Expose::ours(name) })?;
    let given = ns.external_ip(name)?;
    ensure!(given == address, "Service {name} asks for {address} and got {given}");
    Ok(())
}

/// Returns the report of a node's speaker.
pub(super) fn report_of(ns: &TestNamespace<'_>, node: &str) -> Result<SpeakerStatusStatus> {
    Ok(ns.get_cluster::<SpeakerStatus>(node)?.and_then(|speaker| speaker.status).unwrap_or_default())
}

/// Waits until a node's speaker lists exactly these interfaces as segments.
pub(super) fn segments_become(ns: &TestNamespace<'_>, node: &str, wanted: &[&str]) -> Result<()> {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let mut last = SpeakerStatusStatus::default();
    let waited = ns.eventually(&format!("the segments of {node} to be {wanted:?}"), || {
        last = report_of(ns, node)?;
        let listed: BTreeSet<String> = last.segments.iter().map(|segment| segment.interface.clone()).collect();
        Ok((listed == wanted).then_some(()))
    });
    waited.with_context(|| format!("it reports {last:?}"))
}

/// Checks that no speaker warns that two of its interfaces are on one network, or that it receives its own frames.
pub(super) fn nobody_hears_itself(ns: &TestNamespace<'_>) -> Result<()> {
    const OF_FRAMES_FROM_ELSEWHERE: [WarningKind; 3] =
        [WarningKind::InterfacesOnOneSegment, WarningKind::SegmentLoop, WarningKind::DuplicateNode];
    for node in ns.bed.lab().nodes()? {
        let warnings = report_of(ns, node.name())?.warnings;
        let wrong: Vec<_> =
            warnings.iter().filter(|warning| OF_FRAMES_FROM_ELSEWHERE.contains(&warning.kind)).collect();
        ensure!(wrong.is_empty(), "{} warns of its networks: {wrong:?}", node.name());
    }
    Ok(())
}

/// Returns every MAC that answers an ARP request of the client on this interface.
pub(super) fn who_answers_on(ns: &TestNamespace<'_>, interface: &str, address: IpAddr) -> Result<Vec<Mac>> {
    let probers = Probers { announcements: false, ..Probers::NEIGHBOUR };
    let spec = ProbeSpec { interface: Some(interface.to_owned()), ..ProbeSpec::all([address]).with(probers) };
    let running = Probe::start(ns.bed.lab(), ns.client()?.name(), &spec)?;
    // The absence of further answers cannot be waited for.
    std::thread::sleep(crate::testbed::namespace::LISTEN);
    let report = running.stop()?;
    let seen = report.target(address).and_then(|target| target.neighbour.as_ref());
    Ok(seen.map_or_else(Vec::new, |seen| seen.macs.iter().map(|mac| mac.mac).collect()))
}
