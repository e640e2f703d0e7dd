//! The addresses of a drill's Services.

use std::net::{Ipv4Addr, Ipv6Addr};

use herald_lab::cluster::plan::node_subnets;

/// Returns the ranges a pool needs for this number of dual-stack Services: in the node subnet of a segment, starting at
/// a block.
pub(super) fn ranges(segment: u8, block: u8, services: u16) -> [String; 2] {
    let (v4, v6) = node_subnets(segment);
    let [a, b, ..] = v4.addr().octets();
    // A block of 256 addresses contributes 250, without its first and its last ones.
    let blocks = u8::try_from(services.saturating_sub(1) / 250).unwrap_or(u8::MAX);
    let last = Ipv4Addr::new(a, b, block.saturating_add(blocks), 250);
    let prefix = v6.addr().segments();
    let host = |low| {
        let mut segments = prefix;
        (segments[6], segments[7]) = (block.into(), low);
        Ipv6Addr::from(segments)
    };
    [format!("{}-{last}", Ipv4Addr::new(a, b, block, 1)), format!("{}-{}", host(1), host(0xffff))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case(0, 101, 2, ["10.10.101.1-10.10.101.250", "fd00:10:10::65:1-fd00:10:10::65:ffff"]; "two Services")]
    #[test_case(1, 101, 250, ["10.11.101.1-10.11.101.250", "fd00:10:11::65:1-fd00:10:11::65:ffff"]; "as many as fit a block")]
    #[test_case(0, 200, 502, ["10.10.200.1-10.10.202.250", "fd00:10:10::c8:1-fd00:10:10::c8:ffff"]; "three blocks")]
    fn ranges_have_room_for_all_services(segment: u8, block: u8, services: u16, expected: [&str; 2]) {
        assert_eq!(ranges(segment, block, services), expected);
    }
}
