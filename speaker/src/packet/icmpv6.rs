//! ICMPv6 (RFC 4443) directly in IPv6 (RFC 8200) on Ethernet (RFC 2464).

use std::net::Ipv6Addr;

use herald_protocol::mac::MacAddr;
use pnet::packet::{ip::IpNextHeaderProtocols, ipv6::Ipv6Packet, util::ipv6_checksum};

use super::ethernet;

/// The group of all nodes of the link.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Message types (RFC 4443, RFC 4861).
pub(super) const ECHO_REQUEST: u8 = 128;
pub(super) const ECHO_REPLY: u8 = 129;
pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The hop limit of all packets that are sent, and of all Neighbour Discovery that is read: no router forwards a packet
/// and leaves its hop limit at 255, so the packet comes from this link (RFC 4861 section 7.1).
pub(super) const HOP_LIMIT: u8 = 255;

/// Length of an IPv6 header without extensions, in bytes.
const IPV6_HEADER: usize = 40;
/// The checksum is the second 16-bit word of an ICMPv6 message.
const CHECKSUM_WORD: usize = 1;

/// A message whose lengths and checksum are right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// The source, which is never a group.
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub kind: u8,
    pub code: u8,
    /// The bytes after the checksum.
    pub body: &'a [u8],
}

/// Reads the payload of the Ethernet frame. Bytes beyond the length that the IPv6 header gives are padding.
pub(super) fn read(payload: &[u8]) -> Option<Message<'_>> {
    let ip = Ipv6Packet::new(payload)?;
    let source = Ipv6Addr::from(ip.get_source().octets());
    let destination = Ipv6Addr::from(ip.get_destination().octets());
    let end = IPV6_HEADER + usize::from(ip.get_payload_length());
    let icmp = payload.get(IPV6_HEADER..end)?;
    let &[kind, code, high, low, ref body @ ..] = icmp else { return None };
    let sound = ip.get_version() == 6
        && ip.get_next_header() == IpNextHeaderProtocols::Icmpv6
        && !source.is_multicast()
        && checksum(icmp, source, destination) == u16::from_be_bytes([high, low]);
    sound.then_some(Message { source, destination, hop_limit: ip.get_hop_limit(), kind, code, body })
}

/// A message to send: code 0, hop limit 255, traffic class and flow label 0.
pub(super) struct Outgoing {
    pub destination_mac: MacAddr,
    pub source_mac: MacAddr,
    pub destination: Ipv6Addr,
    pub source: Ipv6Addr,
    pub kind: u8,
    /// The bytes after the checksum.
    pub body: Vec<u8>,
}

impl Outgoing {
    /// Returns the whole frame.
    pub(super) fn send(&self) -> Vec<u8> {
        let mut icmp = [&[self.kind, 0, 0, 0], &self.body[..]].concat();
        let checksum = checksum(&icmp, self.source, self.destination);
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        let header = [0x60, 0, 0, 0];
        // The message has a few tens of bytes.
        let length = u16::try_from(icmp.len()).unwrap_or(u16::MAX).to_be_bytes();
        let packet = [
            &header[..],
            &length,
            &[IpNextHeaderProtocols::Icmpv6.0, HOP_LIMIT],
            &self.source.octets(),
            &self.destination.octets(),
            &icmp,
        ];
        ethernet::send(self.destination_mac, self.source_mac, ethernet::IPV6, &packet.concat())
    }
}

/// Returns the checksum of a message, whatever stands in its place (RFC 4443 section 2.3).
fn checksum(icmp: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> u16 {
    let (source, destination) = (source.octets().into(), destination.octets().into());
    ipv6_checksum(icmp, CHECKSUM_WORD, &[], &source, &destination, IpNextHeaderProtocols::Icmpv6)
}

/// Returns the link-layer group of an IPv6 group (RFC 2464 section 7).
pub(super) fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}
