//! A network link as the kernel describes it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use herald_protocol::{mac::MacAddr, twins::Parent};
use ipnet::IpNet;

/// A network link as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The interface's index.
    pub index: u32,
    /// The interface's name.
    pub name: String,
    /// The driver that makes the link, as `ip -details link` shows it (IFLA_INFO_KIND). A network card has none.
    pub kind: Option<String>,
    /// The link that this one belongs to: a bridge, bond, team or VRF (IFLA_MASTER).
    pub master: Option<u32>,
    /// The link that this one stands on: a VLAN's or a macvlan's NIC (IFLA_LINK).
    pub parent: Option<Parent>,
    /// Whether the link is a bond in mode 6, balance-alb.
    pub is_balance_alb: bool,
    /// The link-layer address, where the link is an Ethernet link.
    pub mac: Option<MacAddr>,
    /// Whether the link is administratively up.
    pub up: bool,
    /// Whether the link has carrier.
    pub carrier: bool,
    /// Whether ARP and Neighbour Discovery are off on the link (IFF_NOARP).
    pub noarp: bool,
    /// The link's MTU: bytes in a frame after the Ethernet header.
    pub mtu: u32,
    /// The networks of the link's addresses of global scope.
    pub prefixes: Vec<IpNet>,
    /// These addresses, with the length of the prefix that is on link; lasting ones first.
    pub addresses: Vec<IpNet>,
    /// The link's addresses that are temporary (RFC 8981).
    pub temporary: BTreeSet<IpAddr>,
    /// An IPv6 address of link-local scope.
    pub link_local: Option<Ipv6Addr>,
    /// Whether a default route of the main table leaves by the link.
    pub default_route: bool,
}

impl Link {
    /// Returns the on-link prefixes, in which the link has neighbours, sorted and each once.
    pub fn on_link_prefixes(&self) -> Vec<IpNet> {
        let on_link = self.prefixes.iter().filter(|prefix| is_on_link(prefix));
        on_link.map(IpNet::trunc).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns the link's addresses of global scope, with the length of the prefix that is on link; lasting ones first.
    pub fn global_addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().filter(|address| !is_link_local(address.addr())).copied()
    }
}

/// Returns whether the prefix has neighbours on link. A single address shows none, and a link-local prefix is on every
/// link.
fn is_on_link(prefix: &IpNet) -> bool {
    prefix.prefix_len() < prefix.max_prefix_len() && !is_link_local(prefix.addr())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_loopback(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.is_loopback(),
    }
}
