//! Pings: ICMP (RFC 792) and ICMPv6 (RFC 4443) echo requests to one host, and the replies to them. No socket of the
//! kernel's ICMP takes part, because the link-layer address that a reply comes from counts too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_protocol::mac::MacAddr;
use pnet::packet::{
    ip::IpNextHeaderProtocols,
    ipv4::{self, Ipv4Flags, Ipv4Packet},
    util::checksum,
};

use super::{
    Heard,
    ethernet::{self, Received, To},
    icmpv6::{ECHO_REQUEST, Message, Outgoing},
};

/// The bytes after the checksum of a request, and so of its reply (RFC 792; RFC 4443 section 4.2): identifier and
/// sequence, two bytes each, and a mark. The identifier is 0: Linux gives it to no ping socket (`ping_get_port`,
/// net/ipv4/ping.c), so no ping on this node takes the replies for its own.
const BODY: [u8; 12] = *b"\0\0\0\0Herald 1";

/// The identifier of all requests.
const IDENTIFIER: [u8; 2] = [0; 2];

/// ICMP message types.
const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO_REQUEST: u8 = 8;

/// Length of an IPv4 header without options, in bytes. Linux returns the options of a request in its reply; these
/// requests have none.
const IPV4_HEADER: usize = 20;
/// Version 4, and [`IPV4_HEADER`] in words of four bytes.
const VERSION_AND_LENGTH: u8 = 0x45;
/// The time to live of packets that Linux sends itself (`IPDEFTTL`).
const TIME_TO_LIVE: u8 = 64;
/// The checksum is the second 16-bit word of an ICMP message.
const CHECKSUM_WORD: usize = 1;

/// Returns an ICMP echo request. The request must not be fragmented, so it needs no identification (RFC 6864
/// section 4.1).
pub(super) fn request_v4(address: Ipv4Addr, to: MacAddr, own: MacAddr, source: Ipv4Addr) -> Vec<u8> {
    let mut icmp = [&[ICMP_ECHO_REQUEST, 0, 0, 0], &BODY[..]].concat();
    let sum = checksum(&icmp, CHECKSUM_WORD);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    // The packet has a few tens of bytes.
    let length = u16::try_from(IPV4_HEADER + icmp.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = [
        &[VERSION_AND_LENGTH, 0],
        &length[..],
        &[0, 0, Ipv4Flags::DontFragment << 5, 0],
        &[TIME_TO_LIVE, IpNextHeaderProtocols::Icmp.0, 0, 0],
        &source.octets(),
        &address.octets(),
        &icmp,
    ]
    .concat();
    // The header's checksum is its sixth word (RFC 791 section 3.1).
    let sum = checksum(&packet[..IPV4_HEADER], 5);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet::send(to, own, ethernet::IPV4, &packet)
}

/// Returns an ICMPv6 echo request.
pub(super) fn request_v6(address: Ipv6Addr, to: MacAddr, own: MacAddr, source: Ipv6Addr) -> Vec<u8> {
    Outgoing {
        destination_mac: to,
        source_mac: own,
        destination: address,
        source,
        kind: ECHO_REQUEST,
        body: BODY.to_vec(),
    }
    .send()
}

/// Reads the reply to [`request_v4`]. Bytes beyond the length that the IPv4 header gives are padding.
pub(super) fn read_v4(received: &Received<'_>) -> Option<Heard> {
    let ip = Ipv4Packet::new(received.payload)?;
    let whole = received.payload.get(..usize::from(ip.get_total_length()))?;
    let (header, icmp) = whole.split_at_checked(IPV4_HEADER)?;
    let &[kind, code, high, low, ref body @ ..] = icmp else { return None };
    let source = Ipv4Addr::from(ip.get_source().octets());
    let sound = header[0] == VERSION_AND_LENGTH
        && ipv4::checksum(&ip) == ip.get_checksum()
        && ip.get_flags() & Ipv4Flags::MoreFragments == 0
        && ip.get_fragment_offset() == 0
        && ip.get_next_level_protocol() == IpNextHeaderProtocols::Icmp
        && checksum(icmp, CHECKSUM_WORD) == u16::from_be_bytes([high, low]);
    let is_reply = received.to == To::Host && (kind, code) == (ICMP_ECHO_REPLY, 0) && body == BODY;
    (sound && is_reply).then_some(Heard::Pong { address: IpAddr::V4(source), mac: received.source })
}

/// Reads an ICMPv6 echo reply to this host: to [`request_v6`], or to the request to all nodes, which has no mark.
pub(super) fn read_v6(received: &Received<'_>, reply: &Message<'_>) -> Option<Heard> {
    if received.to != To::Host || !reply.body.starts_with(&IDENTIFIER) {
        return None;
    }
    Some(match reply.body == BODY {
        true => Heard::Pong { address: IpAddr::V6(reply.source), mac: received.source },
        false => Heard::Evidence,
    })
}
