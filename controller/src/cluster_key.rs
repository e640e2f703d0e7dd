//! The cluster's key: the Secret ships empty, and the leader fills it once. If the Secret is deleted (a prune, a
//! restore), the leader makes it again.
//!
//! The Secret ships without `data`, so that applying the manifests again removes nothing, whether kubectl or the server
//! merges: both remove only fields of an earlier manifest. RBAC cannot narrow `create` to a name: the controller may
//! create any Secret in Herald's own namespace, but read and replace only this one.

use std::{collections::BTreeMap, time::Duration};

use herald_crds::names::{FIRST_CLUSTER_KEY, MANAGER_CONTROLLER, SECRET_CLUSTER_KEY};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Length of a key in bytes: the output of SHA-256. A longer key adds nothing to HMAC and a shorter one is weaker (RFC
/// 2104, section 3).
const KEY_LENGTH: usize = 32;
/// Pause between two checks of a leader, and so the time for which the Secret may be missing or empty. Running speakers
/// continue with the key they have; a speaker that starts meanwhile is not ready, which holds a roll-out up.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The first pause after a failure; each further one is twice as long, up to [`LOOK_EVERY`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Timeout of one check, which is two requests: the API server answers each in milliseconds, or something is wrong.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// The reason why the Secret could not be checked or filled.
#[derive(Debug, thiserror::Error)]
enum FillError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// The API server did not answer in time.
    #[error("no answer within {} s", LOOK_LIMIT.as_secs())]
    TimedOut,
    /// The kernel gave no random bytes.
    #[error("the kernel gave no random bytes")]
    Random,
}

/// Fills the Secret of `namespace` whenever this replica leads and finds it without a value, until `leading` is closed.
pub async fn keep_filled(client: Client, namespace: String, mut leading: watch::Receiver<bool>) {
    let api = Api::namespaced(client, &namespace);
    let mut pause = FIRST_PAUSE;
    while leading.wait_for(|leads| *leads).await.is_ok() {
        let next = match timeout(LOOK_LIMIT, fill(&api)).await.unwrap_or(Err(FillError::TimedOut)) {
            Ok(done) => {
                match done {
                    Done::Nothing => {}
                    Done::Filled => {
                        tracing::info!("Secret {namespace}/{SECRET_CLUSTER_KEY} was empty and has a key now")
                    }
                    Done::Created => tracing::warn!(
                        "Secret {namespace}/{SECRET_CLUSTER_KEY} was missing and has been created with a new key"
                    ),
                }
                pause = FIRST_PAUSE;
                LOOK_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "Secret {namespace}/{SECRET_CLUSTER_KEY} cannot be checked or filled");
                let next = pause;
                pause = (pause * 2).min(LOOK_EVERY);
                next
            }
        };
        tokio::select! {
            () = sleep(next) => {}
            changed = leading.changed() => if changed.is_err() { return },
        }
    }
}

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// The Secret has a value, or another writer was first.
    Nothing,
    /// The Secret was empty.
    Filled,
    /// The Secret was missing.
    Created,
}

/// Checks once, and writes a new key where there is none.
async fn fill(api: &Api<Secret>) -> Result<Done, FillError> {
    let params = PostParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
    let (written, done) = match api.get_opt(SECRET_CLUSTER_KEY).await? {
        Some(secret) if has_value(&secret) => return Ok(Done::Nothing),
        Some(secret) => (api.replace(SECRET_CLUSTER_KEY, &params, &filled(secret, new_key()?)).await, Done::Filled),
        None => (api.create(&params, &filled(empty(), new_key()?)).await, Done::Created),
    };
    match written {
        Ok(_) => Ok(done),
        // Another writer was first. The next check reads its value.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Done::Nothing),
        Err(error) => Err(error.into()),
    }
}

fn new_key() -> Result<[u8; KEY_LENGTH], FillError> {
    let mut key = [0; KEY_LENGTH];
    SystemRandom::new().fill(&mut key).map_err(|_| FillError::Random)?;
    Ok(key)
}

/// Returns the Secret in the form of the manifests.
fn empty() -> Secret {
    let metadata = ObjectMeta { name: Some(SECRET_CLUSTER_KEY.to_owned()), ..ObjectMeta::default() };
    Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() }
}

/// Returns whether the Secret has any value. A Secret with a value is its owner's, even if the speakers cannot use it;
/// they report that.
fn has_value(secret: &Secret) -> bool {
    secret.data.as_ref().is_some_and(|data| !data.is_empty())
}

/// Returns the Secret with its first key. The write carries the Secret's resource version: a write in between makes
/// this one fail.
fn filled(secret: Secret, key: [u8; KEY_LENGTH]) -> Secret {
    Secret { data: Some(BTreeMap::from([(FIRST_CLUSTER_KEY.to_owned(), ByteString(key.to_vec()))])), ..secret }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    fn secret(mut fields: Value) -> Secret {
        fields["metadata"] = json!({"name": SECRET_CLUSTER_KEY, "namespace": "ns", "resourceVersion": "7"});
        serde_json::from_value(fields).unwrap()
    }

    #[test_case(json!({}), false; "as shipped")]
    #[test_case(json!({"data": {}}), false; "no values")]
    #[test_case(json!({"data": {"key-1": "AAAA"}}), true; "too short, but a value")]
    #[test_case(json!({"data": {"key-1": ""}}), true; "empty value is left to its owner")]
    #[test_case(json!({"data": {"another": "AAAA"}}), true; "under another name")]
    fn value_is_never_replaced(fields: Value, expected: bool) {
        assert_eq!(has_value(&secret(fields)), expected);
    }

    #[test]
    fn rest_of_the_secret_stays() {
        let shipped = secret(json!({"type": "Opaque"}));
        let filled = filled(shipped.clone(), [7; KEY_LENGTH]);
        assert_eq!(filled.data.as_ref().unwrap()[FIRST_CLUSTER_KEY].0, [7; KEY_LENGTH]);
        assert_eq!(Secret { data: None, ..filled }, shipped, "with its resource version");
    }
}
