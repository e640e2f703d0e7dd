//! Another host has the address: a host outside the cluster, before or after the first announcement; a node of the
//! cluster; another cluster on the same segment.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use herald_crds::virtual_ip::AnnouncedReason;
use herald_crds::{AddressPool, names};
use herald_protocol::claim::{Birth, Claim, ClaimKey, Digest, Epoch, Reason};
use herald_protocol::mac::MacAddr;
use herald_protocol::node::{Incarnation, NodeName};
use herald_protocol::wire::{
    Body, Change, ETHERTYPE, Frame, FrameLimit, GROUP, Hello, Key, Keyring, Sender, State, VERSION, delta,
    key_of_cluster,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::unnoticed::Unnoticed;
use crate::testbed::{Expose, TestNamespace, install};
use herald_lab::cluster::Host;
use herald_lab::cluster::plan::node_subnets;
use herald_lab::fault::{Fault, Faults, Link};
use herald_lab::probe::frame::arp_request;
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers};

/// A host has the first addresses of the pool, one of each family: they are quarantined without a single announcement,
/// and the Service gets others.
pub(super) fn first(ns: &TestNamespace<'_>) -> Result<()> {
    let stranger = stranger(ns)?;
    let v6 = v6_range(ns);
    ns.pool(&ns.namespace, &[ns.range(1, 9), format!("{}-{}", v6(1), v6(9))])?;
    ns.deploy_echo(1)?;
    let taken = [ns.address(1), v6(1)];
    healed(ns, |faults| {
        for address in taken {
            faults.inject(takes(&stranger, address))?;
        }
        let recorder = Probers { neighbour: false, ..Probers::NEIGHBOUR };
        let spec = ProbeSpec::all(taken).with(recorder);
        let recording = Probe::start(ns.bed.lab(), ns.client()?.name(), &spec)?;
        let families = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6],";
        ns.expose(&Expose { spec: families, ..Expose::ours("web") })?;

        let expected = [ns.address(2), v6(2)];
        ns.eventually("an address of each family that no host has", || {
            Ok((ns.ingress("web")? == expected).then_some(()))
        })?;
        for address in expected {
            ns.announcer(address)?;
        }
        ns.reachable(ns.address(2))?;
        let said = recording.stop()?.announcements;
        let theirs = Mac::from(stranger.mac(0)?);
        let wrong: Vec<_> = said.iter().filter(|a| taken.contains(&a.address) && a.mac != theirs).collect();
        ensure!(wrong.is_empty(), "a stranger's address was announced: {wrong:?}");

        let pool: AddressPool = ns.get_cluster(&ns.namespace)?.context("the pool")?;
        let aside = pool.status.map(|status| status.quarantined).unwrap_or_default();
        let mac = stranger.mac(0)?.to_string();
        for address in taken {
            let found = aside.iter().find(|q| q.address == address.to_string());
            let found = found.with_context(|| format!("{address} is not in quarantine: {aside:?}"))?;
            ensure!(found.mac_address == mac, "{found:?} does not name {mac}");
        }
        ns.eventually(&format!("a Warning on the Service that names the stranger {mac}"), || {
            let events = ns.events("web")?;
            Ok(events.iter().any(|(kind, _, note)| kind == "Warning" && note.contains(&mac)).then_some(()))
        })?;
        Ok(())
    })
}

/// A host takes an announced address: its owner defends and reports it, and the address stays where it is.
pub(super) fn later(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    let stranger = stranger(ns)?;
    let (theirs, ours) = (Mac::from(stranger.mac(0)?), Mac::from(ns.bed.lab().host(&node)?.mac(0)?));
    let IpAddr::V4(ip) = address else { bail!("{address} is not IPv4") };
    healed(ns, |faults| {
        let recorder = Probers { neighbour: false, ..Probers::NEIGHBOUR };
        let spec = ProbeSpec::all([address]).with(recorder);
        let recording = Probe::start(ns.bed.lab(), ns.client()?.name(), &spec)?;
        faults.inject(takes(&stranger, address))?;
        // The announcement of a host that has just configured the address (RFC 5227 section 2.3).
        faults.send_frame(stranger.name(), stranger.interface(0)?, &arp_request(theirs, ip, ip))?;
        let sentence = ns.eventually("the VirtualIP to report the conflict", || {
            let conditions = ns.virtual_ip(address)?.and_then(|vip| vip.status).map(|s| s.conditions);
            let found = conditions.unwrap_or_default().into_iter().find(|c| c.type_ == names::CONDITION_CONFLICT);
            Ok(found.filter(|c| c.status == "True").map(|c| c.message))
        })?;
        ensure!(sentence.contains(&theirs.to_string()), "the sentence names the stranger {theirs}: {sentence}");
        let said = recording.stop()?.announcements;
        let claimed = said.iter().find(|a| a.address == address && a.mac == theirs).context("the stranger's frame")?;
        let defended = said.iter().any(|a| a.address == address && a.mac == ours && a.last_ms >= claimed.first_ms);
        ensure!(defended, "{node} did not defend {address}: {said:?}");
        ensure!(ns.ingress("web")? == [address], "the Service keeps its address");
        ensure!(ns.announcer(address)? == node, "the address stays where it is");
        Ok(())
    })?;
    ns.answered_by(address, &node)?;
    ns.reachable(address)?;
    Ok(())
}

