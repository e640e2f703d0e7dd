//! Additions that a later build may make within a version, which a speaker of this build reads as far as it knows them
//! (docs/protocol/frames.md#extensions); and the version that is written.

use std::ops::RangeInclusive;

use herald_protocol::{
    claim::{Claim, Reason},
    node::NodeId,
    wire::{Body, Change, Claims, Frame, Hello, Rejected, SealError, Versions},
};
use proptest::{collection::vec, prelude::*};
use test_case::test_case;

use crate::{
    common::{BODY, TAG, address, claim, frame, heard, hello, key, key_id, resign, ring, seal, unsigned},
    round_trip::frames,
};

proptest! {
    /// (a) A field behind the last one of a body.
    #[test]
    fn appended_field_is_passed_over(frame in frames(), later in vec(any::<u8>(), 1..100)) {
        let mut bytes = unsigned(&seal(&frame));
        bytes.extend(later);
        prop_assume!(bytes.len() + TAG <= 1400);
        prop_assert_eq!(ring().open(&resign(&bytes)), Ok(frame));
    }
}

/// (a) A field behind the last one of each entry.
#[test]
fn field_of_an_entry_is_passed_over() {
    let said = frame(Body::Hello(Hello { heard: vec![heard(1), heard(2)], ..hello("n") }));
    let bytes = unsigned(&seal(&said));
    let (head, entries) = bytes.split_at(bytes.len() - 2 * 29);
    let mut later = head.to_vec();
    *later.last_mut().unwrap() = 32;
    for entry in entries.chunks(29) {
        later.extend(entry);
        later.extend([0xaa; 3]);
    }
    assert_eq!(ring().open(&resign(&later)), Ok(said));
}

fn claims_of(addresses: &[&str]) -> Claims {
    let changes = addresses.iter().map(|text| Change::Claimed(claim(address(text)))).collect();
    Claims { subject: NodeId(1), range: Some((address("192.0.2.0"), address("192.0.2.255"))), changes }
}

/// Offset of the number of changes, in a frame of Claims with a range of IPv4 addresses.
const CHANGES: usize = BODY + 8 + 1 + 2 * 5;

/// Returns the frame of these claims as a later build writes it: with these bytes behind the change with this number.
fn with_change(claims: &Claims, behind: usize, change: &[u8]) -> Vec<u8> {
    let mut bytes = unsigned(&seal(&frame(Body::Claims(claims.clone()))));
    bytes[CHANGES + 1] += 1;
    let at = CHANGES + 2 + behind * (1 + 28);
    bytes.splice(at..at, [&[u8::try_from(change.len()).unwrap()], change].concat());
    resign(&bytes)
}

/// (a) A field behind the last one of a change.
#[test]
fn field_of_a_change_is_passed_over() {
    let claims = claims_of(&["192.0.2.1", "192.0.2.2"]);
    let said = frame(Body::Claims(claims));
    let mut bytes = unsigned(&seal(&said));
    let end = CHANGES + 2 + 1 + 28;
    bytes[CHANGES + 2] += 8;
    bytes.splice(end..end, [0xaa; 8]);
    assert_eq!(ring().open(&resign(&bytes)), Ok(said));
}

/// (b) Bits that have no meaning yet.
#[test]
fn unknown_flags_are_ignored() {
    let said = frame(Body::Hello(hello("n")));
    let mut bytes = unsigned(&seal(&said));
    bytes[BODY + 1] |= 0xfe;
    let last = bytes.len() - 1;
    bytes[last] |= 0xe0;
    assert_eq!(ring().open(&resign(&bytes)), Ok(said));

    let said = frame(Body::Claims(claims_of(&["192.0.2.1"])));
    let mut bytes = unsigned(&seal(&said));
    bytes[BODY + 8] |= 0xfe;
    bytes[CHANGES + 2 + 2] |= 0xfe;
    assert_eq!(ring().open(&resign(&bytes)), Ok(said));
}

/// (c) A reason is kept unchanged: the digest covers it, so both sides agree on it, and so does a node that repeats it.
#[test]
fn unknown_reason_is_kept_and_repeated() {
    let later = Claim { reason: Reason::of_code(200), ..claim(address("192.0.2.1")) };
    assert_eq!(later.reason, Reason::Later(200));
    let said = frame(Body::Claims(Claims { changes: vec![Change::Claimed(later)], ..claims_of(&[]) }));
    let bytes = seal(&said);
    assert_eq!(bytes[bytes.len() - TAG - 1], 200);
    assert_eq!(ring().open(&bytes), Ok(said));
}

