//! The cluster's keys: made of the values of their Secret, and of the cluster's own UID. Pure.

use std::{fmt, sync::Arc};

use herald_crds::names::SECRET_CLUSTER_KEY;
use herald_protocol::wire::{Key, KeyError, Keyring, key_of_cluster};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde::{Deserialize, Serialize};

/// The Namespace that every cluster has from its first start to its end: the API server makes it and refuses to delete
/// it (apiserver `admission/plugin/namespace/lifecycle`). The speaker reads only its metadata.
pub(crate) const CLUSTER_NAMESPACE: &str = "kube-system";

/// The keys of the cluster, with their bytes: the bytes outlive a restart, after which a speaker needs neither the
/// Secret nor the UID.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "Vec<ByteString>", into = "Vec<ByteString>")]
pub struct Keys {
    keyring: Arc<Keyring>,
    bytes: Vec<ByteString>,
}

impl Keys {
    /// Returns the keys with these bytes, oldest first.
    ///
    /// # Errors
    /// If there is none, if one of them is too short, or if there are too many.
    pub fn new(bytes: Vec<ByteString>) -> Result<Self, KeyError> {
        let keys = bytes.iter().map(|key| Key::new(&key.0)).collect::<Result<_, _>>()?;
        Ok(Self { keyring: Arc::new(Keyring::new(keys)?), bytes })
    }

    /// Returns the keys as the protocol takes them.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Returns these keys, preceded by those of an earlier set that this set lacks: the newest of them, as far as there
    /// is room.
    pub fn preceded_by(&self, earlier: &Self) -> Self {
        let room = Keyring::MAX_KEYS.saturating_sub(self.bytes.len());
        let lacking: Vec<_> = earlier.bytes.iter().filter(|key| !self.bytes.contains(key)).cloned().collect();
        let newest = lacking.into_iter().rev().take(room).rev();
        // Each key was valid, none is in the list twice, and there is room for all.
        Self::new(newest.chain(self.bytes.iter().cloned()).collect()).unwrap_or_else(|_| self.clone())
    }

    /// Makes the keys of the cluster with this UID from the Secret. Each value of the Secret makes one key; the names
    /// of the values order the keys, byte by byte, oldest first.
    ///
    /// # Errors
    /// If the values make no set of keys.
    pub fn read(secret: Secret, cluster_uid: &str) -> Result<Self, KeysError> {
        let values = secret.data.unwrap_or_default();
        if values.is_empty() {
            return Err(KeysError::Empty);
        }
        let key = |value: ByteString| key_of_cluster(&value.0, cluster_uid).map(|key| ByteString(key.to_vec()));
        let keys = values.into_values().map(key).collect::<Result<_, _>>();
        keys.and_then(Self::new).map_err(KeysError::Invalid)
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.keyring.ids() == other.keyring.ids()
    }
}

impl Eq for Keys {}

impl fmt::Debug for Keys {
    /// Writes the ids, never the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.keyring.ids()).finish()
    }
}

impl TryFrom<Vec<ByteString>> for Keys {
    type Error = KeyError;

    fn try_from(bytes: Vec<ByteString>) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<Keys> for Vec<ByteString> {
    fn from(keys: Keys) -> Self {
        keys.bytes
    }
}

/// The reason why the UID is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The API server answers, but its answer does not have the UID.
    #[error(
        "the API server does not give the UID of Namespace {CLUSTER_NAMESPACE}, to which the key is bound: {0}; apply \
         Herald's manifest, which lets the speaker read it"
    )]
    Refused(String),
    /// The API server does not answer.
    #[error("the UID of Namespace {CLUSTER_NAMESPACE}, to which the key is bound, cannot be read yet: {0}")]
    Unreached(String),
}

/// The reason why the cluster has no keys. A speaker that has keys goes on with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The cluster's UID is not known.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The Secret does not exist.
    #[error("Secret {SECRET_CLUSTER_KEY} is missing: apply Herald's manifest; the controller fills the Secret")]
    Missing,
    /// The Secret has no values.
    #[error("Secret {SECRET_CLUSTER_KEY} is empty: check that the controller, which fills it, runs")]
    Empty,
    /// The values of the Secret make no set of keys.
    #[error("Secret {SECRET_CLUSTER_KEY}: {0}")]
    Invalid(#[source] KeyError),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use herald_protocol::wire::KeyId;
    use test_case::test_case;

    use super::*;

    const CLUSTER: &str = "8a1a1a5e-5cbb-4a0e-b0c6-0d5f1b0a7c11";

    fn read(secret: Secret) -> Result<Keys, KeysError> {
        Keys::read(secret, CLUSTER)
    }

    /// Returns the id of the key that a Secret's value of 32 such bytes makes.
    fn id(byte: u8) -> KeyId {
        Key::new(&key_of_cluster(&[byte; 32], CLUSTER).unwrap()).unwrap().id()
    }

    fn secret(values: &[(&str, u8, usize)]) -> Secret {
        let data: BTreeMap<_, _> =
            values.iter().map(|(name, byte, len)| ((*name).to_owned(), ByteString(vec![*byte; *len]))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn names_of_the_values_order_the_keys() {
        let keys = read(secret(&[("key-2", 2, 32), ("key-1", 1, 32)])).unwrap();
        assert_eq!(keys.keyring().ids(), [1, 2].map(id));
    }

    #[test]
    fn secret_copied_into_another_cluster_makes_another_key() {
        let copied = || secret(&[("key-1", 1, 32)]);
        let (here, there) = (read(copied()).unwrap(), Keys::read(copied(), "another").unwrap());
        assert_ne!(here, there);
        assert_ne!(here.bytes, there.bytes);
        assert!(!here.bytes.contains(&ByteString(vec![1; 32])), "the secret itself does not sign either");
    }

    #[test_case(&[], KeysError::Empty; "no value")]
    #[test_case(&[("key-1", 1, 31)], KeysError::Invalid(KeyError::TooShort(31)); "too short")]
    #[test_case(&[("a", 1, 32), ("b", 2, 32), ("c", 3, 32), ("d", 4, 32), ("e", 5, 32)], KeysError::Invalid(KeyError::Count(5)); "too many")]
    fn unusable_secret_is_refused(values: &[(&str, u8, usize)], expected: KeysError) {
        assert_eq!(read(secret(values)), Err(expected));
    }

    #[test]
    fn secret_without_data_is_empty() {
        assert_eq!(read(Secret::default()), Err(KeysError::Empty));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let keys = read(secret(&[("key-1", 0xab, 32)])).unwrap();
        assert_eq!(format!("{keys:?}"), format!("Keys([{}])", id(0xab)));
    }

    #[test]
    fn keys_survive_being_written() {
        let keys = read(secret(&[("key-1", 1, 32), ("key-2", 2, 40)])).unwrap();
        let read: Keys = serde_json::from_str(&serde_json::to_string(&keys).unwrap()).unwrap();
        assert_eq!(read.bytes, keys.bytes);
        assert!(serde_json::from_str::<Keys>("[\"AAAA\"]").is_err(), "three bytes are not a key");
    }
}
