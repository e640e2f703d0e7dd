//! The question to kube-proxy on this node whether it knows a local endpoint of a Service.
//!
//! A node whose endpoint of a Service with `externalTrafficPolicy: Local` has just become ready has no rule for it
//! until its kube-proxy has synced; traffic that comes before is dropped. kube-proxy serves a health check for each
//! such Service on `healthCheckNodePort`, and updates it after the rules (kubernetes
//! `pkg/proxy/healthcheck/service_health.go`; the proxiers call `SyncEndpoints` behind the sync).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{api_objects::ServiceName, coordinator::PROXY_SYNC_TIMEOUT};

/// Time between two questions about an address. If an endpoint on one node replaces an endpoint on another node,
/// kube-proxy on both nodes writes its rules at the same moment, `minSyncPeriod` (1 s) after the last sync; new
/// connections are lost from then until the address moves.
const PERIOD: Duration = Duration::from_millis(20);
/// Timeout of one question: kube-proxy answers from memory, on this node.
const PATIENCE: Duration = Duration::from_millis(100);
/// Number of questions in flight at most, over all addresses. If a hundred addresses wait at once, each is asked about
/// less often.
const AT_A_TIME: usize = 2;
/// The longest answer read, in bytes. The body is three fields; two of them are names of at most 253 bytes.
const LONGEST: usize = 4096;

/// Asks kube-proxy, for all addresses that wait for it.
#[derive(Clone, Debug)]
pub struct Asker {
    turns: Arc<Semaphore>,
}

impl Default for Asker {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

impl Asker {
    /// Asks until kube-proxy knows a local endpoint of the Service (`true`), or the time is up (`false`).
    pub async fn synced(&self, target: SocketAddr, service: &ServiceName) -> bool {
        poll(|| self.in_turn(async { ask(target).await.ok() }), service).await
    }

    /// Waits for a free place among the [`AT_A_TIME`] questions, then asks. A question that hangs (at a port that
    /// swallows SYNs) gives way to the next.
    async fn in_turn(&self, ask: impl Future<Output = Option<Answer>>) -> Option<Answer> {
        let _turn = self.turns.acquire().await.ok()?;
        timeout(PATIENCE, ask).await.ok()?
    }
}

/// Asks until the answer is good, or the time is up.
async fn poll<F: Future<Output = Option<Answer>>>(mut ask: impl FnMut() -> F, service: &ServiceName) -> bool {
    let deadline = Instant::now() + PROXY_SYNC_TIMEOUT;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asking = async {
        loop {
            ticks.tick().await;
            if ask().await.is_some_and(|answer| answer.has_local(service)) {
                return;
            }
        }
    };
    timeout_at(deadline, asking).await.is_ok()
}

/// The answer of kube-proxy about a Service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    service: Asked,
    local_endpoints: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Asked {
    namespace: String,
    name: String,
}

impl Answer {
    /// Returns whether the answer is about this Service and counts a local endpoint. The answer of a port that has
    /// passed to another Service does not count. The status code does not count either: kube-proxy also answers 503
    /// while it is late with something else.
    fn has_local(&self, service: &ServiceName) -> bool {
        (&self.service.namespace, &self.service.name) == (&service.namespace, &service.name) && self.local_endpoints > 0
    }
}

/// The reason why there is no answer. No log line reports it: the next question comes at once, and the address stops
/// waiting after [`PROXY_SYNC_TIMEOUT`] in any case.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Connect(#[from] std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error("the body: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Asks once.
async fn ask(target: SocketAddr) -> Result<Answer, AskError> {
    let stream = TcpStream::connect(target).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get("/").header(HOST, target.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(AskError::Body)?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn web() -> ServiceName {
        ServiceName { namespace: "default".to_owned(), name: "web".to_owned() }
    }

    fn answer(local_endpoints: u32) -> Answer {
        let ServiceName { namespace, name } = web();
        Answer { service: Asked { namespace, name }, local_endpoints }
    }

    #[tokio::test(start_paused = true)]
    async fn asks_every_20_ms_until_there_is_an_endpoint() {
        let mut answers = [None, Some(answer(0)), Some(answer(0)), Some(answer(1))].into_iter();
        let begun = Instant::now();
        assert!(poll(|| std::future::ready(answers.next().flatten()), &web()).await);
        assert_eq!(begun.elapsed(), PERIOD * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_3_s() {
        let begun = Instant::now();
        let mut asked = 0;
        let ask = || {
            asked += 1;
            std::future::ready(Some(answer(0)))
        };
        assert!(!poll(ask, &web()).await);
        assert!(
            begun.elapsed() >= PROXY_SYNC_TIMEOUT && begun.elapsed() < PROXY_SYNC_TIMEOUT + PERIOD,
            "{:?}",
            begun.elapsed()
        );
        assert!((150..=151).contains(&asked), "{asked}");
    }

    #[tokio::test(start_paused = true)]
    async fn answer_about_another_service_does_not_count() {
        let other = ServiceName { name: "other".to_owned(), ..web() };
        assert!(!poll(|| std::future::ready(Some(answer(1))), &other).await);
    }

    /// Serves one answer.
    async fn serve(response: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET / HTTP/1.1\r\n"));
            // A client that has read enough closes early.
            let _closed = stream.write_all(response.as_bytes()).await;
        });
        address
    }

    #[tokio::test(start_paused = true)]
    async fn two_are_asked_at_a_time_and_one_that_hangs_gives_way() {
        let (asker, begun) = (Asker::default(), Instant::now());
        let asked = std::sync::Mutex::new(Vec::new());
        let turn = || {
            asker.in_turn(async {
                asked.lock().unwrap().push(begun.elapsed());
                std::future::pending().await
            })
        };
        tokio::join!(turn(), turn(), turn(), turn(), turn());
        let expected = [0, 0, 1, 1, 2].map(|turn| PATIENCE * turn);
        let asked = asked.into_inner().unwrap();
        assert!(asked.iter().zip(expected).all(|(at, due)| *at >= due && *at < due + PERIOD), "{asked:?}");
    }

    // The answer of kube-proxy 1.33.
    const BODY: &str = r#"{
    "service": {"namespace": "default", "name": "web"},
    "localEndpoints": 2,
    "serviceProxyHealthy": true
}"#;

    #[test_case("200 OK", BODY, Some(2))]
    #[test_case("503 Service Unavailable", BODY, Some(2); "status code does not count")]
    #[test_case("200 OK", "ok", None; "answer of another program")]
    #[tokio::test]
    async fn answer_is_read(status: &str, body: &str, expected: Option<u32>) {
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(ask(serve(response).await).await.ok(), expected.map(answer));
    }

    #[tokio::test]
    async fn answer_longer_than_4_kib_is_not_read() {
        let body = format!("{BODY}{}", " ".repeat(LONGEST));
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert!(matches!(ask(serve(response).await).await, Err(AskError::Body(_))));
    }
}
