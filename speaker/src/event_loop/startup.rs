//! The start of the speaker: its tasks, and what an earlier run left.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use herald_crds::advertisement::InterfacePatterns;
use herald_protocol::timers::Timers;
use herald_telemetry::{
    http::{self, Listen, Telling},
    log::Log,
    query::{self, Queries},
};
use kube::Client;
use tokio::{
    sync::{mpsc, watch as latest},
    task::JoinSet,
};

use super::{RunError, kept::Kept, running::Running};
use crate::{
    args::RunArgs,
    coordinator::{Config, Coordinator, Input, Restored},
    event_writer::{self, Post},
    inspect::{Report, socket},
    interfaces::Selection,
    kube_proxy::Asker,
    metrics::Metrics,
    netlink,
    readiness::Health,
    saved_state::{Claims, View},
    sockets::{Responder, Segments},
    sources::{self, Sources},
    state_dir::StateDir,
    status_queue::Write,
    status_writer,
    turn::Turn,
    watch,
};

/// Number of facts that wait at most: a burst beyond this waits in the watches.
const INPUTS: usize = 256;
/// Number of frames that wait at most: beyond this they wait in the sockets' buffers.
const ARRIVALS: usize = 256;
/// Time between a change of the claims and their writing: a take-over of 1,000 addresses changes them 1,000 times.
const CLAIMS_SETTLE: Duration = Duration::from_millis(20);
/// Time between a change of the view and its writing: the view is read after a restart only, and may be a second old.
const VIEW_SETTLE: Duration = Duration::from_secs(1);

impl RunArgs {
    /// Starts the tasks, and returns the coordinator with its parts, and the sources of its steps.
    ///
    /// # Errors
    /// If a requirement is missing.
    pub(super) async fn start(self, log: Log) -> Result<(Running, Sources), RunError> {
        // The pattern names every field, so a flag that is not used does not compile.
        let Self {
            node_name,
            namespace,
            include_excluded_nodes,
            interfaces: InterfacePatterns(interfaces),
            announce,
            promiscuous,
            hello,
            hello_per_peer,
            state_dir,
            metrics_listen,
        } = self;
        Segments::check_permission().map_err(RunError::PacketSocket)?;
        let client = client().await.map_err(|error| RunError::Client(Box::new(error)))?;
        let (inputs, facts) = mpsc::channel(INPUTS);
        let (arrivals, frames) = mpsc::channel(ARRIVALS);
        let mut tasks = JoinSet::new();
        let signals = sources::signals(&mut tasks).map_err(RunError::Signal)?;
        watch::start(&mut tasks, &client, &node_name, include_excluded_nodes, &inputs);
        watch_keys(&mut tasks, &client, namespace, &inputs);
        let selections = watch_interfaces(&mut tasks, &inputs);
        let writes = write_statuses(&mut tasks, &client);
        let post = post_events(&mut tasks, &client, &node_name);
        let scrapes = serve_metrics(&mut tasks, metrics_listen, log).await;
        let (inspections, probes) = serve_inspection(&mut tasks, &state_dir);
        let (state, restored) = match StateDir::open(&state_dir) {
            Some(state) => (Some(state.clone()), restore(&state)),
            None => (None, Restored::default()),
        };
        let (claims, view) = keep(&mut tasks, state.as_ref());

        let config = Config {
            node: node_name,
            interfaces,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            announcing: announce.into(),
            timers: Timers { hello, hello_per_peer },
            seed: fastrand::u64(..),
        };
        let (start, metrics) = (Instant::now(), Metrics::new(env!("CARGO_PKG_VERSION")));
        let responder = Responder::start(start, metrics.answered()).map_err(RunError::Responder)?;
        let speaker = Running {
            start,
            machine: Coordinator::new(config, restored),
            segments: Segments::new(arrivals, responder, promiscuous),
            selections,
            writes,
            inputs,
            asker: Asker::default(),
            client,
            slices: None,
            claims,
            view,
            state,
            metrics,
            post,
            refused: BTreeSet::new(),
            sockets: BTreeMap::new(),
            finished: false,
        };
        let turn = Turn::default();
        Ok((speaker, Sources { frames, facts, scrapes, probes, inspections, signals, tasks, turn }))
    }
}

