//! Ethernet II frames.

use herald_protocol::mac::MacAddr;

use herald_packet_socket::PacketType;

/// EtherTypes (linux/if_ether.h).
pub(super) const IPV4: u16 = 0x0800;
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;

/// A frame from another host that is meant for this host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    /// The link-layer address of the sender.
    pub source: MacAddr,
    pub to: To,
    pub payload: &'a [u8],
}

/// The addressee of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// The frame was sent to this host.
    Host,
    Broadcast,
    Multicast,
}

/// Reads a frame, if its EtherType is `ethertype` and it is neither for another host nor from this one. (A frame for
/// another host arrives where the interface is promiscuous; a host that answered it would answer for two. This host's
/// own frames come back over loops.)
///
/// A tagged frame has EtherType 0x8100 here, or its tag was taken off and the kernel filter dropped it.
pub(super) fn receive(frame: &[u8], ethertype: u16, kind: PacketType, own: MacAddr) -> Option<Received<'_>> {
    let (destination, rest) = frame.split_first_chunk::<6>()?;
    let (source, rest) = rest.split_first_chunk::<6>()?;
    let (found, payload) = rest.split_first_chunk::<2>()?;
    let (destination, source) = (MacAddr(*destination), MacAddr(*source));
    let to = match kind {
        PacketType::Host if destination == own => To::Host,
        PacketType::Broadcast if destination == MacAddr::BROADCAST => To::Broadcast,
        PacketType::Multicast if destination.0[0] & 1 == 1 => To::Multicast,
        _ => return None,
    };
    let readable = u16::from_be_bytes(*found) == ethertype && source.is_unicast() && source != own;
    readable.then_some(Received { source, to, payload })
}

/// Puts a payload into a frame.
pub(super) fn send(destination: MacAddr, source: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination.0[..], &source.0, &ethertype.to_be_bytes(), payload].concat()
}
