//! The choice of the interface on which an address is announced.
//!
//! [`survey`] reduces the links of a node to the [`Segment`]s on which addresses can be announced, and gives the reason
//! why each other link is left alone. [`herald_crds::placement`] picks the one segment for an address. Speakers publish
//! their segments in SpeakerStatus, so each speaker can tell of every node whether the node can announce an address.
//!
//! A segment that has lost its carrier is still a segment: the node keeps what it owns there until it hears a better
//! claim (docs/protocol/peers.md#no-carrier).

mod container_links;
mod link;
mod link_use;
mod selection;

pub use link::Link;
pub use link_use::{MAX_LISTED, Survey, survey};
pub use selection::{NodeInterfaces, Selection, Setting, names_explicitly};

use std::net::{IpAddr, Ipv6Addr};

use herald_crds::{placement::Interface, speaker_status::SegmentStatus};
use herald_protocol::{mac::MacAddr, twins::Parent};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One interface on which addresses can be announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The interface; its prefixes are sorted.
    #[serde(flatten)]
    pub interface: Interface,
    /// The interface's link-layer address.
    pub mac: MacAddr,
    /// An address of the node's own on the interface, IPv4 where there is one: the node's kernel answers for it,
    /// whatever its speaker does.
    pub address: Option<IpAddr>,
}

impl AsRef<Interface> for Segment {
    fn as_ref(&self) -> &Interface {
        &self.interface
    }
}

/// A [`Segment`] of this node, with the index by which the kernel knows its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSegment {
    /// The interface's index.
    pub index: u32,
    /// Whether the interface has carrier.
    pub carrier: bool,
    /// The interface's MTU: bytes in a frame after the Ethernet header.
    pub mtu: u32,
    /// The node's addresses of global scope on the interface, with their prefix lengths; lasting ones first.
    pub addresses: Vec<IpNet>,
    /// The node's IPv6 link-local address on the interface.
    pub link_local: Option<Ipv6Addr>,
    /// The link that the interface is a macvlan on. The two are on one network, though the kernel passes no frame from
    /// the one to the other (drivers/net/macvlan.c).
    pub macvlan_on: Option<Parent>,
    /// The segment as other nodes see it.
    pub segment: Segment,
}

impl Segment {
    /// Returns the segment as SpeakerStatus shows it, with the count of the nodes whose speakers are heard on it.
    pub fn to_status(&self, peers: usize) -> SegmentStatus {
        let Interface { name, prefixes, default_route, speaks_for } = &self.interface;
        SegmentStatus {
            interface: name.clone(),
            speaks_for: speaks_for.clone(),
            mac_address: self.mac.to_string(),
            address: self.address.map(|address| address.to_string()),
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            default_route: *default_route,
            peers: i64::try_from(peers).unwrap_or(i64::MAX),
        }
    }

    /// Reads a segment that another speaker published. Returns `None` without its MAC, because such a segment is
    /// useless to other nodes. A prefix or an address that cannot be read is left out.
    pub fn from_status(status: &SegmentStatus) -> Option<Self> {
        Some(Self {
            interface: Interface::from_status(status),
            mac: status.mac_address.parse().ok()?,
            address: status.address.as_ref().and_then(|address| address.parse().ok()),
        })
    }

    /// Returns whether the two share a prefix: then they are on one segment, as far as configuration can tell.
    pub fn meets(&self, other: &Self) -> bool {
        let shared = |p: &IpNet| other.interface.prefixes.iter().any(|q| p.contains(q) || q.contains(p));
        self.interface.prefixes.iter().any(shared)
    }
}

/// Returns the segment that a link makes; `None` where it is not an Ethernet link or no prefix is on link.
fn segment_of(link: &Link) -> Option<LocalSegment> {
    let (mac, prefixes) = (link.mac?, link.on_link_prefixes());
    let addresses: Vec<_> = link.global_addresses().collect();
    let interface =
        Interface { name: link.name.clone(), prefixes, default_route: link.default_route, speaks_for: vec![] };
    let segment = Segment { interface, mac, address: representative(&addresses) };
    (!segment.interface.prefixes.is_empty()).then_some(LocalSegment {
        index: link.index,
        carrier: link.carrier,
        mtu: link.mtu,
        addresses,
        link_local: link.link_local,
        macvlan_on: link.parent.filter(|_| matches!(link.kind.as_deref(), Some("macvlan" | "macvtap"))),
        segment,
    })
}

/// Returns the address by which other nodes ask whether the node's kernel lives: an address with neighbours on link
/// before a single one (which may be another host's virtual address), IPv4 before IPv6, then the first.
fn representative(addresses: &[IpNet]) -> Option<IpAddr> {
    let single = |address: &IpNet| address.prefix_len() == address.max_prefix_len();
    addresses.iter().min_by_key(|address| (single(address), address.addr().is_ipv6())).map(IpNet::addr)
}

