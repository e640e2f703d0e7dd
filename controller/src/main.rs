//! The binary: see the library.

use clap::Parser;
use herald_controller::args::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ran = Args::parse().run().await;
    herald_telemetry::log::flush();
    Ok(ran?)
}
