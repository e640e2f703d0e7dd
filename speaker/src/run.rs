//! The speaker put together: facts from the API, the kernel and the wire go into the [`Machine`], and what it wants
//! done is done. One thread; the machine belongs to the one loop here.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use herald_observe::{
    ask::{self, Asked},
    log::Log,
    server::{self, Listen, Readiness, Telling},
};
use herald_segment::timers::Timers;
use jiff::Timestamp;
use kube::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch as latest},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    args::RunArgs,
    cluster::{Change, ServiceName},
    events::{self, writer::Post},
    frame_burst::FrameBurst,
    health::Asker,
    inspect::{self, Report, SegmentReport, socket::Sources},
    keys,
    machine::{ApiFact, Config, Family, Input, Machine, Now, Output, Purpose, Restored},
    metrics::{Metrics, Reading},
    netlink,
    queue::Write,
    readiness::Health,
    state::{Claims, StateDir, View},
    tell, watch,
    wire::{Arrival, Body, SegmentError, Segments},
    writer,
};

/// Facts that wait: a burst beyond this waits in the watches.
const INPUTS: usize = 256;
/// Frames that wait: beyond this they wait in the sockets' buffers.
const ARRIVALS: usize = 256;
/// After a change of the claims, or of the view, this long passes before it is written: a take-over of 1,000 addresses
/// changes them 1,000 times.
const CLAIMS_SETTLE: Duration = Duration::from_millis(20);
/// The view is read after a restart only, and may be of a second ago.
const VIEW_SETTLE: Duration = Duration::from_secs(1);
/// A shutdown takes 20 ms, or, where addresses are handed over, 2 s (`herald_segment`, stopping): after this something
/// is wrong, and the kubelet would kill the container at 5 s.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// Why the speaker stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No capability.
    #[error("cannot open a packet socket: {0}; the container needs the capability NET_RAW and uid 0")]
    PacketSocket(#[source] io::Error),
    /// No API server.
    #[error("cannot tell how to reach the API server: {0}; run in a pod with a service account, or set KUBECONFIG")]
    Client(#[source] Box<kube::Error>),
    /// No signals.
    #[error("cannot wait for SIGTERM: {0}")]
    Signal(#[source] io::Error),
    /// A part that never ends did.
    #[error("{0} ended")]
    Ended(String),
}

impl RunArgs {
    /// Runs the speaker until SIGTERM or SIGINT. A restart moves nothing; on a node that is cordoned, deleted or
    /// drained, everything is handed over first.
    ///
    /// # Errors
    /// What it needs is missing, or a part of it failed. Without a part it would answer for what it no longer knows,
    /// so it stops as a whole.
    pub async fn run(self, log: Log) -> Result<(), RunError> {
        // Destructured, so that a flag that is not used does not compile.
        let Self {
            node_name,
            namespace,
            include_excluded_nodes,
            announce_rate,
            hello,
            hello_per_peer,
            state_dir,
            metrics_listen,
        } = self;
        Segments::check_permission().map_err(RunError::PacketSocket)?;
        let client = client().await.map_err(|error| RunError::Client(Box::new(error)))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;

        let (inputs, mut facts) = mpsc::channel(INPUTS);
        let (arrivals, mut frames) = mpsc::channel(ARRIVALS);
        let (writes, to_write) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        watch::start(&mut tasks, &client, &node_name, include_excluded_nodes, &inputs);
        let reading_keys = keys::watch(client.clone(), namespace, inputs.clone());
        tasks.spawn(async move {
            reading_keys.await;
            "the watch on the Secret"
        });
        let from_kernel = netlink::run(inputs.clone());
        tasks.spawn(async move {
            if let Err(error) = from_kernel.await {
                tracing::error!(%error, "the interfaces are unknown");
            }
            "netlink"
        });
        let writing = client.clone();
        tasks.spawn(async move {
            writer::run(writing, to_write).await;
            "the writer"
        });
        let (post, to_post) = events::writer::queue();
        let posting = events::writer::run(client.clone(), node_name.clone(), to_post);
        tasks.spawn(async move {
            posting.await;
            "the writer of events"
        });
        let mut scrapes = serve_metrics(&mut tasks, metrics_listen, log).await;
        let (mut inspections, mut probes) = serve_inspection(&mut tasks, &state_dir);
        let state = StateDir::open(&state_dir);
        let restored = state.as_ref().map(restore).unwrap_or_default();
        let (claims, kept_claims) = latest::channel(Arc::new(Claims::new()));
        let (view, kept_view) = latest::channel(Arc::new(View::default()));
        if let Some(state) = state {
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
        let config = Config { node: node_name, version, announce_rate, timers, seed };
        let mut speaker = Running {
            start: Instant::now(),
            machine: Machine::new(config, restored),
            segments: Segments::new(arrivals),
            writes,
            inputs,
            asker: Asker::default(),
            client,
            slices: None,
            claims: Kept::new(claims, CLAIMS_SETTLE),
            view: Kept::new(view, VIEW_SETTLE),
            metrics: Metrics::new(env!("CARGO_PKG_VERSION")),
            post,
            refused: BTreeSet::new(),
            finished: false,
        };
        tracing::info!("started");
        let mut stop_by = None;
        let mut heard_out = None;
        let mut burst = FrameBurst::default();
        loop {
            speaker.work();
            if speaker.finished {
                break;
            }
            let timeout = speaker.machine.poll_timeout();
            tokio::select! {
                // In this order: an answer is never late because facts pour in. Nor is anything else because frames do.
                biased;
                Some(arrival) = frames.recv(), if burst.goes_on() => {
                    burst.took_one();
                    speaker.receive(&arrival);
                    continue;
                }
                () = sleep_until(speaker.start, timeout) => {
                    // After a pause, timers are due and frames lie in the sockets: what came before a timer comes first,
                    // or this node claims what another has just claimed. To yield lets the runtime look at the sockets
                    // and their tasks read them; then the loop takes in what they have read.
                    if heard_out == timeout {
                        speaker.machine.handle_timeout(speaker.now());
                    } else {
                        heard_out = timeout;
                        tokio::task::yield_now().await;
                    }
                }
                Some(fact) = facts.recv() => speaker.machine.handle(speaker.now(), fact),
                Some(reply) = scrapes.recv() => speaker.reply_metrics(reply),
                Some(reply) = probes.recv() => {
                    // The kubelet may have given up.
                    drop(reply.send(speaker.machine.health(speaker.start.elapsed())));
                }
                Some(reply) = inspections.recv() => speaker.reply_report(reply),
                () = sleep_until(speaker.start, speaker.claims.due) => speaker.keep_claims(),
                () = sleep_until(speaker.start, speaker.view.due) => speaker.keep_view(),
                _ = terminate.recv(), if stop_by.is_none() => stop_by = Some(speaker.terminate()),
                _ = interrupt.recv(), if stop_by.is_none() => stop_by = Some(speaker.terminate()),
                () = sleep_until(speaker.start, stop_by) => {
                    tracing::warn!(after = ?STOP_WITHIN, "not all segments have stopped in time");
                    break;
                }
                Some(ended) = tasks.join_next() => {
                    return Err(RunError::Ended(ended.map_or_else(|error| error.to_string(), str::to_owned)));
                }
                // Nothing else was ready at the end of a burst.
                () = std::future::ready(()), if !burst.goes_on() => {}
            }
            burst.end();
        }
        speaker.keep_claims();
        tracing::info!("stopped; the status of addresses stays as it is");
        Ok(())
    }
}

/// Serves metrics and health. Without them the speaker still does what it is for.
async fn serve_metrics(tasks: &mut JoinSet<&'static str>, listen: Listen, log: Log) -> Asked<Telling> {
    let (ask, asked) = ask::channel();
    if let Listen::On(address) = listen {
        match server::bind(address).await {
            Ok(listener) => {
                tasks.spawn(async move {
                    server::serve(listener, ask, log).await;
                    "the metrics server"
                });
            }
            Err(error) => tracing::error!(%address, %error, "no metrics are served: choose --metrics-listen"),
        }
    }
    asked
}

/// Answers `herald-speaker inspect` and `herald-speaker check`. Without it the speaker still does what it is for, until
/// the kubelet's probes have failed often enough.
fn serve_inspection(tasks: &mut JoinSet<&'static str>, state_dir: &Path) -> (Asked<Report>, Asked<Health>) {
    let (report, asked_for_report) = ask::channel();
    let (health, asked_for_health) = ask::channel();
    match inspect::socket::listen(state_dir) {
        Ok(listener) => {
            tasks.spawn(async move {
                inspect::socket::serve(listener, Sources { report, health }).await;
                "the inspection socket"
            });
        }
        Err(error) => tracing::warn!(dir = %state_dir.display(), %error, "this speaker cannot be inspected"),
    }
    (asked_for_report, asked_for_health)
}

/// A client that leaves retries to its users, which bound them and tell of them.
async fn client() -> kube::Result<Client> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.default_retry = false;
    Client::try_from(config)
}

/// What an earlier run left.
fn restore(state: &StateDir) -> Restored {
    let claims = state.claims();
    Restored {
        same_boot: claims.as_ref().is_some_and(|claims| claims.same_boot),
        claims: claims.map(|claims| claims.content).unwrap_or_default(),
        view: state.view().map(|view| view.content),
    }
}

async fn sleep_until(start: Instant, at: Option<Duration>) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_sub(start.elapsed())).await,
        None => std::future::pending().await,
    }
}

