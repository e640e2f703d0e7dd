//! The event loop that ties watches, index, writer and lease together: one task owns the index, so nothing is locked.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use herald_crds::service::Selection;
use herald_kube_common::client;
use herald_telemetry::{
    http::{self, Listen, Readiness, Telling},
    log::LogError,
    query::{self, Queries},
};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::{mpsc, watch as signal},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    action::Action,
    api_version,
    args::{Args, Command},
    cluster_key,
    index::{Index, Kind},
    lease::Candidate,
    metrics::{Metrics, Now},
    uninstall::{UninstallError, uninstall},
    watch::{self, Input, Scope},
    watch_health::WatchHealth,
    writer::{Writer, Written, dispatch::Outbox},
};

/// Maximum of watch inputs that wait for the index. A burst of 1,000 Services fits; a full channel only makes the
/// watches wait.
const WAITING_INPUTS: usize = 1024;

/// The reason why the controller cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no configuration of an API server.
    #[error("cannot tell how to reach the API server: {0}; run in a pod with a service account, or set KUBECONFIG")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be made.
    #[error("the Kubernetes client could not be made")]
    Client(#[source] kube::Error),
    /// The log filter cannot be read.
    #[error("--log")]
    Log(#[from] LogError),
    /// The controller cannot listen on the address.
    #[error("cannot listen on {address}: choose another with --metrics-listen, or none")]
    Listen {
        /// The address as given.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A watch task ended.
    #[error("the watch of {} has ended", .0.as_str())]
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
    /// The uninstallation did not complete.
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
    /// When the controller cannot start, or a part of it ends by itself.
    pub async fn run(self) -> Result<(), RunError> {
        // The value is destructured, so that an unused flag does not compile.
        let Self {
            command,
            default_provider,
            include_excluded_nodes,
            lb_class,
            gateway_addresses,
            namespace,
            lease_name,
            identity,
            forget_speakers_after,
            metrics_listen,
            log,
        } = self;
        let log = log.start()?;
        let config = kube::Config::infer().await.map_err(|e| RunError::Config(Box::new(e)))?;
        if let Some(Command::Uninstall) = command {
            // The command runs once, and has neither breaker nor queue: kube's own client retries its requests.
            let client = Client::try_from(config).map_err(RunError::Client)?;
            return Ok(uninstall(client, &namespace).await?);
        }
        let client = client::of(&config).map_err(RunError::Client)?;
        let identity = identity.ok_or(RunError::NoIdentity)?;
        let selection = Selection { default_provider, other_classes: lb_class };
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(
            version,
            ?selection,
            include_excluded_nodes,
            gateway_addresses,
            identity,
            "herald-controller starts"
        );

        let (inputs, received) = mpsc::channel(WAITING_INPUTS);
        let scope = Scope { selection: selection.clone(), include_excluded_nodes, gateway_addresses };
        let watches = watch::start(&client, &namespace, scope, &inputs);
        let (elected, leading) = signal::channel(false);
        let (blind, told_blind) = signal::channel(false);
        let candidate = Candidate::new(client.clone(), &namespace, lease_name, identity.clone());
        let election = tokio::spawn(candidate.run(elected, told_blind));
        // The tasks stop when this set is dropped at the return.
        let mut side_tasks = JoinSet::new();
        side_tasks.spawn(api_version::report(client.clone()));
        side_tasks.spawn(cluster_key::keep_filled(client.clone(), namespace, leading.clone()));
        let (ask, asked) = query::channel();
        if let Listen::On(address) = metrics_listen {
            // Without this error the probes would fail later, and with less detail.
            let listener = http::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
            side_tasks.spawn(http::serve(listener, ask, log));
        }
        let writer = Writer::new(client, identity, selection);
        let index = Index::new(Timestamp::now())
            .forget_speakers_after(Duration::from_secs(forget_speakers_after))
            .honour_gateways(gateway_addresses);
        let result =
            serve(index, &writer, Watched { tasks: watches, received }, Leadership { leading, blind }, asked).await;
        // The election releases the lease and ends when the last receiver of `elected` is dropped; side tasks hold
        // some.
        drop(side_tasks);
        if let Err(error) = election.await {
            tracing::warn!(%error, "the task of the election failed");
        }
        result
    }
}

/// The inputs from the API server.
struct Watched {
    tasks: JoinSet<Kind>,
    received: mpsc::Receiver<Input>,
}

/// The election's report to the loop, and the loop's report to the election.
struct Leadership {
    leading: signal::Receiver<bool>,
    blind: signal::Sender<bool>,
}

async fn serve(
    mut index: Index,
    writer: &Writer,
    mut watched: Watched,
    mut leadership: Leadership,
    mut asked: Queries<Telling>,
) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let started = Instant::now();
    let now = || started.elapsed();
    let mut outbox = Outbox::default();
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let mut writes = FuturesUnordered::new();
    let mut synced = false;
    let mut health = WatchHealth::default();
    loop {
        tell_blindness(&health, now(), &leadership.blind, &mut index);
        while writes.len() < outbox.limit(now())
            && let Some(action) = outbox.next(|| index.poll_action(now()))
        {
            writes.push(carry_out(writer, action, now()));
        }
        let timeout = if writes.len() < outbox.limit(now()) {
            index.poll_timeout()
        } else {
            // The loop cannot decide anything now: an expired timer of the index must not make it spin.
            outbox.timeout(now())
        };
        let timeout = timeout.into_iter().chain(health.timeout(now())).min();
        tokio::select! {
            Some(input) = watched.received.recv() => {
                take(&mut index, &mut health, input, now());
                while let Ok(input) = watched.received.try_recv() {
                    take(&mut index, &mut health, input, now());
                }
                if !synced && index.is_synced() {
                    synced = true;
                    tracing::info!(after = ?now(), "every kind is listed");
                }
            }
            Some(Ended { action, begun, written }) = writes.next(), if !writes.is_empty() => {
                metrics.written(&action, now() - begun, written.failure.as_ref().map(|(failure, _)| *failure));
                outbox.ended(now(), begun, &action, written.failure);
                index.handle_outcome(now(), &action, written.outcome);
            }
            changed = leadership.leading.changed() => {
                changed.map_err(|_| RunError::ElectionEnded)?;
                let leads = *leadership.leading.borrow_and_update();
                if !leads {
                    writes.clear(); // requests under way carry versions: a stale one fails
                }
                index.set_leading(leads);
            }
            Some(reply) = asked.recv() => {
                let blind = health.blind(now());
                let state = Now { leading: *leadership.leading.borrow(), under_way: writes.len(), blind };
                match metrics.encode(&index.tally(), state) {
                    // The client that sent the query may be gone.
                    Ok(metrics) => drop(reply.send(Telling { metrics, readiness: readiness(&index, &health, now()) })),
                    Err(error) => tracing::error!(%error, "cannot render the metrics"),
                }
            }
            () = sleep_until(started + timeout.unwrap_or(Duration::ZERO)), if timeout.is_some() => {}
            ended = watched.tasks.join_next() => {
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

/// Reports a change of blindness of this replica: to the log, to the index and to the election.
fn tell_blindness(health: &WatchHealth, now: Duration, told: &signal::Sender<bool>, index: &mut Index) {
    let complaint = health.complaint(now);
    let blind = complaint.is_some();
    if *told.borrow() == blind {
        return;
    }
    told.send_replace(blind);
    index.set_blind(blind);
    match complaint {
        Some(complaint) => tracing::warn!("this replica {complaint}"),
        None => tracing::info!("this replica is no longer blind: every watch makes progress"),
    }
}

/// Returns whether this replica is ready. A standby is ready as well: it has listed what a leader needs, and its
/// watches go on.
fn readiness(index: &Index, health: &WatchHealth, now: Duration) -> Readiness {
    let missing: Vec<_> = index.unlisted().map(Kind::as_str).collect();
    if !missing.is_empty() {
        return Readiness::Waiting(format!("waits for the first list of {}", missing.join(", ")));
    }
    health.complaint(now).map_or(Readiness::Ready, Readiness::Waiting)
}

fn take(index: &mut Index, health: &mut WatchHealth, input: Input, now: Duration) {
    match input {
        Input::Current(kind) => health.progressed(kind, now),
        Input::Broken(kind) => {
            health.broke(kind, now);
            index.note_broken(kind);
        }
        Input::Apply(object) => index.apply(object),
        Input::Delete(object) => index.delete(&object.identity()),
        Input::Replace(kind, objects) => index.replace(kind, objects),
    }
}

/// A write that has ended.
struct Ended {
    action: Action,
    begun: Duration,
    written: Written,
}

async fn carry_out(writer: &Writer, action: Action, begun: Duration) -> Ended {
    tracing::debug!(?action, "writes");
    let written = writer.write(&action).await;
    Ended { action, begun, written }
}
