//! `GET /metrics`, `/healthz`, `/readyz` and `/log`; `PUT /log` from the same host.
//!
//! The port is open on the pod's network, or the node's. A client costs little: there are a few connections at a time,
//! each for one request, and none lasts long. A client cannot keep others out: a new connection takes the place of the
//! oldest. A client can change only the filter of the log, and only from the loopback interface, where the connections
//! of `kubectl port-forward` come from; the API server decides who may use that.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use crate::{log::Log, query::Querier};

/// Maximum of connections at a time: Prometheus in two replicas, the kubelet, a person.
const CONNECTIONS: usize = 16;

/// Time after which a connection is closed, whatever its state. Prometheus gives up after 10 s by default.
const DEADLINE: Duration = Duration::from_secs(5);

/// The longest filter of the log, in bytes: some dozens of targets.
const LONGEST_FILTER: usize = 4096;

/// The content type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The address of the server, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The server listens on this address.
    On(SocketAddr),
    /// There is no server.
    Off,
}

/// The error of a text that is neither empty nor an address and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address and port: write [::]:7475, 0.0.0.0:7475 or, to serve no metrics, an empty value")]
pub struct ParseListenError(String);

impl FromStr for Listen {
    type Err = ParseListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        text.parse().map(Self::On).map_err(|_| ParseListenError(text.to_owned()))
    }
}

/// Listens. A socket on `[::]` accepts IPv4 as well (RFC 3493, section 3.7). Where the kernel has no IPv6, the socket
/// is bound to the IPv4 wildcard address instead.
///
/// # Errors
/// When `bind` fails: the port is taken, or the address belongs to another host.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        // std has no error kind for EAFNOSUPPORT (`ipv6.disable=1` on the kernel's command line).
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && is_any_ipv6(address) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
        }
        bound => bound,
    }
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified())
}

/// The state that a program reports at one moment. A program that answers at all is healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// The metrics, as text.
    pub metrics: String,
    /// Whether the program can do its work.
    pub readiness: Readiness,
}

/// Whether a program can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The program can do its work.
    Ready,
    /// The program cannot work yet; the sentence names what it waits for.
    Waiting(String),
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, ask: Querier<Telling>, log: Log) {
    let mut connections = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    oldest_first.retain(|connection| !connection.is_finished());
                    // The oldest connection is idle, since a request takes milliseconds. If the new one were refused
                    // instead, idle connections could keep the kubelet's probes out, and the kubelet would restart the
                    // program.
                    if oldest_first.len() >= CONNECTIONS
                        && let Some(oldest) = oldest_first.pop_front()
                    {
                        oldest.abort();
                    }
                    let pages = Pages { ask: ask.clone(), log: log.clone(), local: is_local(from) };
                    oldest_first.push_back(connections.spawn(tokio::time::timeout(DEADLINE, pages.serve(stream))));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the metrics");
                    // The process has no file descriptors left: `accept` fails again at once, and there is nothing to
                    // wait for.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            Some(ended) = connections.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(_)) => tracing::debug!(after = ?DEADLINE, "closed a connection to the metrics"),
                Err(error) if error.is_cancelled() => tracing::debug!("closed the oldest connection to the metrics"),
                Err(error) => tracing::error!(%error, "a connection to the metrics failed"),
            },
        }
    }
}

/// Returns whether the client is on this host. An IPv4 client of an IPv6 socket has an IPv4-mapped address.
fn is_local(from: SocketAddr) -> bool {
    from.ip().to_canonical().is_loopback()
}

/// The pages that one client may read and change.
#[derive(Clone)]
struct Pages {
    ask: Querier<Telling>,
    log: Log,
    /// Whether the client connects from this host.
    local: bool,
}

