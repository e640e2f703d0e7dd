//! The choice of hosts in the kernel's neighbour table that are asked for a sign of life. Pure.

use std::{cmp::Reverse, collections::BTreeSet, net::IpAddr};

use herald_protocol::{Neighbour, mac::MacAddr};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

/// Number of hosts chosen on one segment at most. The protocol asks eight (docs/protocol/failure.md#solicit); the rest
/// replaces hosts that have gone.
const MAX_HOSTS: usize = 16;

/// An entry that names a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    host: Neighbour,
    /// Whether the host has answered lately or its entry is permanent. Otherwise the host may be gone.
    confirmed: bool,
}

/// Reads an entry; returns `None` for one that has no link-layer address, or an outdated one.
pub(super) fn read(message: &NeighbourMessage) -> Option<Entry> {
    let confirmed = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent => true,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => false,
        _ => return None,
    };
    // This host itself answers for a proxy entry.
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => address = Some(IpAddr::V4(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => address = Some(IpAddr::V6(*a)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let host = Neighbour { address: address?, mac: MacAddr(mac?) };
    (host.mac.is_unicast() && !host.address.is_multicast()).then_some(Entry { host, confirmed })
}

/// Returns at most [`MAX_HOSTS`] hosts, each once: gateways first, then those that were confirmed, IPv4 first, and then
/// by address, so that the order does not change by itself.
pub(super) fn choose(
    entries: impl Iterator<Item = Entry>,
    own: MacAddr,
    is_gateway: impl Fn(IpAddr) -> bool,
) -> Vec<Neighbour> {
    let mut entries: Vec<_> = entries.filter(|entry| entry.host.mac != own).collect();
    // IpAddr orders IPv4 before IPv6.
    entries.sort_by_key(|Entry { host, confirmed }| {
        (Reverse(is_gateway(host.address)), Reverse(*confirmed), host.address)
    });
    let mut seen = BTreeSet::new();
    entries.into_iter().map(|entry| entry.host).filter(|host| seen.insert(host.mac)).take(MAX_HOSTS).collect()
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn message(state: NeighbourState, attributes: Vec<NeighbourAttribute>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        message.attributes = attributes;
        message
    }

    fn destination(address: &str) -> NeighbourAttribute {
        NeighbourAttribute::Destination(address.parse::<IpAddr>().unwrap().into())
    }

    fn at(mac: [u8; 6]) -> NeighbourAttribute {
        NeighbourAttribute::LinkLayerAddress(mac.to_vec())
    }

    #[test_case(NeighbourState::Reachable => Some(true))]
    #[test_case(NeighbourState::Permanent => Some(true))]
    #[test_case(NeighbourState::Stale => Some(false))]
    #[test_case(NeighbourState::Delay => Some(false))]
    #[test_case(NeighbourState::Probe => Some(false))]
    #[test_case(NeighbourState::Incomplete => None)]
    #[test_case(NeighbourState::Failed => None)]
    #[test_case(NeighbourState::Noarp => None)]
    #[test_case(NeighbourState::None => None)]
    fn state_decides_whether_a_host_is_confirmed(state: NeighbourState) -> Option<bool> {
        let entry = read(&message(state, vec![destination("2001:db8::1"), at(mac(1).0)]))?;
        assert_eq!(entry.host, Neighbour { address: "2001:db8::1".parse().unwrap(), mac: mac(1) });
        Some(entry.confirmed)
    }

    #[test_case(vec![destination("192.0.2.1")]; "no link-layer address")]
    #[test_case(vec![at([2, 0, 0, 0, 0, 1])]; "no address")]
    #[test_case(vec![destination("192.0.2.1"), at([0; 6])]; "all zeroes")]
    #[test_case(vec![destination("224.0.0.1"), at([1, 0, 0x5e, 0, 0, 1])]; "a group")]
    #[test_case(vec![destination("192.0.2.1"), NeighbourAttribute::LinkLayerAddress(vec![1; 4])]; "not an Ethernet address")]
    fn entry_without_a_host_is_not_read(attributes: Vec<NeighbourAttribute>) {
        assert_eq!(read(&message(NeighbourState::Permanent, attributes)), None);
    }

    #[test]
    fn proxy_entry_is_not_a_neighbour() {
        let mut message = message(NeighbourState::Permanent, vec![destination("192.0.2.1"), at(mac(1).0)]);
        message.header.flags = NeighbourFlags::Proxy;
        assert_eq!(read(&message), None);
    }

    fn entry(address: &str, last: u8, confirmed: bool) -> Entry {
        Entry { host: Neighbour { address: address.parse().unwrap(), mac: mac(last) }, confirmed }
    }

    #[test]
    fn gateways_and_confirmed_hosts_come_first_and_each_once() {
        let entries = [
            entry("192.0.2.9", 9, false),
            entry("2001:db8::3", 3, true),
            entry("192.0.2.3", 3, true),
            entry("192.0.2.2", 2, true),
            entry("fe80::fe", 0xfe, false),
            entry("192.0.2.7", 7, true),
        ];
        let gateway: IpAddr = "fe80::fe".parse().unwrap();
        let chosen = choose(entries.into_iter(), mac(7), |address| address == gateway);
        let chosen: Vec<_> = chosen.iter().map(|host| host.address.to_string()).collect();
        assert_eq!(chosen, ["fe80::fe", "192.0.2.2", "192.0.2.3", "192.0.2.9"]);
    }

    #[test]
    fn number_of_hosts_is_bounded() {
        let entries = (1..=200).map(|last| entry(&format!("192.0.2.{last}"), last, false));
        let chosen = choose(entries, mac(1), |_| false);
        assert_eq!(chosen.len(), MAX_HOSTS);
        assert_eq!(chosen[0].mac, mac(2));
    }
}
