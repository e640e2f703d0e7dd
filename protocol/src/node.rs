//! The identity of the speakers on a segment.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The name of a node, as in its Node object: at most 253 bytes (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The longest name that the API server accepts, in bytes.
    pub const MAX_LEN: usize = 253;

    /// Returns this name.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the id by which the protocol knows this node.
    pub fn id(&self) -> NodeId {
        NodeId(first_eight(digest(&SHA256, self.0.as_bytes()).as_ref()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first eight bytes of the SHA-256 of a node's name: names in frames have one length. Among 1,000 nodes two share
/// an id with a probability of 3e-14.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One run of a node's speaker: random, new at each start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Returns the first eight bytes of a digest, in network order.
pub(crate) fn first_eight(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A map by node. Ids are digests already; hashing them again with a random key would cost time and make two runs of
/// one simulation differ.
pub(crate) type NodeMap<V> = HashMap<NodeId, V, BuildHasherDefault<IdHasher>>;

/// Takes a [`NodeId`] as its own hash.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 ^= first_eight(bytes);
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}