impl Pages {
    async fn serve(self, stream: TcpStream) {
        let respond = service_fn(move |request: Request<Incoming>| {
            let pages = self.clone();
            async move { Ok::<_, Infallible>(pages.respond(request).await) }
        });
        let served = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), respond).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the metrics broke");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        match request.uri().path() {
            "/log" if reads => plain(StatusCode::OK, &self.log.filter()),
            "/log" if request.method() == Method::PUT => self.change_log(request.into_body()).await,
            "/log" => not_allowed("GET, HEAD, PUT"),
            "/metrics" | "/healthz" | "/readyz" if !reads => not_allowed("GET, HEAD"),
            "/metrics" => self.tell(|telling| metrics(telling, self.log.lines_dropped())).await,
            "/healthz" => self.tell(|_| plain(StatusCode::OK, "ok")).await,
            "/readyz" => self.tell(|telling| readiness(&telling.readiness)).await,
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz, /readyz and /log"),
        }
    }

    async fn tell(&self, page: impl FnOnce(Telling) -> Response<Full<Bytes>>) -> Response<Full<Bytes>> {
        match self.ask.ask().await {
            Ok(telling) => page(telling),
            Err(unanswered) => plain(StatusCode::SERVICE_UNAVAILABLE, &unanswered.to_string()),
        }
    }

    async fn change_log(&self, body: Incoming) -> Response<Full<Bytes>> {
        if !self.local {
            return plain(StatusCode::FORBIDDEN, "the log is changed from this host only: use kubectl port-forward");
        }
        // An announced length that is too large is refused without waiting for the body.
        if body.size_hint().lower() > LONGEST_FILTER as u64 {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "a log filter has at most 4 KiB");
        }
        let Ok(body) = Limited::new(body, LONGEST_FILTER).collect().await else {
            return plain(StatusCode::BAD_REQUEST, "the request has no log filter of at most 4 KiB");
        };
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        match self.log.change(&text) {
            Ok(filter) => {
                tracing::info!(filter, "changed the log's filter");
                plain(StatusCode::OK, &filter)
            }
            Err(error) => plain(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
}

/// Returns the program's metrics with those of the log, which are the same in every program.
fn metrics(telling: Telling, dropped: u64) -> Response<Full<Bytes>> {
    let mut text = telling.metrics;
    // The end marker (OpenMetrics 1.0, section "Overall Structure") goes behind all metrics.
    let end = "# EOF\n";
    if text.ends_with(end) {
        text.truncate(text.len() - end.len());
    }
    text += "# HELP herald_log_lines_dropped Log lines dropped because the log was not read fast enough.\n\
             # TYPE herald_log_lines_dropped counter\n";
    text += &format!("herald_log_lines_dropped_total {dropped}\n{end}");
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
    response
}

fn readiness(readiness: &Readiness) -> Response<Full<Bytes>> {
    match readiness {
        Readiness::Ready => plain(StatusCode::OK, "ok"),
        Readiness::Waiting(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed: {allowed}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn plain(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{sentence}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use test_case::test_case;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{log::LogArgs, query};

    #[test_case("0.0.0.0:7475", Some(Listen::On(SocketAddr::from(([0, 0, 0, 0], 7475)))))]
    #[test_case("", Some(Listen::Off))]
    #[test_case("7475", None)]
    #[test_case("localhost:7475", None; "names are not looked up")]
    fn listen_is_read(text: &str, expected: Option<Listen>) {
        assert_eq!(text.parse().ok(), expected);
    }

    #[test_case("127.0.0.1:1", true)]
    #[test_case("[::1]:1", true)]
    #[test_case("[::ffff:127.0.0.1]:1", true; "IPv4 client of an IPv6 socket")]
    #[test_case("[::ffff:192.0.2.1]:1", false)]
    #[test_case("192.0.2.1:1", false)]
    fn only_loopback_is_local(from: &str, expected: bool) {
        assert_eq!(is_local(from.parse().unwrap()), expected);
    }

    async fn exchange(request: &str, readiness: Readiness, listen: &str) -> String {
        exchange_among(0, request, readiness, listen).await
    }

    /// Returns the answer to a request while this number of older, idle connections is open.
    async fn exchange_among(idle_connections: usize, request: &str, readiness: Readiness, listen: &str) -> String {
        let listener = bind(listen.parse().unwrap()).await.unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let (ask, mut asked) = query::channel();
        let (log, _dispatch) = LogArgs { log: "info".to_owned(), log_json: false }.quiet();
        let answering = async {
            while let Some(reply) = asked.recv().await {
                let metrics = "herald_speaker_peers 2\n# EOF\n".to_owned();
                reply.send(Telling { metrics, readiness: readiness.clone() }).unwrap();
            }
        };
        let client = async {
            let mut idle = Vec::new();
            for _ in 0..idle_connections {
                idle.push(TcpStream::connect(address).await.unwrap());
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            response
        };
        tokio::select! {
            response = client => response,
            () = serve(listener, ask, log) => unreachable!("it serves for ever"),
            () = answering => unreachable!("the server asks for ever"),
        }
    }

    #[test_case("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK", "# EOF\n")]
    #[test_case("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK", "ok\n")]
    #[test_case("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 503", "\nPools are not listed\n")]
    #[test_case("GET /log HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK", "\ninfo\n")]
    #[test_case("GET /secrets HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404", "/log\n")]
    #[test_case("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405", "HEAD\n")]
    #[test_case("DELETE /log HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405", "PUT\n")]
    #[test_case("PUT /log HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\ndebug", "HTTP/1.1 200 OK", "\ndebug\n")]
    #[test_case("PUT /log HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na=b=c", "HTTP/1.1 400", "\n")]
    #[test_case("PUT /log HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", "HTTP/1.1 413", "4 KiB\n")]
    #[test_case("\x16\x03\x01 is TLS\r\n\r\n", "HTTP/1.1 400", "")]
    #[tokio::test]
    async fn request_is_answered_by_its_path_and_method(request: &str, status: &str, end: &str) {
        let waiting = Readiness::Waiting("Pools are not listed".to_owned());
        let response = exchange(request, waiting, "127.0.0.1:0").await;
        assert!(response.starts_with(status) && response.ends_with(end), "{response}");
    }

    #[tokio::test]
    async fn metrics_of_the_log_precede_the_end_marker() {
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        let response = exchange(request, Readiness::Ready, "127.0.0.1:0").await;
        assert!(response.contains("\nherald_log_lines_dropped_total 0\n# EOF\n"), "{response}");
        assert_eq!(response.matches("# EOF").count(), 1, "{response}");
    }

    /// The default address accepts IPv4 on a kernel with or without IPv6.
    #[tokio::test]
    async fn any_address_is_reached_by_ipv4() {
        let response = exchange("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", Readiness::Ready, "[::]:0").await;
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }

    /// A pod that holds as many connections as it can does not keep the kubelet's probes out.
    #[tokio::test]
    async fn idle_connections_do_not_block_a_new_one() {
        let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        let answer = exchange_among(4 * CONNECTIONS, request, Readiness::Ready, "127.0.0.1:0");
        // The answer has to come before the first connections are closed for their age.
        let answer = tokio::time::timeout(DEADLINE / 2, answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}
