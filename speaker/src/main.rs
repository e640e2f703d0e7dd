//! The binary: see the library.

use anyhow::Context;
use clap::Parser;
use herald_speaker::args::Args;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log: {:?} is not a log filter", args.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    if args.log_json {
        log.json().init()
    } else {
        log.with_ansi(false).init()
    }
    Ok(args.run().await?)
}
