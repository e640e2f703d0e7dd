//! The sources that the event loop waits for, and the choice of the next step.

use std::{
    io,
    time::{Duration, Instant},
};

use herald_telemetry::{http::Telling, query::Queries};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    coordinator::Input,
    inspect::Report,
    readiness::Health,
    sockets::Arrival,
    turn::{Source, Turn},
};

/// The sources of the steps.
pub(crate) struct Sources {
    pub frames: mpsc::Receiver<Arrival>,
    pub facts: mpsc::Receiver<Input>,
    pub scrapes: Queries<Telling>,
    pub probes: Queries<Health>,
    pub inspections: Queries<Report>,
    pub signals: mpsc::Receiver<()>,
    pub tasks: JoinSet<&'static str>,
    pub turn: Turn,
}

/// The times at which the event loop wakes, since the speaker started; `None`: the loop does not wake for that.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadlines {
    /// The next timer of the coordinator.
    pub timers: Option<Duration>,
    /// The next time at which the claims are saved.
    pub claims: Option<Duration>,
    /// The next time at which the view is saved.
    pub view: Option<Duration>,
    /// The time by which the speaker has to have stopped.
    pub stop: Option<Duration>,
}

/// The next step of the event loop.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, and is looked at at once")]
pub(crate) enum Step {
    Frame(Arrival),
    Timers,
    Fact(Input),
    Signal,
    Scrape(oneshot::Sender<Telling>),
    Probe(oneshot::Sender<Health>),
    Inspection(oneshot::Sender<Report>),
    KeepClaims,
    KeepView,
    /// The time for stopping is over.
    StopNow,
    /// A task ended that should never end.
    Ended(String),
}

impl Sources {
    /// Waits for the next step. Every source that is ready is served once in each turn.
    pub(crate) async fn next(&mut self, start: Instant, deadlines: Deadlines) -> Step {
        loop {
            let turn = &self.turn;
            let (source, step) = tokio::select! {
                biased;
                Some(arrival) = self.frames.recv(), if turn.allows(Source::Frames) => {
                    (Source::Frames, Step::Frame(arrival))
                }
                () = sleep_until(start, deadlines.timers), if turn.allows(Source::Timers) => {
                    (Source::Timers, Step::Timers)
                }
                Some(fact) = self.facts.recv(), if turn.allows(Source::Facts) => (Source::Facts, Step::Fact(fact)),
                Some(()) = self.signals.recv(), if turn.allows(Source::Signals) => (Source::Signals, Step::Signal),
                () = sleep_until(start, deadlines.stop), if turn.allows(Source::Ends) => {
                    (Source::Ends, Step::StopNow)
                }
                Some(ended) = self.tasks.join_next(), if turn.allows(Source::Ends) => {
                    let what = ended.map_or_else(|error| error.to_string(), str::to_owned);
                    (Source::Ends, Step::Ended(what))
                }
                Some(reply) = self.probes.recv(), if turn.allows(Source::Probes) => {
                    (Source::Probes, Step::Probe(reply))
                }
                Some(reply) = self.scrapes.recv(), if turn.allows(Source::Scrapes) => {
                    (Source::Scrapes, Step::Scrape(reply))
                }
                Some(reply) = self.inspections.recv(), if turn.allows(Source::Inspections) => {
                    (Source::Inspections, Step::Inspection(reply))
                }
                () = sleep_until(start, deadlines.claims), if turn.allows(Source::Claims) => {
                    (Source::Claims, Step::KeepClaims)
                }
                () = sleep_until(start, deadlines.view), if turn.allows(Source::View) => {
                    (Source::View, Step::KeepView)
                }
                // No other source that this turn allows is ready.
                () = std::future::ready(()), if !turn.is_fresh() => {
                    self.turn.next();
                    continue;
                }
            };
            self.turn.serve(source);
            return step;
        }
    }
}

/// Returns a channel that receives a message for each SIGTERM and SIGINT.
///
/// # Errors
/// If the process cannot wait for signals.
pub(crate) fn signals(tasks: &mut JoinSet<&'static str>) -> io::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, signals) = mpsc::channel(1);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return "the wait for signals";
            }
        }
    });
    Ok(signals)
}

