//! The coordinator at work: what it takes in, and how its outputs are carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use herald_telemetry::http::{Readiness, Telling};
use jiff::Timestamp;
use kube::Client;
use tokio::sync::{mpsc, oneshot, watch as latest};
use tokio_util::task::AbortOnDropHandle;

use super::{STOP_WITHIN, kept::Kept};
use crate::{
    api_objects::{Change, ServiceName, SliceSelection},
    coordinator::{ApiFact, Coordinator, Input, Now, Output, Purpose, SocketFailure},
    event_log,
    event_writer::Post,
    inspect::{Report, SegmentReport},
    interfaces::Selection,
    kube_proxy::Asker,
    metrics::{Metrics, Reading},
    readiness::Health,
    saved_state::{Claims, View},
    sockets::{Arrival, Body, SegmentError, Segments},
    sources::Deadlines,
    state_dir::{Name, StateDir},
    status_queue::Write,
    turn::HEARD_OUT,
    watch,
};

/// The coordinator, with the parts that carry out its outputs.
pub(super) struct Running {
    pub start: Instant,
    pub machine: Coordinator,
    pub segments: Segments,
    /// The selection of interfaces; `None`: the selection is not known yet.
    pub selections: latest::Sender<Option<Selection>>,
    pub writes: mpsc::UnboundedSender<Write>,
    pub inputs: mpsc::Sender<Input>,
    pub client: Client,
    pub asker: Asker,
    /// The watch on EndpointSlices, while any address depends on them.
    pub slices: Option<AbortOnDropHandle<()>>,
    pub claims: Kept<Arc<Claims>>,
    pub view: Kept<Arc<View>>,
    /// The directory of both.
    pub state: Option<StateDir>,
    pub metrics: Metrics,
    pub post: Post,
    /// The refusals to send that were logged: segment and error.
    pub refused: BTreeSet<(u32, String)>,
    /// The refusal for the sockets of each segment that was logged last.
    pub sockets: BTreeMap<u32, SocketFailure>,
    pub finished: bool,
}

impl Running {
    fn now(&self) -> Now {
        Now { monotonic: self.start.elapsed(), wall: Timestamp::now() }
    }

    /// Returns whether the shutdown is complete.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Returns the times at which the loop wakes.
    pub(super) fn deadlines(&self) -> Deadlines {
        Deadlines { timers: self.machine.poll_timeout(), claims: self.claims.due, view: self.view.due, stop: None }
    }

    /// Takes in a fact.
    pub(super) fn handle(&mut self, fact: Input) {
        self.machine.handle(self.now(), fact);
    }

    /// Runs the timers that are due.
    pub(super) fn handle_timeout(&mut self) {
        self.machine.handle_timeout(self.now());
    }

    /// Takes in the frames that have come so far, [`HEARD_OUT`] at most: first those that were read, then those that lie in
    /// the sockets.
    pub(super) fn hear_out(&mut self, frames: &mut mpsc::Receiver<Arrival>) {
        let read: Vec<Arrival> = std::iter::from_fn(|| frames.try_recv().ok()).take(HEARD_OUT).collect();
        let waiting = self.segments.waiting(HEARD_OUT - read.len());
        for arrival in read.iter().chain(&waiting) {
            self.receive(arrival);
            self.work();
        }
    }

    pub(super) fn reply_health(&self, reply: oneshot::Sender<Health>) {
        // The kubelet may have given up.
        drop(reply.send(self.machine.health(self.start.elapsed())));
    }

    /// Takes in a frame.
    pub(super) fn receive(&mut self, Arrival { segment, kind, body }: &Arrival) {
        let now = self.now();
        match body {
            Body::Hello(bytes) => self.machine.handle_hello(now, *segment, bytes),
            Body::Packet { family, frame, answered } => {
                self.machine.handle_frame(now, *segment, *kind, frame, *family, *answered);
            }
        }
    }

    pub(super) fn reply_metrics(&mut self, reply: oneshot::Sender<Telling>) {
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

    pub(super) fn reply_report(&self, reply: oneshot::Sender<Report>) {
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

    pub(super) fn terminate(&mut self) -> Duration {
        let now = self.now();
        self.machine.handle(now, Input::Terminate);
        now.monotonic + STOP_WITHIN
    }

    pub(super) fn keep_claims(&mut self) {
        let claims = self.machine.saved_claims();
        self.claims.keep(Arc::new(claims));
    }

    pub(super) fn keep_view(&mut self) {
        match self.machine.saved_view() {
            Some(view) => self.view.keep(Arc::new(view)),
            None => self.view.due = None,
        }
    }

    /// Returns the next output of the coordinator. The responder knows before what is answered from now on.
    fn next_output(&mut self) -> Option<Output> {
        self.segments.state_answers(self.machine.state_answers());
        self.machine.poll_output()
    }

    /// Carries out the outputs of the coordinator.
    pub(super) fn work(&mut self) {
        while let Some(output) = self.next_output() {
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
                        (Ok(()), Purpose::Answer(address)) => self.metrics.answered().count(address),
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
