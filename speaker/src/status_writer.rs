//! Writes statuses to the API: a task separate from the one that answers, so that a slow API server delays no answer.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::FuturesUnordered};
use herald_crds::{SpeakerStatus, SpeakerStatusSpec, VirtualIP, names::MANAGER_SPEAKER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    coordinator::{SpeakerWrite, VipWrite},
    status_queue::{Key, Outcome, Queue, Write},
    write_outage::WriteOutage,
};

/// Number of writes in flight at most: enough to publish 1,000 addresses a second at 10 ms each, few enough for an API
/// server's fairness queues.
const CONCURRENCY: usize = 10;
/// Timeout of one write, which is then retried. The API server itself gives up after 60 s.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The trouble of every refused status, in the log.
const REFUSED: &str = "refused";

/// Performs the writes that come in until the channel closes.
pub async fn run(client: Client, mut writes: mpsc::UnboundedReceiver<Write>) {
    let start = Instant::now();
    let mut queue = Queue::default();
    let mut in_flight = FuturesUnordered::new();
    let mut outage = WriteOutage::default();
    loop {
        while in_flight.len() < CONCURRENCY
            && let Some(write) = queue.next(start.elapsed())
        {
            in_flight.push(write_one(client.clone(), write));
        }
        let timeout = if in_flight.len() < CONCURRENCY { queue.poll_timeout() } else { None };
        let wake = async {
            match timeout {
                Some(at) => tokio::time::sleep(at.saturating_sub(start.elapsed())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            write = writes.recv() => match write {
                Some(write) => queue.push(start.elapsed(), write),
                None => return,
            },
            Some((key, ended)) = in_flight.next() => {
                tell(&mut outage, &key, &ended);
                queue.ended(start.elapsed(), &key, ended.outcome());
            }
            () = wake => {}
        }
    }
}

/// The end of a write.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The status is written.
    Written,
    /// The watch brings a newer version of the object, or that it is gone, and the write is decided again.
    Outdated,
    /// The API server refuses the status, by the kind's schema or by a policy.
    Refused(String),
    /// The same write may succeed later.
    Failed(String),
}

impl Ended {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Written | Self::Outdated => Outcome::Settled,
            Self::Refused(_) => Outcome::Refused,
            Self::Failed(_) => Outcome::Failed,
        }
    }
}

fn tell(outage: &mut WriteOutage, key: &Key, ended: &Ended) {
    match ended {
        Ended::Failed(error) if outage.failed(key, error) => {
            tracing::warn!(object = ?key, error, "writing a status failed; it is retried, which is logged again once it succeeds");
        }
        // The sentences of the API server differ by the names of the objects.
        Ended::Refused(error) if outage.failed(key, REFUSED) => {
            tracing::error!(object = ?key, error, "the API server refuses a status; it is tried again within a minute");
        }
        Ended::Failed(_) | Ended::Refused(_) => {}
        Ended::Written | Ended::Outdated => {
            if outage.settled(key) {
                tracing::info!("statuses can be written again");
            }
        }
    }
}

async fn write_one(client: Client, write: Write) -> (Key, Ended) {
    let key = write.key();
    let attempt = async {
        match &write {
            Write::Vip(write) => write_vip(client, write).await,
            Write::Speaker(write) => write_speaker(client, write).await,
        }
    };
    let ended = match tokio::time::timeout(TIMEOUT, attempt).await {
        Ok(Ok(())) => Ended::Written,
        Ok(Err(error)) => ended(&key, &error),
        Err(_) => Ended::Failed(format!("no answer within {TIMEOUT:?}")),
    };
    (key, ended)
}

/// Returns the end of a write that failed with an error.
fn ended(key: &Key, error: &kube::Error) -> Ended {
    let code = if let kube::Error::Api(status) = error { status.code } else { 0 };
    match (key, code) {
        // The object exists after all; or its kind is gone (404), or going (405), and the object with it. Only a write
        // brings the object back once the kind is there again.
        (Key::Speaker, 404 | 405 | 409) => Ended::Failed(error.to_string()),
        // The write was decided from an old version, or the object is gone.
        (Key::Vip(_), 404 | 409) => Ended::Outdated,
        (_, 400 | 405 | 413 | 415 | 422) => Ended::Refused(error.to_string()),
        _ => Ended::Failed(error.to_string()),
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER_SPEAKER.to_owned()), ..PatchParams::default() }
}

async fn write_vip(client: Client, write: &VipWrite) -> kube::Result<()> {
    let api = Api::<VirtualIP>::all(client);
    let body = vip_patch(write).map_err(kube::Error::SerdeError)?;
    api.patch_status(&write.name, &params(), &Patch::Merge(body)).await.map(|_| ())
}

/// Returns the merge patch of a VirtualIP's status. The version makes the API server refuse a write that was decided
/// from an older one. A merge patch removes only the fields that it names, so it names with null the fields that the
/// status lacks.
fn vip_patch(write: &VipWrite) -> serde_json::Result<Value> {
    let mut status = json!({
        "node": null,
        "interface": null,
        "macAddress": null,
        "conflictingMacAddress": null,
        "handedOverBy": null,
        "since": null,
        "firstAnnounced": null,
        "conditions": [],
    });
    merge(&mut status, serde_json::to_value(&write.status)?);
    Ok(json!({"metadata": {"resourceVersion": write.resource_version}, "status": status}))
}

