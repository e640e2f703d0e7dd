//! The HTTP server: the answering pod, slow answers, and readiness that can be switched.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::answer::{Answer, Pod, Proto};

#[derive(Clone)]
struct Server {
    pod: Arc<Pod>,
    ready: Arc<AtomicBool>,
}

#[derive(Deserialize)]
struct Hold {
    /// Delay of the answer in milliseconds.
    ms: u64,
}

#[derive(Deserialize)]
struct Readiness {
    /// The new readiness; `None` only queries it.
    set: Option<bool>,
}

pub(crate) async fn serve(listener: TcpListener, pod: Arc<Pod>, ready: bool) -> io::Result<()> {
    let server = Server { pod, ready: Arc::new(AtomicBool::new(ready)) };
    axum::serve(listener, router(server).into_make_service_with_connect_info::<SocketAddr>()).await
}

fn router(server: Server) -> Router {
    Router::new()
        .route("/", get(who))
        .route("/hold", get(hold))
        .route("/ready", get(readiness).post(readiness))
        .route("/unready", get(unready).post(unready))
        .with_state(server)
}

async fn who(State(server): State<Server>, ConnectInfo(client): ConnectInfo<SocketAddr>) -> Response {
    match serde_json::to_string(&Answer::new(&server.pod, client, Proto::Http)) {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn hold(server: State<Server>, client: ConnectInfo<SocketAddr>, Query(hold): Query<Hold>) -> Response {
    tokio::time::sleep(Duration::from_millis(hold.ms)).await;
    who(server, client).await
}

async fn readiness(State(server): State<Server>, Query(Readiness { set }): Query<Readiness>) -> Response {
    // The flag guards no other memory, so its accesses need no ordering.
    match set {
        Some(ready) => {
            server.ready.store(ready, Ordering::Relaxed);
            switched(ready)
        }
        None if server.ready.load(Ordering::Relaxed) => (StatusCode::OK, "ready\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "unready\n").into_response(),
    }
}

async fn unready(State(server): State<Server>) -> Response {
    server.ready.store(false, Ordering::Relaxed);
    switched(false)
}

/// The command was carried out, so the status is 200 in either direction; the body names the direction.
fn switched(ready: bool) -> Response {
    (StatusCode::OK, if ready { "now ready\n" } else { "now unready\n" }).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(port: u16, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    async fn started(ready: bool) -> u16 {
        let listener = listen::tcp("::".parse().unwrap(), 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let pod = Arc::new(Pod { name: "web-1".into(), ..Pod::default() });
        tokio::spawn(serve(listener, pod, ready));
        port
    }

    #[tokio::test]
    async fn readiness_can_be_switched() {
        let port = started(true).await;
        let steps = [
            ("GET", "/ready", 200),
            ("POST", "/unready", 200),
            ("GET", "/ready", 503),
            ("GET", "/ready?set=true", 200),
            ("GET", "/ready", 200),
            ("GET", "/unready", 200),
            ("GET", "/ready", 503),
            ("GET", "/ready?set=maybe", 400),
        ];
        for (index, (method, path, status)) in steps.into_iter().enumerate() {
            assert_eq!(ask(port, method, path).await.0, status, "step {index}: {method} {path}");
        }
        assert_eq!(ask(started(false).await, "GET", "/ready").await.0, 503);
    }

    #[tokio::test]
    async fn answer_names_pod_and_client() {
        let port = started(true).await;
        for path in ["/", "/hold?ms=1"] {
            let (status, body) = ask(port, "GET", path).await;
            let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &answer["pod"], &answer["client"]), (200, &"web-1".into(), &"127.0.0.1".into()));
            assert_eq!(answer["proto"], "http");
        }
    }
}
