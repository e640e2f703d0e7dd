//! The client of a program that watches. The client finds a dead connection even while nothing is sent on it.
//!
//! A watch is a connection on which the server may say nothing for minutes. If the server disappears without a word, or
//! a firewall on the way does, nothing arrives, and without keepalive the client never learns that nothing can. The
//! kernel sends the probes, so they cost no request, neither at rest nor at any other time.

use std::time::Duration;

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{Client, Config, client::ConfigExt};
use tower::{BoxError, ServiceBuilder};

/// Idle time after which the kernel probes a connection (`TCP_KEEPIDLE`, tcp(7)).
const IDLE: Duration = Duration::from_secs(10);
/// Time between two probes (`TCP_KEEPINTVL`).
const INTERVAL: Duration = Duration::from_secs(5);
/// Time without an acknowledgement, of data or of a probe, after which the kernel gives a connection up
/// (`TCP_USER_TIMEOUT`, which takes the place of a number of retries: `tcp_keepalive_timer`, net/ipv4/tcp_timer.c). A
/// dead connection is therefore found 20 to 25 s after the last sign of life.
const GIVE_UP: Duration = Duration::from_secs(20);
/// Maximum of idle connections that are kept for the next request: a burst of writes uses more, and each has its buffers
/// here and at the API server.
const KEPT: usize = 8;
/// Time for which an idle connection is kept.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Timeout of a connection attempt: SYNs at 0, 1, 3 and 7 s.
const CONNECT: Duration = Duration::from_secs(10);

/// Makes a client that does not retry a request by itself: its users bound their retries, and log them.
///
/// # Errors
/// If the configuration has no certificates or credentials that can be read.
pub fn of(config: &Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // kube's own builder returns an error that names what it cannot do.
        return Client::try_from(config.clone());
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(IDLE));
    http.set_keepalive_interval(Some(INTERVAL));
    http.set_tcp_user_timeout(Some(GIVE_UP));
    let https = config.rustls_https_connector_with_connector(http)?;
    // The layers of kube's own builder, without compression, traces of each request, and retries.
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(
            HttpClient::builder(TokioExecutor::new())
                .pool_max_idle_per_host(KEPT)
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(KEPT_FOR)
                .build(https),
        );
    Ok(Client::new(service, config.default_namespace.clone()))
}