/// Returns the pairs of segments that an address can both fit, with the prefix they share: the narrower of the two.
pub fn ambiguities(segments: &[LocalSegment]) -> Vec<(&str, &str, IpNet)> {
    let mut found = Vec::new();
    let mut later = segments.iter().map(|local| &local.segment.interface);
    while let Some(a) = later.next() {
        for b in later.clone() {
            for p in &a.prefixes {
                for q in &b.prefixes {
                    if p.contains(q) {
                        found.push((a.name.as_str(), b.name.as_str(), *q));
                    } else if q.contains(p) {
                        found.push((a.name.as_str(), b.name.as_str(), *p));
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use test_case::test_case;

    use super::*;

    /// Returns the segment with carrier, and no addresses to send from.
    pub(crate) fn local(index: u32, segment: Segment) -> LocalSegment {
        LocalSegment { index, carrier: true, mtu: 1500, addresses: vec![], link_local: None, macvlan_on: None, segment }
    }

    fn link(index: u32, name: &str, prefixes: &[&str]) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])),
            up: true,
            carrier: true,
            mtu: 1500,
            prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
            addresses: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
            ..Link::default()
        }
    }

    fn usable(links: &[Link]) -> Vec<LocalSegment> {
        survey(links, &Selection::default()).segments
    }

    fn names(segments: &[LocalSegment]) -> Vec<&str> {
        segments.iter().map(|s| s.segment.interface.name.as_str()).collect()
    }

    #[test]
    fn links_that_cannot_announce_are_skipped() {
        let good = link(2, "eth0", &["192.0.2.1/24"]);
        let cases = [
            Link { up: false, ..good.clone() },
            Link { master: Some(9), ..good.clone() },
            Link { mac: None, ..good.clone() },
            Link { mac: Some(MacAddr::ZERO), ..good.clone() },
            link(2, "eth0", &[]),
            link(2, "eth0", &["192.0.2.1/32", "2001:db8::1/128"]),
            link(2, "eth0", &["169.254.1.1/16", "fe80::1/64"]),
        ];
        for case in cases {
            assert_eq!(usable(std::slice::from_ref(&case)), [], "{case:?}");
        }
        assert_eq!(names(&usable(&[good])), ["eth0"]);
    }

    #[test]
    fn segment_without_carrier_is_still_a_segment() {
        let link = Link { carrier: false, ..link(2, "eth0", &["192.0.2.1/24"]) };
        let segments = usable(&[link]);
        assert_eq!(names(&segments), ["eth0"]);
        assert!(!segments[0].carrier);
    }

    #[test_case(&["192.0.2.1/24"] => Some("192.0.2.1"))]
    #[test_case(&["2001:db8::1/64", "192.0.2.1/24"] => Some("192.0.2.1"); "IPv4 first")]
    #[test_case(&["192.0.2.9/24", "192.0.2.1/24"] => Some("192.0.2.9"); "the kernel's order")]
    #[test_case(&["192.0.2.9/32", "2001:db8::1/64"] => Some("2001:db8::1"); "single addresses last")]
    #[test_case(&["169.254.1.1/16", "2001:db8::1/64"] => Some("2001:db8::1"); "link-local addresses do not count")]
    fn own_address_is_chosen_by_prefix_family_and_order(addresses: &[&str]) -> Option<&'static str> {
        let address = usable(&[link(2, "eth0", addresses)]).remove(0).segment.address?;
        ["192.0.2.1", "192.0.2.9", "2001:db8::1"].into_iter().find(|a| a.parse() == Ok(address))
    }

    #[test]
    fn own_addresses_keep_their_host_part() {
        let link =
            Link { link_local: Some("fe80::1".parse().unwrap()), ..link(2, "eth0", &["192.0.2.9/24", "fe80::1/64"]) };
        let segment = usable(&[link]).remove(0);
        assert_eq!(segment.addresses, ["192.0.2.9/24".parse().unwrap()]);
        assert_eq!(segment.link_local, Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn prefixes_are_networks_sorted_and_once() {
        let segments = usable(&[link(2, "eth0", &["192.0.2.9/24", "192.0.2.1/24", "10.0.0.1/8", "10.0.0.2/32"])]);
        let prefixes: Vec<_> = segments[0].segment.interface.prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(prefixes, ["10.0.0.0/8", "192.0.2.0/24"]);
    }

    /// A speaker reads the state that the build before it has saved.
    #[test]
    fn saved_segment_keeps_its_form() {
        let saved = serde_json::json!({"interface": "eth0", "mac": "02:00:00:00:00:02", "address": "192.0.2.1",
            "prefixes": ["192.0.2.0/24"], "default_route": false, "speaks_for": ["eth1"]});
        let segment: Segment = serde_json::from_value(saved.clone()).unwrap();
        assert_eq!((&*segment.interface.name, &*segment.interface.speaks_for), ("eth0", &["eth1".to_owned()][..]));
        assert_eq!(serde_json::to_value(segment).unwrap(), saved);
    }

    #[test]
    fn segment_survives_the_way_through_the_api() {
        let segment = usable(&[link(2, "eth0", &["192.0.2.1/24", "2001:db8::1/64"])]).remove(0).segment;
        assert_eq!(Segment::from_status(&segment.to_status(3)), Some(segment.clone()));
        assert_eq!(segment.to_status(3).peers, 3);
        let unreadable = SegmentStatus { address: Some("nowhere".to_owned()), ..segment.to_status(0) };
        assert_eq!(Segment::from_status(&unreadable), Some(Segment { address: None, ..segment }));
    }

    #[test]
    fn overlapping_prefixes_are_ambiguous() {
        let segments = usable(&[
            link(2, "eth0", &["10.0.0.1/8"]),
            link(3, "eth1", &["10.1.0.1/16", "192.0.2.1/24"]),
            link(4, "eth2", &["172.16.0.1/12"]),
        ]);
        assert_eq!(ambiguities(&segments), [("eth0", "eth1", "10.1.0.0/16".parse().unwrap())]);
    }
}
