//! A node has an address on a bridge of its own: an address is announced there without any setting. A bridge with the
//! name of a container engine's is left alone until a setting names it. A bridge that a setting excludes receives no
//! Hello any longer.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use herald_crds::speaker_status::LinkUse;
use herald_crds::{SpeakerStatus, names};
use ipnet::Ipv4Net;

use crate::drill::speaker_state;
use crate::testbed::waits::REPORTED_WITHIN;
use crate::testbed::{Expose, TestNamespace};
use herald_lab::cluster::{Host, netns};

/// Two subnets that no other host has: that of the node's own bridge, and that of a bridge which looks like Docker's.
const OWN: Bridge = Bridge { name: "br-lan", port: "lan-port", far: "lan-far", subnet: 33 };
const ENGINE: Bridge = Bridge { name: "docker0", port: "dock-port", far: "dock-far", subnet: 34 };

/// A bridge of the node whose only port is a cable to the client.
struct Bridge {
    name: &'static str,
    port: &'static str,
    /// The client's end of the cable.
    far: &'static str,
    /// Second octet of its subnet.
    subnet: u8,
}

impl Bridge {
    fn prefix(&self, low: u8) -> Result<Ipv4Net> {
        Ok(Ipv4Net::new(Ipv4Addr::new(10, self.subnet, 0, low), 16)?)
    }

    /// Returns the address of a Service in its subnet.
    fn address(&self, ns: &TestNamespace<'_>) -> IpAddr {
        Ipv4Addr::new(10, self.subnet, ns.block(), 1).into()
    }

    /// Creates the bridge on a node, with a cable to the client.
    fn add(&self, node: &Host, client: &Host) -> Result<()> {
        let Self { name, port, far, .. } = self;
        let client_netns = client.netns().file_name().and_then(|name| name.to_str()).context("a namespace's name")?;
        ip(node, &format!("link add {name} type bridge"))?;
        ip(node, &format!("link add {port} type veth peer name {far} netns {client_netns}"))?;
        ip(node, &format!("link set {port} master {name} up"))?;
        ip(node, &format!("address add {} dev {name}", self.prefix(11)?))?;
        ip(node, &format!("link set {name} up"))?;
        ip(client, &format!("address add {} dev {far}", self.prefix(99)?))?;
        ip(client, &format!("link set {far} up"))
    }

    /// Deletes the bridge; the cable's other end disappears with it.
    fn remove(&self, node: &Host) -> Result<()> {
        for link in [self.port, self.name] {
            if node.net_command("ip").args(["link", "show", link]).output()?.status.success() {
                ip(node, &format!("link delete {link}"))?;
            }
        }
        Ok(())
    }
}

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let node = ns.bed.lab().nodes()?.into_iter().next().context("a node")?;
    let result = try_each(ns, &node, &ns.client()?);
    // The node is restored regardless of the result, for the next scenario.
    ns.kubectl(&["annotate", "node", node.name(), &format!("{}-", names::ANNOTATION_INTERFACES)])?;
    for bridge in [OWN, ENGINE] {
        bridge.remove(&node)?;
    }
    result
}