/// Something that is kept in a file, and when the next version of it is due.
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
        // Where nothing is kept nobody receives.
        self.sender.send_replace(value);
    }
}

/// The machine and its hands.
struct Running {
    start: Instant,
    machine: Machine,
    segments: Segments,
    writes: mpsc::UnboundedSender<Write>,
    inputs: mpsc::Sender<Input>,
    client: Client,
    asker: Asker,
    /// The watch on EndpointSlices, while any address depends on them.
    slices: Option<AbortOnDropHandle<()>>,
    claims: Kept<Arc<Claims>>,
    view: Kept<Arc<View>>,
    metrics: Metrics,
    post: Post,
    /// What was said of frames that could not be sent: segment and error.
    refused: BTreeSet<(u32, String)>,
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
            Body::Arp(frame) => self.machine.handle_frame(now, *segment, *kind, frame, Family::Ipv4),
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
            })
            .collect();
        self.metrics.read(&readings);
        match self.metrics.encode() {
            // It has nothing to wait for: until it has listed, it guards what it kept. Who asked may have gone.
            Ok(metrics) => drop(reply.send(Telling { metrics, readiness: Readiness::Ready })),
            Err(error) => tracing::error!(%error, "the metrics cannot be written"),
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
        };
        // Who asked may have gone.
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

    /// Does what the machine wants done.
    fn work(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Segments(indices) => self.open(&indices),
                Output::Listen { segment, addresses } => {
                    if let Err(error) = self.segments.listen(segment, &addresses) {
                        tracing::error!(%error, addresses = addresses.len(), "solicitations are not heard");
                    }
                }
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
                Output::WatchSlices(services) => self.watch_slices(services),
                Output::AskProxy { address, service, target } => self.ask_proxy(address, service, target),
                Output::ClaimsChanged => self.claims.changed(self.start.elapsed()),
                Output::ViewChanged => self.view.changed(self.start.elapsed()),
                Output::Event(event) => {
                    self.metrics.event(&event.interface, &event.what);
                    tell::tell(&event, |id| self.machine.name_of(id));
                }
                Output::Post(event) => self.post.post(event),
                Output::Finished => self.finished = true,
            }
        }
    }

    /// Counts what the kernel refuses to send, and says each kind of refusal once for each segment: were it said again after
    /// a frame that passed, a link that takes Hellos and no lists would fill the log.
    fn note_refused(&mut self, segment: u32, error: &SegmentError) {
        if self.refused.insert((segment, error.to_string())) {
            tracing::warn!(%error, "the kernel refuses to send frames");
        }
        self.machine.count_unsent(segment);
    }

    fn open(&mut self, indices: &BTreeSet<u32>) {
        self.segments.retain(|segment| indices.contains(&segment));
        self.refused.retain(|(segment, _)| indices.contains(segment));
        for segment in indices {
            if let Err(error) = self.segments.open(*segment) {
                tracing::error!(%error, "a segment is neither heard nor spoken to");
            }
        }
    }

    fn write(&self, write: Write) {
        // The writer ends only with the loop, which tells of it.
        if let Err(error) = self.writes.send(write) {
            tracing::error!(object = ?error.0.key(), "the writer is gone");
        }
    }

    /// Ends by itself, within the time the machine waits.
    fn ask_proxy(&self, address: std::net::IpAddr, service: ServiceName, target: SocketAddr) {
        let (inputs, asker) = (self.inputs.clone(), self.asker.clone());
        tokio::spawn(async move {
            if asker.synced(target, &service).await && inputs.send(Input::ProxySynced(address)).await.is_err() {
                tracing::debug!("nobody waits for kube-proxy any more");
            }
        });
    }

    /// Replaces the watch on EndpointSlices.
    fn watch_slices(&mut self, services: BTreeSet<ServiceName>) {
        self.slices = None;
        if services.is_empty() {
            let now = self.now();
            let none =
                [ApiFact::Slice(Change::Listing), ApiFact::Slice(Change::Listed), ApiFact::SlicesCover(services)];
            none.into_iter().for_each(|fact| self.machine.handle(now, Input::Api(fact)));
            return;
        }
        let watching = tokio::spawn(watch::slices(self.client.clone(), services, self.inputs.clone()));
        self.slices = Some(AbortOnDropHandle::new(watching));
    }
}
