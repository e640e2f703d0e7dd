//! An invented next build: today's engine behind a wire format with every addition for which
//! docs/protocol/frames.md#extensions leaves room.
//!
//! * In **version 1**, for peers of today: a flag and a field in each Hello, a field in each entry and each change, a
//!   kind of change, a type of frame, and a reason for claims.
//! * In **version 2**, for peers of the next build: the same in another layout, of which today's build can read only
//!   the first byte.

use std::time::Duration;

use herald_protocol::{
    Engine,
    claim::{Claim, Digest, Reason},
    wire::{Body, Change, VERSION, Versions},
};
use ring::hmac;

use crate::bus::{SECRET, keyring, name};

/// The build of a speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Today,
    Next,
}

impl Build {
    pub fn versions(self) -> Versions {
        match self {
            Self::Today => Versions::THIS,
            Self::Next => Versions::new(VERSION..=NEXT).unwrap(),
        }
    }
}

pub const NEXT: u8 = VERSION + 1;

/// The bytes that follow the version in version 2: version 1 has the type of the frame there, and its length.
const LAYOUT: [u8; 4] = *b"next";

/// Offset of the body of a frame.
const BODY: usize = 36;
/// Length of the authentication code of a frame.
const TAG: usize = 16;

/// The flag and the field of a Hello, and the fields of an entry and of a change.
const FLAG: u8 = 1 << 1;
const FIELD: [u8; 4] = *b"more";
const ENTRY_FIELD: [u8; 3] = *b"and";
const CHANGE_FIELD: [u8; 2] = *b"so";

/// A change of a kind that today's build does not know, with its length in front.
const CHANGE: [u8; 6] = [5, 9, 0, b'o', b'n', 0];

/// The type of a frame that today's build does not know.
const GREETING: u8 = 3;

/// The reason with which the next build claims what it owned before a restart, in the place of [`Reason::Resumed`].
pub const RESUMED: Reason = Reason::Later(100);

/// Returns the frames of the next build for one frame of today's engine. `own`: the claims of the sending node.
///
/// The sequence is doubled, which leaves a number for the frame of the new type.
pub fn say(own: &[Claim], bytes: &[u8]) -> Vec<Vec<u8>> {
    let keys = keyring(Build::Next);
    let mut frame = keys.open(bytes).unwrap();
    let version = bytes[0];
    frame.sender.sequence *= 2;
    match &mut frame.body {
        Body::Hello(hello) => {
            hello.claims = Digest::default();
            own.iter().map(as_next).for_each(|claim| hello.claims.add(claim.fingerprint()));
        }
        Body::Claims(claims) if claims.subject == frame.sender.node => {
            for change in &mut claims.changes {
                if let Change::Claimed(claim) = change {
                    *claim = as_next(claim);
                }
            }
        }
        // Claims stated for a silent node are repeated as they were heard.
        _ => {}
    }
    let sealed = keys.seal(keys.ids()[0], version, &frame).unwrap();
    let mut said = sealed[..sealed.len() - TAG].to_vec();
    match &frame.body {
        Body::Hello(hello) => extend_hello(&mut said, hello.heard.len()),
        _ => extend_claims(&mut said),
    }
    let is_hello = matches!(frame.body, Body::Hello(_));
    let greeting = is_hello.then(|| greeting(&said, frame.sender.sequence + 1));
    [said].into_iter().chain(greeting).map(|said| laid_out(version, sign(said))).collect()
}

fn as_next(claim: &Claim) -> Claim {
    let reason = if claim.reason == Reason::Resumed { RESUMED } else { claim.reason };
    Claim { reason, ..*claim }
}

fn extend_hello(said: &mut Vec<u8>, entries: usize) {
    said[BODY + 1] |= FLAG;
    let mut at = said.len() - entries * 29;
    said[at - 1] += u8::try_from(ENTRY_FIELD.len()).unwrap();
    for _ in 0..entries {
        at += 29;
        said.splice(at..at, ENTRY_FIELD);
        at += ENTRY_FIELD.len();
    }
    said.extend(FIELD);
}

fn extend_claims(said: &mut Vec<u8>) {
    // The subject, the flags, and the two addresses of a range precede the number of changes.
    let mut at = BODY + 9;
    if said[BODY + 8] & 1 == 1 {
        for _ in 0..2 {
            at += if said[at] == 4 { 5 } else { 17 };
        }
    }
    let count = u16::from_be_bytes([said[at], said[at + 1]]);
    said[at..at + 2].copy_from_slice(&(count + 1).to_be_bytes());
    at += 2;
    said.splice(at..at, CHANGE);
    at += CHANGE.len();
    for _ in 0..count {
        let end = at + 1 + usize::from(said[at]);
        said[at] += u8::try_from(CHANGE_FIELD.len()).unwrap();
        said.splice(end..end, CHANGE_FIELD);
        at = end + CHANGE_FIELD.len();
    }
}

/// Returns a frame of the new type, from the sender of a Hello.
fn greeting(hello: &[u8], sequence: u64) -> Vec<u8> {
    let mut said = hello[..BODY].to_vec();
    said[1] = GREETING;
    said[28..36].copy_from_slice(&sequence.to_be_bytes());
    said.extend(b"good morning");
    said
}

/// Returns the frame with its length and authentication code.
fn sign(mut said: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(said.len() + TAG).unwrap();
    said[2..4].copy_from_slice(&length.to_be_bytes());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), &said);
    said.extend(&tag.as_ref()[..TAG]);
    said
}

fn laid_out(version: u8, mut bytes: Vec<u8>) -> Vec<u8> {
    if version == NEXT {
        bytes.splice(1..1, LAYOUT);
    }
    bytes
}

/// Lets a speaker of the next build hear a frame. Returns the parts of the frame that only the next build writes.
pub fn hear(now: Duration, node: usize, segment: &mut Engine, bytes: &[u8]) -> impl Iterator<Item = &'static str> {
    let mut bytes = bytes.to_vec();
    if bytes[0] == NEXT {
        let layout: Vec<u8> = bytes.splice(1..5, []).collect();
        assert_eq!(layout, LAYOUT);
    }
    let Ok(mut frame) = keyring(Build::Next).open(&bytes) else {
        panic!("the next build reads every frame: {bytes:02x?}")
    };
    // The engine of the hearer counts its own sequences without the doubling.
    if let Body::Hello(hello) = &mut frame.body {
        hello.heard.iter_mut().filter(|heard| heard.node == name(node).id()).for_each(|heard| heard.sequence /= 2);
    }
    segment.handle_opened(now, &frame);
    let signed = &bytes[..bytes.len() - TAG];
    let found = match &frame.body {
        Body::Hello(_) => {
            [(signed[BODY + 1] & FLAG != 0).then_some("flag"), signed.ends_with(&FIELD).then_some("field")]
        }
        Body::Claims(claims) => {
            [contains(signed, &CHANGE).then_some("kind"), claims.changes.iter().any(is_next).then_some("reason")]
        }
        Body::Later(_) => [Some("type"), None],
    };
    found.into_iter().flatten()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn is_next(change: &Change) -> bool {
    matches!(change, Change::Claimed(claim) if claim.reason == RESUMED)
}

/// The parts that [`hear`] finds once every speaker is of the next build and every part was sent.
pub const ALL_OF_NEXT: [&str; 5] = ["field", "flag", "kind", "reason", "type"];
