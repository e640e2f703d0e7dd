//! `herald-lab`: a real Kubernetes cluster on one machine, its faults, its probes, its scenarios.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // The client library reports every refused connection, also those that a wait for the API server expects.
    let filter = EnvFilter::try_from_env("HERALD_LAB_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // {:#}: the whole chain of causes, without a backtrace whatever RUST_BACKTRACE says.
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "where a command line complains")]
fn complain(error: &anyhow::Error) {
    eprintln!("herald-lab: {error:#}");
}
