//! The link that leads to an address, and this host's addresses on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::{Context, bail};
use nix::ifaddrs::getifaddrs;
use serde::Deserialize;

use crate::probe::sample::Mac;

/// A link of this host, and this host's address towards the target.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: Mac,
    pub(super) own: IpAddr,
}

/// The relevant part of `ip -json route get`.
#[derive(Debug, Deserialize)]
struct Route {
    dev: String,
    prefsrc: IpAddr,
    gateway: Option<IpAddr>,
    /// `local` for an address of this host; absent for an ordinary route.
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Returns the link on which `address` is solicited: the given interface, or the one of the route.
pub(super) fn link_to(address: IpAddr, interface: Option<&str>) -> anyhow::Result<Link> {
    let mut ask = Command::new("ip");
    ask.args(["-json", "route", "get", &address.to_string()]);
    if let Some(interface) = interface {
        ask.args(["oif", interface]);
    }
    let output = ask.output().context("cannot run `ip route get` (is iproute2 installed?)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("no route from this host to {address}: {}", said.trim());
    }
    let routes: Vec<Route> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("cannot read the answer of `ip route get {address}`"))?;
    let Some(Route { dev, prefsrc, gateway, kind }) = routes.into_iter().next() else {
        bail!("no route from this host to {address}");
    };
    if kind.as_deref() == Some("local") {
        bail!("{address} is an address of this host itself: probe it from another one");
    }
    if let (Some(gateway), None) = (gateway, interface) {
        bail!(
            "{address} is not on a link of this host (its route goes through {gateway}): probe it from a host on the \
             segment, or name the interface, or leave out ARP and neighbour discovery"
        );
    }
    on(&dev, prefsrc)
}

fn on(dev: &str, own: IpAddr) -> anyhow::Result<Link> {
    let link = getifaddrs()
        .context("cannot list the interfaces")?
        .filter(|entry| entry.interface_name == dev)
        .find_map(|entry| {
            let address = entry.address?;
            let link = address.as_link_addr()?;
            Some((u32::try_from(link.ifindex()).ok()?, Mac(link.addr()?)))
        });
    let Some((index, mac)) = link else { bail!("interface {dev} has no Ethernet address") };
    Ok(Link { name: dev.to_owned(), index, mac, own })
}

/// A solicitation on the segment, by address family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    /// ARP, from this host's address for the target.
    Arp { own: Ipv4Addr, target: Ipv4Addr },
    /// Neighbour discovery, from this host's address for the target.
    Nd { own: Ipv6Addr, target: Ipv6Addr },
}

impl Link {
    /// Returns the solicitation for `address` on this link.
    pub(super) fn question(&self, address: IpAddr) -> anyhow::Result<Question> {
        match (self.own, address) {
            (IpAddr::V4(own), IpAddr::V4(target)) => Ok(Question::Arp { own, target }),
            (IpAddr::V6(own), IpAddr::V6(target)) => Ok(Question::Nd { own, target }),
            (own, _) => bail!("the route to {address} names {own} as our address on {}", self.name),
        }
    }
}
