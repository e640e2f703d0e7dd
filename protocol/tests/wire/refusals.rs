//! Bytes that are not a frame for this speaker are refused with the right reason, and never cause more than that.

use std::time::Duration;

use herald_protocol::{
    claim::Digest,
    mac::MacAddr,
    node::{NodeId, NodeName},
    wire::{Body, Change, Claims, Frame, Hello, Rejected, SealError, Versions},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use test_case::test_case;

use crate::{
    common::{BODY, address, claim, frame, heard, hello, key_id, resign, ring, seal, unsigned},
    round_trip::frames,
};

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..1500)) {
        prop_assert!(ring().open(&bytes).is_err());
    }

    #[test]
    fn truncated_frame_is_refused(frame in frames(), at in any::<Index>()) {
        let bytes = seal(&frame);
        let has = at.index(bytes.len());
        let refused = ring().open(&bytes[..has]);
        prop_assert!(matches!(refused, Err(Rejected::Truncated { .. })), "{:?}", refused);
    }

    #[test]
    fn frame_with_a_flipped_bit_is_refused(frame in frames(), at in any::<Index>(), bit in 0..8_u8) {
        let mut bytes = seal(&frame);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let refused = ring().open(&bytes).unwrap_err();
        match at {
            0 => prop_assert!(matches!(refused, Rejected::Version(..))),
            // The length is more than the bytes that came, or more than a frame may have. If it is less, the signature
            // does not match, or there is no frame.
            2..=3 => {}
            4..=11 => prop_assert!(matches!(refused, Rejected::Foreign(_))),
            _ => prop_assert_eq!(refused, Rejected::Forged),
        }
    }

    /// A holder of the key can send nonsense. The field with the nonsense is named in the refusal, and everything else
    /// makes sense.
    #[test]
    fn signed_body_is_refused_or_makes_sense(kind in 0..4_u8, body in vec(any::<u8>(), 0..1348)) {
        let mut bytes = vec![1, kind, 0, 0];
        bytes.extend(key_id().0.to_be_bytes());
        bytes.extend([1; 24]);
        bytes.extend(body);
        is_named_or_sense(&resign(&bytes))?;
    }

    #[test]
    fn signed_change_is_refused_or_makes_sense(frame in frames(), changes in vec((any::<Index>(), any::<u8>()), 1..4)) {
        let mut bytes = unsigned(&seal(&frame));
        for (at, value) in changes {
            // The version, length and key stay.
            let at = 12 + at.index(bytes.len() - 12);
            bytes[at] = value;
        }
        is_named_or_sense(&resign(&bytes))?;
    }

    #[test]
    fn signed_truncated_body_is_refused(frame in frames(), at in any::<Index>()) {
        let bytes = unsigned(&seal(&frame));
        let has = BODY + at.index(bytes.len() - BODY);
        let refused = ring().open(&resign(&bytes[..has]));
        prop_assert!(matches!(refused, Err(Rejected::Malformed { .. })), "{:?}", refused);
    }
}

fn is_named_or_sense(bytes: &[u8]) -> Result<(), TestCaseError> {
    match ring().open(bytes) {
        Err(Rejected::Malformed { field, what }) => prop_assert!(!field.is_empty() && !what.is_empty()),
        // The body was not read.
        Ok(Frame { body: Body::Later(_), .. }) => {}
        Ok(frame) => prop_assert_eq!(ring().open(&seal(&frame)), Ok(frame)),
        Err(other) => prop_assert!(false, "{}", other),
    }
    Ok(())
}

#[test_case(&[], Rejected::Truncated { has: 0, needs: 52 }; "nothing")]
#[test_case(&[1], Rejected::Truncated { has: 1, needs: 52 }; "a byte")]
#[test_case(&[1; 51], Rejected::Truncated { has: 51, needs: 52 }; "a byte short")]
#[test_case(&[0], Rejected::Version(0, Versions::THIS); "no version")]
#[test_case(&[2], Rejected::Version(2, Versions::THIS); "the version comes first: a later one may be shorter")]
#[test_case(&[0xaa; 60], Rejected::Version(0xaa, Versions::THIS); "something else with this EtherType")]
fn frame_is_refused_before_its_key_is_read(bytes: &[u8], expected: Rejected) {
    assert_eq!(ring().open(bytes), Err(expected));
}

