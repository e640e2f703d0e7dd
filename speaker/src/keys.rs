//! The cluster's keys, from their Secret.

use std::{fmt, sync::Arc};

use herald_crds::names::SECRET_CLUSTER_KEY;
use herald_segment::wire::{Key, KeyError, Keyring};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    machine::Input,
    watch::follow::{Selection, Step, follow},
};

/// The keys of the cluster, and the bytes they are made of: those outlive a restart.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "Vec<ByteString>", into = "Vec<ByteString>")]
pub struct Keys {
    keyring: Arc<Keyring>,
    secrets: Vec<ByteString>,
}

impl Keys {
    /// The keys with these secret bytes, oldest first.
    ///
    /// # Errors
    /// There is none, or one of them is too short, or there are too many.
    pub fn new(secrets: Vec<ByteString>) -> Result<Self, KeyError> {
        let keys = secrets.iter().map(|secret| Key::new(&secret.0)).collect::<Result<_, _>>()?;
        Ok(Self { keyring: Arc::new(Keyring::new(keys)?), secrets })
    }

    /// The keys as the protocol takes them.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// These keys, and before them those of an earlier set that it lacks: the newest of them, as far as there is room.
    pub fn preceded_by(&self, earlier: &Self) -> Self {
        let room = Keyring::MAX_KEYS.saturating_sub(self.secrets.len());
        let lacking: Vec<_> = earlier.secrets.iter().filter(|secret| !self.secrets.contains(secret)).cloned().collect();
        let newest = lacking.into_iter().rev().take(room).rev();
        // Each of them was valid, none is there twice, and there is room.
        Self::new(newest.chain(self.secrets.iter().cloned()).collect()).unwrap_or_else(|_| self.clone())
    }

    /// Reads the Secret. Each of its values is a key; the names of the values order them, byte by byte, oldest first.
    ///
    /// # Errors
    /// It holds no set of keys.
    pub fn read(secret: Secret) -> Result<Self, KeysError> {
        let values = secret.data.unwrap_or_default();
        if values.is_empty() {
            return Err(KeysError::Empty);
        }
        Self::new(values.into_values().collect()).map_err(KeysError::Invalid)
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.keyring.ids() == other.keyring.ids()
    }
}

impl Eq for Keys {}

impl fmt::Debug for Keys {
    /// The ids, never the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.keyring.ids()).finish()
    }
}

impl TryFrom<Vec<ByteString>> for Keys {
    type Error = KeyError;

    fn try_from(secrets: Vec<ByteString>) -> Result<Self, Self::Error> {
        Self::new(secrets)
    }
}

impl From<Keys> for Vec<ByteString> {
    fn from(keys: Keys) -> Self {
        keys.secrets
    }
}

/// Why the cluster has no keys. Who has keys goes on with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// No Secret.
    #[error("Secret {SECRET_CLUSTER_KEY} is missing: apply Herald's manifest, the controller fills it")]
    Missing,
    /// A Secret without values.
    #[error("Secret {SECRET_CLUSTER_KEY} is empty: the controller fills it, is one running?")]
    Empty,
    /// No usable values.
    #[error("Secret {SECRET_CLUSTER_KEY}: {0}")]
    Invalid(#[source] KeyError),
}

/// Watches the Secret in the speaker's own namespace until nobody listens.
pub async fn watch(client: Client, namespace: String, inputs: mpsc::Sender<Input>) {
    // By name: the speaker may read this Secret and no other.
    let selection = Selection {
        fields: Some(format!("metadata.name={SECRET_CLUSTER_KEY}")),
        unproven: true,
        ..Selection::default()
    };
    let mut reader = Reader::default();
    let translate = |step| reader.take(step).map(Input::Keys).into_iter().collect();
    follow("Secret", Api::namespaced(client, &namespace), selection, translate, inputs).await;
}

