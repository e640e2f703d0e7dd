//! The test vectors of docs/protocol/frames.md#vectors, read and written.

use std::time::Duration;

use herald_protocol::{
    claim::{Birth, Claim, ClaimKey, Digest, Epoch, Reason},
    mac::MacAddr,
    node::{Incarnation, NodeName},
    wire::{
        Body, Change, Claims, Frame, Heard, Hello, Kernel, Key, KeyId, Keyring, Question, Sender, State, key_of_cluster,
    },
};
use test_case::test_case;

use crate::common::{address, key, secret};

const RUN_A: Incarnation = Incarnation(0x0102_0304_0506_0708);
const RUN_B: Incarnation = Incarnation(0x1112_1314_1516_1718);
const RUN_C: Incarnation = Incarnation(0x2122_2324_2526_2728);
/// UID of a Namespace kube-system.
const CLUSTER: &str = "7c1f0f0e-3b1a-4a55-8f6e-2d9d6b1c9e42";
const UID_1: &str = "3f2a6c1e-0d0b-4c57-9a55-6f4f0c2b7a10";
const UID_2: &str = "9d1c2f58-7e64-4b0c-8f3e-52b6f5d0a977";

/// Returns both keys, the older first.
fn both() -> Keyring {
    Keyring::new(vec![key(0x00), key(0x20)]).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

fn sender(name: &str, incarnation: Incarnation, sequence: u64) -> Sender {
    Sender { node: node(name).id(), incarnation, sequence }
}

fn hello_first() -> Frame {
    let hello = Hello {
        state: State::Listening,
        highest_version: 1,
        deaf: false,
        interval: Duration::from_millis(100),
        uptime: Duration::ZERO,
        peers: 0,
        claims: Digest::default(),
        name: node("node-a"),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        address: None,
        keys: vec![key(0x00).id()],
        heard: vec![],
    };
    Frame { sender: sender("node-a", RUN_A, 1), body: Body::Hello(hello) }
}

fn claims_of_b() -> [Claim; 2] {
    let [first, second] = [address("192.0.2.10"), address("2001:db8::10")];
    [
        Claim {
            address: first,
            birth: Birth(1_790_000_000),
            epoch: Epoch(3),
            key: ClaimKey::of(first, UID_1, &node("node-b")),
            reason: Reason::Dead,
            cover: true,
        },
        Claim {
            address: second,
            birth: Birth(1_790_000_001),
            epoch: Epoch(1),
            key: ClaimKey::of(second, UID_2, &node("node-b")),
            reason: Reason::Vacant,
            cover: false,
        },
    ]
}

fn hello_heard() -> Frame {
    let mut claims = Digest::default();
    claims_of_b().iter().for_each(|claim| claims.add(claim.fingerprint()));
    let echo = Heard {
        node: node("node-a").id(),
        incarnation: RUN_A,
        sequence: 1,
        age: Duration::from_millis(17),
        kernel: Some(Kernel::Answered(Question::Ping, Duration::from_millis(23))),
        wants_echo: true,
        wants_claims: true,
        suspect: false,
    };
    let suspect = Heard {
        node: node("node-c").id(),
        incarnation: RUN_C,
        sequence: 90,
        age: Duration::from_millis(65_535),
        kernel: Some(Kernel::Silent(Question::Address)),
        wants_echo: false,
        wants_claims: false,
        suspect: true,
    };
    let hello = Hello {
        state: State::Active,
        highest_version: 1,
        deaf: true,
        interval: Duration::from_millis(300),
        uptime: Duration::from_secs(3600),
        peers: 2,
        claims,
        name: node("node-b"),
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        address: Some(address("192.0.2.2")),
        keys: vec![key(0x00).id(), key(0x20).id()],
        heard: vec![echo, suspect],
    };
    Frame { sender: sender("node-b", RUN_B, 4711), body: Body::Hello(hello) }
}

fn claims_list() -> Frame {
    let claims = Claims {
        subject: node("node-b").id(),
        range: Some((address("0.0.0.0"), address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))),
        changes: claims_of_b().map(Change::Claimed).to_vec(),
    };
    Frame { sender: sender("node-b", RUN_B, 4712), body: Body::Claims(claims) }
}

fn claims_changes() -> Frame {
    let claimed = address("192.0.2.11");
    let claim = Claim {
        address: claimed,
        birth: Birth(1_790_000_002),
        epoch: Epoch(u32::MAX),
        key: ClaimKey::of(claimed, UID_1, &node("node-c")),
        reason: Reason::Recreated,
        cover: true,
    };
    let withdrawn = |text, birth, deleted| Change::Withdrawn { address: address(text), birth: Birth(birth), deleted };
    let claims = Claims {
        subject: node("node-c").id(),
        range: None,
        changes: vec![
            Change::Claimed(claim),
            withdrawn("192.0.2.12", 1_790_000_003, false),
            withdrawn("2001:db8::12", 1_790_000_004, true),
        ],
    };
    Frame { sender: sender("node-a", RUN_A, 77), body: Body::Claims(claims) }
}

/// Returns the bytes of this text: two digits a byte; spaces and everything after a # do not count.
fn bytes(text: &str) -> Vec<u8> {
    let digits: String =
        text.lines().filter_map(|line| line.split('#').next()).flat_map(|hex| hex.split_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test_case(include_str!("../vectors/hello-first.hex"), hello_first(), 0x00; "hello first")]
#[test_case(include_str!("../vectors/hello-heard.hex"), hello_heard(), 0x20; "hello heard")]
#[test_case(include_str!("../vectors/claims-list.hex"), claims_list(), 0x20; "claims list")]
#[test_case(include_str!("../vectors/claims-changes.hex"), claims_changes(), 0x00; "claims changes")]
fn vector_is_read_and_written(text: &str, frame: Frame, signed_with: u8) {
    let expected = bytes(text);
    assert_eq!(both().open(&expected).as_ref(), Ok(&frame));
    assert_eq!(both().seal(key(signed_with).id(), 1, &frame).unwrap(), expected);
}

/// The vector holds a secret, the UID of a cluster, and the key that they make.
#[test]
fn key_of_a_cluster_matches_its_vector() {
    let vector = bytes(include_str!("../vectors/cluster-key.hex"));
    let (of, rest) = vector.split_at(32);
    let (uid, rest) = rest.split_at(36);
    let (expected, id) = rest.split_at(32);
    assert_eq!((of, std::str::from_utf8(uid).unwrap()), (&secret(0x00)[..], CLUSTER));
    let made = key_of_cluster(of, CLUSTER).unwrap();
    assert_eq!(made, expected);
    assert_eq!(Key::new(&made).unwrap().id().0.to_be_bytes(), id);
}

/// The values are those that docs/protocol/frames.md#hashes lists.
#[test]
fn hashes_match_the_documented_values() {
    assert_eq!([key(0x00).id(), key(0x20).id()], [KeyId(0x2847_81e3_38eb_7ec7), KeyId(0x336b_4c3c_552e_174d)]);
    assert_eq!(node("node-a").id().0, 0x6657_0ff0_5a20_7404);
    assert_eq!(claims_of_b().map(|claim| claim.key.0), [0x9e63_810b_b33a_fcd0, 0xad26_3691_1fdc_562c]);
    assert_eq!(claims_of_b().map(|claim| claim.fingerprint()), [0xb17a_cfda_c589_97c7, 0xd854_6955_398d_10d4]);
}