#[test]
fn later_version_is_distinguished_from_a_forgery() {
    let mut bytes = unsigned(&seal(&frame(Body::Hello(hello("n")))));
    bytes[0] = 2;
    assert_eq!(ring().open(&resign(&bytes)), Err(Rejected::Version(2, Versions::THIS)));
}

#[test_case(51)]
#[test_case(1401)]
#[test_case(0xffff)]
fn lengths_out_of_bounds_are_refused(length: u16) {
    let mut bytes = seal(&frame(Body::Hello(hello("n"))));
    bytes.resize(usize::from(u16::MAX), 0);
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let what = format!("{length} bytes; a frame has 52 to 1400");
    assert_eq!(ring().open(&bytes), Err(Rejected::Malformed { field: "length", what }));
}

#[test]
fn body_is_not_read_before_the_authentication_code() {
    let mut bytes = seal(&frame(Body::Hello(hello("n"))));
    bytes[1] = 77;
    bytes[BODY..].fill(0xff);
    assert_eq!(ring().open(&bytes), Err(Rejected::Forged));
}

/// The byte is put at this offset of the body of a Hello of `n`, which is then signed.
#[test_case(0, 4, "state", "unknown state 4")]
#[test_case(2, 0, "highest version", "it is 0; the first version is 1")]
#[test_case(27, 3, "mac", "03:00:00:00:00:01 is not the address of one station")]
#[test_case(33, 5, "address", "unknown family 5: 4, 6, and here and there 0, are known")]
#[test_case(38, 200, "name", "it is cut off: 41 of 200 bytes are there")]
#[test_case(39, 0xff, "name", "it is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0")]
#[test_case(39, b'N', "name", "'N' is none of a-z, 0-9, '-', '.'")]
#[test_case(40, 9, "keys", "it is cut off: 7 of 8 bytes are there")]
#[test_case(49, 2, "heard", "it is cut off: 0 of 29 bytes are there")]
#[test_case(50, 28, "heard.flags", "it is cut off: 0 of 1 bytes are there"; "shorter than an entry")]
#[test_case(50, 30, "heard", "it is cut off: 29 of 30 bytes are there"; "longer than what came")]
fn nonsense_in_a_hello_is_refused_by_name(offset: usize, value: u8, field: &str, what: &str) {
    let mut bytes = unsigned(&seal(&frame(Body::Hello(hello("n")))));
    bytes[BODY + offset] = value;
    let refused = ring().open(&resign(&bytes));
    let Err(Rejected::Malformed { field: named, what: says }) = refused else { panic!("{refused:?}") };
    assert_eq!((named, says.as_str()), (field, what));
}

/// The bytes are put at this offset of a body with one claim, 192.0.2.1, and the range 192.0.2.0 to 192.0.2.255, which
/// is then signed.
#[test_case(9, &[0], "range.first", "there is none")]
#[test_case(9, &[4, 192, 0, 3, 0], "range", "it begins at 192.0.3.0, behind its end 192.0.2.255")]
#[test_case(14, &[4, 192, 0, 2, 0], "changes", "192.0.2.1 is outside the range 192.0.2.0 to 192.0.2.0")]
#[test_case(19, &[0, 2], "change.length", "it is cut off: 0 of 1 bytes are there")]
#[test_case(21, &[0], "change.kind", "it is cut off: 0 of 1 bytes are there"; "nothing in it")]
#[test_case(21, &[27], "change.reason", "it is cut off: 0 of 1 bytes are there"; "shorter than a claim")]
#[test_case(21, &[29], "change", "it is cut off: 28 of 29 bytes are there"; "longer than what came")]
#[test_case(24, &[7], "change.address", "unknown family 7: 4, 6, and here and there 0, are known")]
fn nonsense_in_claims_is_refused_by_name(offset: usize, value: &[u8], field: &str, what: &str) {
    let claims = Claims {
        subject: NodeId(1),
        range: Some((address("192.0.2.0"), address("192.0.2.255"))),
        changes: vec![Change::Claimed(claim(address("192.0.2.1")))],
    };
    let mut bytes = unsigned(&seal(&frame(Body::Claims(claims))));
    bytes[BODY + offset..][..value.len()].copy_from_slice(value);
    let refused = ring().open(&resign(&bytes));
    let Err(Rejected::Malformed { field: named, what: says }) = refused else { panic!("{refused:?}") };
    assert_eq!((named, says.as_str()), (field, what));
}