/// A node of the cluster answers for an address without having claimed it, as with another provider: nothing is
/// announced or quarantined, and the address is announced once the node stops.
pub(super) fn cluster_node(ns: &TestNamespace<'_>) -> Result<()> {
    // The pool has only one address, so the Service cannot get another one.
    ns.pool(&ns.namespace, &[ns.address(1).to_string()])?;
    ns.deploy_echo(1)?;
    let address = ns.address(1);
    let node = ns.bed.lab().nodes()?.into_iter().next_back().context("a node")?;
    // The controller assigns no address that a node has, so the node takes it afterwards, before any announcement.
    ns.advertise_from("In", "nowhere")?;
    ns.expose(&Expose::ours("web"))?;
    ensure!(ns.external_ip("web")? == address, "the Service gets the pool's only address");
    healed(ns, |faults| {
        faults.inject(takes(&node, address))?;
        // Another node must probe the address: a kernel does not answer the requests of its own node.
        ns.advertise_from("NotIn", node.name())?;
        let sentence = ns.eventually("the VirtualIP to report that a node of the cluster answers", || {
            let vip = ns.virtual_ip(address)?;
            let condition = vip.as_ref().and_then(|vip| vip.announced());
            let wanted = AnnouncedReason::AnsweredByClusterNode.as_str();
            Ok(condition.filter(|c| c.reason == wanted).map(|c| c.message.clone()))
        })?;
        ensure!(sentence.contains(node.name()), "it names {}: {sentence}", node.name());
        let pool: AddressPool = ns.get_cluster(&ns.namespace)?.context("the pool")?;
        let aside = pool.status.map(|status| status.quarantined).unwrap_or_default();
        ensure!(aside.is_empty(), "no address goes into quarantine because of a node of the cluster: {aside:?}");
        Ok(())
    })?;
    let announcer = ns.announcer(address)?;
    ns.answered_by(address, &announcer)?;
    ns.reachable(address)?;
    Ok(())
}

/// Number of frames of another cluster that are sent with each of its keys.
const FRAMES: u64 = 100;

/// The speaker's count of frames that are not signed with a key of its cluster.
const FOREIGN_FRAMES: &str = r#"herald_speaker_frames_dropped_total{interface="eth0",reason="foreign"}"#;

/// Frames of another cluster, whose nodes have the same names and which claims the same address, are ignored.
pub(super) fn another_cluster(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    let stranger = stranger(ns)?;
    let before = ns.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")?;
    let unnoticed = Unnoticed::from_here(ns, [(address, node.clone())].into())?;
    let key_of_its_own = Key::new(b"the key of another cluster, on the same segment")?;
    let copied = Key::new(&key_of_cluster(&cluster_secret(ns)?, "the UID of another cluster")?)?;
    for key in [key_of_its_own, copied] {
        let theirs = OtherCluster::new(key, &node, &stranger)?;
        // The reason of a drop shows whether the key was recognised as this cluster's
        // (docs/protocol/frames.md#receive): a frame with this cluster's own key would be dropped as a replay.
        let foreign = || ns.metric(&node, FOREIGN_FRAMES);
        let before = foreign()?;
        for sequence in 1..=FRAMES / 2 {
            for frame in theirs.frames(address, sequence)? {
                Faults::of(ns.bed.lab()).send_frame(stranger.name(), stranger.interface(0)?, &frame)?;
            }
        }
        let mut dropped = 0.0;
        ns.eventually(&format!("{FRAMES} frames to be dropped as another cluster's"), || {
            dropped = foreign()? - before;
            Ok((dropped >= FRAMES as f64).then_some(()))
        })
        .with_context(|| format!("{dropped} were"))?;
    }
    unnoticed.until_here(ns)?;
    let after = ns.virtual_ip(address)?.and_then(|vip| vip.status).context("a status")?;
    ensure!(after == before, "the status changed from {before:?} to {after:?}");
    ns.answered_by(address, &node)
}

