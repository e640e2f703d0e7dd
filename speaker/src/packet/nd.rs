//! Neighbour Discovery (RFC 4861): solicitations and advertisements. Options are walked by hand.

use std::net::{IpAddr, Ipv6Addr};

use herald_protocol::{api_view, mac::MacAddr};

use super::{
    Asker, Heard, Question,
    ethernet::{Received, To},
    icmpv6::{
        self, ALL_NODES, ECHO_REPLY, ECHO_REQUEST, HOP_LIMIT, Message, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION,
        Outgoing, group_mac,
    },
    ping,
};

/// Flags of an advertisement (RFC 4861 section 4.4). The router flag is never set: no host has a LoadBalancer's address
/// for a default router.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Option types (RFC 4861 section 4.6.1), and the length of these on Ethernet in units of 8 bytes (RFC 2464 section 6).
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const LINK_LAYER_UNITS: u8 = 1;

/// A solicitation that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Solicitation {
    target: Ipv6Addr,
    asker: Solicitor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Solicitor {
    /// A host that wants to send. Its link-layer address is the option's, or where there is none (unicast solicitations
    /// may omit it) the Ethernet source.
    Host { address: Ipv6Addr, mac: MacAddr },
    /// A host that wants the address for itself, and has none yet: Duplicate Address Detection.
    Candidate,
}

/// Reads a Neighbour Solicitation, a Neighbour Advertisement or an echo reply.
pub(super) fn read(received: &Received<'_>, own: MacAddr) -> Option<Heard> {
    let message = icmpv6::read(received.payload)?;
    match (message.kind, message.code, message.hop_limit) {
        (NEIGHBOUR_SOLICITATION, 0, HOP_LIMIT) => read_solicitation(received, &message, own),
        (NEIGHBOUR_ADVERTISEMENT, 0, HOP_LIMIT) => read_advertisement(received, &message),
        // The hop limit of an echo reply is the default of its sender.
        (ECHO_REPLY, 0, _) => ping::read_v6(received, &message),
        _ => None,
    }
}

/// Reads a solicitation, with the checks of RFC 4861 section 7.1.1.
fn read_solicitation(received: &Received<'_>, message: &Message<'_>, own: MacAddr) -> Option<Heard> {
    let body = Body::read(message.body)?;
    let (solicitor, binding) = if message.source.is_unspecified() {
        let sound = body.options.source.is_none() && is_solicited_node(message.destination);
        (sound.then_some(Solicitor::Candidate)?, None)
    } else {
        let mac = body.options.source.unwrap_or(received.source);
        let binding = body.options.source.map(|mac| (IpAddr::V6(message.source), mac));
        (Solicitor::Host { address: message.source, mac }, binding)
    };
    // The answer to a solicitation that names this host as its sender would go to this host.
    let answerable = body.options.source != Some(own);
    Some(Heard::Packet {
        packet: api_view::Packet { source: received.source, binding, asks: Some(IpAddr::V6(body.target)) },
        asker: answerable.then_some(Asker(Question::Nd(Solicitation { target: body.target, asker: solicitor }))),
    })
}

/// Reads an advertisement, with the checks of RFC 4861 section 7.1.2.
fn read_advertisement(received: &Received<'_>, message: &Message<'_>) -> Option<Heard> {
    let body = Body::read(message.body)?;
    let to_group = message.destination.is_multicast();
    if to_group && body.flags & SOLICITED != 0 {
        return None;
    }
    // Linux leaves the option out of its answers to unicast solicitations (`ndisc_recv_ns`, net/ipv6/ndisc.c).
    let sender = (received.to == To::Host && !to_group).then_some(received.source);
    let mac = body.options.target.or(sender);
    Some(Heard::Packet {
        packet: api_view::Packet {
            source: received.source,
            binding: mac.map(|mac| (IpAddr::V6(body.target), mac)),
            asks: None,
        },
        asker: None,
    })
}

impl Solicitation {
    /// Returns the answer (RFC 4861 section 7.2.4), which comes from the address itself. The answer overrides: one that
    /// does not would leave hosts with the link-layer address of the node before. The answer to Duplicate Address
    /// Detection goes to all nodes.
    pub(super) fn answer(&self, from: MacAddr, at: MacAddr) -> Vec<u8> {
        match self.asker {
            Solicitor::Host { address, mac } => {
                advertisement(self.target, at, from, address, mac, SOLICITED | OVERRIDE)
            }
            Solicitor::Candidate => announcement(self.target, at, from),
        }
    }
}

/// Returns an unsolicited advertisement to all nodes (RFC 4861 section 7.2.6). The advertisement overrides, as the
/// address may have moved.
pub(super) fn announcement(address: Ipv6Addr, at: MacAddr, from: MacAddr) -> Vec<u8> {
    advertisement(address, at, from, ALL_NODES, group_mac(ALL_NODES), OVERRIDE)
}