/// Reads the cluster's keys.
fn watch_keys(tasks: &mut JoinSet<&'static str>, client: &Client, namespace: String, inputs: &mpsc::Sender<Input>) {
    let reading = watch::cluster_key::watch(client.clone(), namespace, inputs.clone());
    tasks.spawn(async move {
        reading.await;
        "the watch on the Secret"
    });
}

/// Reads the interfaces from the kernel. Returns the sender of the selection of interfaces to use.
fn watch_interfaces(
    tasks: &mut JoinSet<&'static str>,
    inputs: &mpsc::Sender<Input>,
) -> latest::Sender<Option<Selection>> {
    let (selections, selected) = latest::channel(None);
    let reading = netlink::run(inputs.clone(), selected);
    tasks.spawn(async move {
        if let Err(error) = reading.await {
            tracing::error!(%error, "cannot read the interfaces from the kernel");
        }
        "netlink"
    });
    selections
}

/// Writes statuses. Returns the sender of what is to be written.
fn write_statuses(tasks: &mut JoinSet<&'static str>, client: &Client) -> mpsc::UnboundedSender<Write> {
    let (writes, to_write) = mpsc::unbounded_channel();
    let client = client.clone();
    tasks.spawn(async move {
        status_writer::run(client, to_write).await;
        "the writer"
    });
    writes
}

/// Posts Kubernetes Events.
fn post_events(tasks: &mut JoinSet<&'static str>, client: &Client, node: &str) -> Post {
    let (post, to_post) = event_writer::queue();
    let posting = event_writer::run(client.clone(), node.to_owned(), to_post);
    tasks.spawn(async move {
        posting.await;
        "the writer of events"
    });
    post
}

/// Keeps the claims and the view in files, if there is a directory for them.
fn keep(tasks: &mut JoinSet<&'static str>, state: Option<&StateDir>) -> (Kept<Arc<Claims>>, Kept<Arc<View>>) {
    let (claims, kept_claims) = latest::channel(Arc::new(Claims::new()));
    let (view, kept_view) = latest::channel(Arc::new(View::default()));
    if let Some(state) = state {
        let keeping = state.clone();
        tasks.spawn(async move {
            keeping.keep_claims(kept_claims).await;
            "the state of the claims"
        });
        let keeping = state.clone();
        tasks.spawn(async move {
            keeping.keep_view(kept_view).await;
            "the state of the view"
        });
    }
    (Kept::new(claims, CLAIMS_SETTLE), Kept::new(view, VIEW_SETTLE))
}

/// Serves metrics and health. If they cannot be served, the speaker still does its work.
async fn serve_metrics(tasks: &mut JoinSet<&'static str>, listen: Listen, log: Log) -> Queries<Telling> {
    let (ask, asked) = query::channel();
    if let Listen::On(address) = listen {
        match http::bind(address).await {
            Ok(listener) => {
                tasks.spawn(async move {
                    http::serve(listener, ask, log).await;
                    "the metrics server"
                });
            }
            Err(error) => tracing::error!(%address, %error, "cannot serve metrics: set --metrics-listen"),
        }
    }
    asked
}

/// Answers `herald-speaker inspect` and `herald-speaker check`. If the socket cannot be opened, the speaker still does
/// its work, until the kubelet's probes have failed often enough.
fn serve_inspection(tasks: &mut JoinSet<&'static str>, state_dir: &Path) -> (Queries<Report>, Queries<Health>) {
    let (report, asked_for_report) = query::channel();
    let (health, asked_for_health) = query::channel();
    match socket::listen(state_dir) {
        Ok(listener) => {
            tasks.spawn(async move {
                socket::serve(listener, socket::Sources { report, health }).await;
                "the inspection socket"
            });
        }
        Err(error) => tracing::warn!(dir = %state_dir.display(), %error, "cannot open the inspection socket"),
    }
    (asked_for_report, asked_for_health)
}

async fn client() -> kube::Result<Client> {
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    herald_kube_common::client::of(&config)
}

/// Returns the state that an earlier run left.
fn restore(state: &StateDir) -> Restored {
    let claims = state.claims();
    Restored {
        same_boot: claims.as_ref().is_some_and(|claims| claims.same_boot),
        claims: claims.map(|claims| claims.content).unwrap_or_default(),
        view: state.view().map(|view| view.content),
    }
}
