use test_case::test_case;

use super::*;

const VIP: &str = "2001:db8::12:3456";
const ASKER: &str = "2001:db8::9";
const SOLICITED_NODE: &str = "ff02::1:ff12:3456";
const SOLICITED_NODE_MAC: MacAddr = MacAddr([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

fn ip(address: &str) -> Ipv6Addr {
    address.parse().unwrap()
}

/// The fields of an ICMPv6 frame.
#[derive(Clone, Debug)]
struct Parts {
    destination_mac: MacAddr,
    source_mac: MacAddr,
    version: u8,
    next_header: u8,
    hop_limit: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: u8,
    code: u8,
    flags: u8,
    target: Ipv6Addr,
    options: Vec<u8>,
}

impl Parts {
    /// Returns a solicitation for [`VIP`] by a host that knows nothing.
    fn solicitation() -> Self {
        Self {
            destination_mac: SOLICITED_NODE_MAC,
            source_mac: OTHER,
            version: 6,
            next_header: 58,
            hop_limit: 255,
            source: ip(ASKER),
            destination: ip(SOLICITED_NODE),
            kind: 135,
            code: 0,
            flags: 0,
            target: ip(VIP),
            options: link_layer(1, OTHER),
        }
    }

    /// Returns the Duplicate Address Detection of another host.
    fn detection() -> Self {
        Self { source: Ipv6Addr::UNSPECIFIED, options: vec![], ..Self::solicitation() }
    }

    /// Returns the announcement of another host with [`VIP`].
    fn advertisement() -> Self {
        Self {
            destination_mac: ALL_NODES_MAC,
            source: ip(VIP),
            destination: ip("ff02::1"),
            kind: 136,
            flags: 0x20,
            options: link_layer(2, OTHER),
            ..Self::solicitation()
        }
    }

    /// Returns the answer of another host to this one.
    fn answer() -> Self {
        Self { destination_mac: OWN, destination: ip("2001:db8::1"), flags: 0x60, ..Self::advertisement() }
    }

    fn frame(&self) -> Vec<u8> {
        let mut icmp = vec![self.kind, self.code, 0, 0, self.flags, 0, 0, 0];
        icmp.extend(self.target.octets());
        icmp.extend(&self.options);
        let length = (icmp.len() as u32).to_be_bytes();
        let pseudo = [&self.source.octets()[..], &self.destination.octets(), &length, &[0, 0, 0, 58], &icmp].concat();
        icmp[2..4].copy_from_slice(&(!sum(&pseudo)).to_be_bytes());
        let header = [self.version << 4, 0, 0, 0, length[2], length[3], self.next_header, self.hop_limit];
        let ip = [&header[..], &self.source.octets(), &self.destination.octets(), &icmp].concat();
        [&self.destination_mac.0[..], &self.source_mac.0, &[0x86, 0xdd], &ip].concat()
    }

    fn read(&self) -> Option<Heard> {
        let kind = match self.destination_mac {
            OWN => PacketType::Host,
            _ => PacketType::Multicast,
        };
        read_ipv6(&self.frame(), kind, OWN)
    }

    fn asker(&self) -> Option<Asker> {
        match self.read() {
            Some(Heard::Packet { asker, .. }) => asker,
            _ => None,
        }
    }

    fn packet(&self) -> Packet {
        let Some(Heard::Packet { packet, .. }) = self.read() else { panic!("unreadable: {self:?}") };
        packet
    }
}

/// Returns the ones' complement sum of 16-bit words (RFC 1071 section 4.1).
fn sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    bytes.chunks(2).map(word).fold(0, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

fn link_layer(kind: u8, mac: MacAddr) -> Vec<u8> {
    [&[kind, 1], &mac.0[..]].concat()
}

/// The answer goes to the address of the option, or without an option to the Ethernet source.
#[test_case(|_| (), OTHER; "multicast")]
#[test_case(|p| (p.destination_mac, p.destination) = (OWN, ip(VIP)), OTHER; "unicast")]
#[test_case(|p| p.destination_mac = OWN, OTHER; "multicast turned into unicast by the switch")]
#[test_case(|p| p.source_mac = COVERED, OTHER; "the option goes before the Ethernet source")]
#[test_case(|p| p.options.clear(), OTHER; "without option")]
#[test_case(|p| (p.destination_mac, p.destination, p.options) = (OWN, ip(VIP), vec![]), OTHER; "unicast without option")]
#[test_case(|p| p.options = [vec![14, 1, 1, 2, 3, 4, 5, 6], link_layer(1, COVERED)].concat(), COVERED; "behind an unknown option")]
#[test_case(|p| p.options.extend(link_layer(1, COVERED)), OTHER; "the first of two")]
#[test_case(|p| p.flags = 0xff, OTHER; "reserved bits are ignored")]
#[test_case(|p| p.source = ip("fe80::9"), OTHER; "link-local asker")]
fn solicitation_is_answered(change: fn(&mut Parts), asker_mac: MacAddr) {
    let mut asked = Parts::solicitation();
    change(&mut asked);
    for at in [OWN, COVERED] {
        let expected = Parts {
            destination_mac: asker_mac,
            source_mac: OWN,
            source: ip(VIP),
            destination: asked.source,
            kind: 136,
            flags: 0x60,
            options: link_layer(2, at),
            ..Parts::solicitation()
        };
        assert_eq!(asked.asker().unwrap().answer(OWN, at), expected.frame());
    }
}

#[test]
fn duplicate_address_detection_is_answered_to_all() {
    let asked = Parts::detection();
    assert_eq!(asked.packet(), Packet { source: OTHER, binding: None, asks: Some(ip(VIP).into()) });
    let expected = Parts { source_mac: OWN, options: link_layer(2, COVERED), ..Parts::advertisement() };
    assert_eq!(asked.asker().unwrap().answer(OWN, COVERED), expected.frame());
    let nonce = Parts { options: vec![14, 1, 1, 2, 3, 4, 5, 6], ..Parts::detection() };
    assert!(nonce.asker().is_some(), "with a nonce (RFC 7527)");
}

#[test_case(|p| p.hop_limit = 254; "hop limit")]
#[test_case(|p| p.code = 1; "code")]
#[test_case(|p| p.kind = 133; "another type")]
#[test_case(|p| p.version = 4; "version")]
#[test_case(|p| p.next_header = 44; "fragment")]
#[test_case(|p| p.next_header = 0; "hop-by-hop options")]
#[test_case(|p| p.target = ip("ff02::1"); "target is a group")]
#[test_case(|p| p.source = ip("ff02::1"); "source is a group")]
#[test_case(|p| p.options = vec![14, 0]; "option of length 0")]
#[test_case(|p| p.options = vec![14, 2, 0, 0, 0, 0, 0, 0]; "option too long")]
#[test_case(|p| p.options.push(0); "half an option")]
#[test_case(|p| p.options = [vec![1, 2], vec![2; 14]].concat(); "link-layer address not of Ethernet")]
#[test_case(|p| p.options = link_layer(1, MacAddr::BROADCAST); "link-layer address is a group")]
#[test_case(|p| p.options = link_layer(1, MacAddr::ZERO); "link-layer address is all zeroes")]
#[test_case(|p| p.source = Ipv6Addr::UNSPECIFIED; "detection with a link-layer address")]
#[test_case(|p| p.source_mac = OWN; "own frame, back over a loop")]
#[test_case(|p| p.source_mac = MacAddr::BROADCAST; "sent by a group")]
fn invalid_solicitation_is_not_read(change: fn(&mut Parts)) {
    let mut parts = Parts::solicitation();
    change(&mut parts);
    assert_eq!(parts.read(), None);
}

#[test_case("ff02::1"; "to all nodes")]
#[test_case(VIP; "to the address itself")]
fn detection_goes_to_a_solicited_node_group(destination: &str) {
    assert_eq!(Parts { destination: ip(destination), ..Parts::detection() }.read(), None);
}

#[test]
fn solicitation_with_this_hosts_mac_is_heard_but_not_answered() {
    let parts = Parts { options: link_layer(1, OWN), ..Parts::solicitation() };
    assert_eq!(parts.packet().binding, Some((ip(ASKER).into(), OWN)));
    assert_eq!(parts.asker(), None);
}

#[test_case(PacketType::OtherHost)]
#[test_case(PacketType::Outgoing)]
#[test_case(PacketType::Host; "to another address of this host")]
#[test_case(PacketType::Broadcast; "not to all")]
fn solicitation_for_another_host_is_not_read(kind: PacketType) {
    assert_eq!(read_ipv6(&Parts::solicitation().frame(), kind, OWN), None);
}

#[test]
fn padding_is_ignored_and_a_cut_frame_is_not_read() {
    let mut frame = Parts::detection().frame();
    let whole = read_ipv6(&frame, PacketType::Multicast, OWN);
    assert!(whole.is_some());
    frame.extend([0xee; 9]);
    assert_eq!(read_ipv6(&frame, PacketType::Multicast, OWN), whole);
    // The length in the IPv6 header goes beyond the frame.
    frame[19] = 0xff;
    assert_eq!(read_ipv6(&frame, PacketType::Multicast, OWN), None);
}

#[test_case(|_| (), Some(OTHER); "solicited")]
#[test_case(|p| p.flags = 0x40, Some(OTHER); "solicited, and does not override")]
#[test_case(|p| p.options.clear(), Some(OTHER); "without option: the Ethernet source")]
#[test_case(|p| p.options = link_layer(2, COVERED), Some(COVERED); "with the link-layer address of another node")]
#[test_case(|p| *p = Parts::advertisement(), Some(OTHER); "to all nodes")]
#[test_case(|p| *p = Parts { options: vec![], ..Parts::advertisement() }, None; "to all nodes, without option")]
#[test_case(|p| p.options = link_layer(1, COVERED), Some(OTHER); "a source option does not count")]
fn advertisement_states_a_binding(change: fn(&mut Parts), mac: Option<MacAddr>) {
    let mut parts = Parts::answer();
    change(&mut parts);
    let binding = mac.map(|mac| (ip(VIP).into(), mac));
    assert_eq!(parts.packet(), Packet { source: OTHER, binding, asks: None });
    assert_eq!(parts.asker(), None);
}

#[test_case(|p| p.hop_limit = 64; "hop limit")]
#[test_case(|p| p.code = 1; "code")]
#[test_case(|p| p.target = ip("ff02::1"); "target is a group")]
#[test_case(|p| p.flags = 0x60; "solicited to a group")]
#[test_case(|p| p.options = vec![2, 0]; "option of length 0")]
fn invalid_advertisement_is_not_read(change: fn(&mut Parts)) {
    let mut parts = Parts::advertisement();
    change(&mut parts);
    assert_eq!(parts.read(), None);
}

#[test]
fn echo_reply_to_this_host_is_evidence() {
    // Identifier and sequence are at the offset of an advertisement's flags.
    let reply = Parts { kind: 129, hop_limit: 64, flags: 0, ..Parts::answer() };
    assert_eq!(reply.read(), Some(Heard::Evidence));
    assert_eq!(Parts { code: 1, ..reply.clone() }.read(), None);
    assert_eq!(Parts { destination_mac: ALL_NODES_MAC, ..reply.clone() }.read(), None);
    assert_eq!(Parts { kind: 128, ..reply }.read(), None);
}

#[test]
fn questions_and_announcements_have_the_bytes_of_the_rfcs() {
    let all = Parts { source_mac: OWN, options: link_layer(2, COVERED), ..Parts::advertisement() };
    assert_eq!(announcement(ip(VIP).into(), COVERED, OWN), all.frame());

    let origin = origin(&["2001:db8::1/64"], Some("fe80::1"));
    let detection = Parts { source_mac: OWN, ..Parts::detection() };
    assert_eq!(enquiry(ip(VIP).into(), &origin), detection.frame());

    let probed = Parts {
        destination_mac: OTHER,
        source_mac: OWN,
        source: ip("2001:db8::1"),
        destination: ip(VIP),
        options: link_layer(1, OWN),
        ..Parts::solicitation()
    };
    assert_eq!(probe(ip(VIP).into(), OTHER, &origin), Some(probed.frame()));
}

/// The checksum was worked out by hand: 0xfe80 + 1 + 0xff02 + 1 + 8 (length) + 58 + 0x8000 = 0x27dc6, folded 0x7dc8.
#[test]
fn echo_request_to_all_has_the_bytes_of_the_rfcs() {
    let mut expected = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    expected.extend([0x60, 0, 0, 0, 0, 8, 58, 255]);
    expected.extend(ip("fe80::1").octets());
    expected.extend(ip("ff02::1").octets());
    expected.extend([128, 0, 0x82, 0x37, 0, 0, 0, 0]);
    assert_eq!(echo_all(&origin(&[], Some("fe80::1"))), Some(expected));
}

#[test_case("2001:db8::12:3456", SOLICITED_NODE, SOLICITED_NODE_MAC)]
#[test_case("fe80::1", "ff02::1:ff00:1", MacAddr([0x33, 0x33, 0xff, 0, 0, 1]); "small")]
#[test_case(SOLICITED_NODE, SOLICITED_NODE, SOLICITED_NODE_MAC; "the group itself")]
fn solicited_node_group_follows_the_address(address: &str, group: &str, mac: MacAddr) {
    assert_eq!(solicited_node(ip(address)), (ip(group), mac));
}
