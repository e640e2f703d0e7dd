//! The classic BPF programs of the packet sockets: the kernel drops every frame that does not concern this speaker, so
//! that foreign ARP and ND, of which a busy segment has thousands a second, do not wake the speaker. Pure.
//!
//! All programs drop frames for another host, this host's own frames, tagged ones, and those of another interface. The
//! programs look addresses up in the ranges that the addresses form: the ranges are sorted, and searched by halving, so
//! that a frame costs about 3 log2(n) instructions. If there are more runs of addresses than a program has room for,
//! the runs with the smallest gaps are joined: the filter then passes a few frames too many, which the speaker reads
//! and drops.

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod kernel_tests;
mod program;
mod ranges;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use program::Instruction;
use program::{Block, Load};
use ranges::Ranges;

/// The largest number of eBPF instructions in a filter. The kernel charges a filter to the socket as eBPF, at 8 bytes
/// an instruction, and while one filter replaces another it charges both; before 6.7 a socket had 20 KiB for that
/// (net.core.optmem_max). This memory holds 1,280 instructions; the difference is left for the two headers
/// (`struct bpf_prog`) and for options.
#[cfg(test)]
const MAX_EBPF_INSTRUCTIONS: usize = 1250;

/// Number of ranges in a program at most, in all its searches together. A range becomes 10 eBPF instructions at most: a
/// branch of 4, two comparisons of 2 (above 127.255.255.255, where the kernel loads the operand first), a return of 2.
pub const MAX_RANGES: usize = 100;

/// Offsets from the Ethernet destination on: EtherType at 12; ARP (RFC 826), IPv4 (RFC 791) and IPv6 (RFC 8200) begin
/// at 14, ICMP without IP options at 34, ICMPv6 without extension headers at 54.
const ETHERTYPE: Load = Load::half(12);
const ARP_TYPES: Load = Load::word(14);
const ARP_LENGTHS_AND_OPERATION: Load = Load::word(18);
const ARP_SENDER: Load = Load::word(28);
const ARP_TARGET: Load = Load::word(38);
const IPV4_VERSION_AND_LENGTH: Load = Load::byte(14);
/// The flags and the fragment offset.
const IPV4_FRAGMENT: Load = Load::half(20);
const IPV4_PROTOCOL: Load = Load::byte(23);
const ICMP_TYPE_AND_CODE: Load = Load::half(34);
const ICMP_IDENTIFIER: Load = Load::half(38);
const IPV6_NEXT_HEADER: Load = Load::byte(20);
const IPV6_HOP_LIMIT: Load = Load::byte(21);
const ICMPV6_TYPE_AND_CODE: Load = Load::half(54);
const ICMPV6_IDENTIFIER: Load = Load::half(58);
/// The last four bytes of the target of a solicitation or an advertisement (RFC 4861 section 4.3).
const ND_TARGET_END: Load = Load::word(74);

const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_ARP: u32 = 0x0806;
const ETHERTYPE_IPV6: u32 = 0x86dd;
/// Hardware type Ethernet, protocol type IPv4.
const ETHERNET_IPV4: u32 = 0x0001_0800;
/// Hardware length 6, protocol length 4, and the operation.
const ARP_REQUEST: u32 = 0x0604_0001;
const ARP_REPLY: u32 = 0x0604_0002;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;
/// Version 4, and a header of five words, without options.
const IPV4_WITHOUT_OPTIONS: u32 = 0x45;
/// The packet is not a fragment, whether or not it might become one.
const MAY_FRAGMENT: u32 = 0;
const DO_NOT_FRAGMENT: u32 = 0x4000;
/// The identifier of the pings that are sent (`packet::ping`, `packet::echo_all`).
const PING_IDENTIFIER: u32 = 0;
const ICMP_ECHO_REPLY: u32 = 0;
/// The ICMPv6 types, each with code 0.
const ECHO_REPLY: u32 = 129 << 8;
const SOLICITATION: u32 = 135 << 8;
const ADVERTISEMENT: u32 = 136 << 8;
/// The hop limit of Neighbour Discovery (RFC 4861 section 7.1).
const ND_HOP_LIMIT: u32 = 255;

/// Values of `sll_pkttype` (linux/if_packet.h).
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;
const PACKET_OUTGOING: u32 = 4;

