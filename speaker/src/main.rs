//! The binary: see the library.

use std::io::Write;
use std::process::ExitCode;

use herald_speaker::cli::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse(herald_telemetry::version!())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => herald_telemetry::exit::failed("herald-speaker", &*error),
    }
}

async fn run(command: Cli) -> anyhow::Result<()> {
    match command {
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
