//! The speaker put together: facts from the API, the kernel and the wire go into the [`Machine`], and what it wants
//! done is done. One thread; the machine belongs to the one loop here.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::Client;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    args::Args,
    cluster::{Change, ServiceName},
    machine::{Config, Event, Input, Machine, Now, Output},
    netlink,
    queue::Write,
    segment::Segments,
    watch, writer,
};

/// Facts that wait: a burst beyond this waits in the watches.
const INPUTS: usize = 256;
/// Requests that wait for an answer: beyond this they wait in the socket's buffer.
const ARRIVALS: usize = 256;

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

impl Args {
    /// Runs the speaker until SIGTERM or SIGINT. It clears nothing then: a restart moves nothing.
    ///
    /// # Errors
    /// What it needs is missing, or a part of it failed. Without a part it would answer for what it no longer knows,
    /// so it stops as a whole.
    pub async fn run(self) -> Result<(), RunError> {
        // Destructured, so that a flag that is not used does not compile.
        let Self { node_name, include_excluded_nodes, announce_rate, log: _, log_json: _ } = self;
        Segments::check_permission().map_err(RunError::PacketSocket)?;
        let client = Client::try_default().await.map_err(|error| RunError::Client(Box::new(error)))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;

        let (inputs, mut facts) = mpsc::channel(INPUTS);
        let (arrivals, mut requests) = mpsc::channel(ARRIVALS);
        let (writes, to_write) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        watch::start(&mut tasks, &client, &node_name, include_excluded_nodes, &inputs);
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

        let config = Config { node: node_name, version: env!("CARGO_PKG_VERSION").to_owned(), announce_rate };
        let mut speaker = Running {
            start: Instant::now(),
            machine: Machine::new(config),
            segments: Segments::new(arrivals),
            writes,
            inputs,
            client,
            slices: None,
        };
        tracing::info!("started");
        loop {
            speaker.work();
            let timeout = speaker.machine.poll_timeout();
            tokio::select! {
                Some(request) = requests.recv() => {
                    let answer = speaker.machine.handle_frame(request.segment, request.packet_type, &request.frame);
                    if let Some(answer) = answer {
                        speaker.transmit(request.segment, &answer);
                    }
                }
                Some(fact) = facts.recv() => speaker.take_in(fact),
                () = sleep_until(speaker.start, timeout) => speaker.machine.handle_timeout(speaker.start.elapsed()),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Some(ended) = tasks.join_next() => {
                    return Err(RunError::Ended(ended.map_or_else(|error| error.to_string(), str::to_owned)));
                }
            }
        }
        tracing::info!("stopping; the status of addresses stays as it is");
        Ok(())
    }
}

async fn sleep_until(start: Instant, at: Option<Duration>) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_sub(start.elapsed())).await,
        None => std::future::pending().await,
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
    /// The watch on EndpointSlices, while any address depends on them.
    slices: Option<AbortOnDropHandle<()>>,
}

impl Running {
    fn now(&self) -> Now {
        Now { monotonic: self.start.elapsed(), wall: Timestamp::now() }
    }

    fn take_in(&mut self, fact: Input) {
        if let Input::Interfaces(interfaces) = &fact {
            let indices: BTreeSet<u32> = interfaces.segments.iter().map(|s| s.index).collect();
            self.segments.retain(|segment| indices.contains(&segment));
            for warning in &interfaces.warnings {
                tracing::warn!(kind = ?warning.kind, "{}", warning.message);
            }
        }
        let now = self.now();
        self.machine.handle(now, fact);
    }

    /// Does what the machine wants done.
    fn work(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Listen { segment, addresses } => {
                    if let Err(error) = self.segments.listen(segment, &addresses) {
                        tracing::error!(%error, addresses = addresses.len(), "requests are not heard");
                    }
                }
                Output::Transmit { segment, frame } => self.transmit(segment, &frame),
                Output::WriteVip(write) => self.write(Write::Vip(write)),
                Output::WriteSpeaker(write) => self.write(Write::Speaker(write)),
                Output::WatchSlices(services) => self.watch_slices(services),
                Output::Event(event) => tell(&event),
            }
        }
    }

    fn transmit(&self, segment: u32, frame: &crate::arp::Frame) {
        // A lost frame is asked for or announced again.
        if let Err(error) = self.segments.transmit(segment, frame) {
            tracing::warn!(%error, "a frame was not sent");
        }
    }

    fn write(&self, write: Write) {
        // The writer ends only with the loop, which tells of it.
        if let Err(error) = self.writes.send(write) {
            tracing::error!(object = ?error.0.key(), "the writer is gone");
        }
    }

    /// Replaces the watch on EndpointSlices.
    fn watch_slices(&mut self, services: BTreeSet<ServiceName>) {
        self.slices = None;
        if services.is_empty() {
            let now = self.now();
            for fact in [Input::Slice(Change::Listing), Input::Slice(Change::Listed), Input::SlicesCover(services)] {
                self.machine.handle(now, fact);
            }
            return;
        }
        let watching = tokio::spawn(watch::slices(self.client.clone(), services, self.inputs.clone()));
        self.slices = Some(AbortOnDropHandle::new(watching));
    }
}

fn tell(event: &Event) {
    match event {
        Event::Gained { address, interface, resumed } => {
            tracing::info!(%address, interface, resumed, "announcing");
        }
        Event::Lost { address, why } => tracing::info!(%address, %why, "no longer announcing"),
    }
}
