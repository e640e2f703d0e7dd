//! The keys in use: those of the Secret, and for a minute those it had before.
//!
//! A Secret that was deleted and made again has another key, which reaches the speakers one by one. If the old key were
//! dropped at once, the speakers with the new key and those without it would not hear each other meanwhile. The change
//! is therefore treated as a rotation (docs/protocol/frames.md#key-retirement): the old key is accepted, and this node
//! signs with it for as long as a peer accepts no other.

use std::{sync::Arc, time::Duration};

use herald_protocol::wire::Keyring;

use crate::keys::Keys;

/// Time for which keys are accepted that the Secret has lost. A watch brings a change within a second; a watch that has
/// to be opened again takes up to 22 s (`herald_kube_common::reflector`).
const RETIRING: Duration = Duration::from_secs(60);

/// The keys in use.
#[derive(Debug)]
pub(super) struct ClusterKeys {
    /// The keys of the Secret.
    current: Keys,
    /// The keys of the Secret, preceded by those that are still accepted, and the end of that time; `None`: all keys in
    /// use are the Secret's.
    retiring: Option<(Keys, Duration)>,
}

impl ClusterKeys {
    /// Returns the keys in use at the start.
    pub(super) fn new(current: Keys) -> Self {
        Self { current, retiring: None }
    }

    /// Takes over the present keys of the Secret.
    pub(super) fn replace(&mut self, now: Duration, next: Keys) {
        let both = next.preceded_by(self.in_use());
        self.retiring = (both != next).then_some((both, now + RETIRING));
        self.current = next;
    }

    /// Drops the keys whose time is over, and returns whether there were any.
    pub(super) fn retire(&mut self, now: Duration) -> bool {
        self.retiring.take_if(|(_, until)| *until <= now).is_some()
    }

    /// Returns the time at which [`ClusterKeys::retire`] has keys to drop.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.retiring.as_ref().map(|(_, until)| *until)
    }

    /// Returns the keys of the Secret.
    pub(super) fn current(&self) -> &Keys {
        &self.current
    }

    /// Returns the keys to accept and to sign with.
    pub(super) fn keyring(&self) -> Arc<Keyring> {
        Arc::clone(self.in_use().keyring())
    }

    fn in_use(&self) -> &Keys {
        self.retiring.as_ref().map_or(&self.current, |(both, _)| both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn keys(bytes: &[u8]) -> Keys {
        Keys::new(bytes.iter().map(|byte| ByteString(vec![*byte; 32])).collect()).unwrap()
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn replaced_key_is_accepted_for_a_minute() {
        let mut in_use = ClusterKeys::new(keys(&[1]));
        in_use.replace(s(10), keys(&[2]));
        assert_eq!(*in_use.current(), keys(&[2]));
        assert_eq!((in_use.in_use(), in_use.poll_timeout()), (&keys(&[1, 2]), Some(s(70))));
        assert!(!in_use.retire(s(69)));
        assert!(in_use.retire(s(70)));
        assert_eq!((in_use.in_use(), in_use.poll_timeout()), (&keys(&[2]), None));
    }

    #[test]
    fn step_of_a_rotation_that_keeps_every_key_retires_none() {
        let mut in_use = ClusterKeys::new(keys(&[1]));
        in_use.replace(s(0), keys(&[1, 2]));
        assert_eq!((in_use.in_use(), in_use.poll_timeout()), (&keys(&[1, 2]), None));
    }

    #[test]
    fn keys_replaced_in_a_row_are_kept_as_far_as_there_is_room() {
        let mut in_use = ClusterKeys::new(keys(&[1]));
        for next in 2..=6 {
            in_use.replace(s(1), keys(&[next]));
        }
        assert_eq!(*in_use.in_use(), keys(&[3, 4, 5, 6]), "the newest four");
    }
}
