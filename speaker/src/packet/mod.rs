//! ARP (RFC 826), Neighbour Discovery (RFC 4861) and pings on Ethernet: what frames say, and the frames that are sent.
//! Pure.
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

/// Who sends: the node's own addresses on a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Link-layer address of the interface.
    pub mac: MacAddr,
    /// Its addresses of global scope, each with its prefix length.
    pub addresses: Vec<IpNet>,
    /// Its link-local IPv6 address, once Duplicate Address Detection is through.
    pub link_local: Option<Ipv6Addr>,
}

impl Origin {
    /// Its address in the subnet of `address`: of several, the one with the longest prefix.
    fn beside(&self, address: IpAddr) -> Option<IpAddr> {
        let around = self.addresses.iter().filter(|net| net.contains(&address));
        around.max_by_key(|net| net.prefix_len()).map(IpNet::addr)
    }
}

/// What a frame of another host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is ARP or Neighbour Discovery.
    Packet {
        /// What it states and asks.
        packet: Packet,
        /// Who asks, if it may be answered.
        asker: Option<Asker>,
    },
    /// It is the reply to a [`ping`] of ours.
    Pong {
        /// The address it comes from.
        address: IpAddr,
        /// The Ethernet source.
        mac: MacAddr,
    },
    /// It is none of these, but shows that a host is there: an ICMPv6 echo reply to us.
    Evidence,
}

/// Who asks for an address, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker(Question);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Arp(arp::Request),
    Nd(nd::Solicitation),
}

impl Asker {
    /// The answer: the address asked for is at `at`. That is this node's link-layer address, or that of the silent node
    /// it covers. `from`, the Ethernet source, is always this node's: another's would make the switch send what is
    /// meant for the other node here.
    pub fn answer(&self, from: MacAddr, at: MacAddr) -> Vec<u8> {
        match &self.0 {
            Question::Arp(request) => request.answer(from, at),
            Question::Nd(solicitation) => solicitation.answer(from, at),
        }
    }
}

/// Reads a frame of the ARP socket. `own` is the interface's link-layer address. `None`: malformed, not for this host,
/// sent by it, or no request or reply for IPv4 on Ethernet.
pub fn read_arp(frame: &[u8], kind: PacketType, own: MacAddr) -> Option<Heard> {
    arp::read(&ethernet::receive(frame, ethernet::ARP, kind, own)?, own)
}

/// Reads a frame of the IPv4 socket. `own` is the interface's link-layer address. `None`: malformed, with a wrong
/// checksum, not for this host, sent by it, or anything but the reply to a [`ping`].
pub fn read_ipv4(frame: &[u8], kind: PacketType, own: MacAddr) -> Option<Heard> {
    ping::read_v4(&ethernet::receive(frame, ethernet::IPV4, kind, own)?)
}

/// Reads a frame of the IPv6 socket. `own` is the interface's link-layer address. `None`: malformed, with a wrong
/// checksum, not for this host, sent by it, or anything but a Neighbour Solicitation, a Neighbour Advertisement or an
/// echo reply to this host. Extension headers, so fragments too, are not read (RFC 6980 section 5).
pub fn read_ipv6(frame: &[u8], kind: PacketType, own: MacAddr) -> Option<Heard> {
    nd::read(&ethernet::receive(frame, ethernet::IPV6, kind, own)?, own)
}

/// Tells everybody that `address` is at `at`: a gratuitous ARP request, or an unsolicited Neighbour Advertisement.
pub fn announcement(address: IpAddr, at: MacAddr, from: MacAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp::announcement(v4, at, from),
        IpAddr::V6(v6) => nd::announcement(v6, at, from),
    }
}

/// The other form of an ARP announcement: a reply that nobody asked for, to all.
pub fn reply_unasked(address: Ipv4Addr, at: MacAddr, from: MacAddr) -> Vec<u8> {
    arp::reply_unasked(address, at, from)
}

/// Asks the host at `to`, and no other, whether it still has `address`. Sent from the own address that lies in the same
/// subnet. Without one, the ARP sender address is 0.0.0.0, and a Neighbour Solicitation comes from the link-local
/// address; `None` if there is none yet.
pub fn probe(address: IpAddr, to: MacAddr, origin: &Origin) -> Option<Vec<u8>> {
    match (address, origin.beside(address)) {
        (IpAddr::V4(v4), Some(IpAddr::V4(own))) => Some(arp::probe(v4, to, origin.mac, own)),
        (IpAddr::V4(v4), _) => Some(arp::probe(v4, to, origin.mac, Ipv4Addr::UNSPECIFIED)),
        (IpAddr::V6(v6), Some(IpAddr::V6(own))) => Some(nd::probe(v6, to, origin.mac, own)),
        (IpAddr::V6(v6), _) => origin.link_local.map(|own| nd::probe(v6, to, origin.mac, own)),
    }
}

/// Pings the host at `to`: an ICMP or ICMPv6 echo request to its own address. `None` without an own address in the same
/// subnet: the reply would have to be routed. For IPv6 the link-local address will do, if there is one.
pub fn ping(address: IpAddr, to: MacAddr, origin: &Origin) -> Option<Vec<u8>> {
    match (address, origin.beside(address)) {
        (IpAddr::V4(v4), Some(IpAddr::V4(own))) => Some(ping::request_v4(v4, to, origin.mac, own)),
        (IpAddr::V4(_), _) => None,
        (IpAddr::V6(v6), Some(IpAddr::V6(own))) => Some(ping::request_v6(v6, to, origin.mac, own)),
        (IpAddr::V6(v6), _) => origin.link_local.map(|own| ping::request_v6(v6, to, origin.mac, own)),
    }
}

/// Asks everybody whether somebody has `address`, and changes nobody's neighbour entries: an ARP probe (RFC 5227
/// section 1.1), or the Neighbour Solicitation of Duplicate Address Detection (RFC 4862 section 5.4.2).
pub fn enquiry(address: IpAddr, origin: &Origin) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => arp::enquiry(v4, origin.mac),
        IpAddr::V6(v6) => nd::enquiry(v6, origin.mac),
    }
}

/// Asks all IPv6 hosts for a sign of life: an ICMPv6 echo request (RFC 4443 section 4.1) from the link-local address to
/// ff02::1. `None` without a link-local address.
pub fn echo_all(origin: &Origin) -> Option<Vec<u8>> {
    origin.link_local.map(|source| nd::echo_all(source, origin.mac))
}
