use test_case::test_case;

use super::*;

const VIP: [u8; 4] = [192, 0, 2, 10];
const ASKER: [u8; 4] = [192, 0, 2, 9];

/// Returns a frame, byte by byte (RFC 826 "Packet format").
fn frame(
    (destination, source): (MacAddr, MacAddr),
    operation: u8,
    sender: (MacAddr, [u8; 4]),
    target: (MacAddr, [u8; 4]),
) -> Vec<u8> {
    let header = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&destination.0[..], &source.0, &header, &sender.0.0, &sender.1, &target.0.0, &target.1].concat()
}

/// Returns a request for [`VIP`] from 192.0.2.9.
fn request() -> Vec<u8> {
    frame((MacAddr::BROADCAST, OTHER), 1, (OTHER, ASKER), (MacAddr::ZERO, VIP))
}

fn asker(heard: Option<Heard>) -> Option<Asker> {
    heard.and_then(|heard| match heard {
        Heard::Packet { asker, .. } => asker,
        Heard::Pong { .. } | Heard::Evidence => None,
    })
}

#[test]
fn request_is_read() {
    let Some(Heard::Packet { packet, asker }) = read_arp(&request(), PacketType::Broadcast, OWN) else { panic!() };
    let expected = Packet { source: OTHER, binding: Some((ASKER.into(), OTHER)), asks: Some(VIP.into()) };
    assert_eq!(packet, expected);
    assert!(asker.is_some());
}

#[test]
fn padded_unicast_request_is_read() {
    let mut padded = request();
    padded.resize(60, 0xee);
    padded[..6].copy_from_slice(&OWN.0);
    assert!(asker(read_arp(&padded, PacketType::Host, OWN)).is_some());
}

#[test_case(|f| f[12] = 0x81, PacketType::Broadcast; "tagged")]
#[test_case(|f| f[15] = 6, PacketType::Broadcast; "not Ethernet")]
#[test_case(|f| f[17] = 6, PacketType::Broadcast; "not IPv4")]
#[test_case(|f| f[18] = 8, PacketType::Broadcast; "hardware length")]
#[test_case(|f| f[19] = 16, PacketType::Broadcast; "protocol length")]
#[test_case(|f| f[21] = 3, PacketType::Broadcast; "neither request nor reply")]
#[test_case(|f| f[22] = 1, PacketType::Broadcast; "sender is a group")]
#[test_case(|f| f[22..28].fill(0), PacketType::Broadcast; "sender is all zeroes")]
#[test_case(|f| f[6] = 1, PacketType::Broadcast; "sent by a group")]
#[test_case(|f| f[6..12].copy_from_slice(&OWN.0), PacketType::Broadcast; "own frame, back over a loop")]
#[test_case(|f| f[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]), PacketType::OtherHost; "to another")]
#[test_case(|f| f[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]), PacketType::Host; "to another address of this host")]
#[test_case(|_| (), PacketType::Outgoing; "sent by this host")]
#[test_case(|_| (), PacketType::Unknown(7); "of an unknown kind")]
#[test_case(|f| f.truncate(41), PacketType::Broadcast; "cut")]
fn frame_that_is_damaged_or_not_for_this_host_is_not_read(change: fn(&mut Vec<u8>), kind: PacketType) {
    let mut frame = request();
    change(&mut frame);
    assert_eq!(read_arp(&frame, kind, OWN), None);
}

#[test_case(|f| f[21] = 2, PacketType::Broadcast; "a reply")]
#[test_case(|f| f[28..32].copy_from_slice(&VIP), PacketType::Broadcast; "a gratuitous request")]
#[test_case(|f| f[22..28].copy_from_slice(&OWN.0), PacketType::Broadcast; "sender has this host's address")]
#[test_case(|f| f[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]), PacketType::Multicast; "to a group")]
fn frame_that_asks_nothing_of_this_host_is_heard_but_not_answered(change: fn(&mut Vec<u8>), kind: PacketType) {
    let mut frame = request();
    change(&mut frame);
    let heard = read_arp(&frame, kind, OWN);
    assert!(heard.is_some());
    assert_eq!(asker(heard), None);
}

#[test]
fn reply_states_a_binding_and_asks_nothing() {
    let reply = frame((OWN, OTHER), 2, (COVERED, VIP), (OWN, ASKER));
    let Some(Heard::Packet { packet, .. }) = read_arp(&reply, PacketType::Host, OWN) else { panic!() };
    assert_eq!(packet, Packet { source: OTHER, binding: Some((VIP.into(), COVERED)), asks: None });
}

#[test_case(ASKER; "request")]
#[test_case([0; 4]; "probe of RFC 5227")]
fn answer_goes_to_the_asker_alone(sender: [u8; 4]) {
    let mut asked = request();
    asked[28..32].copy_from_slice(&sender);
    let asker = asker(read_arp(&asked, PacketType::Broadcast, OWN)).unwrap();
    assert_eq!(asker.answer(OWN, OWN), frame((OTHER, OWN), 2, (OWN, VIP), (OTHER, sender)));
    assert_eq!(asker.answer(OWN, COVERED), frame((OTHER, OWN), 2, (COVERED, VIP), (OTHER, sender)));
}

#[test]
fn questions_and_announcements_have_the_bytes_of_the_rfcs() {
    let zero = MacAddr::ZERO;
    let all = (MacAddr::BROADCAST, OWN);
    assert_eq!(announcement(VIP.into(), OWN, OWN), frame(all, 1, (OWN, VIP), (zero, VIP)));
    assert_eq!(reply_unasked(VIP.into(), COVERED, OWN), frame(all, 2, (COVERED, VIP), (COVERED, VIP)));
    let origin = origin(&["192.0.2.1/24"], None);
    assert_eq!(enquiry(VIP.into(), &origin), frame(all, 1, (OWN, [0; 4]), (zero, VIP)));
    let expected = frame((OTHER, OWN), 1, (OWN, [192, 0, 2, 1]), (zero, VIP));
    assert_eq!(probe(VIP.into(), OTHER, &origin), Some(expected));
    let far = [198, 51, 100, 1];
    assert_eq!(probe(far.into(), OTHER, &origin), Some(frame((OTHER, OWN), 1, (OWN, [0; 4]), (zero, far))));
}