/// Returns a solicitation to one host (RFC 4861 section 7.3.3). The solicitation carries this node's link-layer
/// address, so that the host need not ask for that first.
pub(super) fn probe(address: Ipv6Addr, to: MacAddr, own: MacAddr, source: Ipv6Addr) -> Vec<u8> {
    solicitation(address, address, to, source, own, &link_layer(SOURCE_LINK_LAYER, own))
}

/// Returns the solicitation of Duplicate Address Detection (RFC 4862 section 5.4.2). The solicitation has no nonce of
/// RFC 7527: a copy that comes back over a loop has this node's Ethernet source and is not read.
pub(super) fn enquiry(address: Ipv6Addr, own: MacAddr) -> Vec<u8> {
    let (group, mac) = solicited_node(address);
    solicitation(address, group, mac, Ipv6Addr::UNSPECIFIED, own, &[])
}

/// Returns an echo request to all nodes. Identifier and sequence are 0: Linux gives no ping socket the identifier 0
/// (`ping_get_port`, net/ipv4/ping.c), so no ping on this node takes the replies for its own.
pub(super) fn echo_all(source: Ipv6Addr, own: MacAddr) -> Vec<u8> {
    let message = Outgoing {
        destination_mac: group_mac(ALL_NODES),
        source_mac: own,
        destination: ALL_NODES,
        source,
        kind: ECHO_REQUEST,
        body: vec![0; 4],
    };
    message.send()
}

/// Returns the group on which an address is asked for (RFC 4291 section 2.7.1), and its link-layer address.
pub fn solicited_node(address: Ipv6Addr) -> (Ipv6Addr, MacAddr) {
    let [.., high, low] = address.segments();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low);
    (group, group_mac(group))
}

fn is_solicited_node(group: Ipv6Addr) -> bool {
    solicited_node(group).0 == group
}

fn advertisement(
    target: Ipv6Addr,
    at: MacAddr,
    from: MacAddr,
    destination: Ipv6Addr,
    destination_mac: MacAddr,
    flags: u8,
) -> Vec<u8> {
    let body = [&[flags, 0, 0, 0], &target.octets()[..], &link_layer(TARGET_LINK_LAYER, at)].concat();
    let kind = NEIGHBOUR_ADVERTISEMENT;
    Outgoing { destination_mac, source_mac: from, destination, source: target, kind, body }.send()
}

fn solicitation(
    target: Ipv6Addr,
    destination: Ipv6Addr,
    destination_mac: MacAddr,
    source: Ipv6Addr,
    source_mac: MacAddr,
    options: &[u8],
) -> Vec<u8> {
    let body = [&[0; 4], &target.octets()[..], options].concat();
    Outgoing { destination_mac, source_mac, destination, source, kind: NEIGHBOUR_SOLICITATION, body }.send()
}

fn link_layer(kind: u8, MacAddr([a, b, c, d, e, f]): MacAddr) -> [u8; 8] {
    [kind, LINK_LAYER_UNITS, a, b, c, d, e, f]
}

/// The common part of solicitations and advertisements.
struct Body {
    /// The flags, which are reserved in a solicitation.
    flags: u8,
    /// The target, which is never a group.
    target: Ipv6Addr,
    options: Options,
}

impl Body {
    fn read(body: &[u8]) -> Option<Self> {
        let ([flags, ..], rest) = body.split_first_chunk::<4>()?;
        let (target, options) = rest.split_first_chunk::<16>()?;
        let target = Ipv6Addr::from(*target);
        let options = Options::read(options)?;
        (!target.is_multicast()).then_some(Self { flags: *flags, target, options })
    }
}

/// The link-layer addresses among the options.
#[derive(Default)]
struct Options {
    source: Option<MacAddr>,
    target: Option<MacAddr>,
}

impl Options {
    /// Reads the options; returns `None` if an option has length 0 or does not fit (RFC 4861 section 4.6), or a
    /// link-layer address is not one of Ethernet that a station can have. Unknown options are skipped. The first of two
    /// options of a kind counts, as with Linux (`ndisc_parse_options`).
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        while !bytes.is_empty() {
            let &[kind, units, ..] = bytes else { return None };
            if units == 0 {
                return None;
            }
            let (option, rest) = bytes.split_at_checked(usize::from(units) * 8)?;
            bytes = rest;
            let slot = match kind {
                SOURCE_LINK_LAYER => &mut found.source,
                TARGET_LINK_LAYER => &mut found.target,
                _ => continue,
            };
            let &[_, LINK_LAYER_UNITS, a, b, c, d, e, f] = option else { return None };
            let mac = MacAddr([a, b, c, d, e, f]);
            if !mac.is_unicast() {
                return None;
            }
            slot.get_or_insert(mac);
        }
        Some(found)
    }
}
