//! The binary: see the library.

use std::process::ExitCode;

use herald_controller::args::Args;

// One thread, as in the speaker. Decisions are made by one task in any case. With a thread for each processor glibc's malloc
// keeps a heap for each as well, and a listing that is decoded on several of them stays in all: up to 10 MiB after a
// restart with 1,000 Services.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let ran = Args::read(herald_telemetry::version!()).run().await;
    herald_telemetry::log::flush();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => herald_telemetry::exit::failed("herald-controller", &error),
    }
}
