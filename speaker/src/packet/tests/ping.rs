use proptest::prelude::*;
use test_case::test_case;

use super::*;

const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const ASKED: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

/// Replies of Linux 6.18 to `REQUEST_V4` and `REQUEST_V6`, captured.
const REPLY_V4: &str =
    "02000000000a02000000000b08004500002494010000400162d4c0000202c00002010000b8a300000000486572616c642031";
const REPLY_V6: &str = "02000000000a02000000000b86dd6003234900103a4020010db800000000000000000000000220010db800000000000000000000\
                        00018100dbe300000000486572616c642031";

const REQUEST_V4: &str =
    "02000000000b02000000000a080045000024000040004001b6d5c0000201c00002020800b0a300000000486572616c642031";
const REQUEST_V6: &str = "02000000000b02000000000a86dd6000000000103aff20010db800000000000000000000000120010db8000000000000000000\
                          0000028000dce300000000486572616c642031";

fn asker(addresses: &[&str], link_local: Option<&str>) -> Origin {
    Origin { mac: ASKER, ..origin(addresses, link_local) }
}

fn read(frame: &[u8], kind: PacketType) -> Option<Heard> {
    read_ipv4(frame, kind, ASKER).or_else(|| read_ipv6(frame, kind, ASKER))
}

#[test_case("192.0.2.2", REQUEST_V4; "IPv4")]
#[test_case("2001:db8::2", REQUEST_V6; "IPv6")]
fn request_has_the_bytes_of_the_rfcs(address: &str, expected: &str) {
    let asker = asker(&["192.0.2.1/24", "2001:db8::1/64"], Some("fe80::1"));
    assert_eq!(ping(address.parse().unwrap(), ASKED, &asker), Some(bytes(expected)));
}

#[test_case("198.51.100.1", None; "IPv4 elsewhere: the reply would be routed")]
#[test_case("2001:db8:1::2", Some("fe80::1"); "IPv6 elsewhere")]
#[test_case("fe80::2", Some("fe80::1"); "link-local")]
fn source_of_a_request_needs_no_router(address: &str, source: Option<&str>) {
    let address = address.parse().unwrap();
    let asker = asker(&["192.0.2.1/24", "2001:db8::1/64"], Some("fe80::1"));
    let sent_from =
        ping(address, ASKED, &asker).map(|frame| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap()));
    assert_eq!(sent_from, source.map(|source| source.parse().unwrap()));
    assert_eq!(ping(address, ASKED, &origin(&[], None)), None);
}

#[test_case(REPLY_V4, "192.0.2.2"; "IPv4")]
#[test_case(REPLY_V6, "2001:db8::2"; "IPv6")]
fn reply_of_linux_is_read(reply: &str, address: &str) {
    let mut frame = bytes(reply);
    let pong = Some(Heard::Pong { address: address.parse().unwrap(), mac: ASKED });
    assert_eq!(read(&frame, PacketType::Host), pong);
    frame.resize(60, 0xee);
    if address.len() < 10 {
        assert_eq!(read(&frame, PacketType::Host), pong, "padded");
    }
}

#[test_case(REQUEST_V4; "IPv4")]
#[test_case(REQUEST_V6; "IPv6")]
fn request_is_not_read_as_a_reply(request: &str) {
    let frame = bytes(request);
    assert_eq!(read_ipv4(&frame, PacketType::Host, ASKED), None);
    assert_eq!(read_ipv6(&frame, PacketType::Host, ASKED), None);
}

/// Returns the answer of the host that a ping of IPv4 asks; `None` if the frame is not such a ping.
pub(crate) fn pong_to(request: &[u8]) -> Option<Vec<u8>> {
    if request.get(12..14) != Some(&[8, 0]) || request.get(34) != Some(&8) {
        return None;
    }
    let mut reply =
        [&request[6..12], &request[..6], &request[12..26], &request[30..34], &request[26..30], &request[34..]].concat();
    reply[34] = 0;
    sum_v4(&mut reply);
    Some(reply)
}

#[test]
fn reply_of_the_tests_equals_that_of_linux() {
    let reply = pong_to(&bytes(REQUEST_V4)).unwrap();
    let heard = read(&reply, PacketType::Host);
    assert!(heard.is_some());
    assert_eq!(heard, read(&bytes(REPLY_V4), PacketType::Host));
}

/// Corrects the checksums after a change.
fn sum_v4(frame: &mut [u8]) {
    let sum = pnet::packet::util::checksum(&frame[14..34], 5);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let sum = pnet::packet::util::checksum(&frame[34..50], 1);
    frame[36..38].copy_from_slice(&sum.to_be_bytes());
}

#[test_case(|f| f[14] = 0x46; "IP options")]
#[test_case(|f| f[17] = 0x23; "a byte short")]
#[test_case(|f| f[17] = 0x25; "longer than the frame")]
#[test_case(|f| f[20] = 0x20; "first fragment")]
#[test_case(|f| f[21] = 1; "later fragment")]
#[test_case(|f| f[23] = 17; "UDP")]
#[test_case(|f| f[34] = 8; "request")]
#[test_case(|f| f[35] = 1; "code")]
#[test_case(|f| f[39] = 1; "identifier of another ping")]
#[test_case(|f| f[49] ^= 1; "mark of another ping")]
fn reply_to_another_ping_or_damaged_reply_is_not_read(change: fn(&mut Vec<u8>)) {
    let mut frame = bytes(REPLY_V4);
    change(&mut frame);
    sum_v4(&mut frame);
    assert_eq!(read(&frame, PacketType::Host), None);
}

#[test_case(|f| f[6] = 1, PacketType::Host; "sent by a group")]
#[test_case(|f| f[6..12].copy_from_slice(&ASKER.0), PacketType::Host; "own frame, back over a loop")]
#[test_case(|f| f[..6].copy_from_slice(&OTHER.0), PacketType::OtherHost; "to another")]
#[test_case(|f| f[..6].copy_from_slice(&[0xff; 6]), PacketType::Broadcast; "to all")]
#[test_case(|_| (), PacketType::Outgoing; "sent by this host")]
fn reply_to_another_host_is_not_read(change: fn(&mut Vec<u8>), kind: PacketType) {
    for reply in [REPLY_V4, REPLY_V6] {
        let mut frame = bytes(reply);
        change(&mut frame);
        assert_eq!(read(&frame, kind), None);
    }
}

/// The last byte of the mark and the checksum (RFC 1071) make up for each other.
#[test]
fn reply_without_the_mark_is_evidence_without_an_address() {
    let mut frame = bytes(REPLY_V6);
    frame[69] -= 1;
    frame[57] += 1;
    assert_eq!(read(&frame, PacketType::Host), Some(Heard::Evidence));
    // The identifier is that of another ping, and the checksum makes up for it as well.
    frame[59] += 1;
    frame[57] -= 1;
    assert_eq!(read(&frame, PacketType::Host), None);
}

proptest! {
    #[test]
    fn damaged_or_cut_reply_is_not_read(at in 14usize..50, bit in 0u8..8, cut in 0usize..50) {
        let mut frame = bytes(REPLY_V4);
        prop_assert_eq!(read(&frame[..cut], PacketType::Host), None);
        frame[at] ^= 1 << bit;
        prop_assert_eq!(read(&frame, PacketType::Host), None);
    }
}
