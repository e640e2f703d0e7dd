//! Ties watches, index, writer and lease together: one task owns the index, so nothing is locked.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use kube::Client;
use tokio::{
    sync::{mpsc, watch as signal},
    time::{Instant, sleep_until},
};

use crate::{
    action::{Action, Outcome},
    args::{Args, Command},
    index::{Index, Kind},
    lease::Candidate,
    uninstall::{UninstallError, uninstall},
    watch::{self, Input},
    writer::Writer,
};

/// Writes under way at once. 1,000 Services in a second are 3,000 writes of about 5 ms each: 15 at once would do; twice
/// that leaves room for a slow API server, and stays below the share its priority levels give one client.
const CONCURRENT_WRITES: usize = 32;

/// Watch inputs waiting for the index. A burst of 1,000 Services fits; a full channel only makes the watches wait.
const WAITING_INPUTS: usize = 1024;

/// Why the controller cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No API server is configured.
    #[error("no Kubernetes API server: neither a service account nor a kubeconfig could be read")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be made.
    #[error("the Kubernetes client could not be made")]
    Client(#[source] kube::Error),
    /// A log filter that cannot be read.
    #[error("--log: {value:?} is no log filter: write a level (info) or target=level pairs")]
    Log {
        /// As given.
        value: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A watch task ended.
    #[error("the watch of {0:?} has ended")]
    WatchEnded(Kind),
    /// A watch task panicked.
    #[error("a watch has failed")]
    WatchFailed(#[source] tokio::task::JoinError),
    /// The election task ended.
    #[error("the election has ended")]
    ElectionEnded,
    /// Replicas that share a name would both lead.
    #[error("--identity (HERALD_IDENTITY) is not set: give each replica a name of its own, as the pod's name")]
    NoIdentity,
    /// The uninstallation did not end.
    #[error("uninstalling")]
    Uninstall(#[from] UninstallError),
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signal(#[source] std::io::Error),
}

impl Args {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// What keeps it from starting, or a part that ended by itself.
    pub async fn run(self) -> Result<(), RunError> {
        let Self { command, default_provider, namespace, lease_name, identity, log, log_json } = self;
        start_log(&log, log_json)?;
        let config = kube::Config::infer().await.map_err(|e| RunError::Config(Box::new(e)))?;
        let client = Client::try_from(config).map_err(RunError::Client)?;
        if let Some(Command::Uninstall) = command {
            return Ok(uninstall(client, &namespace).await?);
        }
        let identity = identity.ok_or(RunError::NoIdentity)?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), default_provider, identity, "herald-controller starts");

        let (inputs, received) = mpsc::channel(WAITING_INPUTS);
        let watches = watch::start(&client, default_provider, &inputs);
        let (elected, leading) = signal::channel(false);
        let election =
            tokio::spawn(Candidate::new(client.clone(), &namespace, lease_name, identity.clone()).run(elected));
        let writer = Writer::new(client, identity, default_provider);
        let result = serve(&writer, watches, received, leading).await;
        // `leading` is dropped: the election gives the lease back and ends.
        if let Err(error) = election.await {
            tracing::warn!(%error, "the election did not end cleanly");
        }
        result
    }
}

fn start_log(filter: &str, json: bool) -> Result<(), RunError> {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter);
    let filter = parsed.map_err(|source| RunError::Log { value: filter.to_owned(), source })?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(terminal);
    if json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}

async fn serve(
    writer: &Writer,
    mut watches: tokio::task::JoinSet<Kind>,
    mut received: mpsc::Receiver<Input>,
    mut leading: signal::Receiver<bool>,
) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let started = Instant::now();
    let now = || started.elapsed();
    let mut index = Index::new();
    let mut writes = FuturesUnordered::new();
    let mut synced = false;
    loop {
        while writes.len() < CONCURRENT_WRITES
            && let Some(action) = index.poll_action(now())
        {
            writes.push(carry_out(writer, action));
        }
        // With every writer busy nothing can be decided: a timer that has run out must not spin.
        let timeout = index.poll_timeout().filter(|_| writes.len() < CONCURRENT_WRITES);
        tokio::select! {
            Some(input) = received.recv() => {
                take(&mut index, input);
                while let Ok(input) = received.try_recv() {
                    take(&mut index, input);
                }
                if !synced && index.is_synced() {
                    synced = true;
                    tracing::info!(after = ?now(), "every kind is listed");
                }
            }
            Some((action, outcome)) = writes.next(), if !writes.is_empty() => {
                index.handle_outcome(now(), &action, outcome);
            }
            changed = leading.changed() => {
                changed.map_err(|_| RunError::ElectionEnded)?;
                let leads = *leading.borrow_and_update();
                if !leads {
                    writes.clear(); // what is under way may arrive; it carries versions that make it fail if stale
                }
                index.set_leading(leads);
            }
            () = sleep_until(started + timeout.unwrap_or(Duration::ZERO)), if timeout.is_some() => {}
            ended = watches.join_next() => {
                return Err(match ended {
                    Some(Ok(kind)) => RunError::WatchEnded(kind),
                    Some(Err(error)) => RunError::WatchFailed(error),
                    None => RunError::WatchEnded(Kind::Service),
                });
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping; every address stays assigned and announced");
    Ok(())
}

fn take(index: &mut Index, input: Input) {
    match input {
        Input::Apply(object) => index.apply(object),
        Input::Delete(object) => index.delete(&object),
        Input::Replace(kind, objects) => index.replace(kind, objects),
    }
}

async fn carry_out(writer: &Writer, action: Action) -> (Action, Outcome) {
    tracing::debug!(?action, "writes");
    let outcome = writer.write(&action).await;
    (action, outcome)
}
