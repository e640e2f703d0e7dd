//! The binary: see the library.

use clap::Parser;
use herald_controller::args::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Ok(Args::parse().run().await?)
}
