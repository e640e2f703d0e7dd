//! The addresses of a subnet that no single host of it has. They follow from the on-link prefix.

use herald_crds::address::AddressBlock;
use ipnet::IpNet;

use super::Reservation;

/// Returns the reserved addresses of an on-link prefix, each with its reservation.
///
/// - IPv4: the first, the network address, which old hosts also take for a broadcast (RFC 1122, 3.3.6), and the last,
///   the broadcast address (RFC 919). A prefix of 31 bits has neither (RFC 3021), and a host route has neither.
/// - IPv6: the first, the subnet-router anycast address (RFC 4291, 2.6.1): every Linux that forwards, so every node,
///   answers for it. A prefix of 127 bits has none (RFC 6164), and a host route has none.
pub fn reservations(prefix: IpNet) -> Vec<(Reservation, AddressBlock)> {
    let (first, last) = (AddressBlock::single(prefix.network()), AddressBlock::single(prefix.broadcast()));
    match prefix {
        IpNet::V4(net) if net.prefix_len() <= 30 => {
            let net = net.trunc();
            vec![(Reservation::NetworkAddress(net), first), (Reservation::BroadcastAddress(net), last)]
        }
        IpNet::V6(net) if net.prefix_len() <= 126 => vec![(Reservation::SubnetRouterAnycast(net.trunc()), first)],
        IpNet::V4(_) | IpNet::V6(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("10.10.0.0/16", &["10.10.0.0 network", "10.10.255.255 broadcast"])]
    #[test_case("10.40.0.2/29", &["10.40.0.0 network", "10.40.0.7 broadcast"]; "an address with its length")]
    #[test_case("192.0.2.4/30", &["192.0.2.4 network", "192.0.2.7 broadcast"])]
    #[test_case("192.0.2.4/31", &[]; "RFC 3021")]
    #[test_case("192.0.2.4/32", &[]; "host route")]
    #[test_case("2001:db8::5/64", &["2001:db8:: anycast"])]
    #[test_case("2001:db8::4/126", &["2001:db8::4 anycast"])]
    #[test_case("2001:db8::4/127", &[]; "RFC 6164")]
    #[test_case("2001:db8::4/128", &[]; "host route of IPv6")]
    fn prefix_reserves_its_network_broadcast_or_anycast_address(prefix: &str, expected: &[&str]) {
        let prefix: IpNet = prefix.parse().unwrap();
        let word = |by: &Reservation| match by {
            Reservation::NetworkAddress(net) if IpNet::V4(*net) == prefix.trunc() => "network",
            Reservation::BroadcastAddress(net) if IpNet::V4(*net) == prefix.trunc() => "broadcast",
            Reservation::SubnetRouterAnycast(net) if IpNet::V6(*net) == prefix.trunc() => "anycast",
            _ => "of another prefix",
        };
        let single = |block: &AddressBlock| block.first() == block.last();
        let reservations = reservations(prefix);
        assert!(reservations.iter().all(|(_, block)| single(block)));
        let found: Vec<_> = reservations.iter().map(|(by, block)| format!("{} {}", block.first(), word(by))).collect();
        assert_eq!(found, expected);
    }
}
