//! ARP (RFC 826), Neighbour Discovery (RFC 4861) and pings on Ethernet: the content of received frames, and the frames
//! that are sent. Pure.
//!
//! Frames are whole, from the Ethernet destination on, without frame check sequence. The driver pads short ones.

mod arp;
mod ethernet;
mod icmpv6;
mod nd;
mod ping;
#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_protocol::{api_view::Packet, mac::MacAddr};
use ipnet::IpNet;
pub use nd::solicited_node;

use herald_packet_socket::PacketType;

/// The sender of frames: the node's own addresses on a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Link-layer address of the interface.
    pub mac: MacAddr,
    /// The interface's addresses of global scope, each with its prefix length.
    pub addresses: Vec<IpNet>,
    /// The interface's link-local IPv6 address, once Duplicate Address Detection has passed.
    pub link_local: Option<Ipv6Addr>,
}

impl Origin {
    /// Returns the own address in the subnet of `address`: of several, the one with the longest prefix.
    fn beside(&self, address: IpAddr) -> Option<IpAddr> {
        let around = self.addresses.iter().filter(|net| net.contains(&address));
        around.max_by_key(|net| net.prefix_len()).map(IpNet::addr)
    }
}

/// The protocols of a frame that is not the segment protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ARP, or IPv4 itself.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// The content of a frame of another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The frame is ARP or Neighbour Discovery.
    Packet {
        /// The statement and the question of the frame.
        packet: Packet,
        /// The asker, if the question may be answered.
        asker: Option<Asker>,
    },
    /// The frame is the reply to a [`ping`] of this node.
    Pong {
        /// The address that the reply comes from.
        address: IpAddr,
        /// The Ethernet source.
        mac: MacAddr,
    },
    /// The frame is none of these, but shows that a host is there: it is an ICMPv6 echo reply to this node.
    Evidence,
}

/// The host that asks for an address, with the form of its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker(Question);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Arp(arp::Request),
    Nd(nd::Solicitation),
}

impl Asker {
    /// Returns the answer: the address asked for is at `at`. `at` is this node's link-layer address, or that of the
    /// silent node that it covers. `from`, the Ethernet source, is always this node's: with the address of another node
    /// as source, the switch would send frames for that node here.
    pub fn answer(&self, from: MacAddr, at: MacAddr) -> Vec<u8> {
        match &self.0 {
            Question::Arp(request) => request.answer(from, at),
            Question::Nd(solicitation) => solicitation.answer(from, at),
        }
    }
}

/// Reads a frame of the ARP socket. `own` is the interface's link-layer address. Returns `None` for a frame that is
/// malformed, not for this host, sent by this host, or not a request or reply for IPv4 on Ethernet.
pub fn read_arp(frame: &[u8], kind: PacketType, own: MacAddr) -> Option<Heard> {
    arp::read(&ethernet::receive(frame, ethernet::ARP, kind, own)?, own)
}

/// Reads a frame of the IPv4 socket. `own` is the interface's link-layer address. Returns `None` for a frame that is
/// malformed, has a wrong checksum, is not for this host, was sent by this host, or is anything but the reply to a
/// [`ping`].
pub fn read_ipv4(frame: &[u8], kind: PacketType, own: MacAddr) -> Option<Heard> {
    ping::read_v4(&ethernet::receive(frame, ethernet::IPV4, kind, own)?)
}

/// Reads a frame of the IPv6 socket. `own` is the interface's link-layer address. Returns `None` for a frame that is
/// malformed, has a wrong checksum, is not for this host, was sent by this host, or is anything but a Neighbour
/// Solicitation, a Neighbour Advertisement or an echo reply to this host. Packets with extension headers, so fragments
/// too, are not read (RFC 6980 section 5).
pub fn read_ipv6(frame: &[u8], kind: PacketType, own: MacAddr) -> Option<Heard> {
    nd::read(&ethernet::receive(frame, ethernet::IPV6, kind, own)?, own)
}

/// Returns the announcement to all hosts that `address` is at `at`: a gratuitous ARP request, or an unsolicited
/// Neighbour Advertisement.
pub fn announcement(address: IpAddr, at: MacAddr, from: MacAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp::announcement(v4, at, from),
        IpAddr::V6(v6) => nd::announcement(v6, at, from),
    }
}

/// Returns the other form of an ARP announcement: an unsolicited reply, to all hosts.
pub fn reply_unasked(address: Ipv4Addr, at: MacAddr, from: MacAddr) -> Vec<u8> {
    arp::reply_unasked(address, at, from)
}

/// Returns the question to the host at `to`, and no other, whether it still has `address`. The sender is the own
/// address that lies in the same subnet. If there is none, the ARP sender address is 0.0.0.0, and a Neighbour
/// Solicitation comes from the link-local address; the result is `None` if that is missing too.
pub fn probe(address: IpAddr, to: MacAddr, origin: &Origin) -> Option<Vec<u8>> {
    match (address, origin.beside(address)) {
        (IpAddr::V4(v4), Some(IpAddr::V4(own))) => Some(arp::probe(v4, to, origin.mac, own)),
        (IpAddr::V4(v4), _) => Some(arp::probe(v4, to, origin.mac, Ipv4Addr::UNSPECIFIED)),
        (IpAddr::V6(v6), Some(IpAddr::V6(own))) => Some(nd::probe(v6, to, origin.mac, own)),
        (IpAddr::V6(v6), _) => origin.link_local.map(|own| nd::probe(v6, to, origin.mac, own)),
    }
}

/// Returns a ping of the host at `to`: an ICMP or ICMPv6 echo request to its own address. `None` without an own address
/// in the same subnet: the reply would have to be routed. The link-local address will do for IPv6, if there is one.
pub fn ping(address: IpAddr, to: MacAddr, origin: &Origin) -> Option<Vec<u8>> {
    match (address, origin.beside(address)) {
        (IpAddr::V4(v4), Some(IpAddr::V4(own))) => Some(ping::request_v4(v4, to, origin.mac, own)),
        (IpAddr::V4(_), _) => None,
        (IpAddr::V6(v6), Some(IpAddr::V6(own))) => Some(ping::request_v6(v6, to, origin.mac, own)),
        (IpAddr::V6(v6), _) => origin.link_local.map(|own| ping::request_v6(v6, to, origin.mac, own)),
    }
}

/// Returns the question to all hosts whether one of them has `address`, which changes no host's neighbour entries: an
/// ARP probe (RFC 5227 section 1.1), or the Neighbour Solicitation of Duplicate Address Detection (RFC 4862
/// section 5.4.2).
pub fn enquiry(address: IpAddr, origin: &Origin) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp::enquiry(v4, origin.mac),
        IpAddr::V6(v6) => nd::enquiry(v6, origin.mac),
    }
}

/// Returns the question to all IPv6 hosts for a sign of life: an ICMPv6 echo request (RFC 4443 section 4.1) from the
/// link-local address to ff02::1. `None` without a link-local address.
pub fn echo_all(origin: &Origin) -> Option<Vec<u8>> {
    origin.link_local.map(|source| nd::echo_all(source, origin.mac))
}
