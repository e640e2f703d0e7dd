//! Identities: each thing in the simulation has a dense index, from which names, addresses and MACs follow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_protocol::mac::MacAddr;

/// A node's index. Nodes are the first hosts.
pub type NodeIx = usize;

/// A host's index on the network: nodes first, then clients.
pub type HostIx = usize;

/// The index of an announced address.
pub type AddrIx = usize;

/// The second interfaces that nodes, the first ones, have on the same wire. Each is a host of its own, with an index
/// after all nodes; the host with a node's own index is the node's first interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds {
    /// Index of the first of them.
    pub first: HostIx,
    /// Number of them.
    pub count: usize,
}

impl Seconds {
    /// Returns the second interface of a node.
    pub fn of(self, node: NodeIx) -> Option<HostIx> {
        (node < self.count).then(|| self.first + node)
    }

    /// Returns the node to which an interface belongs.
    pub fn node(self, interface: HostIx) -> NodeIx {
        if self.all().contains(&interface) { interface - self.first } else { interface }
    }

    /// Returns the interfaces of a node.
    pub fn interfaces(self, node: NodeIx) -> impl Iterator<Item = HostIx> + use<> {
        std::iter::once(node).chain(self.of(node))
    }

    /// Returns all of them.
    pub fn all(self) -> std::ops::Range<HostIx> {
        self.first..self.first + self.count
    }

    /// Returns whether this is a second interface.
    pub fn contains(self, interface: HostIx) -> bool {
        self.all().contains(&interface)
    }
}

/// The switch that answers ARP for others.
pub const SWITCH_MAC: MacAddr = MacAddr([0x02, 0xff, 0, 0, 0, 1]);

/// The networks of hosts' own addresses and of announced ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Net {
    Hosts,
    Announced,
}

/// The families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ARP.
    V4,
    /// Neighbour Discovery.
    V6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Returns the families in turn: every other one is IPv6.
    fn in_turn(index: usize) -> Self {
        if index.is_multiple_of(2) { Self::V4 } else { Self::V6 }
    }
}

/// Returns 10.net.high.low or fd00:net::index.
fn address(net: Net, family: Family, index: usize) -> IpAddr {
    let [high, low] = (index as u16).to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, net as u8, high, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, net as u16, 0, 0, 0, 0, 0, index as u16).into(),
    }
}

/// Returns a host's own address of a family: 10.0.0.0/16 and fd00::/64. Each host has both.
pub fn host_address(host: HostIx, family: Family) -> IpAddr {
    address(Net::Hosts, family, host)
}

/// Returns the address by which the others know a host: every other host's is IPv6.
pub fn known_address(host: HostIx) -> IpAddr {
    host_address(host, Family::in_turn(host))
}

/// Returns the host with this own address.
pub fn host_of_address(address: IpAddr) -> Option<HostIx> {
    index(Net::Hosts, address)
}

/// Returns an announced address: 10.1.0.0/16 and fd00:1::/64. Every other one is IPv6.
pub fn vip(index: AddrIx) -> IpAddr {
    address(Net::Announced, Family::in_turn(index), index)
}

/// Returns the index of an announced address.
pub fn vip_index(address: IpAddr) -> Option<AddrIx> {
    index(Net::Announced, address).filter(|found| vip(*found) == address)
}

fn index(net: Net, address: IpAddr) -> Option<usize> {
    match address {
        IpAddr::V4(v4) => {
            let [10, found, high, low] = v4.octets() else { return None };
            (found == net as u8).then(|| usize::from(u16::from_be_bytes([high, low])))
        }
        IpAddr::V6(v6) => {
            let [0xfd00, found, 0, 0, 0, 0, 0, index] = v6.segments() else { return None };
            (found == net as u16).then_some(usize::from(index))
        }
    }
}

/// Returns a host's link-layer address.
pub fn mac(host: HostIx) -> MacAddr {
    mac_of_machine(host, 0)
}

/// Returns the link-layer address of the machine that has a host's name after this number of predecessors.
pub fn mac_of_machine(host: HostIx, machine: u8) -> MacAddr {
    let [high, low] = (host as u16).to_be_bytes();
    MacAddr([0x02, 0, 0, machine, high, low])
}

/// Returns the host to one of whose machines this link-layer address belongs.
pub fn host_of_mac(mac: MacAddr) -> Option<HostIx> {
    let [0x02, 0, 0, _, high, low] = mac.0 else { return None };
    Some(usize::from(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_back_to_their_indices() {
        for index in [0, 1, 255, 256, 9999] {
            assert_eq!(host_of_mac(mac(index)), Some(index));
            assert_eq!(host_of_mac(mac_of_machine(index, 3)), Some(index));
            assert_eq!(vip_index(vip(index)), Some(index));
            for family in [Family::V4, Family::V6] {
                assert_eq!(host_of_address(host_address(index, family)), Some(index));
                assert_eq!(vip_index(host_address(index, family)), None);
                assert_eq!(Family::of(host_address(index, family)), family);
            }
        }
        let seconds = Seconds { first: 5, count: 2 };
        for (node, interfaces) in [(0, vec![0, 5]), (1, vec![1, 6]), (2, vec![2])] {
            assert_eq!(seconds.interfaces(node).collect::<Vec<_>>(), interfaces);
            assert!(interfaces.iter().all(|interface| seconds.node(*interface) == node));
        }
        assert_eq!(host_of_mac(SWITCH_MAC), None);
        assert!(vip(0).is_ipv4() && vip(1).is_ipv6() && known_address(1).is_ipv6());
    }
}
