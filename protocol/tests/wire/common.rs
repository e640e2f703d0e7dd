//! Frames for the tests, and an envelope made by hand, for bodies that no speaker writes.

use std::{net::IpAddr, time::Duration};

use herald_protocol::{
    claim::{Birth, Claim, ClaimKey, Digest, Epoch, Reason},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
    wire::{Body, Frame, Heard, Hello, Kernel, Key, KeyId, Keyring, Question, Sender, State},
};
use ring::hmac;

/// Returns a key of 32 bytes that count up from `from`.
pub fn secret(from: u8) -> Vec<u8> {
    (from..).take(32).collect()
}

pub fn key(from: u8) -> Key {
    Key::new(&secret(from)).unwrap()
}

/// Returns the ring with the key 00..1f.
pub fn ring() -> Keyring {
    Keyring::new(vec![key(0)]).unwrap()
}

pub fn key_id() -> KeyId {
    key(0).id()
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn hello(name: &str) -> Hello {
    Hello {
        state: State::Active,
        highest_version: 1,
        deaf: false,
        interval: Duration::from_millis(100),
        uptime: Duration::from_secs(5),
        peers: 2,
        claims: Digest { count: 1, sum: 7 },
        name: NodeName::new(name),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        address: Some(address("192.0.2.1")),
        keys: vec![key_id()],
        heard: vec![heard(1)],
    }
}

pub fn heard(node: u64) -> Heard {
    Heard {
        node: NodeId(node),
        incarnation: Incarnation(2),
        sequence: 3,
        age: Duration::from_millis(40),
        kernel: Some(Kernel::Silent(Question::Address)),
        wants_echo: false,
        wants_claims: false,
        suspect: true,
    }
}

pub fn claim(address: IpAddr) -> Claim {
    Claim {
        address,
        birth: Birth(1_790_000_000),
        epoch: Epoch(1),
        key: ClaimKey(5),
        reason: Reason::Vacant,
        cover: true,
    }
}

pub fn frame(body: Body) -> Frame {
    let node = match &body {
        Body::Hello(hello) => hello.name.id(),
        Body::Claims(claims) => claims.subject,
        Body::Later(kind) => panic!("no test writes type {kind}"),
    };
    Frame { sender: Sender { node, incarnation: Incarnation(11), sequence: 12 }, body }
}

pub fn seal(frame: &Frame) -> Vec<u8> {
    ring().seal(key_id(), 1, frame).unwrap()
}

/// Offset of the body.
pub const BODY: usize = 36;

/// Length of the authentication code.
pub const TAG: usize = 16;

/// Returns the frame with its length and authentication code corrected, after its header or body was changed.
pub fn resign(without_tag: &[u8]) -> Vec<u8> {
    let mut bytes = without_tag.to_vec();
    let length = u16::try_from(bytes.len() + TAG).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret(0)), &bytes);
    bytes.extend_from_slice(&tag.as_ref()[..TAG]);
    bytes
}

/// Returns the signed part of a frame.
pub fn unsigned(frame: &[u8]) -> Vec<u8> {
    frame[..frame.len() - TAG].to_vec()
}
