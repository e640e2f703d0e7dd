//! Posts Events to the API: a task separate from the one that answers. A take-over often happens while the API server
//! is away, so Events that the API server does not take are kept, up to a number, and posted when it is back.

use std::time::Duration;

use herald_crds::{
    event::{Report, about_service},
    names::MANAGER_SPEAKER,
};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc;

use crate::kube_events::{EventValue, Regarding};

/// Number of Events that wait at most. An Event that does not fit in is logged and lost, as with every recorder.
const WAITING: usize = 64;

/// First delay after a failure. Each further failure doubles the delay.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// Longest delay.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Timeout of one request. A request that takes longer is repeated: the Event's name makes that harmless.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The end of the queue where Events are handed in.
#[derive(Clone, Debug)]
pub struct Post(mpsc::Sender<EventValue>);

impl Post {
    /// Hands an Event in; never waits.
    pub fn post(&self, value: EventValue) {
        if let Err(error) = self.0.try_send(value) {
            let value = match error {
                mpsc::error::TrySendError::Full(value) | mpsc::error::TrySendError::Closed(value) => value,
            };
            tracing::warn!(reason = value.reason, note = value.note, "an Event is lost: too many wait");
        }
    }
}

/// Returns the two ends of the queue: where Events are handed in, and where [`run`] takes them.
pub fn queue() -> (Post, mpsc::Receiver<EventValue>) {
    let (post, waiting) = mpsc::channel(WAITING);
    (Post(post), waiting)
}

/// The result of posting an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The Event exists; another speaker may have posted it first.
    Told,
    /// The API server may take the Event later.
    Failed,
    /// The API server will never take the Event.
    Lost,
}

/// Posts the Events that come in, one after the other, until the queue is closed. `node` is the name of this node.
pub async fn run(client: Client, node: String, mut waiting: mpsc::Receiver<EventValue>) {
    let params = PostParams { field_manager: Some(MANAGER_SPEAKER.to_owned()), ..PostParams::default() };
    while let Some(value) = waiting.recv().await {
        let event = object(&value, &node);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = Api::<Event>::namespaced(client.clone(), &namespace);
        let mut delay = FIRST_RETRY;
        loop {
            let outcome = match tokio::time::timeout(TIMEOUT, api.create(&params, &event)).await {
                Ok(Ok(_)) => Outcome::Told,
                Ok(Err(error)) => {
                    let outcome = outcome(&error);
                    if outcome != Outcome::Told {
                        tracing::warn!(event = value.name, note = value.note, %error, retry = outcome == Outcome::Failed,
                            "an Event was not posted");
                    }
                    outcome
                }
                Err(_) => Outcome::Failed,
            };
            if outcome != Outcome::Failed {
                break;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_RETRY);
        }
    }
}

fn outcome(error: &kube::Error) -> Outcome {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Outcome::Told,
            // The speaker has no right to post it, or the Service's namespace is being deleted: the next Event must not
            // wait for this one.
            400..=407 | 410..=428 => Outcome::Lost,
            _ => Outcome::Failed,
        },
        kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => Outcome::Lost,
        _ => Outcome::Failed,
    }
}

/// Returns the API object.
fn object(value: &EventValue, node: &str) -> Event {
    let regarding = match &value.regarding {
        Regarding::Node(node) => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.name.clone()),
            uid: Some(node.uid.clone()),
            ..ObjectReference::default()
        },
        Regarding::Service(service) => about_service(service),
    };
    let EventValue { name, warning, reason, action, note, at, .. } = value;
    let (name, at, warning) = (name.clone(), MicroTime(*at), *warning);
    Report { name, regarding, warning, reason, action, note, at, program: MANAGER_SPEAKER, instance: node }.into()
}

#[cfg(test)]
mod tests {
    use herald_crds::virtual_ip::ServiceReference;
    use jiff::Timestamp;
    use kube::core::Status;
    use test_case::test_case;

    use super::*;
    use crate::kube_events::NodeReference;

    fn value(regarding: Regarding) -> EventValue {
        EventValue {
            name: "x.1".to_owned(),
            regarding,
            warning: true,
            reason: "AddressConflict",
            action: "Announce",
            note: "ä".repeat(1000),
            at: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    fn node() -> Regarding {
        Regarding::Node(NodeReference { name: "node1".to_owned(), uid: "u".to_owned() })
    }

    fn service() -> Regarding {
        Regarding::Service(ServiceReference {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "v".to_owned(),
        })
    }

    /// The API server would refuse other values, and `kubectl describe` would not find the Event elsewhere.
    #[test_case(node(), "default", "Node")]
    #[test_case(service(), "shop", "Service")]
    fn event_is_one_that_the_api_server_takes(regarding: Regarding, namespace: &str, kind: &str) {
        let event = object(&value(regarding), &"n".repeat(253));
        assert_eq!(event.metadata.namespace.as_deref(), Some(namespace));
        let about = event.regarding.unwrap();
        assert_eq!((about.kind.as_deref(), about.uid.is_some()), (Some(kind), true));
        assert_eq!(event.note.unwrap().len(), herald_crds::event::NOTE_LIMIT);
        assert_eq!(event.reporting_instance.unwrap().len(), herald_crds::event::INSTANCE_LIMIT);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert!(event.event_time.is_some() && event.action.is_some() && event.reporting_controller.is_some());
    }

    #[test_case(409, Outcome::Told; "another speaker posted it")]
    #[test_case(403, Outcome::Lost)]
    #[test_case(404, Outcome::Lost; "its namespace is gone")]
    #[test_case(422, Outcome::Lost)]
    #[test_case(429, Outcome::Failed)]
    #[test_case(408, Outcome::Failed)]
    #[test_case(503, Outcome::Failed)]
    fn status_code_decides_whether_an_event_is_posted_again(code: u16, expected: Outcome) {
        assert_eq!(outcome(&kube::Error::Api(Box::new(Status { code, ..Status::default() }))), expected);
    }

    #[test]
    fn posting_to_a_full_queue_does_not_wait() {
        let (post, mut waiting) = queue();
        for _ in 0..WAITING + 10 {
            post.post(value(node()));
        }
        let mut taken = 0;
        while waiting.try_recv().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, WAITING);
    }
}
