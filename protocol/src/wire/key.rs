//! The cluster's key: authenticates frames, and keeps other clusters out.
//!
//! Frames are not signed with the secret itself but with a key made of it and of the cluster ([`key_of_cluster`]): a
//! secret that is copied into another cluster, by a backup or a Git repository, makes another key there.

use std::{fmt, iter};

use ring::{
    digest::{Context, SHA256},
    hmac,
};
use subtle::ConstantTimeEq;

use super::Versions;
use crate::node::first_eight;

/// The name of a key in frames: the first eight bytes of SHA-256 over "herald key id" and the key, so no person has to
/// number keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u64);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Prefix of the key in the hash that names it: so the name is not another hash of the key.
const ID_CONTEXT: &[u8] = b"herald key id";

/// Prefix of the cluster's UID in the message that makes a key of a secret: so a key is not another code of the secret.
const CLUSTER_CONTEXT: &[u8] = b"herald cluster key";

/// Number of bytes of a key that is made of a secret: an output of SHA-256.
const CLUSTER_KEY: usize = 32;

/// Returns the key that a secret makes in a cluster: HMAC-SHA256 with the secret over "herald cluster key" and the UID of
/// the Namespace kube-system, which every cluster has, and each its own (the widespread identity of a cluster; RFC 5869
/// section 2.3 derives keys by HMAC in the same way).
///
/// # Errors
///
/// If the secret has fewer than [`Key::MIN_LEN`] bytes.
pub fn key_of_cluster(secret: &[u8], cluster_uid: &str) -> Result<[u8; CLUSTER_KEY], KeyError> {
    if secret.len() < Key::MIN_LEN {
        return Err(KeyError::TooShort(secret.len()));
    }
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(CLUSTER_CONTEXT);
    context.update(cluster_uid.as_bytes());
    let mut key = [0; CLUSTER_KEY];
    for (to, from) in key.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    Ok(key)
}

/// Number of bytes of a frame's authentication code: HMAC-SHA256, cut to its first half, which is as short as RFC 2104
/// section 5 recommends. A forger hits one in 2^128, and learns of a hit only by being obeyed.
pub(super) const TAG: usize = 16;

/// A key of the cluster. Its debug output shows its id, never the key.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    hmac: hmac::Key,
}

impl Key {
    /// The shortest key, in bytes: as long as the hash, below which HMAC loses strength (RFC 2104 section 3).
    pub const MIN_LEN: usize = 32;

    /// Returns the key with these secret bytes.
    ///
    /// # Errors
    ///
    /// If there are fewer than [`Key::MIN_LEN`].
    pub fn new(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < Self::MIN_LEN {
            return Err(KeyError::TooShort(secret.len()));
        }
        let mut context = Context::new(&SHA256);
        context.update(ID_CONTEXT);
        context.update(secret);
        let id = KeyId(first_eight(context.finish().as_ref()));
        Ok(Self { id, hmac: hmac::Key::new(hmac::HMAC_SHA256, secret) })
    }

    /// Returns its name in frames.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Returns the authentication code of these bytes.
    pub(super) fn tag(&self, bytes: &[u8]) -> [u8; TAG] {
        let full = hmac::sign(&self.hmac, bytes);
        let mut tag = [0; TAG];
        for (to, from) in tag.iter_mut().zip(full.as_ref()) {
            *to = *from;
        }
        tag
    }

    /// Returns whether this is the authentication code of these bytes. The comparison takes as long for a wrong code as
    /// for the right one: a comparison that stops at the first difference tells a forger how far they got. (ring
    /// compares full codes only.)
    pub(super) fn verifies(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.tag(bytes).ct_eq(tag).into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The reason why bytes are not a key, or keys not a set of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Too few bytes.
    #[error("a key has {0} bytes, but needs at least {min}: generate a new one", min = Key::MIN_LEN)]
    TooShort(usize),
    /// No key, or too many.
    #[error(
        "there are {0} keys, but there must be 1 to {max}: one in use, and during a rotation its successors",
        max = Keyring::MAX_KEYS
    )]
    Count(usize),
    /// The same key at two places.
    #[error("the key with the id {0} is there twice: remove one of the two")]
    Twice(KeyId),
}

/// The means to read and write frames: the keys of the cluster, oldest first, and the protocol's versions. All keys are
/// accepted; [`Keyring::signing_key`] returns the one that signs.
#[derive(Clone, Debug)]
pub struct Keyring {
    oldest: Key,
    newer: Vec<Key>,
    ids: Vec<KeyId>,
    versions: Versions,
}

impl Keyring {
    /// Maximum number of keys at once. A rotation needs two; two more are for one that was started again before it was
    /// over.
    pub const MAX_KEYS: usize = 4;

    /// Returns a ring of these keys, oldest first, with the versions of this build.
    ///
    /// # Errors
    ///
    /// If there is none, more than [`Keyring::MAX_KEYS`], or one of them twice.
    pub fn new(mut keys: Vec<Key>) -> Result<Self, KeyError> {
        let count = keys.len();
        let ids: Vec<KeyId> = keys.iter().map(Key::id).collect();
        if count == 0 || count > Self::MAX_KEYS {
            return Err(KeyError::Count(count));
        }
        if let Some((_, id)) =
            ids.iter().enumerate().find(|(index, id)| ids.iter().take(*index).any(|other| other == *id))
        {
            return Err(KeyError::Twice(*id));
        }
        let oldest = keys.remove(0);
        Ok(Self { oldest, newer: keys, ids, versions: Versions::THIS })
    }

    /// Returns the same keys, with these versions in the place of this build's.
    #[must_use]
    pub fn with_versions(self, versions: Versions) -> Self {
        Self { versions, ..self }
    }

    /// Returns the versions to read and write.
    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// Returns the ids of the keys, oldest first, as a Hello lists them.
    pub fn ids(&self) -> &[KeyId] {
        &self.ids
    }

    /// Returns the key with this id.
    pub(super) fn get(&self, id: KeyId) -> Option<&Key> {
        iter::once(&self.oldest).chain(&self.newer).find(|key| key.id == id)
    }

    /// Returns the key with which to sign the next frame, given the keys that each peer accepts:
    ///
    /// * the newest that every peer accepts;
    /// * if there is no such key, the one that most peers accept, the newer of two;
    /// * if there is no peer, each in turn (`turn` rises with every Hello): a node that has only one of them hears a
    ///   Hello before long, answers, and is a peer.
    ///
    /// All nodes whose Hellos can be read are peers here, *also those that have not echoed this node yet*: a newcomer
    /// that lacks the newest key could never hear, so never echo, a speaker that signs with it.
    pub fn signing_key<'a>(&self, peers: impl Iterator<Item = &'a [KeyId]>, turn: u64) -> KeyId {
        if let [only] = self.ids.as_slice() {
            return *only;
        }
        let mut votes = [0_usize; Self::MAX_KEYS];
        let mut none = true;
        for accepted in peers {
            none = false;
            for (votes, id) in votes.iter_mut().zip(&self.ids) {
                *votes += usize::from(accepted.contains(id));
            }
        }
        let chosen = if none {
            let turn = usize::try_from(turn % self.ids.len() as u64).unwrap_or_default();
            self.ids.get(turn)
        } else {
            // A key that every peer accepts has the maximum of votes; of several maxima this is the last.
            self.ids.iter().zip(votes).max_by_key(|(_, votes)| *votes).map(|(id, _)| id)
        };
        chosen.copied().unwrap_or(self.oldest.id)
    }
}
