mod arp;
mod nd;
pub(crate) mod ping;

use proptest::{collection::vec, prelude::*};
use test_case::test_case;

use super::*;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// The link-layer address of a node that this one covers.
const COVERED: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn origin(addresses: &[&str], link_local: Option<&str>) -> Origin {
    Origin {
        mac: OWN,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        link_local: link_local.map(|address| address.parse().unwrap()),
    }
}

/// Returns the content of a frame of this node, as another host on the segment reads it.
fn heard_by_other(frame: &[u8]) -> Option<Heard> {
    let destination = MacAddr(frame[..6].try_into().unwrap());
    let kind = match destination {
        OTHER => PacketType::Host,
        MacAddr::BROADCAST => PacketType::Broadcast,
        _ => PacketType::Multicast,
    };
    read_arp(frame, kind, OTHER).or_else(|| read_ipv6(frame, kind, OTHER))
}

fn packet_heard(frame: &[u8]) -> Packet {
    let Some(Heard::Packet { packet, .. }) = heard_by_other(frame) else { panic!("unreadable: {frame:x?}") };
    packet
}

#[test_case("192.0.2.10", Some("192.0.2.1"); "IPv4 in the subnet")]
#[test_case("192.0.2.130", Some("192.0.2.129"); "the longest prefix")]
#[test_case("198.51.100.1", None; "IPv4 elsewhere")]
#[test_case("2001:db8::10", Some("2001:db8::1"); "IPv6 in the prefix")]
#[test_case("2001:db8:1::10", None; "IPv6 elsewhere")]
fn sender_address_is_in_the_subnet_with_the_longest_prefix(address: &str, expected: Option<&str>) {
    let origin = origin(&["192.0.2.1/24", "192.0.2.129/25", "2001:db8::1/64"], Some("fe80::1"));
    assert_eq!(origin.beside(address.parse().unwrap()), expected.map(|own| own.parse().unwrap()));
}

#[test_case("192.0.2.10"; "IPv4")]
#[test_case("2001:db8::10"; "IPv6")]
fn announcement_states_a_binding(address: &str) {
    let address = address.parse().unwrap();
    let packet = packet_heard(&announcement(address, OWN, OWN));
    assert_eq!((packet.source, packet.binding), (OWN, Some((address, OWN))));
    assert!(packet.asks.is_none_or(|asked| asked == address));
}

#[test_case("192.0.2.10"; "IPv4")]
#[test_case("2001:db8::10"; "IPv6")]
fn enquiry_asks_and_states_nothing(address: &str) {
    let address = address.parse().unwrap();
    let packet = packet_heard(&enquiry(address, &origin(&["192.0.2.1/24"], None)));
    assert_eq!(packet, Packet { source: OWN, binding: None, asks: Some(address) });
}

#[test_case("192.0.2.10", Some("192.0.2.1"); "IPv4 in the subnet")]
#[test_case("198.51.100.1", None; "IPv4 elsewhere")]
#[test_case("2001:db8::10", Some("2001:db8::1"); "IPv6 in the prefix")]
#[test_case("2001:db8:1::10", Some("fe80::1"); "IPv6 elsewhere")]
#[test_case("fe80::10", Some("fe80::1"); "link-local")]
fn probe_goes_to_one_host(address: &str, source: Option<&str>) {
    let address = address.parse().unwrap();
    let frame = probe(address, OTHER, &origin(&["192.0.2.1/24", "2001:db8::1/64"], Some("fe80::1"))).unwrap();
    assert_eq!(frame[..6], OTHER.0);
    let binding = source.map(|source| (source.parse().unwrap(), OWN));
    assert_eq!(packet_heard(&frame), Packet { source: OWN, binding, asks: Some(address) });
}

#[test]
fn solicitation_needs_a_source_address() {
    let bare = origin(&[], None);
    assert_eq!(probe("2001:db8::10".parse().unwrap(), OTHER, &bare), None);
    assert!(probe("192.0.2.10".parse().unwrap(), OTHER, &bare).is_some());
    assert_eq!(echo_all(&bare), None);
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Answers of Linux 6.18 to [`probe`] and [`enquiry`], captured.
#[test_case(
    "02000000000a02000000000b0806000108000604000202000000000bc000020202000000000ac0000201",
    PacketType::Host, "192.0.2.2"; "ARP probe"
)]
#[test_case(
    "02000000000a02000000000b0806000108000604000202000000000bc000020202000000000a00000000",
    PacketType::Host, "192.0.2.2"; "ARP enquiry"
)]
#[test_case(
    "02000000000a02000000000b86dd6000000000183aff20010db800000000000000000000000220010db80000000000000000000000018800ae7c\
     4000000020010db8000000000000000000000002",
    PacketType::Host, "2001:db8::2"; "solicitation to the host: without link-layer address"
)]
#[test_case(
    "33330000000102000000000b86dd6000000000203aff20010db8000000000000000000000002ff0200000000000000000000000000018800f91e\
     2000000020010db8000000000000000000000002020102000000000b",
    PacketType::Multicast, "2001:db8::2"; "Duplicate Address Detection"
)]
fn answers_of_linux_are_read(hex: &str, kind: PacketType, address: &str) {
    let (frame, asked, answering) = (bytes(hex), MacAddr([2, 0, 0, 0, 0, 0xa]), MacAddr([2, 0, 0, 0, 0, 0xb]));
    let heard = read_arp(&frame, kind, asked).or_else(|| read_ipv6(&frame, kind, asked));
    let binding = Some((address.parse().unwrap(), answering));
    assert_eq!(heard, Some(Heard::Packet { packet: Packet { source: answering, binding, asks: None }, asker: None }));
}

