//! The speaker put together: facts from the API, the kernel and the wire go into the [`Coordinator`], and the loop
//! carries out its outputs. All of it runs on one thread; the coordinator belongs to the one loop here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use herald_crds::advertisement::InterfacePatterns;
use herald_protocol::timers::Timers;
use herald_telemetry::{
    http::{self, Listen, Readiness, Telling},
    log::Log,
    query::{self, Queries},
};
use jiff::Timestamp;
use kube::Client;
use tokio::{
    sync::{mpsc, oneshot, watch as latest},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    api_objects::{Change, ServiceName, SliceSelection},
    args::RunArgs,
    coordinator::{ApiFact, Config, Coordinator, Family, Input, Now, Output, Purpose, Restored, SocketFailure},
    event_log,
    event_writer::{self, Post},
    inspect::{Report, SegmentReport, socket},
    interfaces::Selection,
    kube_proxy::Asker,
    metrics::{Metrics, Reading},
    netlink,
    readiness::Health,
    saved_state::{Claims, View},
    sockets::{Arrival, Body, SegmentError, Segments},
    sources::{self, Deadlines, Sources, Step},
    state_dir::{Name, StateDir},
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
        let (writes, to_write) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let signals = sources::signals(&mut tasks).map_err(RunError::Signal)?;
        watch::start(&mut tasks, &client, &node_name, include_excluded_nodes, &inputs);
        let reading_keys = watch::cluster_key::watch(client.clone(), namespace, inputs.clone());
        tasks.spawn(async move {
            reading_keys.await;
            "the watch on the Secret"
        });
        let (selections, selected) = latest::channel(None);
        let from_kernel = netlink::run(inputs.clone(), selected);
        tasks.spawn(async move {
            if let Err(error) = from_kernel.await {
                tracing::error!(%error, "cannot read the interfaces from the kernel");
            }
            "netlink"
        });
        let writing = client.clone();
        tasks.spawn(async move {
            status_writer::run(writing, to_write).await;
            "the writer"
        });
        let (post, to_post) = event_writer::queue();
        let posting = event_writer::run(client.clone(), node_name.clone(), to_post);
        tasks.spawn(async move {
            posting.await;
            "the writer of events"
        });
        let scrapes = serve_metrics(&mut tasks, metrics_listen, log).await;
        let (inspections, probes) = serve_inspection(&mut tasks, &state_dir);
        let state = StateDir::open(&state_dir);
        let restored = state.as_ref().map(restore).unwrap_or_default();
        let (claims, kept_claims) = latest::channel(Arc::new(Claims::new()));
        let (view, kept_view) = latest::channel(Arc::new(View::default()));
        if let Some(state) = state.clone() {
            tasks.spawn({
                let state = state.clone();
                async move {
                    state.keep_claims(kept_claims).await;
                    "the state of the claims"
                }
            });
            tasks.spawn(async move {
                state.keep_view(kept_view).await;
                "the state of the view"
            });
        }

        let timers = Timers { hello, hello_per_peer };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let seed = fastrand::u64(..);
        let config = Config { node: node_name, interfaces, version, announcing: announce.into(), timers, seed };
        let mut speaker = Running {
            start: Instant::now(),
            machine: Coordinator::new(config, restored),
            segments: Segments::new(arrivals, promiscuous),
            selections,
            writes,
            inputs,
            asker: Asker::default(),
            client,
            slices: None,
            claims: Kept::new(claims, CLAIMS_SETTLE),
            view: Kept::new(view, VIEW_SETTLE),
            state,
            metrics: Metrics::new(env!("CARGO_PKG_VERSION")),
            post,
            refused: BTreeSet::new(),
            sockets: BTreeMap::new(),
            finished: false,
        };
        tracing::info!("started");
        let mut sources =
            Sources { frames, facts, scrapes, probes, inspections, signals, tasks, turn: Turn::default() };
        let mut stop_by = None;
        let mut heard_out = None;
        loop {
            speaker.work();
            if speaker.finished {
                break;
            }
            let timeout = speaker.machine.poll_timeout();
            let deadlines =
                Deadlines { timers: timeout, claims: speaker.claims.due, view: speaker.view.due, stop: stop_by };
            match sources.next(speaker.start, deadlines).await {
                Step::Frame(arrival) => speaker.receive(&arrival),
                // Timers are due and frames lie in the sockets after a pause. Frames that came before a timer have to
                // come first, or this node claims an address that another has just claimed. The yield lets the runtime
                // look at the sockets and their tasks read them; then the loop takes in the frames that they have read.
                Step::Timers if heard_out != timeout => {
                    heard_out = timeout;
                    tokio::task::yield_now().await;
                }
                Step::Timers => speaker.machine.handle_timeout(speaker.now()),
                Step::Fact(fact) => speaker.machine.handle(speaker.now(), fact),
                Step::Scrape(reply) => speaker.reply_metrics(reply),
                // The kubelet may have given up.
                Step::Probe(reply) => drop(reply.send(speaker.machine.health(speaker.start.elapsed()))),
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

/// A value that is kept in a file, and the time at which its next version is due.
struct Kept<T> {
    sender: latest::Sender<T>,
    settle: Duration,
    due: Option<Duration>,
}

impl<T> Kept<T> {
    fn new(sender: latest::Sender<T>, settle: Duration) -> Self {
        Self { sender, settle, due: None }
    }

    fn changed(&mut self, now: Duration) {
        self.due.get_or_insert(now + self.settle);
    }

    fn keep(&mut self, value: T) {
        self.due = None;
        // The channel has no receiver if there is no state directory.
        self.sender.send_replace(value);
    }
}

/// The coordinator, with the parts that carry out its outputs.
struct Running {
    start: Instant,
    machine: Coordinator,
    segments: Segments,
    /// The selection of interfaces; `None`: the selection is not known yet.
    selections: latest::Sender<Option<Selection>>,
    writes: mpsc::UnboundedSender<Write>,
    inputs: mpsc::Sender<Input>,
    client: Client,
    asker: Asker,
    /// The watch on EndpointSlices, while any address depends on them.
    slices: Option<AbortOnDropHandle<()>>,
    claims: Kept<Arc<Claims>>,
    view: Kept<Arc<View>>,
    /// The directory of both.
    state: Option<StateDir>,
    metrics: Metrics,
    post: Post,
    /// The refusals to send that were logged: segment and error.
    refused: BTreeSet<(u32, String)>,
    /// The refusal for the sockets of each segment that was logged last.
    sockets: BTreeMap<u32, SocketFailure>,
    finished: bool,
}

impl Running {
    fn now(&self) -> Now {
        Now { monotonic: self.start.elapsed(), wall: Timestamp::now() }
    }

    fn receive(&mut self, Arrival { segment, kind, body }: &Arrival) {
        let now = self.now();
        match body {
            Body::Hello(bytes) => self.machine.handle_hello(now, *segment, bytes),
            Body::Arp(frame) | Body::Ipv4(frame) => {
                self.machine.handle_frame(now, *segment, *kind, frame, Family::Ipv4);
            }
            Body::Ipv6(frame) => self.machine.handle_frame(now, *segment, *kind, frame, Family::Ipv6),
        }
    }

    fn reply_metrics(&mut self, reply: oneshot::Sender<Telling>) {
        let readings: Vec<Reading> = self
            .machine
            .segments()
            .map(|(interface, segment)| Reading {
                interface: interface.to_owned(),
                totals: segment.totals(),
                counters: segment.counters(),
                keys: segment.key_uses(),
            })
            .collect();
        self.metrics.read(&readings);
        for name in Name::ALL {
            let saved = self.state.as_ref().is_some_and(|state| !state.is_failing(name));
            self.metrics.state(name.file(), saved);
        }
        match self.metrics.encode() {
            // The speaker has nothing to wait for: until it has listed, it guards what it kept. The asker may have
            // gone.
            Ok(metrics) => drop(reply.send(Telling { metrics, readiness: Readiness::Ready })),
            Err(error) => tracing::error!(%error, "cannot render the metrics"),
        }
    }

    fn reply_report(&self, reply: oneshot::Sender<Report>) {
        let now = self.start.elapsed();
        let segments = self.machine.segments().map(|(interface, segment)| SegmentReport {
            interface: interface.to_owned(),
            snapshot: segment.snapshot(now),
        });
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.machine.node().to_owned(),
            uptime_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            segments: segments.collect(),
            links: self.machine.links(),
            links_left_out: self.machine.links_left_out(),
        };
        // The asker may have gone.
        drop(reply.send(report));
    }

    fn terminate(&mut self) -> Duration {
        let now = self.now();
        self.machine.handle(now, Input::Terminate);
        now.monotonic + STOP_WITHIN
    }

    fn keep_claims(&mut self) {
        let claims = self.machine.saved_claims();
        self.claims.keep(Arc::new(claims));
    }

    fn keep_view(&mut self) {
        match self.machine.saved_view() {
            Some(view) => self.view.keep(Arc::new(view)),
            None => self.view.due = None,
        }
    }

    /// Carries out the outputs of the coordinator.
    fn work(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Select(selection) => drop(self.selections.send_replace(Some(selection))),
                Output::Segments(indices) => self.open(&indices),
                Output::Listen { segment, addresses } => self.listen(segment, &addresses),
                Output::Hello { segment, from, bytes } => {
                    if let Err(error) = self.segments.hello(segment, from, &bytes) {
                        self.note_refused(segment, &error);
                    }
                }
                Output::Transmit { segment, frame, purpose } => {
                    // A lost frame is asked for or announced again.
                    match (self.segments.transmit(segment, &frame), purpose) {
                        (Err(error), _) => self.note_refused(segment, &error),
                        (Ok(()), Purpose::Answer(address)) => self.metrics.answered(address),
                        (Ok(()), Purpose::Announcement(address)) => self.metrics.announced(address),
                        (Ok(()), Purpose::Question) => {}
                    }
                }
                Output::WriteVip(write) => self.write(Write::Vip(write)),
                Output::WriteSpeaker(write) => self.write(Write::Speaker(write)),
                Output::WatchSlices(selection) => self.watch_slices(selection),
                Output::AskProxy { address, service, target } => self.ask_proxy(address, service, target),
                Output::ClaimsChanged => self.claims.changed(self.start.elapsed()),
                Output::ViewChanged => self.view.changed(self.start.elapsed()),
                Output::Event(event) => {
                    self.metrics.event(&event.interface, &event.what);
                    event_log::tell(&event, |id| self.machine.name_of(id));
                }
                Output::Post(event) => self.post.post(event),
                Output::Finished => self.finished = true,
            }
        }
    }

    /// Counts a frame that the kernel refuses to send, and logs each kind of refusal once for each segment: if a frame
    /// that passes made the refusal news again, a link that takes Hellos but no claim lists would fill the log.
    fn note_refused(&mut self, segment: u32, error: &SegmentError) {
        if self.refused.insert((segment, error.to_string())) {
            tracing::warn!(%error, "the kernel refuses to send frames");
        }
        self.machine.count_unsent(segment);
        // Netlink reports the same in a moment, unless another interface has its index by then.
        if error.is_interface_gone() && self.segments.is_open(segment) {
            self.segments.close(segment);
            self.sockets_fail(segment, SocketFailure::Open(error.to_string()));
        }
    }

    fn open(&mut self, indices: &BTreeSet<u32>) {
        self.segments.retain(|segment| indices.contains(&segment));
        self.refused.retain(|(segment, _)| indices.contains(segment));
        self.sockets.retain(|segment, _| indices.contains(segment));
        for segment in indices {
            if let Err(error) = self.segments.open(*segment) {
                self.sockets_fail(*segment, SocketFailure::Open(error.to_string()));
            }
        }
    }

    /// Sets the addresses to listen for; a segment that is not open gets them once it is.
    fn listen(&mut self, segment: u32, addresses: &BTreeSet<IpAddr>) {
        if !self.segments.is_open(segment) {
            return;
        }
        match self.segments.listen(segment, addresses) {
            Err(error) => self.sockets_fail(segment, SocketFailure::Listen(error.to_string())),
            Ok(()) => {
                if self.sockets.remove(&segment).is_some() {
                    tracing::info!(segment, "the kernel accepts the sockets, filters and groups again");
                    self.machine.handle(self.now(), Input::Sockets(segment, Ok(())));
                }
            }
        }
    }

    /// Logs a failure once; the coordinator schedules the next attempt.
    fn sockets_fail(&mut self, segment: u32, failure: SocketFailure) {
        if self.sockets.get(&segment) != Some(&failure) {
            match &failure {
                SocketFailure::Open(error) => tracing::error!(error, "cannot open the packet sockets of a segment"),
                SocketFailure::Listen(error) => {
                    tracing::error!(error, "cannot set the ARP/ND filter or multicast group");
                }
            }
            self.sockets.insert(segment, failure.clone());
        }
        self.machine.handle(self.now(), Input::Sockets(segment, Err(failure)));
    }

    fn write(&self, write: Write) {
        // The writer ends only with the loop, which reports that.
        if let Err(error) = self.writes.send(write) {
            tracing::error!(object = ?error.0.key(), "the writer is gone");
        }
    }

    /// Asks kube-proxy in a task that ends by itself, within the time the coordinator waits.
    fn ask_proxy(&self, address: IpAddr, service: ServiceName, target: SocketAddr) {
        let (inputs, asker) = (self.inputs.clone(), self.asker.clone());
        tokio::spawn(async move {
            if asker.synced(target, &service).await && inputs.send(Input::ProxySynced(address)).await.is_err() {
                tracing::debug!("the answer of kube-proxy is no longer awaited");
            }
        });
    }

    /// Replaces the watch on EndpointSlices.
    fn watch_slices(&mut self, selection: SliceSelection) {
        self.slices = None;
        if selection.is_empty() {
            let now = self.now();
            let none =
                [ApiFact::Slice(Change::Listing), ApiFact::Slice(Change::Listed), ApiFact::SlicesCover(selection)];
            none.into_iter().for_each(|fact| self.machine.handle(now, Input::Api(fact)));
            return;
        }
        let watching = tokio::spawn(watch::slices(self.client.clone(), selection, self.inputs.clone()));
        self.slices = Some(AbortOnDropHandle::new(watching));
    }
}
