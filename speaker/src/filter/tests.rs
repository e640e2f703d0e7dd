use std::{collections::BTreeSet, net::IpAddr};

use herald_protocol::mac::MacAddr;
use ipnet::IpNet;
use proptest::{collection::btree_set, prelude::*, sample::Index};
use socket2::{Domain, SockFilter, Socket, Type};
use test_case::test_case;

use super::{
    interpreter::{Ancillary, check, ebpf_len, run},
    *,
};
use crate::packet::{self, Heard, Origin, tests::ping::pong_to};

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const INTERFACE: u32 = Ancillary::INTERFACE;
const OTHER_HOST: Ancillary = Ancillary { packet_type: 3, tagged: false, interface: INTERFACE };
const OUTGOING: Ancillary = Ancillary { packet_type: 4, tagged: false, interface: INTERFACE };
const TAGGED: Ancillary = Ancillary { packet_type: 1, tagged: true, interface: INTERFACE };
/// A frame of a VLAN or a macvlan on the segment's interface.
const OF_A_CHILD: Ancillary = Ancillary { packet_type: 0, tagged: false, interface: INTERFACE + 1 };

fn v4(bits: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + bits)
}

/// Returns an address of which the filter looks at the lower half alone.
fn v6(prefix: u16, bits: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(prefix) << 112 | u128::from(bits))
}

fn arp_frame(operation: u16, sender: u32, target: u32) -> Vec<u8> {
    let mut frame = packet::announcement(v4(sender).into(), OTHER, OTHER);
    frame[20..22].copy_from_slice(&operation.to_be_bytes());
    frame[38..42].copy_from_slice(&v4(target).octets());
    frame
}

fn nd_frame(kind: u8, target: u32) -> Vec<u8> {
    let mut frame = packet::announcement(v6(0x2001, target).into(), OTHER, OTHER);
    frame[54] = kind;
    if kind == 129 {
        // The identifier of an echo reply is at the offset of an advertisement's flags.
        frame[58] = 0;
    }
    frame
}

/// Returns the reply to a ping.
fn pong_frame() -> Vec<u8> {
    let origin = Origin { mac: OTHER, addresses: vec![IpNet::new(v4(9).into(), 24).unwrap()], link_local: None };
    pong_to(&packet::ping(v4(1).into(), OWN, &origin).unwrap()).unwrap()
}

fn passes_arp(owned: impl IntoIterator<Item = u32>, frame: &[u8], ancillary: Ancillary) -> bool {
    let program = arp(INTERFACE, owned.into_iter().map(v4));
    check(&program);
    run(&program, frame, ancillary)
}

fn passes_ipv6(owned: impl IntoIterator<Item = u32>, frame: &[u8], ancillary: Ancillary) -> bool {
    let program = ipv6(INTERFACE, owned.into_iter().map(|bits| v6(0xfd00, bits)));
    check(&program);
    run(&program, frame, ancillary)
}

#[test_case(1, 1, 7, Ancillary::BROADCAST, true; "a request for an own address")]
#[test_case(1, 1, 7, Ancillary::HOST, true; "a unicast request for an own address")]
#[test_case(1, 7, 1, Ancillary::BROADCAST, true; "a stranger that asks from an own address")]
#[test_case(1, 7, 7, Ancillary::BROADCAST, true; "a stranger's announcement")]
#[test_case(2, 7, 1, Ancillary::BROADCAST, true; "a stranger's broadcast reply")]
#[test_case(1, 1, 2, Ancillary::BROADCAST, false; "foreign request")]
#[test_case(1, 1, 2, Ancillary::HOST, false; "foreign unicast request")]
#[test_case(2, 1, 7, Ancillary::BROADCAST, false; "a reply is not about its target")]
#[test_case(2, 1, 2, Ancillary::HOST, true; "a reply to a probe")]
#[test_case(3, 7, 7, Ancillary::HOST, false; "neither request nor reply")]
#[test_case(1, 7, 7, OTHER_HOST, false; "to another host")]
#[test_case(2, 7, 7, OTHER_HOST, false; "a reply to another host")]
#[test_case(1, 7, 7, OUTGOING, false; "a frame of this host")]
#[test_case(1, 7, 7, TAGGED, false; "tagged")]
#[test_case(2, 7, 1, OF_A_CHILD, false; "of a VLAN")]
fn rule_decides_about_arp(operation: u16, sender: u32, target: u32, ancillary: Ancillary, expected: bool) {
    assert_eq!(passes_arp([7], &arp_frame(operation, sender, target), ancillary), expected);
}