fn try_each(ns: &TestNamespace<'_>, node: &Host, client: &Host) -> Result<()> {
    ns.deploy_echo(1)?;
    ns.pool(&ns.namespace, &[OWN.address(ns).to_string(), ENGINE.address(ns).to_string()])?;
    for bridge in [OWN, ENGINE] {
        bridge.add(node, client)?;
        let annotations = format!("{{{}: {:?}}}", names::ANNOTATION_ADDRESSES, bridge.address(ns).to_string());
        ns.expose(&Expose { annotations: &annotations, ..Expose::ours(bridge.name) })?;
    }
    // The node's own bridge needs no setting; the container engine's bridge is left alone.
    used_as(ns, node, OWN.name, LinkUse::Segment)?;
    used_as(ns, node, ENGINE.name, LinkUse::Containers)?;
    announced_on(ns, node, client, &OWN)?;
    ensure!(speaker_state::heard(client, ENGINE.far)?.is_empty(), "no Hello on {}", ENGINE.name);

    // A setting that names a bridge overrides the default.
    ns.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, \
         metadata: {{name: {namespace}, labels: {{scenario: {namespace}}}}}, \
         spec: {{addressPools: [{namespace}], interfaces: [{}, {}]}}}}",
        OWN.name,
        ENGINE.name,
        namespace = ns.namespace,
    ))?;
    used_as(ns, node, ENGINE.name, LinkUse::Segment)?;
    announced_on(ns, node, client, &ENGINE)?;
    announced_on(ns, node, client, &OWN)?;

    // The node's annotation overrides both, and stops the Hellos too.
    let but_these = format!("{}=!{},!{}", names::ANNOTATION_INTERFACES, OWN.name, ENGINE.name);
    ns.kubectl(&["annotate", "node", node.name(), &but_these])?;
    let sentence = used_as(ns, node, OWN.name, LinkUse::Skipped)?;
    ensure!(sentence.contains(names::ANNOTATION_INTERFACES), "the sentence names the setting: {sentence}");
    used_as(ns, node, ENGINE.name, LinkUse::Containers)?;
    for bridge in [OWN, ENGINE] {
        ns.eventually(&format!("no Hello on {}", bridge.name), || {
            Ok(speaker_state::heard(client, bridge.far)?.is_empty().then_some(()))
        })?;
        let address = bridge.address(ns);
        ns.eventually(&format!("{address} to be announced no longer"), || {
            let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
            Ok(vip.announced().filter(|condition| condition.status == "False").map(drop))
        })?;
    }
    Ok(())
}

/// Waits until the node reports this use of the link, and returns the message.
fn used_as(ns: &TestNamespace<'_>, node: &Host, interface: &str, link_use: LinkUse) -> Result<String> {
    ns.bed.wait_for(&format!("{} to report of {interface}: {link_use:?}", node.name()), REPORTED_WITHIN, || {
        let status = ns.get_cluster::<SpeakerStatus>(node.name())?.and_then(|speaker| speaker.status);
        let mut links = status.map(|status| status.links).unwrap_or_default().into_iter();
        let link = links.find(|link| link.interface == interface && link.link_use == link_use);
        Ok(link.map(|link| link.message.unwrap_or_default()))
    })
}

/// Waits until the node announces the bridge's address on the bridge, and checks that the client reaches it at the
/// bridge's MAC.
fn announced_on(ns: &TestNamespace<'_>, node: &Host, client: &Host, bridge: &Bridge) -> Result<()> {
    let address = bridge.address(ns);
    ns.eventually(&format!("{} to announce {address} on {}", node.name(), bridge.name), || {
        let Some(vip) = ns.virtual_ip(address)? else { return Ok(None) };
        let announced = vip.announced().is_some_and(|condition| condition.status == "True");
        let here = vip.status.and_then(|status| status.interface).as_deref() == Some(bridge.name);
        Ok((announced && here).then_some(()))
    })?;
    ns.reachable(address)?;
    let entry = netns::output_of(client.net_command("ip").args(["neighbour", "show", "dev", bridge.far]))?;
    let mac = mac_of(node, bridge.name)?;
    let known = entry.lines().any(|line| line.starts_with(&format!("{address} ")) && line.contains(&mac));
    ensure!(known, "{address} is not at {mac} for the client:\n{entry}");
    Ok(())
}

fn mac_of(host: &Host, interface: &str) -> Result<String> {
    let shown = netns::output_of(host.net_command("ip").args(["-json", "link", "show", "dev", interface]))?;
    let links: serde_json::Value = serde_json::from_str(&shown).context("reading `ip -json link`")?;
    let mac = links.pointer("/0/address").and_then(serde_json::Value::as_str);
    Ok(mac.with_context(|| format!("{interface} has no link-layer address:\n{shown}"))?.to_owned())
}

fn ip(host: &Host, arguments: &str) -> Result<()> {
    netns::run(host.net_command("ip").args(arguments.split(' ')))
}
