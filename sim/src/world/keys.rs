//! The cluster's keys, and the nodes that have them.

use std::{ops::RangeInclusive, sync::Arc};

use herald_protocol::{
    Input,
    wire::{Key, Keyring, key_of_cluster},
};

use super::World;
use crate::{
    history::{History, Rivals},
    names::NodeIx,
};

/// The UID of the cluster.
const CLUSTER: &str = "the simulated cluster";

impl World<'_> {
    /// Returns the keys that a node has now.
    pub(super) fn keys_of(&self, index: NodeIx) -> Arc<Keyring> {
        if self.history.rotations() == 0 || self.is_rival(index) {
            return self.keys_seen(index).clone();
        }
        let node = &self.nodes[self.seconds.node(index)];
        Arc::new(keyring(node.dropped_keys..=node.dropped_keys + node.next_keys))
    }

    /// Returns all keys with which frames of a node can be read.
    pub(super) fn keys_seen(&self, from: NodeIx) -> &Arc<Keyring> {
        if self.is_rival(from) { &self.rival_keys } else { &self.keys }
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
        for interface in self.interfaces(index) {
            self.tell_keys(interface);
        }
    }

    /// Tells the run on an interface its keys.
    pub(super) fn tell_keys(&mut self, index: NodeIx) {
        let keys = self.keys_of(index);
        self.speaker_handles(index, Input::Keys(keys));
    }
}

/// Returns keys of the cluster by their numbers, from the oldest on.
pub(crate) fn keyring(numbers: RangeInclusive<usize>) -> Keyring {
    keyring_of(numbers, CLUSTER)
}

/// Returns the key of the other cluster, which has the first Secret of this one. A cluster that was cloned whole keeps
/// it, even if this one replaces its own.
pub(super) fn rival_keyring(history: &History) -> Keyring {
    keyring_of(0..=0, if history.rivals_are == Rivals::Cloned { CLUSTER } else { "another" })
}

/// Returns the key of another cluster with another Secret.
pub(super) fn foreign_keyring() -> Keyring {
    keyring_of(9..=9, "a third")
}

/// Returns the keys derived from the Secrets with these numbers in a cluster with this UID.
#[allow(clippy::expect_used, reason = "the secrets are of the right length, and few")]
fn keyring_of(numbers: RangeInclusive<usize>, cluster: &str) -> Keyring {
    let key = |number| {
        let mut secret = *b"the key of the simulated cluster";
        secret[0] ^= number as u8;
        let made = key_of_cluster(&secret, cluster).expect("32 bytes");
        Key::new(&made).expect("32 bytes")
    };
    Keyring::new(numbers.map(key).collect()).expect("one to four different keys")
}