#[test_case(12, 0x86; "EtherType")]
#[test_case(15, 6; "hardware type")]
#[test_case(16, 0x86; "protocol type")]
#[test_case(18, 8; "hardware length")]
#[test_case(19, 16; "protocol length")]
fn arp_with_another_header_is_dropped(at: usize, byte: u8) {
    let mut frame = arp_frame(2, 7, 7);
    frame[at] = byte;
    assert!(!passes_arp([7], &frame, Ancillary::HOST));
}

#[test_case(135, 7, Ancillary::MULTICAST, true; "a solicitation for an own address")]
#[test_case(135, 7, Ancillary::HOST, true; "a unicast solicitation for an own address")]
#[test_case(135, 8, Ancillary::MULTICAST, false; "foreign solicitation")]
#[test_case(135, 8, Ancillary::HOST, false; "foreign unicast solicitation")]
#[test_case(136, 7, Ancillary::MULTICAST, true; "a stranger's advertisement")]
#[test_case(136, 8, Ancillary::MULTICAST, false; "foreign advertisement")]
#[test_case(136, 8, Ancillary::HOST, true; "an answer to a probe")]
#[test_case(129, 8, Ancillary::HOST, true; "an echo reply")]
#[test_case(129, 7, Ancillary::MULTICAST, false; "an echo reply to a group")]
#[test_case(128, 7, Ancillary::HOST, false; "an echo request")]
#[test_case(134, 7, Ancillary::HOST, false; "a router advertisement")]
#[test_case(136, 7, OTHER_HOST, false; "to another host")]
#[test_case(136, 7, OUTGOING, false; "a frame of this host")]
#[test_case(135, 7, TAGGED, false; "tagged")]
#[test_case(136, 7, OF_A_CHILD, false; "of a VLAN")]
fn rule_decides_about_ipv6(kind: u8, target: u32, ancillary: Ancillary, expected: bool) {
    assert_eq!(passes_ipv6([7], &nd_frame(kind, target), ancillary), expected);
}

#[test_case(12, 0x08; "EtherType")]
#[test_case(20, 44; "a fragment")]
#[test_case(20, 0; "hop-by-hop options")]
#[test_case(21, 254; "hop limit")]
#[test_case(55, 1; "code")]
fn ipv6_with_another_header_is_dropped(at: usize, byte: u8) {
    let mut frame = nd_frame(136, 7);
    frame[at] = byte;
    assert!(!passes_ipv6([7], &frame, Ancillary::HOST));
}

#[test]
fn echo_reply_passes_with_any_hop_limit() {
    let mut frame = nd_frame(129, 7);
    frame[21] = 64;
    assert!(passes_ipv6([], &frame, Ancillary::HOST));
}

#[test]
fn without_addresses_only_answers_to_probes_pass() {
    assert!(passes_arp([], &arp_frame(2, 1, 2), Ancillary::HOST));
    assert!(!passes_arp([], &arp_frame(1, 1, 2), Ancillary::HOST));
    assert!(passes_ipv6([], &nd_frame(136, 1), Ancillary::HOST));
    assert!(!passes_ipv6([], &nd_frame(135, 1), Ancillary::HOST));
}

#[test]
fn echo_reply_with_another_identifier_is_dropped() {
    for at in [58, 59] {
        let mut frame = nd_frame(129, 7);
        frame[at] = 1;
        assert!(!passes_ipv6([7], &frame, Ancillary::HOST));
    }
}

fn passes_ipv4(frame: &[u8], ancillary: Ancillary) -> bool {
    let program = ipv4(INTERFACE);
    check(&program);
    run(&program, frame, ancillary)
}

#[test_case(Ancillary::HOST, true; "to this host")]
#[test_case(Ancillary::BROADCAST, false; "to all")]
#[test_case(Ancillary::MULTICAST, false; "to a group")]
#[test_case(OTHER_HOST, false; "to another host")]
#[test_case(OUTGOING, false; "a frame of this host")]
#[test_case(Ancillary { tagged: true, ..Ancillary::HOST }, false; "tagged")]
#[test_case(OF_A_CHILD, false; "of a VLAN")]
fn packet_type_decides_about_echo_replies(ancillary: Ancillary, expected: bool) {
    assert_eq!(passes_ipv4(&pong_frame(), ancillary), expected);
}

#[test_case(12, 0x86; "EtherType")]
#[test_case(14, 0x46; "IP options")]
#[test_case(20, 0x20; "first fragment")]
#[test_case(21, 1; "later fragment")]
#[test_case(23, 6; "TCP")]
#[test_case(34, 8; "a request")]
#[test_case(35, 1; "code")]
#[test_case(38, 1; "identifier")]
#[test_case(39, 1; "identifier, second byte")]
fn echo_reply_with_another_header_is_dropped(at: usize, byte: u8) {
    let mut frame = pong_frame();
    frame[at] = byte;
    assert!(!passes_ipv4(&frame, Ancillary::HOST));
    assert!((0..40).all(|cut| !passes_ipv4(&pong_frame()[..cut], Ancillary::HOST)));
}