/// Returns the content of the cluster key's Secret, which a backup or a Git repository could bring to another cluster.
fn cluster_secret(ns: &TestNamespace<'_>) -> Result<Vec<u8>> {
    let secrets: Api<Secret> = Api::namespaced(ns.bed.kube(), install::NAMESPACE);
    let secret = ns.bed.block_on(async move { Ok(secrets.get(names::SECRET_CLUSTER_KEY).await?) })?;
    let key = secret.data.unwrap_or_default().remove(names::FIRST_CLUSTER_KEY);
    Ok(key.with_context(|| format!("Secret {} has no {}", names::SECRET_CLUSTER_KEY, names::FIRST_CLUSTER_KEY))?.0)
}

/// Another cluster, with a key that differs from this one's.
struct OtherCluster {
    keys: Keyring,
    name: NodeName,
    mac: MacAddr,
}

impl OtherCluster {
    fn new(key: Key, node: &str, host: &Host) -> Result<Self> {
        let mac = MacAddr(host.mac(0)?.octets());
        Ok(Self { keys: Keyring::new(vec![key])?, name: NodeName::new(node), mac })
    }

    /// Returns a Hello and a claim that would beat every other one.
    fn frames(&self, address: IpAddr, sequence: u64) -> Result<[Vec<u8>; 2]> {
        let claim = Claim {
            address,
            birth: Birth(u64::MAX),
            epoch: Epoch(1000),
            key: ClaimKey(u64::MAX),
            reason: Reason::Vacant,
            cover: true,
        };
        let hello = Hello {
            state: State::Active,
            highest_version: VERSION,
            deaf: false,
            interval: Duration::from_millis(100),
            uptime: Duration::from_secs(60),
            peers: 2,
            claims: Digest::default(),
            name: self.name.clone(),
            mac: self.mac,
            address: None,
            keys: self.keys.ids().to_vec(),
            heard: Vec::new(),
        };
        let mut claims = delta(FrameLimit::LARGEST, self.name.id(), vec![Change::Claimed(claim)]);
        let claims = claims.pop().context("a frame of claims")?;
        Ok([self.seal(sequence * 2, Body::Hello(hello))?, self.seal(sequence * 2 + 1, Body::Claims(claims))?])
    }

    fn seal(&self, sequence: u64, body: Body) -> Result<Vec<u8>> {
        let sender = Sender { node: self.name.id(), incarnation: Incarnation(7), sequence };
        let key = *self.keys.ids().first().context("a key")?;
        let mut frame = [&GROUP.0[..], &self.mac.0, &ETHERTYPE.to_be_bytes()].concat();
        frame.extend(self.keys.seal(key, VERSION, &Frame { sender, body })?);
        Ok(frame)
    }
}

/// Returns a host outside the cluster other than the observing client.
fn stranger(ns: &TestNamespace<'_>) -> Result<Host> {
    ns.bed.lab().clients()?.into_iter().nth(1).context("a second client")
}

fn takes(host: &Host, address: IpAddr) -> Fault {
    Fault::AddressAdded { link: Link { host: host.name().to_owned(), segment: 0 }, address: address.into() }
}

/// Returns the scenario's IPv6 addresses by their last group.
pub(super) fn v6_range(ns: &TestNamespace<'_>) -> impl Fn(u16) -> IpAddr + use<> {
    let (_, v6) = node_subnets(0);
    let (mut segments, block) = (v6.addr().segments(), ns.block());
    segments[6] = block.into();
    move |last| {
        let [a, b, c, d, e, f, g, _] = segments;
        std::net::Ipv6Addr::new(a, b, c, d, e, f, g, last).into()
    }
}

/// Runs an action on the laboratory and heals all faults afterwards, regardless of the result.
fn healed(ns: &TestNamespace<'_>, act: impl FnOnce(&Faults<'_>) -> Result<()>) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    let result = act(&faults);
    faults.heal_all()?;
    result
}