/// Returns the program of the ARP socket. The program passes, for IPv4 on Ethernet,
///
/// - requests for one of the addresses;
/// - requests and replies whose sender claims to have one of the addresses;
/// - replies to this host from any sender: they answer liveness probes.
pub fn arp(interface: u32, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Instruction> {
    // The ranges are searched twice.
    let ranges = Ranges::of(addresses.into_iter().map(Ipv4Addr::to_bits), MAX_RANGES / 2);
    arp_of(interface, &[ARP_REQUEST, ARP_REPLY])
        .when(ARP_REPLY, pass_if_to_this_host())
        .load(ARP_LENGTHS_AND_OPERATION)
        .when(ARP_REQUEST, Block::new().load(ARP_TARGET).pass_within(&ranges))
        .load(ARP_SENDER)
        .pass_within(&ranges)
        .drop_rest()
}

/// Returns the program of the IPv6 socket. The program passes ICMPv6 that follows the IPv6 header directly, with code
/// 0:
///
/// - Neighbour Solicitations and Advertisements whose target ends in the last 32 bits of one of the addresses;
/// - Neighbour Advertisements to this host from any sender: they answer liveness probes;
/// - echo replies to this host with the identifier of its own pings.
///
/// Both kinds of Neighbour Discovery pass only with hop limit 255.
pub fn ipv6(interface: u32, addresses: impl IntoIterator<Item = Ipv6Addr>) -> Vec<Instruction> {
    let ends = addresses.into_iter().map(|address| {
        let [.., a, b, c, d] = address.octets();
        u32::from_be_bytes([a, b, c, d])
    });
    let ranges = Ranges::of(ends, MAX_RANGES);
    from_another(interface)
        .load(ETHERTYPE)
        .require(&[ETHERTYPE_IPV6])
        .load(IPV6_NEXT_HEADER)
        .require(&[ICMPV6])
        .load(ICMPV6_TYPE_AND_CODE)
        .when(ECHO_REPLY, pass_pongs_to_this_host())
        .load(ICMPV6_TYPE_AND_CODE)
        .require(&[SOLICITATION, ADVERTISEMENT])
        .load(IPV6_HOP_LIMIT)
        .require(&[ND_HOP_LIMIT])
        .load(ICMPV6_TYPE_AND_CODE)
        .when(ADVERTISEMENT, pass_if_to_this_host())
        .load(ND_TARGET_END)
        .pass_within(&ranges)
        .drop_rest()
}

/// Returns the program of the IPv4 socket. The program passes ICMP echo replies to this host with the identifier of its
/// own pings.
///
/// Nearly all packets that a node receives are TCP and UDP: the program drops these first, by three instructions.
pub fn ipv4(interface: u32) -> Vec<Instruction> {
    Block::new()
        .load(IPV4_PROTOCOL)
        .require(&[ICMP])
        .load(Load::PACKET_TYPE)
        .require(&[PACKET_HOST])
        .load(Load::INTERFACE)
        .require(&[interface])
        .load(Load::VLAN_TAG_PRESENT)
        .require(&[0])
        .load(ETHERTYPE)
        .require(&[ETHERTYPE_IPV4])
        .load(IPV4_VERSION_AND_LENGTH)
        .require(&[IPV4_WITHOUT_OPTIONS])
        .load(IPV4_FRAGMENT)
        .require(&[MAY_FRAGMENT, DO_NOT_FRAGMENT])
        .load(ICMP_TYPE_AND_CODE)
        .require(&[ICMP_ECHO_REPLY])
        .load(ICMP_IDENTIFIER)
        .require(&[PING_IDENTIFIER])
        .pass_rest()
}

/// Returns the program of the Hello socket, which is bound to the protocol's EtherType. The program passes all frames
/// but those for another host, this host's own frames, tagged ones, and those of another interface.
pub fn hello(interface: u32) -> Vec<Instruction> {
    from_another(interface).pass_rest()
}

/// Returns a block that goes on with ARP for IPv4 on Ethernet, of one of the operations, which is left in the
/// accumulator.
fn arp_of(interface: u32, operations: &[u32]) -> Block {
    from_another(interface)
        .load(ETHERTYPE)
        .require(&[ETHERTYPE_ARP])
        .load(ARP_TYPES)
        .require(&[ETHERNET_IPV4])
        .load(ARP_LENGTHS_AND_OPERATION)
        .require(operations)
}

/// Returns a block that goes on with untagged frames of this interface that are not for another host and not this
/// host's own.
///
/// A socket bound to a NIC also receives frames that belong to the VLANs and macvlans on it. The kernel delivers a
/// frame to the sockets of the device it arrived on (`orig_dev->ptype_specific`) after `vlan_do_receive` has taken the
/// tag away and made the VLAN's device that of the frame, and after a macvlan's `rx_handler` has done the same
/// (`__netif_receive_skb_core`, net/core/dev.c). The tag does not tell them apart then; the device does. recvfrom also
/// gives that device in `sll_ifindex`, unless PACKET_ORIGDEV is set (`packet_rcv`, net/packet/af_packet.c). The device
/// of a frame that came by a port of a bond or a bridge is the bond or the bridge.
fn from_another(interface: u32) -> Block {
    Block::new()
        .load(Load::PACKET_TYPE)
        .refuse(PACKET_OTHERHOST)
        .refuse(PACKET_OUTGOING)
        .load(Load::INTERFACE)
        .require(&[interface])
        // The tag itself is out of the frame by now: the kernel keeps it separately.
        .load(Load::VLAN_TAG_PRESENT)
        .require(&[0])
}

fn pass_if_to_this_host() -> Block {
    Block::new().load(Load::PACKET_TYPE).when(PACKET_HOST, Block::pass())
}

fn pass_pongs_to_this_host() -> Block {
    Block::new().load(ICMPV6_IDENTIFIER).when(PING_IDENTIFIER, pass_if_to_this_host())
}

#[cfg(test)]
mod tests;
