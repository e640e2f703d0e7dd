//! The workload of Herald's laboratory: a server that reports which pod answered and which client it saw.
//!
//! * HTTP on 8080: `GET /` (the answering pod), `/hold?ms=N` (the same, N milliseconds later), `/ready` (200 or 503;
//!   `?set=true|false` switches), `/unready` (the same as `/ready?set=false`).
//! * TCP on 9000: one line of JSON, then every byte is echoed.
//! * UDP on 9000: each datagram is answered with the same JSON and the sequence number at its beginning.

mod answer;
mod echo;
mod http;
mod listen;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::answer::Pod;

/// A small echo server that reports its pod, its node and the client address it sees.
#[derive(Debug, Parser)]
#[command(name = "herald-echo", version)]
struct Args {
    /// Address to listen on; the default accepts IPv4 and IPv6.
    #[arg(long, default_value = "::")]
    bind: IpAddr,
    /// Port of the HTTP server.
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Port of the TCP and the UDP echo.
    #[arg(long, default_value_t = 9000)]
    echo_port: u16,
    /// Seconds to keep serving after SIGTERM, like a pod that finishes its connections.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    linger: u64,
    /// Start unready: `/ready` answers 503 until it is switched.
    #[arg(long)]
    start_unready: bool,
    #[command(flatten)]
    pod: Pod,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Args { bind, http_port, echo_port, linger, start_unready, pod } = Args::parse();
    let pod = Arc::new(pod);

    // The handler is registered before the first socket listens: SIGTERM is ignored by default in process 1 of a
    // container.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let web = listen::tcp(bind, http_port).with_context(|| format!("HTTP cannot listen on {bind} port {http_port}"))?;
    let stream =
        listen::tcp(bind, echo_port).with_context(|| format!("TCP cannot listen on {bind} port {echo_port}"))?;
    let datagram =
        listen::udp(bind, echo_port).with_context(|| format!("UDP cannot listen on {bind} port {echo_port}"))?;

    let serve = async {
        tokio::select! {
            ended = http::serve(web, Arc::clone(&pod), !start_unready) => ended.context("the HTTP server ended"),
            ended = echo::tcp(stream, Arc::clone(&pod)) => ended.context("the TCP echo ended"),
            ended = echo::udp(datagram, &pod) => ended.context("the UDP echo ended"),
        }
    };
    let asked_to_stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::time::sleep(Duration::from_secs(linger)).await;
    };
    tokio::select! {
        ended = serve => ended,
        () = asked_to_stop => Ok(()),
    }
}
