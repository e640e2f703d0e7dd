//! The speaker put together: facts from the API, the kernel and the wire go into the [`Coordinator`](crate::coordinator),
//! and the loop carries out its outputs. All of it runs on one thread but for the answers (`sockets::Responder`); the
//! coordinator belongs to the one loop here.

mod kept;
mod running;
mod startup;

use std::{io, time::Duration};

use herald_telemetry::log::Log;

use crate::{
    args::RunArgs,
    sources::{Deadlines, Step},
};

/// Time after which a shutdown is given up. A shutdown takes 20 ms, or, where addresses are handed over, 2 s
/// (`herald_protocol`, engine/shutdown.rs): after this time it has failed, and the kubelet would kill the container at
/// 5 s.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// The reason why the speaker stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The process may not open packet sockets.
    #[error("cannot open a packet socket: {0}; the container needs the capability NET_RAW and uid 0")]
    PacketSocket(#[source] io::Error),
    /// The configuration to reach the API server is missing.
    #[error("cannot tell how to reach the API server: {0}; run in a pod with a service account, or set KUBECONFIG")]
    Client(#[source] Box<kube::Error>),
    /// The thread that answers cannot be started.
    #[error("cannot start the thread that answers ARP and Neighbour Discovery: {0}")]
    Responder(#[source] io::Error),
    /// The process cannot wait for signals.
    #[error("cannot wait for SIGTERM: {0}")]
    Signal(#[source] io::Error),
    /// A part ended that should never end.
    #[error("{0} ended")]
    Ended(String),
}

impl RunArgs {
    /// Runs the speaker until SIGTERM or SIGINT. A restart moves nothing; a node that is cordoned, deleted or drained
    /// first hands everything over.
    ///
    /// # Errors
    /// If a requirement is missing, or a part of the speaker failed. A speaker without the part would answer for
    /// addresses that it no longer knows, so it stops as a whole.
    pub async fn run(self, log: Log) -> Result<(), RunError> {
        let (mut speaker, mut sources) = self.start(log).await?;
        tracing::info!("started");
        let mut stop_by = None;
        loop {
            speaker.work();
            if speaker.is_finished() {
                break;
            }
            let deadlines = Deadlines { stop: stop_by, ..speaker.deadlines() };
            match sources.next(speaker.start, deadlines).await {
                Step::Frame(arrival) => speaker.receive(&arrival),
                // Frames that came before a timer or a fact have to come first, or this node claims an address that
                // another has just claimed. They lie in the sockets if this process has not been run for a while.
                Step::Timers => {
                    speaker.hear_out(&mut sources.frames);
                    speaker.handle_timeout();
                }
                Step::Fact(fact) => {
                    speaker.hear_out(&mut sources.frames);
                    speaker.handle(fact);
                }
                Step::Scrape(reply) => speaker.reply_metrics(reply),
                Step::Probe(reply) => speaker.reply_health(reply),
                Step::Inspection(reply) => speaker.reply_report(reply),
                Step::KeepClaims => speaker.keep_claims(),
                Step::KeepView => speaker.keep_view(),
                Step::Signal => stop_by = stop_by.or_else(|| Some(speaker.terminate())),
                Step::StopNow => {
                    tracing::warn!(after = ?STOP_WITHIN, "some segments have not stopped in time");
                    break;
                }
                Step::Ended(part) => return Err(RunError::Ended(part)),
            }
        }
        speaker.keep_claims();
        tracing::info!("stopped; the status of addresses stays as it is");
        Ok(())
    }
}
