//! The Secret of the cluster's keys.

use herald_crds::names::SECRET_CLUSTER_KEY;
use herald_kube_common::reflector::{Step, WatchConfig, follow};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::cluster_uid;
use crate::{
    coordinator::Input,
    keys::{Keys, KeysError},
};

/// Reads which cluster this is, then watches the Secret in the speaker's own namespace, until the receiver of the
/// channel is gone.
pub async fn watch(client: Client, namespace: String, inputs: mpsc::Sender<Input>) {
    let tell = |error| {
        let inputs = inputs.clone();
        async move { inputs.send(Input::Keys(Err(KeysError::Cluster(error)))).await.is_ok() }
    };
    let Some(cluster_uid) = cluster_uid::read(client.clone(), tell).await else { return };
    // The watch selects by name: the speaker may read this Secret and no other.
    let config = WatchConfig {
        fields: Some(format!("metadata.name={SECRET_CLUSTER_KEY}")),
        unproven: true,
        ..WatchConfig::default()
    };
    let mut reader = Reader::new(cluster_uid);
    let translate = |step| reader.take(step).map(Input::Keys).into_iter().collect();
    follow("Secret", Api::namespaced(client, &namespace), config, translate, inputs).await;
}

/// Reduces the watch to changes of the keys.
#[derive(Debug)]
struct Reader {
    cluster_uid: String,
    /// Whether the listing under way has shown the Secret.
    seen: bool,
    /// The keys, or the error, reported last.
    said: Option<Result<Keys, KeysError>>,
}

impl Reader {
    fn new(cluster_uid: String) -> Self {
        Self { cluster_uid, seen: false, said: None }
    }

    fn take(&mut self, step: Step<Secret>) -> Option<Result<Keys, KeysError>> {
        let read = match step {
            Step::Listing => {
                self.seen = false;
                return None;
            }
            Step::Applied(secret) => {
                self.seen = true;
                Keys::read(secret, &self.cluster_uid)
            }
            Step::Listed if !self.seen => Err(KeysError::Missing),
            Step::Deleted(_) => Err(KeysError::Missing),
            Step::Listed | Step::Current | Step::Broken => return None,
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

    use k8s_openapi::ByteString;

    use super::*;

    const CLUSTER: &str = "8a1a1a5e-5cbb-4a0e-b0c6-0d5f1b0a7c11";

    fn read(secret: Secret) -> Result<Keys, KeysError> {
        Keys::read(secret, CLUSTER)
    }

    fn secret(values: &[(&str, u8, usize)]) -> Secret {
        let data: BTreeMap<_, _> =
            values.iter().map(|(name, byte, len)| ((*name).to_owned(), ByteString(vec![*byte; *len]))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    #[test]
    fn each_change_is_reported_once() {
        let one = || secret(&[("key-1", 1, 32)]);
        let keys = read(one()).unwrap();
        let mut reader = Reader::new(CLUSTER.to_owned());
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
        assert_eq!(said(Step::Listed), Some(Err(KeysError::Missing)), "deleted while no watch was open");
        assert_eq!(said(Step::Applied(one())), Some(Ok(read(one()).unwrap())));
        assert_eq!(said(Step::Deleted(one())), Some(Err(KeysError::Missing)));
    }
}
