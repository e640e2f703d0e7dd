//! The identity of this cluster: the UID of its Namespace kube-system, to which the keys are bound
//! (docs/protocol/frames.md#keys).

use std::time::Duration;

use herald_kube_common::{
    backoff::Backoff,
    request::{PATIENCE, RequestError, answered},
};
use herald_telemetry::log_once::LogOnce;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::time::sleep;

use crate::keys::{CLUSTER_NAMESPACE, ClusterError};

/// Longest pause before the second attempt; each further pause is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two attempts: the speaker notices within this that an outage has ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Reads the UID, with as many attempts as needed. Calls `tell` with each new reason why the UID is not known; when
/// `tell` returns `false`, no task waits for the UID any longer, and the function returns `None`.
pub async fn read<T: Future<Output = bool>>(client: Client, mut tell: impl FnMut(ClusterError) -> T) -> Option<String> {
    let api: Api<Namespace> = Api::all(client);
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut complaint = LogOnce::default();
    loop {
        let error = match answered(PATIENCE, api.get_metadata(CLUSTER_NAMESPACE)).await {
            Ok(namespace) => match namespace.metadata.uid.filter(|uid| !uid.is_empty()) {
                Some(uid) => return Some(uid),
                None => ClusterError::Refused("the object has no UID".to_owned()),
            },
            Err(refused @ RequestError::Refused(_)) => ClusterError::Refused(refused.to_string()),
            Err(error) => ClusterError::Unreached(error.to_string()),
        };
        if complaint.is_new(&error.to_string()) {
            tracing::warn!(%error, "cannot read the identity of the cluster, to which its keys are bound; trying \
                                    again");
            if !tell(error).await {
                return None;
            }
        }
        sleep(backoff.wait(fastrand::f64())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::body::Bytes;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// Returns a client of an API server that gives these answers in their order, and breaks the connection where there
    /// is none, together with the paths that were asked.
    fn server(answers: impl IntoIterator<Item = Option<(u16, Value)>>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let paths = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            paths.lock().unwrap().push(request.uri().path().to_owned());
            let answer = answers.lock().unwrap().pop_front().flatten();
            async move {
                let (code, body) = answer.ok_or_else(|| std::io::Error::other("reset"))?;
                Ok::<_, std::io::Error>(
                    Response::builder().status(code).body(Full::new(Bytes::from(body.to_string()))).unwrap(),
                )
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn namespace(metadata: Value) -> (u16, Value) {
        (200, json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}))
    }

    fn forbidden() -> (u16, Value) {
        let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
                            "message": "namespaces \"kube-system\" is forbidden", "reason": "Forbidden", "code": 403});
        (403, status)
    }

    /// Reads until the UID is there, or `patience` errors were reported.
    async fn reads(answers: Vec<Option<(u16, Value)>>, patience: usize) -> (Option<String>, Vec<ClusterError>) {
        let (client, asked) = server(answers);
        let told = Mutex::new(Vec::new());
        let uid = read(client, |error| {
            let mut told = told.lock().unwrap();
            told.push(error);
            std::future::ready(told.len() < patience)
        })
        .await;
        assert!(asked.lock().unwrap().iter().all(|path| path == "/api/v1/namespaces/kube-system"));
        (uid, told.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn uid_is_read_from_the_namespace() {
        let found = reads(vec![Some(namespace(json!({"name": "kube-system", "uid": "u-1"})))], 1).await;
        assert_eq!(found, (Some("u-1".to_owned()), vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_reported_once_and_retried() {
        let answers = vec![
            None,
            None,
            Some(forbidden()),
            Some(forbidden()),
            Some(namespace(json!({"name": "kube-system"}))),
            Some(namespace(json!({"uid": "u-1"}))),
        ];
        let (uid, told) = reads(answers, 10).await;
        assert_eq!(uid.as_deref(), Some("u-1"));
        let [ClusterError::Unreached(reset), ClusterError::Refused(forbidden), ClusterError::Refused(empty)] =
            &told[..]
        else {
            panic!("{told:?}")
        };
        assert!(reset.contains("reset") && forbidden.contains("403") && empty.contains("no UID"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_ends_when_no_task_waits() {
        assert_eq!(reads(vec![], 1).await.0, None);
    }
}
