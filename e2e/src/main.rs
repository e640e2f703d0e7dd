//! `herald-lab`: a real Kubernetes cluster on one machine, with faults, probes and scenarios.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // kube_client logs every refused connection, also those that a wait for the API server expects.
    let filter = EnvFilter::try_from_env("HERALD_LAB_LOG").unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The format {:#} prints the whole chain of causes without a backtrace, whatever RUST_BACKTRACE is set to.
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "where a command line complains")]
fn complain(error: &anyhow::Error) {
    eprintln!("herald-lab: {error:#}");
}