/// The captured frame answers [`echo_all`].
#[test]
fn echo_reply_of_linux_is_read() {
    let frame = bytes(
        "02000000000a02000000000b86dd60079bb500083a40fe80000000000000000000000000000bfe80000000000000000000000000000a8100\
         81a600000000",
    );
    assert_eq!(read_ipv6(&frame, PacketType::Host, MacAddr([2, 0, 0, 0, 0, 0xa])), Some(Heard::Evidence));
}

/// Returns frames of every kind, as this host receives them.
fn frames() -> impl Strategy<Value = (Vec<u8>, PacketType)> {
    let addresses = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ];
    let other = Origin { mac: OTHER, ..origin(&["0.0.0.1/0", "2001:db8::9/64"], Some("fe80::9")) };
    (addresses, 0..4).prop_map(move |(address, kind)| match kind {
        0 => (probe(address, OWN, &other).unwrap(), PacketType::Host),
        1 if address.is_ipv4() => (announcement(address, OTHER, OTHER), PacketType::Broadcast),
        1 => (announcement(address, OTHER, OTHER), PacketType::Multicast),
        2 => (echo_all(&other).unwrap(), PacketType::Multicast),
        _ if address.is_ipv4() => (enquiry(address, &other), PacketType::Broadcast),
        _ => (enquiry(address, &other), PacketType::Multicast),
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200), kind in 0u8..7) {
        prop_assert_eq!(read_arp(&bytes, kind.into(), OWN).is_some() && read_ipv6(&bytes, kind.into(), OWN).is_some(), false);
    }

    #[test]
    fn no_damaged_frame_panics_or_is_read_cut(
        (mut frame, kind) in frames(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let cut = cut.index(frame.len());
        prop_assert_eq!(read_arp(&frame[..cut], kind, OWN), None);
        prop_assert_eq!(read_ipv6(&frame[..cut], kind, OWN), None);
        let at = at.index(frame.len());
        frame[at] = byte;
        let answered = [read_arp(&frame, kind, OWN), read_ipv6(&frame, kind, OWN)];
        for heard in answered.into_iter().flatten() {
            if let Heard::Packet { asker: Some(asker), .. } = heard {
                prop_assert!(asker.answer(OWN, OWN).len() >= 42);
            }
        }
    }

    /// A damaged IPv6 payload never has the right checksum.
    #[test]
    fn wrong_checksum_is_noticed(target in any::<u128>(), at in 22usize..86, bit in 0u8..8) {
        let mut frame = announcement(Ipv6Addr::from_bits(target & !(0xff << 120)).into(), OWN, OWN);
        prop_assert!(heard_by_other(&frame).is_some());
        frame[at] ^= 1 << bit;
        prop_assert_eq!(heard_by_other(&frame), None);
    }

    #[test]
    fn answer_states_the_address_that_was_asked_for(address in prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits & !(0xff << 120)))),
    ], covered in any::<bool>()) {
        let other = Origin { mac: OTHER, ..origin(&["2001:db8::9/64"], Some("fe80::9")) };
        let at = if covered { COVERED } else { OWN };
        let unicast = (probe(address, OWN, &other).unwrap(), PacketType::Host);
        let kind = if address.is_ipv4() { PacketType::Broadcast } else { PacketType::Multicast };
        for (frame, kind) in [unicast, (enquiry(address, &other), kind)] {
            let heard = read_arp(&frame, kind, OWN).or_else(|| read_ipv6(&frame, kind, OWN));
            // A request from 0.0.0.0 for itself is gratuitous, and no host sends it.
            let Some(Heard::Packet { asker: Some(asker), .. }) = heard else {
                prop_assert!(address == IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                continue;
            };
            let answer = packet_heard(&asker.answer(OWN, at));
            let binding = (!address.is_unspecified() || address.is_ipv6()).then_some((address, at));
            prop_assert_eq!(answer, Packet { source: OWN, binding, asks: None });
        }
    }
}
