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
            // A task of the runtime, because each wake-up of the future that `main` waits for costs a write to an eventfd
            // and a call of epoll_wait (tokio, runtime/scheduler/current_thread, `Wake for Handle`).
            let ran = tokio::spawn(args.run.run(log)).await?;
            herald_telemetry::log::flush();
            Ok(ran?)
        }
        Cli::Check(args) => Ok(writeln!(std::io::stdout(), "{}", args.run().await?)?),
        Cli::Inspect(args) => Ok(std::io::stdout().write_all(args.run().await?.as_bytes())?),
    }
}
