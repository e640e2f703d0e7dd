//! The binary: see the library.

use std::io::Write;

use herald_speaker::cli::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::Run(args) => {
            let log = args.log.start()?;
            let ran = args.run.run(log).await;
            herald_telemetry::log::flush();
            Ok(ran?)
        }
        Cli::Check(args) => Ok(writeln!(std::io::stdout(), "{}", args.run().await?)?),
        Cli::Inspect(args) => Ok(std::io::stdout().write_all(args.run().await?.as_bytes())?),
    }
}
