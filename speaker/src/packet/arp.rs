//! ARP (RFC 826) for IPv4 on Ethernet.

use std::net::{IpAddr, Ipv4Addr};

use herald_protocol::{api_view, mac::MacAddr};
use pnet::packet::{
    arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket},
    ethernet::EtherTypes,
};

use super::{
    Asker, Heard, Question,
    ethernet::{self, Received, To},
};

/// A request that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    target: Ipv4Addr,
    /// The asker's link-layer address, as the ARP packet gives it: by RFC 826 the reply goes there, not to the Ethernet
    /// source.
    sender_mac: MacAddr,
    /// The asker's address; 0.0.0.0 in a probe (RFC 5227 section 1.1).
    sender: Ipv4Addr,
}

/// Reads a request or a reply.
pub(super) fn read(received: &Received<'_>, own: MacAddr) -> Option<Heard> {
    let arp = ArpPacket::new(received.payload)?;
    let for_ipv4_on_ethernet = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && arp.get_hw_addr_len() == 6
        && arp.get_proto_addr_len() == 4;
    let sender_mac = MacAddr(arp.get_sender_hw_addr().octets());
    if !for_ipv4_on_ethernet || !sender_mac.is_unicast() {
        return None;
    }
    let sender = Ipv4Addr::from(arp.get_sender_proto_addr().octets());
    let target = Ipv4Addr::from(arp.get_target_proto_addr().octets());
    let is_request = match arp.get_operation() {
        ArpOperations::Request => true,
        ArpOperations::Reply => false,
        _ => return None,
    };
    // A gratuitous request (sender and target are one) states a binding and asks nothing. A request to a group other
    // than all hosts does not follow RFC 826. The answer to a request that names this host as its sender would go to
    // this host.
    let answerable = is_request && sender != target && received.to != To::Multicast && sender_mac != own;
    Some(Heard::Packet {
        packet: api_view::Packet {
            source: received.source,
            binding: (!sender.is_unspecified()).then_some((IpAddr::V4(sender), sender_mac)),
            asks: is_request.then_some(IpAddr::V4(target)),
        },
        asker: answerable.then_some(Asker(Question::Arp(Request { target, sender_mac, sender }))),
    })
}

impl Request {
    /// Returns the answer. A probe is answered like any request: its sender learns by the answer that the address is
    /// taken (RFC 5227 section 2.1.1).
    pub(super) fn answer(&self, from: MacAddr, at: MacAddr) -> Vec<u8> {
        let packet = Packet {
            operation: ArpOperations::Reply,
            sender_mac: at,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        };
        packet.send(self.sender_mac, from)
    }
}

/// Returns an announcement, a *request* in which sender and target address are the same (RFC 5227 section 3). Linux
/// takes it as gratuitous; it would take a reply as gratuitous only if its target link-layer address were the sender's
/// (`arp_is_garp`, net/ipv4/arp.c).
pub(super) fn announcement(address: Ipv4Addr, at: MacAddr, from: MacAddr) -> Vec<u8> {
    request(at, address, address).send(MacAddr::BROADCAST, from)
}

/// Returns an announcement for hosts that take only replies: sender and target are the same, in both addresses, without
/// which Linux would not take it as gratuitous (`arp_is_garp`). RFC 5227 section 3 explains why the request is the
/// better form.
pub(super) fn reply_unasked(address: Ipv4Addr, at: MacAddr, from: MacAddr) -> Vec<u8> {
    let operation = ArpOperations::Reply;
    let packet = Packet { operation, sender_mac: at, sender: address, target_mac: at, target: address };
    packet.send(MacAddr::BROADCAST, from)
}

/// Returns a request to one host. `sender` may be 0.0.0.0: Linux answers that too (`arp_process`, net/ipv4/arp.c).
pub(super) fn probe(address: Ipv4Addr, to: MacAddr, own: MacAddr, sender: Ipv4Addr) -> Vec<u8> {
    request(own, sender, address).send(to, own)
}

/// Returns the probe of RFC 5227 section 2.1.1.
pub(super) fn enquiry(address: Ipv4Addr, own: MacAddr) -> Vec<u8> {
    request(own, Ipv4Addr::UNSPECIFIED, address).send(MacAddr::BROADCAST, own)
}

/// Returns a request, which leaves the target's link-layer address zero (RFC 5227 section 2.1.1).
fn request(sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Packet {
    Packet { operation: ArpOperations::Request, sender_mac, sender, target_mac: MacAddr::ZERO, target }
}

/// The fields that differ between the packets that are sent.
struct Packet {
    operation: ArpOperation,
    sender_mac: MacAddr,
    sender: Ipv4Addr,
    target_mac: MacAddr,
    target: Ipv4Addr,
}

impl Packet {
    fn send(&self, destination: MacAddr, source: MacAddr) -> Vec<u8> {
        // Hardware type Ethernet, protocol IPv4, and the lengths of their addresses.
        let header = [0, 1, 8, 0, 6, 4];
        let payload = [
            &header[..],
            &self.operation.0.to_be_bytes(),
            &self.sender_mac.0,
            &self.sender.octets(),
            &self.target_mac.0,
            &self.target.octets(),
        ];
        ethernet::send(destination, source, ethernet::ARP, &payload.concat())
    }
}