async fn write_speaker(client: Client, write: &SpeakerWrite) -> kube::Result<()> {
    let api = Api::<SpeakerStatus>::all(client);
    let body = speaker_patch(write).map_err(kube::Error::SerdeError)?;
    match api.patch_status(&write.node, &params(), &Patch::Merge(&body)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let created = PostParams { field_manager: Some(MANAGER_SPEAKER.to_owned()), ..PostParams::default() };
            api.create(&created, &new_speaker(write)).await?;
            api.patch_status(&write.node, &params(), &Patch::Merge(&body)).await.map(|_| ())
        }
        other => other.map(|_| ()),
    }
}

/// Returns the merge patch of a SpeakerStatus. Only this speaker writes the object, so the patch has no version.
fn speaker_patch(write: &SpeakerWrite) -> serde_json::Result<Value> {
    let mut status = json!({
        "segments": [], "links": [], "linksLeftOut": 0, "heldAddresses": [], "covering": [], "warnings": [],
    });
    merge(&mut status, serde_json::to_value(&write.status)?);
    Ok(json!({"status": status}))
}

/// Returns a new SpeakerStatus. The object's owner is the Node, so it goes with the Node.
fn new_speaker(write: &SpeakerWrite) -> SpeakerStatus {
    let mut object = SpeakerStatus::new(&write.node, SpeakerStatusSpec { node_name: write.node.clone() });
    object.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: write.node.clone(),
        uid: write.node_uid.clone(),
        ..OwnerReference::default()
    }]);
    object
}

/// Puts the fields of `from` over those of `into`, which names the fields that may be absent.
fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

#[cfg(test)]
mod tests {
    use herald_crds::{speaker_status::SpeakerStatusStatus, virtual_ip::VirtualIPStatus};
    use kube::{CustomResourceExt, core::Status};
    use test_case::test_case;

    use super::*;

    #[test]
    fn patch_of_a_cleared_status_names_the_removed_fields() {
        let write = VipWrite {
            name: "192.0.2.1".to_owned(),
            uid: "u".to_owned(),
            resource_version: "7".to_owned(),
            status: VirtualIPStatus { transitions: 2, ..VirtualIPStatus::default() },
        };
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "status": {
                "node": null,
                "interface": null,
                "macAddress": null,
                "conflictingMacAddress": null,
                "handedOverBy": null,
                "since": null,
                "firstAnnounced": null,
                "transitions": 2,
                "conditions": [],
            },
        });
        assert_eq!(vip_patch(&write).unwrap(), expected);
    }

    /// Returns the names of the status fields of a kind, as in its CustomResourceDefinition.
    fn status_fields<T: CustomResourceExt>() -> Vec<String> {
        let definition = serde_json::to_value(T::crd()).unwrap();
        let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
        definition.pointer(status).unwrap().as_object().unwrap().keys().cloned().collect()
    }

    /// A merge patch leaves fields alone that it does not name: a field that is added to a status and not named here
    /// would stay for ever.
    #[test]
    fn patch_names_every_status_field_even_an_absent_one() {
        let named = |patch: Value| patch["status"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let vip = VipWrite {
            name: String::new(),
            uid: String::new(),
            resource_version: String::new(),
            status: VirtualIPStatus::default(),
        };
        assert_eq!(named(vip_patch(&vip).unwrap()), status_fields::<VirtualIP>());
        let (node, node_uid) = (String::new(), String::new());
        let speaker = SpeakerWrite { node, node_uid, status: SpeakerStatusStatus::default() };
        assert_eq!(named(speaker_patch(&speaker).unwrap()), status_fields::<SpeakerStatus>());
    }

    #[test]
    fn patch_clears_covered_nodes_and_warnings() {
        let status = SpeakerStatusStatus { version: "1".to_owned(), ..SpeakerStatusStatus::default() };
        let write = SpeakerWrite { node: "a".to_owned(), node_uid: "u".to_owned(), status };
        let expected = json!({
            "status": {
                "version": "1", "summary": {"interfaces": "", "peers": "", "prefixes": "", "warnings": ""},
                "segments": [], "links": [], "linksLeftOut": 0, "heldAddresses": [], "covering": [],
                "warnings": [],
            },
        });
        assert_eq!(speaker_patch(&write).unwrap(), expected);
        let owner = new_speaker(&write).metadata.owner_references.unwrap().remove(0);
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Node", "u"));
    }

    #[test_case(&vip(), 404, Outcome::Settled)]
    #[test_case(&vip(), 409, Outcome::Settled)]
    #[test_case(&vip(), 405, Outcome::Refused)]
    #[test_case(&vip(), 422, Outcome::Refused; "a policy, or the schema, may change")]
    #[test_case(&vip(), 403, Outcome::Failed; "rights can be granted")]
    #[test_case(&vip(), 429, Outcome::Failed)]
    #[test_case(&vip(), 500, Outcome::Failed)]
    #[test_case(&Key::Speaker, 404, Outcome::Failed; "the kind is not there")]
    #[test_case(&Key::Speaker, 405, Outcome::Failed; "the kind is being deleted")]
    #[test_case(&Key::Speaker, 409, Outcome::Failed; "the object was made meanwhile")]
    #[test_case(&Key::Speaker, 422, Outcome::Refused; "the speaker's status is not accepted")]
    fn failed_write_is_retried_where_that_may_help(key: &Key, code: u16, expected: Outcome) {
        let error = kube::Error::Api(Box::new(Status { code, ..Status::default() }));
        assert_eq!(ended(key, &error).outcome(), expected);
    }

    fn vip() -> Key {
        Key::Vip("192.0.2.1".to_owned())
    }
}
