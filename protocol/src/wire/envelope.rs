//! The envelope of every frame: header and authentication code.

use super::{
    Body, ENVELOPE, Frame, KeyId, Keyring, MAX_FRAME, PREFIX, Sender, Versions,
    bytes::{Flaw, Reader},
    claims, hello,
    key::TAG,
};
use crate::node::{Incarnation, NodeId};

const HELLO: u8 = 1;
const CLAIMS: u8 = 2;

/// The reason why this speaker rejects bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Fewer bytes came than a frame has, or than this one states.
    #[error("truncated: {has} bytes of {needs}")]
    Truncated {
        /// Number of bytes that came.
        has: usize,
        /// Number of bytes that there should be.
        needs: usize,
    },
    /// The version is one that this speaker cannot read.
    #[error("of protocol version {0}; this speaker reads {1}")]
    Version(u8, Versions),
    /// The frame is signed with a key that this speaker does not have: another cluster's, or one that it has not
    /// received yet.
    #[error("signed with the unknown key {0}")]
    Foreign(KeyId),
    /// The frame is signed with a known key, but wrongly.
    #[error("wrong authentication code")]
    Forged,
    /// The frame cannot be parsed.
    #[error("malformed: {field}: {what}")]
    Malformed {
        /// The field, by its name in docs/protocol/frames.md.
        field: &'static str,
        /// The fault of the field.
        what: String,
    },
}

impl From<Flaw> for Rejected {
    fn from(Flaw { field, what }: Flaw) -> Self {
        Self::Malformed { field, what }
    }
}

/// The reason why a frame cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// This speaker does not have the key.
    #[error("there is no key with the id {0}")]
    UnknownKey(KeyId),
    /// This speaker does not write this version.
    #[error("this speaker writes protocol versions {1}, not {0}")]
    Version(u8, Versions),
    /// Its content does not fit into one frame.
    #[error("{0} bytes do not fit into a frame of at most {MAX_FRAME}: say less, or split it")]
    TooLong(usize),
    /// No receiver would understand it.
    #[error("{field}: {what}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The fault of the field.
        what: String,
    },
}

impl From<Flaw> for SealError {
    fn from(Flaw { field, what }: Flaw) -> Self {
        Self::Invalid { field, what }
    }
}

/// Returns the key with which an opened frame is signed.
pub(crate) fn signing_key_of(bytes: &[u8]) -> Option<KeyId> {
    let (_, id) = bytes.first_chunk::<PREFIX>()?.split_last_chunk()?;
    Some(KeyId(u64::from_be_bytes(*id)))
}

impl Keyring {
    /// Returns a frame as bytes, written in this version and signed with this key. Times are cut to the range of their
    /// fields.
    ///
    /// # Errors
    ///
    /// If there is no such key or version, or the frame is too long, or [`Keyring::open`] would refuse its content.
    pub fn seal(&self, key: KeyId, version: u8, frame: &Frame) -> Result<Vec<u8>, SealError> {
        let key = self.get(key).ok_or(SealError::UnknownKey(key))?;
        let versions = self.versions();
        if !versions.contains(version) {
            return Err(SealError::Version(version, versions));
        }
        check(frame)?;
        let Sender { node, incarnation, sequence } = frame.sender;
        let kind = match frame.body {
            Body::Hello(_) => HELLO,
            Body::Claims(_) => CLAIMS,
            Body::Later(kind) => {
                return Err(Flaw::new("type", format!("this speaker does not write type {kind}")).into());
            }
        };
        let mut out = Vec::with_capacity(MAX_FRAME);
        out.extend([version, kind, 0, 0]);
        for number in [key.id().0, node.0, incarnation.0, sequence] {
            out.extend(number.to_be_bytes());
        }
        match &frame.body {
            Body::Hello(hello) => hello::put(&mut out, hello)?,
            Body::Claims(claims) => claims::put(&mut out, claims)?,
            Body::Later(_) => {}
        }
        let total = out.len() + TAG;
        let length = u16::try_from(total).ok().filter(|_| total <= MAX_FRAME).ok_or(SealError::TooLong(total))?;
        for (to, from) in out.iter_mut().skip(2).zip(length.to_be_bytes()) {
            *to = from;
        }
        let tag = key.tag(&out);
        out.extend(tag);
        Ok(out)
    }

    /// Reads a frame, as it was received behind its Ethernet header. Bytes after the length that it states are ignored:
    /// Ethernet fills frames up to 46 bytes.
    ///
    /// # Errors
    ///
    /// If the frame is not for this speaker. The authentication code is checked before any byte of the body is read.
    pub fn open(&self, bytes: &[u8]) -> Result<Frame, Rejected> {
        let version = *bytes.first().ok_or(Rejected::Truncated { has: 0, needs: ENVELOPE })?;
        let versions = self.versions();
        if !versions.contains(version) {
            return Err(Rejected::Version(version, versions));
        }
        let truncated = |needs| Rejected::Truncated { has: bytes.len(), needs };
        if bytes.len() < ENVELOPE {
            return Err(truncated(ENVELOPE));
        }
        let mut reader = Reader(bytes);
        reader.u8("version")?;
        let kind = reader.u8("type")?;
        let length = usize::from(reader.u16("length")?);
        if !(ENVELOPE..=MAX_FRAME).contains(&length) {
            let what = format!("{length} bytes; a frame has {ENVELOPE} to {MAX_FRAME}");
            return Err(Rejected::Malformed { field: "length", what });
        }
        let (signed, tag) = bytes
            .get(..length)
            .and_then(|frame| frame.split_at_checked(length - TAG))
            .ok_or_else(|| truncated(length))?;
        let id = KeyId(reader.u64("key id")?);
        let key = self.get(id).ok_or(Rejected::Foreign(id))?;
        if !key.verifies(signed, tag) {
            return Err(Rejected::Forged);
        }
        let mut reader = Reader(signed);
        reader.bytes("header", PREFIX)?;
        let sender = Sender {
            node: NodeId(reader.u64("node id")?),
            incarnation: Incarnation(reader.u64("incarnation")?),
            sequence: reader.u64("sequence")?,
        };
        let body = match kind {
            HELLO => Body::Hello(hello::read(&mut reader)?),
            CLAIMS => Body::Claims(claims::read(&mut reader)?),
            later => Body::Later(later),
        };
        let frame = Frame { sender, body };
        check(&frame)?;
        Ok(frame)
    }
}

/// Checks the rules for every frame, whichever build wrote it: before it is sent and after it was read.
fn check(frame: &Frame) -> Result<(), Flaw> {
    if frame.sender.sequence == 0 {
        return Err(Flaw::new("sequence", "it is 0; the first frame has 1"));
    }
    match &frame.body {
        Body::Hello(hello) => hello::check(frame.sender, hello),
        Body::Claims(claims) => claims::check(claims),
        Body::Later(_) => Ok(()),
    }
}
