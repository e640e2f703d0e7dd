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
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// What driver makes it, as `ip -details link` shows it (IFLA_INFO_KIND). A network card has none.
    pub kind: Option<String>,
    /// The link that it belongs to: a bridge, bond, team or VRF (IFLA_MASTER).
    pub master: Option<u32>,
    /// The link that it stands on: a VLAN's or a macvlan's NIC (IFLA_LINK).
    pub parent: Option<Parent>,
    /// Whether it is a bond in mode 6, balance-alb.
    pub is_balance_alb: bool,
    /// Its address, where it is an Ethernet link.
    pub mac: Option<MacAddr>,
    /// Administratively up.
    pub up: bool,
    /// With carrier.
    pub carrier: bool,
    /// Whether ARP and Neighbour Discovery are off on it (IFF_NOARP).
    pub noarp: bool,
    /// What it carries in a frame, in bytes after the Ethernet header.
    pub mtu: u32,
    /// The networks of its addresses of global scope.
    pub prefixes: Vec<IpNet>,
    /// These addresses, with the length of the prefix that is on link; lasting ones first.
    pub addresses: Vec<IpNet>,
    /// Those of its addresses that are temporary (RFC 8981).
    pub temporary: BTreeSet<IpAddr>,
    /// An IPv6 address of link-local scope.
    pub link_local: Option<Ipv6Addr>,
    /// Whether a default route of the main table leaves here.
    pub default_route: bool,
}

impl Link {
    /// Returns its on-link prefixes, sorted and each once: those in which it has neighbours.
    pub fn on_link_prefixes(&self) -> Vec<IpNet> {
        let on_link = self.prefixes.iter().filter(|prefix| is_on_link(prefix));
        on_link.map(IpNet::trunc).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns its addresses of global scope, with the length of the prefix that is on link; lasting ones first.
    pub fn global_addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().filter(|address| !is_link_local(address.addr())).copied()
    }
}

/// A single address says nothing about its neighbours, and a link-local prefix is on every link.
fn is_on_link(prefix: &IpNet) -> bool {
    prefix.prefix_len() < prefix.max_prefix_len() && !is_link_local(prefix.addr())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_loopback(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.is_loopback(),
    }
}