/// The bytes are put at this offset of the header of a Hello of `n`, which is then signed.
#[test_case(12, &[0], "name", "n has the id 1b16b1df538ba12d, but the header says 0016b1df538ba12d"; "another's name")]
#[test_case(28, &[0; 8], "sequence", "it is 0; the first frame has 1")]
fn nonsense_in_a_header_is_refused_by_name(offset: usize, value: &[u8], field: &str, what: &str) {
    let mut bytes = unsigned(&seal(&frame(Body::Hello(hello("n")))));
    bytes[offset..][..value.len()].copy_from_slice(value);
    let refused = ring().open(&resign(&bytes));
    let Err(Rejected::Malformed { field: named, what: says }) = refused else { panic!("{refused:?}") };
    assert_eq!((named, says.as_str()), (field, what));
}

#[test_case(|hello| hello.name = NodeName::new("Node"), "name"; "capital letter")]
#[test_case(|hello| hello.name = NodeName::new(&"n".repeat(254)), "name"; "long name")]
#[test_case(|hello| hello.name = NodeName::new(""), "name"; "no name")]
#[test_case(|hello| hello.mac = MacAddr::BROADCAST, "mac"; "group address")]
#[test_case(|hello| hello.keys.clear(), "keys"; "no keys")]
#[test_case(|hello| hello.interval = Duration::ZERO, "interval"; "no interval")]
#[test_case(|hello| hello.heard = vec![heard(1); 256], "heard"; "more than can be counted")]
fn hellos_that_peers_would_refuse_are_not_sent(change: fn(&mut Hello), field: &str) {
    let mut said = Hello { claims: Digest::default(), ..hello("n") };
    change(&mut said);
    let refused = ring().seal(key_id(), 1, &frame(Body::Hello(said)));
    assert!(matches!(&refused, Err(SealError::Invalid { field: named, .. }) if *named == field), "{refused:?}");
}

#[test_case(&["192.0.2.2", "192.0.2.1"], None; "not ascending")]
#[test_case(&["192.0.2.1", "192.0.2.1"], None; "twice")]
#[test_case(&["::1", "192.0.2.1"], None; "IPv4 comes first")]
#[test_case(&["192.0.2.1"], Some(("192.0.2.2", "192.0.2.9")); "before the range")]
#[test_case(&["::"], Some(("192.0.2.2", "255.255.255.255")); "after the range")]
fn claims_that_peers_would_refuse_are_not_sent(addresses: &[&str], range: Option<(&str, &str)>) {
    let changes = addresses.iter().map(|text| Change::Claimed(claim(address(text)))).collect();
    let range = range.map(|(first, last)| (address(first), address(last)));
    let refused = ring().seal(key_id(), 1, &frame(Body::Claims(Claims { subject: NodeId(1), range, changes })));
    assert!(matches!(&refused, Err(SealError::Invalid { field: "changes", .. })), "{refused:?}");
}

#[test_case(0)]
#[test_case(2)]
fn unknown_versions_are_not_written(version: u8) {
    let refused = ring().seal(key_id(), version, &frame(Body::Hello(hello("n"))));
    assert_eq!(refused, Err(SealError::Version(version, Versions::THIS)));
}
