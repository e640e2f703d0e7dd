//! The ranges of which no host has an address, whatever the network. They are the ranges in the registries of
//! special-purpose addresses (RFC 6890) that are not unicast, or not valid beyond a link or a host. Private addresses
//! (RFC 1918, RFC 4193), shared ones (RFC 6598), those of benchmarks (RFC 2544) and of documentation (RFC 5737, RFC
//! 3849) are left out: laboratories, and networks that their owners keep apart, number hosts from them.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses that no host has, by its RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpecialRange {
    /// The range, as a prefix.
    pub network: IpNet,
    /// The use of its addresses, with the source.
    meaning: &'static str,
}

impl fmt::Display for SpecialRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.network, self.meaning)
    }
}

/// All ranges; no address is in two.
pub const RANGES: [SpecialRange; 10] = [
    v4([0, 0, 0, 0], 8, "the unspecified address and its network (RFC 1122, 3.2.1.3)"),
    v4([127, 0, 0, 0], 8, "loopback addresses (RFC 1122, 3.2.1.3)"),
    v4([169, 254, 0, 0], 16, "link-local addresses (RFC 3927)"),
    v4([224, 0, 0, 0], 4, "multicast addresses (RFC 1112)"),
    v4([240, 0, 0, 0], 4, "reserved addresses and the limited broadcast address (RFC 1112, RFC 919)"),
    v6(Ipv6Addr::UNSPECIFIED, 128, "the unspecified address (RFC 4291, 2.5.2)"),
    v6(Ipv6Addr::LOCALHOST, 128, "the loopback address (RFC 4291, 2.5.3)"),
    v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "IPv4-mapped addresses (RFC 4291, 2.5.5.2)"),
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local addresses (RFC 4291, 2.5.6)"),
    v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast addresses (RFC 4291, 2.7)"),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8, meaning: &'static str) -> SpecialRange {
    SpecialRange { network: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)), meaning }
}

const fn v6(address: Ipv6Addr, length: u8, meaning: &'static str) -> SpecialRange {
    SpecialRange { network: IpNet::V6(Ipv6Net::new_assert(address, length)), meaning }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use test_case::test_case;

    use super::*;

    #[test_case("0.0.0.0", true)]
    #[test_case("0.255.255.255", true)]
    #[test_case("1.0.0.0", false)]
    #[test_case("126.255.255.255", false)]
    #[test_case("127.0.0.1", true)]
    #[test_case("128.0.0.0", false)]
    #[test_case("169.253.255.255", false)]
    #[test_case("169.254.0.0", true)]
    #[test_case("169.255.0.0", false)]
    #[test_case("223.255.255.255", false)]
    #[test_case("224.0.0.0", true)]
    #[test_case("239.255.255.255", true)]
    #[test_case("240.0.0.0", true)]
    #[test_case("255.255.255.255", true)]
    #[test_case("10.0.0.1", false; "private")]
    #[test_case("100.64.0.1", false; "shared")]
    #[test_case("192.0.2.1", false; "documentation")]
    #[test_case("198.18.0.1", false; "benchmarks")]
    #[test_case("::", true)]
    #[test_case("::1", true)]
    #[test_case("::2", false)]
    #[test_case("::ffff:192.0.2.1", true)]
    #[test_case("64:ff9b::1", false; "translation")]
    #[test_case("fe7f:ffff::", false)]
    #[test_case("fe80::1", true)]
    #[test_case("febf::1", true)]
    #[test_case("fec0::1", false)]
    #[test_case("feff:ffff::", false)]
    #[test_case("ff00::", true)]
    #[test_case("ffff::", true)]
    #[test_case("2001:db8::1", false; "documentation of IPv6")]
    #[test_case("fd00::1", false; "unique local")]
    fn special_ranges_hold_no_host_address(address: &str, expected: bool) {
        let address: IpAddr = address.parse().unwrap();
        let ranges: Vec<_> = RANGES.iter().filter(|range| range.network.contains(&address)).collect();
        assert_eq!(ranges.len(), usize::from(expected), "{ranges:?}");
    }
}
