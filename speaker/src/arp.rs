//! ARP (RFC 826) on Ethernet, for IPv4: reading requests, writing answers and announcements. Pure.

use std::net::Ipv4Addr;

use herald_segment::mac::MacAddr;
use pnet::packet::{
    Packet,
    arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket},
    ethernet::{EtherTypes, EthernetPacket, MutableEthernetPacket},
};

use crate::socket::PacketType;

/// Bytes of an Ethernet header (14) and an ARP packet for IPv4 (28). The driver pads it to the 60 bytes of a shortest
/// frame.
pub const FRAME_LEN: usize = 42;

/// A whole frame to send.
pub type Frame = [u8; FRAME_LEN];

/// What a request asks, and who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The address asked for.
    pub target: Ipv4Addr,
    /// The asker's link-layer address, as the ARP packet gives it.
    pub sender_mac: MacAddr,
    /// The asker's address; 0.0.0.0 in a probe (RFC 5227 section 1.1).
    pub sender: Ipv4Addr,
}

/// Reads a frame as an ARP request that may be answered: untagged, for IPv4 on Ethernet, sent to all or to `own`, and
/// from a possible station. Everything else is `None`.
///
/// A request sent to another host's MAC is seen where the interface is promiscuous, and answering it would answer for
/// two; one to a group MAC other than broadcast is not ARP as RFC 826 has it.
pub fn read_request(frame: &[u8], packet_type: PacketType, own: MacAddr) -> Option<Request> {
    let ethernet = EthernetPacket::new(frame)?;
    // A tagged frame has EtherType 0x8100 here, or its tag was taken off and the kernel filter dropped it.
    if ethernet.get_ethertype() != EtherTypes::Arp {
        return None;
    }
    let destination = mac(ethernet.get_destination());
    let for_us = match packet_type {
        PacketType::Broadcast => destination == MacAddr::BROADCAST,
        PacketType::Host => destination == own,
        PacketType::Multicast | PacketType::OtherHost | PacketType::Outgoing | PacketType::Unknown(_) => false,
    };
    let arp = ArpPacket::new(ethernet.payload())?;
    let well_formed = arp.get_hardware_type() == ArpHardwareTypes::Ethernet
        && arp.get_protocol_type() == EtherTypes::Ipv4
        && arp.get_hw_addr_len() == 6
        && arp.get_proto_addr_len() == 4
        && arp.get_operation() == ArpOperations::Request;
    let request = Request {
        target: arp.get_target_proto_addr().octets().into(),
        sender_mac: mac(arp.get_sender_hw_addr()),
        sender: arp.get_sender_proto_addr().octets().into(),
    };
    // Our own announcement, come back over a loop, asks nothing.
    let from_another = request.sender_mac.is_unicast() && request.sender_mac != own;
    (for_us && well_formed && from_another).then_some(request)
}

/// The answer: `request.target` is at `own`. Sent to the asker alone. A probe is answered like any request: that is
/// how its sender learns that the address is taken (RFC 5227 section 2.1.1).
pub fn answer(request: &Request, own: MacAddr) -> Frame {
    write(Fields {
        operation: Operation::Reply,
        sender_mac: own,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
        destination: request.sender_mac,
    })
}

/// An announcement: a *request* in which sender and target address are the same (RFC 5227 section 3). Linux takes it
/// as gratuitous; it would take a reply so only if its target link-layer address were the sender's (`arp_is_garp`,
/// net/ipv4/arp.c).
pub fn announcement(address: Ipv4Addr, own: MacAddr) -> Frame {
    write(Fields {
        operation: Operation::Request,
        sender_mac: own,
        sender: address,
        target_mac: MacAddr::ZERO,
        target: address,
        destination: MacAddr::BROADCAST,
    })
}

enum Operation {
    Request,
    Reply,
}

/// Everything that differs between the packets we send.
struct Fields {
    operation: Operation,
    sender_mac: MacAddr,
    sender: Ipv4Addr,
    target_mac: MacAddr,
    target: Ipv4Addr,
    destination: MacAddr,
}

fn write(packet: Fields) -> Frame {
    let mut frame = [0; FRAME_LEN];
    let (header, body) = frame.split_at_mut(14);
    // Neither is ever `None`: the two slices have exactly the lengths the packets need.
    if let Some(mut ethernet) = MutableEthernetPacket::new(header) {
        ethernet.set_destination(pnet_mac(packet.destination));
        ethernet.set_source(pnet_mac(packet.sender_mac));
        ethernet.set_ethertype(EtherTypes::Arp);
    }
    if let Some(mut arp) = MutableArpPacket::new(body) {
        arp.set_hardware_type(ArpHardwareTypes::Ethernet);
        arp.set_protocol_type(EtherTypes::Ipv4);
        arp.set_hw_addr_len(6);
        arp.set_proto_addr_len(4);
        arp.set_operation(match packet.operation {
            Operation::Request => ArpOperations::Request,
            Operation::Reply => ArpOperations::Reply,
        });
        arp.set_sender_hw_addr(pnet_mac(packet.sender_mac));
        arp.set_sender_proto_addr(packet.sender.octets().into());
        arp.set_target_hw_addr(pnet_mac(packet.target_mac));
        arp.set_target_proto_addr(packet.target.octets().into());
    }
    frame
}

