//! Who is who: everything in the simulation is known by a dense index; names, addresses and MACs follow from it.

use std::net::{IpAddr, Ipv4Addr};

use herald_segment::mac::MacAddr;

/// A node's index. Nodes are the first hosts.
pub type NodeIx = usize;

/// A host's index on the network: nodes first, then clients.
pub type HostIx = usize;

/// The index of an announced address.
pub type AddrIx = usize;

/// The switch that answers ARP for others.
pub const SWITCH_MAC: MacAddr = MacAddr([0x02, 0xff, 0, 0, 0, 1]);

/// 10.`net`.high.low
fn address(net: u8, index: usize) -> IpAddr {
    let [high, low] = (index as u16).to_be_bytes();
    Ipv4Addr::new(10, net, high, low).into()
}

/// A host's own address: 10.0.0.0/16.
pub fn host_address(host: HostIx) -> IpAddr {
    address(0, host)
}

/// The host with this own address.
pub fn host_of_address(address: IpAddr) -> Option<HostIx> {
    index(0, address)
}

/// An announced address: 10.1.0.0/16.
pub fn vip(index: AddrIx) -> IpAddr {
    address(1, index)
}

/// The index of an announced address.
pub fn vip_index(address: IpAddr) -> Option<AddrIx> {
    index(1, address)
}

fn index(net: u8, address: IpAddr) -> Option<usize> {
    let IpAddr::V4(v4) = address else { return None };
    let [10, found, high, low] = v4.octets() else { return None };
    (found == net).then(|| usize::from(u16::from_be_bytes([high, low])))
}

/// A host's link-layer address.
pub fn mac(host: HostIx) -> MacAddr {
    let [high, low] = (host as u16).to_be_bytes();
    MacAddr([0x02, 0, 0, 0, high, low])
}

/// The host with this link-layer address.
pub fn host_of_mac(mac: MacAddr) -> Option<HostIx> {
    let [0x02, 0, 0, 0, high, low] = mac.0 else { return None };
    Some(usize::from(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for index in [0, 1, 255, 256, 9999] {
            assert_eq!(host_of_mac(mac(index)), Some(index));
            assert_eq!(vip_index(vip(index)), Some(index));
            assert_eq!(host_of_address(host_address(index)), Some(index));
            assert_eq!(vip_index(host_address(index)), None);
        }
        assert_eq!(host_of_mac(SWITCH_MAC), None);
    }
}
