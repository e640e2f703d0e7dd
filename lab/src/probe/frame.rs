//! The frames of ARP and neighbour discovery that a client sends and reads.
//!
//! They are built and parsed by hand: a malformed answer must be *seen* as such and must not end the probe. The parser
//! is deliberately independent of Herald's own.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::sample::Mac;

/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const ETHERNET: usize = 14;
const ARP: usize = 28;
const IPV6: usize = 40;
/// Neighbour solicitation and advertisement without options (RFC 4861 sections 4.3 and 4.4).
const NEIGHBOUR: usize = 24;
const NEXT_HEADER_ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// Offset of the next header of an IPv6 frame, for the filter of a socket.
pub const OFFSET_NEXT_HEADER: u32 = (ETHERNET + 6) as u32;
/// Offset of the ICMPv6 type of a frame without extension headers, for the filter of a socket.
pub const OFFSET_ICMPV6_TYPE: u32 = (ETHERNET + IPV6) as u32;

/// Returns a broadcast ARP request for `target`.
#[must_use]
pub fn arp_request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(Mac::BROADCAST, mac, ETHERTYPE_ARP, ARP);
    // Ethernet, IPv4, lengths 6 and 4, request (RFC 826).
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(ip.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// Returns the ARP reply that gives `mac` for `ip`; `mac` is also the Ethernet source.
#[must_use]
pub fn arp_reply(mac: Mac, ip: Ipv4Addr, to: Mac, asker: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(to, mac, ETHERTYPE_ARP, ARP);
    // Ethernet, IPv4, lengths 6 and 4, reply (RFC 826).
    frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(mac.0);
    frame.extend(ip.octets());
    frame.extend(to.0);
    frame.extend(asker.octets());
    frame
}

/// Returns a neighbour solicitation for `target`, sent to its solicited-node group (RFC 4861 section 4.3).
#[must_use]
pub fn solicitation(mac: Mac, ip: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let length = NEIGHBOUR + 8;
    // RFC 2464 section 7: the destination is 33:33 and the last four bytes of the group.
    let mut frame = ethernet(Mac([0x33, 0x33, 0xff, x, y, z]), mac, ETHERTYPE_IPV6, IPV6 + length);
    frame.extend([0x60, 0, 0, 0, 0, length as u8, NEXT_HEADER_ICMPV6, 255]);
    frame.extend(ip.octets());
    frame.extend(group.octets());
    let message = frame.len();
    frame.extend([NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(target.octets());
    frame.extend([SOURCE_LINK_LAYER, 1]);
    frame.extend(mac.0);
    let sum = checksum(ip, group, &frame[message..]);
    frame[message + 2..message + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Returns the neighbour advertisement that answers a solicitation: `target` is at `mac`, which is also the Ethernet source (RFC 4861
/// section 4.4). The address of the sender is `target`.
#[must_use]
pub fn advertisement(mac: Mac, target: Ipv6Addr, to: Mac, asker: Ipv6Addr) -> Vec<u8> {
    let length = NEIGHBOUR + 8;
    let mut frame = ethernet(to, mac, ETHERTYPE_IPV6, IPV6 + length);
    frame.extend([0x60, 0, 0, 0, 0, length as u8, NEXT_HEADER_ICMPV6, 255]);
    frame.extend(target.octets());
    frame.extend(asker.octets());
    let message = frame.len();
    frame.extend([NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, FLAG_SOLICITED | FLAG_OVERRIDE, 0, 0, 0]);
    frame.extend(target.octets());
    frame.extend([TARGET_LINK_LAYER, 1]);
    frame.extend(mac.0);
    let sum = checksum(target, asker, &frame[message..]);
    frame[message + 2..message + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Returns the checksum of an ICMPv6 message of even length: RFC 1071 over pseudo-header (RFC 8200 section 8.1) and
/// message.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = source.segments().into_iter().chain(destination.segments());
    let words = words.chain(message.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.map(u32::from).sum::<u32>() + message.len() as u32 + u32::from(NEXT_HEADER_ICMPV6);
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload);
    frame.extend(destination.0);
    frame.extend(source.0);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Ethernet source.
    pub source: Mac,
    /// 1 request, 2 reply.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Parses a frame; returns `None` if it is not such a packet.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let source = Mac(array(frame, 6)?);
        let body = frame.get(ETHERNET..ETHERNET + ARP)?;
        let ours = frame.get(12..ETHERNET)? == ETHERTYPE_ARP.to_be_bytes() && body.starts_with(&[0, 1, 8, 0, 6, 4]);
        ours.then_some(Self {
            source,
            operation: u16::from_be_bytes(array(body, 6)?),
            sender_mac: Mac(array(body, 8)?),
            sender_ip: array::<4>(body, 14)?.into(),
            target_ip: array::<4>(body, 24)?.into(),
        })
    }
}

/// A neighbour solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Ethernet source.
    pub source: Mac,
    /// The address of the asker.
    pub asker: Ipv6Addr,
    /// The address that is asked for.
    pub target: Ipv6Addr,
}

impl Solicitation {
    /// Parses a frame; returns `None` if it is not a solicitation.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let header = frame.get(ETHERNET..ETHERNET + IPV6)?;
        let message = frame.get(ETHERNET + IPV6..)?;
        let is_one = frame.get(12..ETHERNET)? == ETHERTYPE_IPV6.to_be_bytes()
            && header[6] == NEXT_HEADER_ICMPV6
            && message.starts_with(&[NEIGHBOUR_SOLICITATION, 0]);
        is_one.then_some(Self {
            source: Mac(array(frame, 6)?),
            asker: array::<16>(header, 8)?.into(),
            target: array::<16>(message, 8)?.into(),
        })
    }
}

/// A neighbour advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertisement {
    /// Ethernet source.
    pub source: Mac,
    /// The address that it describes.
    pub target: Ipv6Addr,
    /// The MAC that it gives, if any.
    pub mac: Option<Mac>,
    /// Whether it answers a solicitation.
    pub solicited: bool,
    /// Whether it overrides existing cache entries.
    pub overriding: bool,
}

impl Advertisement {
    /// Parses a frame; returns `None` if it is not an advertisement that a host would accept (RFC 4861 section 7.1.2;
    /// the checksum is left to the kernel, which receives the same frame).
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let source = Mac(array(frame, 6)?);
        let header = frame.get(ETHERNET..ETHERNET + IPV6)?;
        let acceptable = frame.get(12..ETHERNET)? == ETHERTYPE_IPV6.to_be_bytes()
            && header[0] >> 4 == 6
            && header[6] == NEXT_HEADER_ICMPV6
            && header[7] == 255;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let message = frame.get(ETHERNET + IPV6..)?.get(..length)?;
        if !acceptable || message.len() < NEIGHBOUR || message[..2] != [NEIGHBOUR_ADVERTISEMENT, 0] {
            return None;
        }
        Some(Self {
            source,
            target: array::<16>(message, 8)?.into(),
            mac: link_layer(&message[NEIGHBOUR..])?,
            solicited: message[4] & FLAG_SOLICITED != 0,
            overriding: message[4] & FLAG_OVERRIDE != 0,
        })
    }
}

/// Returns the target link-layer address among the options: `Some(None)` if there is none, `None` if the options are
/// malformed.
fn link_layer(mut options: &[u8]) -> Option<Option<Mac>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        // The length counts units of 8 bytes; 0 is malformed (RFC 4861 section 4.6).
        let option = options.get(..usize::from(units) * 8).filter(|option| !option.is_empty())?;
        if kind == TARGET_LINK_LAYER {
            found = Some(Mac(array(option, 2)?));
        }
        options = &options[option.len()..];
    }
    options.is_empty().then_some(found)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use test_case::test_case;

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEM: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn request_is_parsed_back() {
        let frame = arp_request(US, [10, 0, 0, 1].into(), [10, 0, 0, 9].into());
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], [0xff; 6]);
        let expected = Arp {
            source: US,
            operation: 1,
            sender_mac: US,
            sender_ip: [10, 0, 0, 1].into(),
            target_ip: [10, 0, 0, 9].into(),
        };
        assert_eq!(Arp::parse(&frame), Some(expected));
        assert_eq!(Advertisement::parse(&frame), None);
    }

    #[test]
    fn solicitation_is_well_formed() {
        let (own, target) = ("fd00::1".parse().unwrap(), "fd00::12:3456".parse().unwrap());
        let frame = solicitation(US, own, target);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(frame[38..54], "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!((frame[20], frame[21], frame[54], frame.len()), (58, 255, 135, 86));
        // The sum over pseudo-header and message with the checksum in place is all ones (RFC 1071).
        let words = |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
        let sum = words(&frame[22..54]) + 32 + 58 + words(&frame[54..]);
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(Advertisement::parse(&frame), None);
    }

    /// Returns an advertisement from `THEM` with flags and raw options.
    fn advertisement(flags: u8, options: &[u8]) -> Vec<u8> {
        let target: Ipv6Addr = "fd00::9".parse().unwrap();
        let mut frame = ethernet(US, THEM, ETHERTYPE_IPV6, 0);
        frame.extend([0x60, 0, 0, 0, 0, (NEIGHBOUR + options.len()) as u8, 58, 255]);
        frame.extend(target.octets());
        frame.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend([136, 0, 0, 0, flags, 0, 0, 0]);
        frame.extend(target.octets());
        frame.extend(options);
        frame
    }

    const TLLA: [u8; 8] = [2, 1, 2, 0, 0, 0, 0, 2];

    #[test_case(0x60, &TLLA, Some((Some(THEM), true, true)); "solicited, overriding")]
    #[test_case(0x20, &TLLA, Some((Some(THEM), false, true)); "announcement")]
    #[test_case(0x40, &[], Some((None, true, false)); "without a link-layer address")]
    #[test_case(0x40, &[14, 1, 1, 2, 3, 4, 5, 6, 2, 1, 2, 0, 0, 0, 0, 2], Some((Some(THEM), true, false)); "after a nonce")]
    #[test_case(0x60, &[2, 0, 2, 0, 0, 0, 0, 2], None; "option of length zero")]
    #[test_case(0x60, &[2, 40, 2, 0, 0, 0, 0, 2], None; "option longer than the frame")]
    #[test_case(0x60, &[2], None; "half an option header")]
    fn advertisement_is_parsed(flags: u8, options: &[u8], expected: Option<(Option<Mac>, bool, bool)>) {
        let read = Advertisement::parse(&advertisement(flags, options));
        assert_eq!(read.map(|a| (a.mac, a.solicited, a.overriding)), expected);
        if let Some(read) = read {
            assert_eq!((read.source, read.target), (THEM, "fd00::9".parse().unwrap()));
        }
    }

    #[test]
    fn forwarded_advertisement_is_refused() {
        let mut frame = advertisement(0x60, &TLLA);
        frame[21] = 254;
        assert_eq!(Advertisement::parse(&frame), None);
    }

    #[test]
    fn padding_after_the_message_is_ignored() {
        let mut frame = advertisement(0x60, &TLLA);
        frame.extend([0; 6]);
        assert_eq!(Advertisement::parse(&frame).unwrap().mac, Some(THEM));
    }

    proptest! {
        #[test]
        fn random_frames_do_not_panic(frame in proptest::collection::vec(any::<u8>(), 0..120)) {
            // Random bytes almost never form one of these frames; the test checks that neither parser panics.
            prop_assert!(Arp::parse(&frame).is_none() || Advertisement::parse(&frame).is_none());
        }

        #[test]
        fn random_options_do_not_panic(options in proptest::collection::vec(any::<u8>(), 0..60)) {
            let read = Advertisement::parse(&advertisement(0x60, &options));
            prop_assert!(read.is_none_or(|read| read.source == THEM));
        }
    }
}