/// Reduces the watch to what changes.
#[derive(Debug, Default)]
struct Reader {
    /// Has the listing under way shown the Secret?
    seen: bool,
    /// What was said last.
    said: Option<Result<Keys, KeysError>>,
}

impl Reader {
    fn take(&mut self, step: Step<Secret>) -> Option<Result<Keys, KeysError>> {
        let read = match step {
            Step::Listing => {
                self.seen = false;
                return None;
            }
            Step::Applied(secret) => {
                self.seen = true;
                Keys::read(secret)
            }
            Step::Listed if !self.seen => Err(KeysError::Missing),
            Step::Deleted(_) => Err(KeysError::Missing),
            Step::Listed | Step::Current => return None,
        };
        if self.said.as_ref() == Some(&read) {
            return None;
        }
        self.said = Some(read.clone());
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use test_case::test_case;

    use super::*;

    fn secret(values: &[(&str, u8, usize)]) -> Secret {
        let data: BTreeMap<_, _> =
            values.iter().map(|(name, byte, len)| ((*name).to_owned(), ByteString(vec![*byte; *len]))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn the_names_of_the_values_order_the_keys() {
        let keys = Keys::read(secret(&[("key-2", 2, 32), ("key-1", 1, 32)])).unwrap();
        let expected = [1, 2].map(|byte| Key::new(&[byte; 32]).unwrap().id());
        assert_eq!(keys.keyring().ids(), expected);
    }

    #[test_case(&[], KeysError::Empty; "no value")]
    #[test_case(&[("key-1", 1, 31)], KeysError::Invalid(KeyError::TooShort(31)); "too short")]
    #[test_case(&[("a", 1, 32), ("b", 2, 32), ("c", 3, 32), ("d", 4, 32), ("e", 5, 32)], KeysError::Invalid(KeyError::Count(5)); "too many")]
    fn refused(values: &[(&str, u8, usize)], expected: KeysError) {
        assert_eq!(Keys::read(secret(values)), Err(expected));
    }

    #[test]
    fn a_secret_without_data_is_empty() {
        assert_eq!(Keys::read(Secret::default()), Err(KeysError::Empty));
    }

    #[test]
    fn shows_no_secret() {
        let keys = Keys::read(secret(&[("key-1", 0xab, 32)])).unwrap();
        assert_eq!(format!("{keys:?}"), format!("Keys([{}])", Key::new(&[0xab; 32]).unwrap().id()));
    }

    #[test]
    fn survives_being_written() {
        let keys = Keys::read(secret(&[("key-1", 1, 32), ("key-2", 2, 40)])).unwrap();
        let read: Keys = serde_json::from_str(&serde_json::to_string(&keys).unwrap()).unwrap();
        assert_eq!(read.secrets, keys.secrets);
        assert!(serde_json::from_str::<Keys>("[\"AAAA\"]").is_err(), "three bytes are no key");
    }

    #[test]
    fn says_each_change_once() {
        let one = || secret(&[("key-1", 1, 32)]);
        let keys = Keys::read(one()).unwrap();
        let mut reader = Reader::default();
        let mut said = |step| reader.take(step);
        assert_eq!(said(Step::Listing), None);
        assert_eq!(said(Step::Listed), Some(Err(KeysError::Missing)));
        assert_eq!(said(Step::Applied(Secret::default())), Some(Err(KeysError::Empty)));
        assert_eq!(said(Step::Applied(one())), Some(Ok(keys)));
        assert_eq!(said(Step::Current), None);
        assert_eq!(said(Step::Listing), None);
        assert_eq!(said(Step::Applied(one())), None, "listed again");
        assert_eq!(said(Step::Listed), None);
        assert_eq!(said(Step::Listing), None);
        assert_eq!(said(Step::Listed), Some(Err(KeysError::Missing)), "deleted while nobody watched");
        assert_eq!(said(Step::Applied(one())), Some(Ok(Keys::read(one()).unwrap())));
        assert_eq!(said(Step::Deleted(one())), Some(Err(KeysError::Missing)));
    }
}
