//! The binary: see the library.

use clap::Parser;
use herald_controller::args::Args;

// One thread, as in the speaker. Decisions are made by one task in any case. With a thread for each processor glibc's malloc
// keeps a heap for each as well, and a listing that is decoded on several of them stays in all: up to 10 MiB after a
// restart with 1,000 Services.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let ran = Args::parse().run().await;
    herald_telemetry::log::flush();
    Ok(ran?)
}
