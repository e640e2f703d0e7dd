//! The interfaces of the nodes of a [`Lan`](super::Lan), and the wires that they are on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use herald_crds::placement::Interface;
use herald_protocol::mac::MacAddr;

use super::{ETH0, mac, own_address};
use crate::{
    coordinator::Interfaces,
    interfaces::{LocalSegment, Segment},
};

/// The subnet that every node is in.
pub(in crate::coordinator::tests) const LAN: [u8; 3] = [192, 0, 2];
/// The wire of every node's first interface, and of the client.
pub(in crate::coordinator::tests) const WIRE: u8 = 0;

/// An interface, and the wire that it is on.
#[derive(Clone, Copy, Debug)]
pub(in crate::coordinator::tests) struct Port {
    /// Frames pass among the interfaces of one wire.
    pub wire: u8,
    pub carrier: bool,
    /// Whether the frames that the interface sends get lost.
    pub mute: bool,
    /// Whether no frame reaches the interface.
    pub deaf: bool,
    /// The network of its address, a /24.
    pub net: [u8; 3],
    pub default_route: bool,
}

impl Port {
    pub(in crate::coordinator::tests) const fn on(wire: u8) -> Self {
        Self { wire, carrier: true, mute: false, deaf: false, net: LAN, default_route: false }
    }

    /// Returns whether the frames of one interface reach another.
    fn reaches(self, other: Self) -> bool {
        self.carrier && !self.mute && other.carrier && !other.deaf && self.wire == other.wire
    }
}

/// The interfaces of one node, by index.
pub(super) type Ports = BTreeMap<u32, Port>;

/// Returns the link-layer address of an interface.
pub(in crate::coordinator::tests) fn mac_of(name: &str, index: u32) -> MacAddr {
    let MacAddr(mut bytes) = mac(name);
    if index != ETH0 {
        bytes[4] = u8::try_from(index).unwrap() - 1;
    }
    MacAddr(bytes)
}

/// Returns whether the frames of an interface of `from` reach one of `to`.
pub(super) fn reaches(from: &Ports, sender: u32, to: &Ports, receiver: u32) -> bool {
    matches!((from.get(&sender), to.get(&receiver)), (Some(sender), Some(receiver)) if sender.reaches(*receiver))
}

/// Returns the interfaces of a node as its kernel lists them. `held` are addresses that the first has, in addition to
/// its own.
pub(super) fn interfaces(name: &str, ports: &Ports, held: &[IpAddr]) -> Interfaces {
    let host = own_address(name).octets()[3];
    let segments = ports.iter().map(|(index, port)| {
        let [a, b, c] = port.net;
        let own = Ipv4Addr::new(a, b, c, host);
        let held = held.iter().filter(|_| *index == ETH0).map(|address| ipnet::IpNet::from(*address));
        let interface = Interface {
            name: format!("eth{}", index - ETH0),
            prefixes: vec![format!("{a}.{b}.{c}.0/24").parse().unwrap()],
            default_route: port.default_route,
            speaks_for: vec![],
        };
        let segment = Segment { interface, mac: mac_of(name, *index), address: Some(own.into()) };
        let addresses = std::iter::once(format!("{own}/24").parse().unwrap()).chain(held).collect();
        let carrier = port.carrier;
        LocalSegment { index: *index, carrier, mtu: 1500, addresses, link_local: None, macvlan_on: None, segment }
    });
    Interfaces { segments: segments.collect(), ..Interfaces::default() }
}