fn mac(mac: pnet::util::MacAddr) -> MacAddr {
    MacAddr(mac.octets())
}

fn pnet_mac(MacAddr(bytes): MacAddr) -> pnet::util::MacAddr {
    bytes.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

    /// A request for [`VIP`] from 192.0.2.9, byte by byte (RFC 826 "Packet format").
    fn request() -> Frame {
        let mut frame = [0; FRAME_LEN];
        frame[..6].copy_from_slice(&[0xff; 6]);
        frame[6..12].copy_from_slice(&ASKER.0);
        frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame[22..28].copy_from_slice(&ASKER.0);
        frame[28..32].copy_from_slice(&[192, 0, 2, 9]);
        frame[38..].copy_from_slice(&VIP.octets());
        frame
    }

    #[test]
    fn a_request_is_read() {
        let expected = Request { target: VIP, sender_mac: ASKER, sender: Ipv4Addr::new(192, 0, 2, 9) };
        assert_eq!(read_request(&request(), PacketType::Broadcast, OWN), Some(expected));
    }

    #[test]
    fn a_padded_unicast_request_is_read() {
        let mut frame = [0; 60];
        frame[..FRAME_LEN].copy_from_slice(&request());
        frame[..6].copy_from_slice(&OWN.0);
        assert!(read_request(&frame, PacketType::Host, OWN).is_some());
    }

    #[test_case(|f| f[12] = 0x81, PacketType::Broadcast; "tagged")]
    #[test_case(|f| f[15] = 6, PacketType::Broadcast; "not Ethernet")]
    #[test_case(|f| f[17] = 6, PacketType::Broadcast; "not IPv4")]
    #[test_case(|f| f[18] = 8, PacketType::Broadcast; "hardware length")]
    #[test_case(|f| f[19] = 16, PacketType::Broadcast; "protocol length")]
    #[test_case(|f| f[21] = 2, PacketType::Broadcast; "a reply")]
    #[test_case(|f| f[22] = 1, PacketType::Broadcast; "sender is a group")]
    #[test_case(|f| f[22..28].copy_from_slice(&OWN.0), PacketType::Broadcast; "sender is us")]
    #[test_case(|f| f[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]), PacketType::OtherHost; "to another")]
    #[test_case(|f| f[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]), PacketType::Host; "to another address of this host")]
    #[test_case(|f| f[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]), PacketType::Multicast; "to a group")]
    #[test_case(|_| (), PacketType::Outgoing; "sent by this host")]
    fn not_to_be_answered(change: fn(&mut Frame), packet_type: PacketType) {
        let mut frame = request();
        change(&mut frame);
        assert_eq!(read_request(&frame, packet_type, OWN), None);
    }

    #[test_case(Ipv4Addr::new(192, 0, 2, 9); "request")]
    #[test_case(Ipv4Addr::UNSPECIFIED; "probe of RFC 5227")]
    fn the_answer_goes_to_the_asker(sender: Ipv4Addr) {
        let mut expected = [0; FRAME_LEN];
        expected[..6].copy_from_slice(&ASKER.0);
        expected[6..12].copy_from_slice(&OWN.0);
        expected[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        expected[22..28].copy_from_slice(&OWN.0);
        expected[28..32].copy_from_slice(&VIP.octets());
        expected[32..38].copy_from_slice(&ASKER.0);
        expected[38..].copy_from_slice(&sender.octets());
        let mut frame = request();
        frame[28..32].copy_from_slice(&sender.octets());
        let request = read_request(&frame, PacketType::Broadcast, OWN).unwrap();
        assert_eq!(answer(&request, OWN), expected);
    }

    #[test]
    fn an_announcement_is_a_request_for_itself() {
        let frame = announcement(VIP, OWN);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..12], OWN.0);
        assert_eq!(frame[20..22], [0, 1]);
        assert_eq!(frame[22..28], OWN.0);
        assert_eq!(frame[28..32], VIP.octets());
        assert_eq!(frame[32..38], [0; 6]);
        assert_eq!(frame[38..], VIP.octets());
        // Another station would read it as a request; we never answer our own.
        assert!(read_request(&frame, PacketType::Broadcast, ASKER).is_some());
        assert_eq!(read_request(&frame, PacketType::Broadcast, OWN), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0u8..6) {
            let _ = read_request(&bytes, kind.into(), OWN);
        }

        #[test]
        fn no_damaged_request_panics(cut in 0..FRAME_LEN, at in 0..FRAME_LEN, byte in any::<u8>()) {
            let mut frame = request();
            frame[at] = byte;
            prop_assert_eq!(read_request(&frame[..cut], PacketType::Broadcast, OWN), None);
            let _ = read_request(&frame, PacketType::Broadcast, OWN);
        }
    }
}
