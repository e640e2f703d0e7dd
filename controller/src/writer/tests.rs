use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use http_body_util::Full;
use kube::client::Body;
use serde_json::{Value, json};
use test_case::test_case;

use super::*;
use crate::action::Regarding;

/// The API server's reaction to a request.
enum Reply {
    Status(u16, Value),
    Breaks,
    Hangs,
}

/// Returns a writer, and the number of requests that it has made.
fn writer(replies: impl IntoIterator<Item = Reply>) -> (Writer, Arc<AtomicUsize>) {
    let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let service = tower::service_fn(move |_: Request<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let reply = replies.lock().unwrap().pop_front().unwrap();
        async move {
            match reply {
                Reply::Status(code, body) => {
                    Ok(Response::builder().status(code).body(Full::new(body.to_string().into_bytes().into())).unwrap())
                }
                Reply::Breaks => Err(std::io::Error::other("connection reset")),
                Reply::Hangs => std::future::pending().await,
            }
        }
    });
    (Writer::new(Client::new(service, "default"), "pod".to_owned(), Selection::default()), requests)
}

fn refusal(code: u16) -> Reply {
    let details = json!({"retryAfterSeconds": 3});
    let body = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "no",
        "reason": "No", "code": code, "details": details});
    Reply::Status(code, body)
}

fn delete() -> Action {
    Action::DeleteVirtualIp { address: "192.0.2.1".parse().unwrap(), uid: "u".to_owned(), misdated: None }
}

fn event() -> EventValue {
    EventValue {
        regarding: Regarding::Object { kind: "VirtualIP", name: "192.0.2.1".to_owned(), uid: "u".to_owned() },
        warning: false,
        reason: "R",
        action: "A",
        note: String::new(),
    }
}

const ASKED: Option<Duration> = Some(Duration::from_secs(3));

#[test_case(refusal(409), Failure::Conflict)]
#[test_case(refusal(401), Failure::Unavailable { retry_after: ASKED }; "the token is refused, whatever the object")]
#[test_case(refusal(410), Failure::Refused { code: 410 })]
#[test_case(refusal(429), Failure::Throttled { retry_after: ASKED })]
#[test_case(refusal(500), Failure::Server)]
#[test_case(refusal(503), Failure::Unavailable { retry_after: ASKED })]
#[test_case(Reply::Status(504, json!("a proxy's page")), Failure::Unavailable { retry_after: None })]
#[test_case(refusal(403), Failure::Refused { code: 403 })]
#[test_case(Reply::Breaks, Failure::Unreachable)]
#[test_case(Reply::Hangs, Failure::TimedOut)]
#[tokio::test(start_paused = true)]
async fn failed_write_is_one_request_and_has_a_kind(reply: Reply, expected: Failure) {
    let (writer, requests) = writer([reply]);
    let written = writer.write(&delete()).await;
    assert!(matches!(written.outcome, Outcome::Failed | Outcome::Refused { .. } | Outcome::Unavailable));
    assert_eq!(matches!(written.outcome, Outcome::Refused { .. }), matches!(expected, Failure::Refused { .. }));
    assert_eq!(written.failure.map(|(failure, _)| failure), Some(expected));
    assert_eq!(requests.load(Ordering::Relaxed), 1, "the queue retries");
}

#[tokio::test]
async fn deletion_of_a_missing_object_succeeds() {
    let (writer, _) = writer([refusal(404)]);
    let written = writer.write(&delete()).await;
    assert!(matches!(written, Written { outcome: Outcome::Gone, failure: None }));
}

#[tokio::test]
async fn event_of_a_missing_namespace_is_refused() {
    let (writer, _) = writer([refusal(404)]);
    let written = writer.write(&Action::Event(event())).await;
    assert_eq!(written.failure.map(|(failure, _)| failure), Some(Failure::Refused { code: 404 }));
}

#[tokio::test]
async fn sentence_of_a_refusal_is_that_of_the_api_server() {
    let page = Reply::Status(404, json!("404 page not found"));
    for (reply, expected) in [(refusal(403), "no"), (page, "\"404 page not found\"")] {
        let (writer, _) = writer([reply]);
        let written = writer.write(&Action::Event(event())).await;
        assert_eq!(written.failure.map(|(_, sentence)| sentence).as_deref(), Some(expected));
    }
}