#[test]
fn reasons_count_in_the_fingerprint() {
    let one = claim(address("192.0.2.1"));
    let mut fingerprints: Vec<u64> =
        (0..=u8::MAX).map(|code| Claim { reason: Reason::of_code(code), ..one }.fingerprint()).collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 256);
}

#[test]
fn reasons_have_the_codes_of_the_table() {
    for (code, reason) in (0..).zip(Reason::ALL) {
        assert_eq!((reason.code(), Reason::of_code(code)), (code, reason));
    }
}

/// (d) An unknown type is not a fault of a frame: its sender counts as heard.
#[test]
fn unknown_type_is_a_frame_without_a_body() {
    let said = frame(Body::Hello(hello("n")));
    let mut bytes = unsigned(&seal(&said));
    bytes[1] = 3;
    let read = ring().open(&resign(&bytes));
    assert_eq!(read, Ok(Frame { sender: said.sender, body: Body::Later(3) }));
    let empty = resign(&bytes[..BODY]);
    assert_eq!(ring().open(&empty), read, "the body does not matter");
    let refused = ring().seal(key_id(), 1, &read.unwrap());
    assert!(matches!(refused, Err(SealError::Invalid { field: "type", .. })), "{refused:?}");
    // The frame is authenticated all the same, and has a sequence.
    let mut forged = empty.clone();
    forged[20] ^= 1;
    assert_eq!(ring().open(&forged), Err(Rejected::Forged));
    bytes[28..36].fill(0);
    assert!(matches!(ring().open(&resign(&bytes)), Err(Rejected::Malformed { field: "sequence", .. })));
}

/// (e) A change of an unknown kind is left out, whatever its content and position.
#[test_case(0, &[2]; "first, nothing but its kind")]
#[test_case(1, &[2, 0, 4, 192, 0, 2, 1]; "of the same address as the claim before it")]
#[test_case(2, &[77, 0, 4, 10, 0, 0, 1, 1, 2, 3]; "last, outside the range")]
#[test_case(1, &[0xff; 255]; "as long as one can be")]
fn unknown_kind_of_change_is_left_out(behind: usize, change: &[u8]) {
    let claims = claims_of(&["192.0.2.1", "192.0.2.2"]);
    let bytes = with_change(&claims, behind, change);
    assert_eq!(ring().open(&bytes), Ok(frame(Body::Claims(claims))));
}

/// A later build may take more keys than this one.
#[test]
fn fifth_key_of_a_peer_is_accepted() {
    let mut said = hello("n");
    said.keys = (0..5).map(|from| key(from).id()).collect();
    let said = frame(Body::Hello(said));
    assert_eq!(ring().open(&seal(&said)), Ok(said));
}

#[test_case(1..=1, &[], 1; "no peer: the newest")]
#[test_case(1..=1, &[1, 9], 1; "peers read more")]
#[test_case(1..=1, &[0], 1; "there is no version 0")]
#[test_case(1..=3, &[], 3; "no peer: the newest of three")]
#[test_case(1..=3, &[3, 9], 3; "all read it")]
#[test_case(1..=3, &[3, 1, 2], 1; "the lowest of what they read")]
#[test_case(2..=3, &[3, 1], 2; "one reads no version that is written here")]
fn version_that_all_read_is_written(own: RangeInclusive<u8>, peers: &[u8], expected: u8) {
    assert_eq!(Versions::new(own).unwrap().to_write(peers.iter().copied()), expected);
}

#[test_case(0..=1)]
#[test_case(RangeInclusive::new(3, 2))]
fn ranges_without_a_version_are_refused(range: RangeInclusive<u8>) {
    assert_eq!(Versions::new(range), None);
}

#[test]
fn frames_of_each_version_are_written_and_read() {
    let both = ring().with_versions(Versions::new(1..=2).unwrap());
    let said = frame(Body::Hello(hello("n")));
    let bytes = both.seal(key_id(), 2, &said).unwrap();
    assert_eq!((bytes[0], both.open(&bytes).as_ref(), both.open(&seal(&said)).as_ref()), (2, Ok(&said), Ok(&said)));
    assert_eq!(ring().open(&bytes), Err(Rejected::Version(2, Versions::THIS)));
    let refused = both.seal(key_id(), 3, &said).unwrap_err();
    assert_eq!(refused.to_string(), "this speaker writes protocol versions 1 to 2, not 3");
}
