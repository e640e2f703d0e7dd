//! The cluster's keys, and who has which.

use std::{ops::RangeInclusive, sync::Arc};

use herald_segment::{
    Input,
    wire::{Key, Keyring},
};

use super::World;
use crate::names::NodeIx;

impl World<'_> {
    /// The keys a node has now.
    pub(super) fn keys_of(&self, index: NodeIx) -> Arc<Keyring> {
        if self.history.rotations() == 0 {
            return self.keys.clone();
        }
        let node = &self.nodes[index];
        Arc::new(keyring(node.dropped_keys..=node.dropped_keys + node.next_keys))
    }

    /// A node gets the next key, or drops the oldest.
    pub(super) fn keys_change(&mut self, begins: bool, index: NodeIx) {
        let node = &mut self.nodes[index];
        if begins {
            node.next_keys += 1;
        } else {
            node.next_keys -= 1;
            node.dropped_keys += 1;
        }
        self.tell_keys(index);
    }

    /// The node's speaker is told of its keys.
    pub(super) fn tell_keys(&mut self, index: NodeIx) {
        let keys = self.keys_of(index);
        self.speaker_handles(index, Input::Keys(keys));
    }
}

/// Keys of the cluster by their numbers, from the oldest on.
#[allow(clippy::expect_used, reason = "the secrets are of the right length, and few")]
pub(crate) fn keyring(numbers: RangeInclusive<usize>) -> Keyring {
    let key = |number| {
        let mut secret = *b"the key of the simulated cluster";
        secret[0] ^= number as u8;
        Key::new(&secret).expect("32 bytes")
    };
    Keyring::new(numbers.map(key).collect()).expect("one to four different keys")
}

/// The key of another cluster.
#[allow(clippy::expect_used, reason = "the secret is a literal of the right length")]
pub(super) fn foreign_keyring() -> Keyring {
    let key = Key::new(b"the key of another such cluster.").expect("32 bytes");
    Keyring::new(vec![key]).expect("one key")
}