/// Waits until `at`; a time that has passed is ready at once. A `sleep` of no time is not ready at once: tokio rounds
/// it up to the next millisecond, and while frames pour in the loop would drop that sleep and make a new one before it
/// ends, again and again.
async fn sleep_until(start: Instant, at: Option<Duration>) {
    let Some(at) = at else { return std::future::pending().await };
    let wait = at.saturating_sub(start.elapsed());
    if wait.is_zero() {
        // The other tasks have their turn, even if a deadline stays due.
        tokio::task::coop::consume_budget().await;
    } else {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use herald_protocol::timers::Timers;

    use super::*;
    use herald_packet_socket::PacketType;

    use crate::{api_objects::Change, coordinator::ApiFact, sockets::Body, turn::HEARD_OUT};

    fn arrival(segment: u32) -> Arrival {
        Arrival { segment, kind: PacketType::Broadcast, body: Body::Hello(vec![0; 60]) }
    }

    fn kind(step: &Step) -> &'static str {
        match step {
            Step::Frame(_) => "frame",
            Step::Timers => "timers",
            Step::Fact(_) => "fact",
            Step::Signal => "signal",
            Step::Scrape(_) => "scrape",
            Step::Probe(_) => "probe",
            Step::Inspection(_) => "inspection",
            Step::KeepClaims => "claims",
            Step::KeepView => "view",
            Step::StopNow | Step::Ended(_) => "end",
        }
    }

    /// Returns the time that a step takes at the worst, in microseconds: a full list of claims; a turn of the
    /// evaluation, twice for the timers, which have others to serve, after a flood's frames at 5 us each; the rest as measured
    /// with 1,000 addresses, doubled.
    fn cost(kind: &str) -> u64 {
        match kind {
            "frame" => 50,
            "fact" => 2_000 + HEARD_OUT as u64 * 5,
            "timers" => 4_000 + HEARD_OUT as u64 * 5,
            "scrape" | "inspection" | "view" => 4_000,
            _ => 500,
        }
    }

    /// All sources are ready without end, on three segments. A source that is ready at any moment is served within half
    /// of the shortest Hello interval.
    #[tokio::test]
    async fn flood_of_all_sources_starves_none() {
        let (frames_in, frames) = mpsc::channel(256);
        let (facts_in, facts) = mpsc::channel(256);
        let (signals_in, signals) = mpsc::channel(8);
        let (scrape, scrapes) = mpsc::channel(8);
        let (probe, probes) = mpsc::channel(8);
        let (inspect, inspections) = mpsc::channel(8);
        let tasks = JoinSet::new();
        let mut sources =
            Sources { frames, facts, scrapes, probes, inspections, signals, tasks, turn: Turn::default() };
        let due = Some(Duration::ZERO);
        let deadlines = Deadlines { timers: due, claims: due, view: due, stop: None };
        let (mut now, mut last, mut longest) = (0_u64, BTreeMap::new(), BTreeMap::new());
        let mut segment = 0;
        for _ in 0..20_000 {
            while frames_in.try_send(arrival(segment)).is_ok() {
                segment = (segment + 1) % 3;
            }
            while facts_in.try_send(Input::Api(ApiFact::Vip(Change::Current))).is_ok() {}
            while signals_in.try_send(()).is_ok() {}
            while scrape.try_send(oneshot::channel().0).is_ok() {}
            while probe.try_send(oneshot::channel().0).is_ok() {}
            while inspect.try_send(oneshot::channel().0).is_ok() {}
            let step = kind(&sources.next(Instant::now(), deadlines).await);
            now += cost(step);
            let waited = now - last.insert(step, now).unwrap_or_default();
            let longest = longest.entry(step).or_insert(0);
            *longest = waited.max(*longest);
        }
        let half = u64::try_from(Timers::HELLO.start().as_micros()).unwrap() / 2;
        for step in ["frame", "timers", "fact", "signal", "probe", "scrape", "inspection", "claims", "view"] {
            assert!(longest[step] <= half, "{step}: {longest:?} us");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_step_is_taken_while_no_source_is_ready() {
        let (_frames, frames) = mpsc::channel(1);
        let (_facts, facts) = mpsc::channel(1);
        let (_signals, signals) = mpsc::channel(1);
        let ((_a, scrapes), (_b, probes), (_c, inspections)) = (
            herald_telemetry::query::channel(),
            herald_telemetry::query::channel(),
            herald_telemetry::query::channel(),
        );
        let tasks = JoinSet::new();
        let mut sources =
            Sources { frames, facts, scrapes, probes, inspections, signals, tasks, turn: Turn::default() };
        let next = sources.next(Instant::now(), Deadlines::default());
        assert!(tokio::time::timeout(Duration::from_secs(3600), next).await.is_err());
    }
}