/// Kernels differ in whether they mark the reply as not to be fragmented.
#[test]
fn echo_replies_of_all_kernels_pass() {
    let mut frame = pong_frame();
    for flags in [0, 0x40] {
        frame[20] = flags;
        assert!(passes_ipv4(&frame, Ancillary::HOST));
    }
}

/// A node that receives a million packets a second pays for each instruction.
#[test]
fn tcp_costs_three_instructions() {
    let program = ipv4(INTERFACE);
    assert_eq!(program[..3].iter().map(|i| i.code).collect::<Vec<_>>(), [0x30, 0x15, 0x06]);
}

#[test_case(Ancillary::MULTICAST, true; "to the group")]
#[test_case(Ancillary::HOST, true; "to this host")]
#[test_case(OTHER_HOST, false; "to another host")]
#[test_case(OUTGOING, false; "a frame of this host")]
#[test_case(TAGGED, false; "tagged")]
#[test_case(OF_A_CHILD, false; "of a VLAN")]
fn packet_type_decides_about_hellos(ancillary: Ancillary, expected: bool) {
    let program = hello(INTERFACE);
    check(&program);
    assert_eq!(run(&program, &[0; 64], ancillary), expected);
}

/// Returns addresses of which no two gaps are equal and all operands are large: they make the longest programs there
/// are.
fn worst() -> impl Iterator<Item = u32> {
    (0..1000).map(|i| 0xc000_0000 + i * i * 8)
}

#[test]
fn longest_programs_fit_and_the_kernel_takes_them() {
    let programs = [
        arp(INTERFACE, worst().map(Ipv4Addr::from_bits)),
        ipv6(INTERFACE, worst().map(|bits| v6(0xfd00, bits))),
        ipv4(INTERFACE),
        hello(INTERFACE),
    ];
    for program in programs {
        check(&program);
        assert!(ebpf_len(&program) <= MAX_EBPF_INSTRUCTIONS, "{} eBPF instructions", ebpf_len(&program));
        let filter: Vec<SockFilter> = program.into_iter().map(SockFilter::from).collect();
        // Any socket takes a filter, and the kernel makes the same checks.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.attach_filter(&filter).unwrap();
    }
}

#[test]
fn thousand_scattered_addresses_pass() {
    let (program4, program6) =
        (arp(INTERFACE, worst().map(Ipv4Addr::from_bits)), ipv6(INTERFACE, worst().map(|bits| v6(0xfd00, bits))));
    for bits in worst() {
        let request = packet::announcement(Ipv4Addr::from_bits(bits).into(), OTHER, OTHER);
        assert!(run(&program4, &request, Ancillary::BROADCAST));
        assert!(run(&program6, &nd_frame(135, bits), Ancillary::MULTICAST));
    }
    let below = packet::announcement(Ipv4Addr::from_bits(0xc000_0000 - 1).into(), OTHER, OTHER);
    assert!(!run(&program4, &below, Ancillary::BROADCAST));
}

/// Returns whether a frame is about one of these addresses, or answers a probe.
fn matters(heard: Heard, owned: &BTreeSet<IpAddr>, ancillary: Ancillary) -> bool {
    let Heard::Packet { packet, .. } = heard else { return true };
    let about = |address: IpAddr| owned.contains(&address);
    let answer = packet.asks.is_none() && ancillary.packet_type == Ancillary::HOST.packet_type;
    answer
        || packet.asks.is_some_and(about)
        // The source of a solicitation does not matter: a host that uses the address of another answers for it, too.
        || packet.binding.is_some_and(|(address, _)| about(address) && (address.is_ipv4() || packet.asks.is_none()))
}

fn ancillary() -> impl Strategy<Value = Ancillary> {
    (0u8..5, prop::bool::weighted(0.1)).prop_map(|(packet_type, tagged)| Ancillary {
        packet_type,
        tagged,
        interface: INTERFACE,
    })
}

proptest! {
    #[test]
    fn arp_filter_agrees_with_the_rule(
        owned in btree_set(0u32..60, 0..MAX_RANGES / 2), operation in 0u16..4, sender in 0u32..60, target in 0u32..60,
        ancillary in ancillary(),
    ) {
        let from_another = !ancillary.tagged && ancillary.packet_type < 3;
        let expected = from_another && match operation {
            1 => owned.contains(&target) || owned.contains(&sender),
            2 => owned.contains(&sender) || ancillary.packet_type == 0,
            _ => false,
        };
        prop_assert_eq!(passes_arp(owned, &arp_frame(operation, sender, target), ancillary), expected);
    }

    #[test]
    fn ipv6_filter_agrees_with_the_rule(
        owned in btree_set(0u32..60, 0..60), kind in 126u8..140, target in 0u32..60, hop_limit in 253u8.., code in 0u8..2,
        ancillary in ancillary(),
    ) {
        let mut frame = nd_frame(kind, target);
        frame[21] = hop_limit;
        frame[55] = code;
        let from_another = !ancillary.tagged && ancillary.packet_type < 3;
        let to_this_host = ancillary.packet_type == 0;
        let expected = from_another && code == 0 && match kind {
            129 => to_this_host,
            135 => hop_limit == 255 && owned.contains(&target),
            136 => hop_limit == 255 && (to_this_host || owned.contains(&target)),
            _ => false,
        };
        prop_assert_eq!(passes_ipv6(owned, &frame, ancillary), expected);
    }

    #[test]
    fn frame_about_an_owned_address_is_never_dropped(owned in btree_set(any::<u32>(), 1..2000), pick in any::<Index>()) {
        let bits = *owned.iter().nth(pick.index(owned.len())).unwrap();
        let address = Ipv4Addr::from_bits(bits);
        let program = arp(INTERFACE, owned.iter().copied().map(Ipv4Addr::from_bits));
        check(&program);
        prop_assert!(ebpf_len(&program) <= MAX_EBPF_INSTRUCTIONS);
        prop_assert!(run(&program, &packet::announcement(address.into(), OTHER, OTHER), Ancillary::BROADCAST));
        let program = ipv6(INTERFACE, owned.iter().map(|bits| v6(0xfd00, *bits)));
        check(&program);
        prop_assert!(ebpf_len(&program) <= MAX_EBPF_INSTRUCTIONS);
        prop_assert!(run(&program, &nd_frame(135, bits), Ancillary::MULTICAST));
    }

    /// The reader and the filter agree, even on damaged and cut frames.
    #[test]
    fn frame_that_the_reader_can_use_passes(
        owned in btree_set(0u32..6, 0..4), sender in 0u32..6, target in 0u32..6, operation in 1u16..3,
        at in 12usize..90, byte in any::<u8>(), damaged in any::<bool>(), cut in 0usize..90, ancillary in ancillary(),
    ) {
        let net = |address: IpAddr| IpNet::from(address);
        let origin = Origin { mac: OTHER, addresses: vec![net(v6(0x2001, sender).into())], link_local: Some(v6(0xfe80, sender)) };
        let address = v6(0x2001, target).into();
        let frames = [
            arp_frame(operation, sender, target),
            packet::announcement(address, OTHER, OTHER),
            packet::enquiry(address, &origin),
            packet::probe(address, OWN, &origin).unwrap(),
        ];
        let owned4 = owned.iter().map(|bits| v4(*bits));
        let owned6 = owned.iter().map(|bits| v6(0x2001, *bits));
        let all: BTreeSet<IpAddr> = owned4.clone().map(IpAddr::from).chain(owned6.clone().map(IpAddr::from)).collect();
        let (program4, program6) = (arp(INTERFACE, owned4), ipv6(INTERFACE, owned6));
        for mut frame in frames {
            let destination = match ancillary.packet_type {
                0 => OWN,
                1 => MacAddr::BROADCAST,
                _ => MacAddr([0x33, 0x33, 0, 0, 0, 1]),
            };
            frame[..6].copy_from_slice(&destination.0);
            if let Some(place) = frame.get_mut(at).filter(|_| damaged) {
                *place = byte;
            }
            frame.truncate(cut.max(40));
            let kind = ancillary.packet_type.into();
            if let Some(heard) = packet::read_arp(&frame, kind, OWN).filter(|_| !ancillary.tagged) {
                prop_assert_eq!(run(&program4, &frame, ancillary), matters(heard, &all, ancillary));
            }
            if let Some(heard) = packet::read_ipv6(&frame, kind, OWN).filter(|_| !ancillary.tagged) {
                prop_assert!(run(&program6, &frame, ancillary) || !matters(heard, &all, ancillary));
            }
        }
    }

    #[test]
    fn cut_frames_are_dropped(cut in 0usize..74) {
        prop_assert!(!passes_arp([7], &arp_frame(1, 7, 7)[..cut.min(41)], Ancillary::BROADCAST));
        prop_assert!(!passes_ipv6([7], &nd_frame(135, 7)[..cut], Ancillary::MULTICAST));
    }
}
