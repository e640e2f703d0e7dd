//! The process on the client: it runs the probers until it is stopped, then prints the samples.
//!
//! It prints lines of JSON on standard output ([`Line`]), and stops at SIGTERM, at the end of its standard input (so
//! that it never outlives the laboratory that started it), or at the end of its time. A line on its standard input
//! makes it report when every prober has received an answer again.

mod advertisements;
mod announcement;
mod clock;
mod connections;
mod dial;
mod neighbour;
mod precedence;
mod route;
mod server_line;
mod stream;
mod udp;
mod wait;
mod witness;

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::clock::Clock;
use super::sample::{
    Announcement, Connection, NeighbourSamples, Samples, StreamSamples, TargetSamples, UdpSamples, WitnessSamples,
};
use super::spec::ProbeSpec;

/// A line of the agent's output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line {
    /// Every socket is open and the first probes are on their way.
    Started,
    /// Every prober has received an answer, since the start or since the last request.
    Steady,
    /// The end, with all samples.
    Samples(Box<Samples>),
}

/// Interval at which the agent checks whether every prober has received an answer.
const STEADY_CHECK: Duration = Duration::from_millis(5);

/// Runs the agent in the network namespace of the calling process.
///
/// # Errors
/// If no target is given, a target is not on a link of this host, or a socket cannot be opened.
pub(super) async fn run(spec: &ProbeSpec, duration: Option<Duration>) -> anyhow::Result<()> {
    if spec.targets.is_empty() {
        bail!("no address to probe");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut requests = requests();

    // This must happen before the probers' threads exist: they inherit the scheduling class.
    precedence::take();
    let clock = Arc::new(Clock::start()?);
    // All sockets are opened first, so that an error is reported before any frame is sent.
    let prepared = Prepared::open(spec)?;
    let threads = prepared.start(&clock)?;
    print(&Line::Started)?;

    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut check = tokio::time::interval(STEADY_CHECK);
    let mut steady = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            request = requests.recv() => match request {
                Some(Again) => {
                    clock.ask_again();
                    steady = false;
                }
                None => break,
            },
            () = &mut over => break,
            _ = check.tick(), if !steady => {
                if clock.all_answered() {
                    steady = true;
                    print(&Line::Steady)?;
                }
            }
        }
    }
    let ended = clock.stop_sending();
    let samples = tokio::task::spawn_blocking(move || threads.finish()).await??;
    print(&Line::Samples(Box::new(Samples { origin_ns: clock.origin_ns(), ended, ..samples })))
}

/// Requests [`Line::Steady`] once every prober has received an answer again.
struct Again;

/// Returns a channel that receives a message for each line of standard input, and is closed at its end.
fn requests() -> UnboundedReceiver<Again> {
    let (sender, receiver) = unbounded_channel();
    // This needs a thread of its own: the runtime's blocking tasks would delay the exit until the input ends.
    std::thread::spawn(move || {
        // An unreadable input counts as ended; the receiver is gone if the agent is already ending.
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || sender.send(Again).is_err() {
                return;
            }
        }
    });
    receiver
}

fn print(line: &Line) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// The probers with their sockets open.
struct Prepared {
    targets: Vec<PreparedTarget>,
    recorders: Vec<announcement::Recorder>,
}

struct PreparedTarget {
    samples: TargetSamples,
    neighbour: Option<neighbour::Prober>,
    udp: Option<udp::Prober>,
    stream: Option<stream::Prober>,
    connections: Option<connections::Prober>,
}

impl Prepared {
    fn open(spec: &ProbeSpec) -> anyhow::Result<Self> {
        let ProbeSpec { targets: addresses, tcp_port, udp_port, probers, interface } = spec;
        let mut targets = Vec::new();
        let mut links = Vec::new();
        for &address in addresses {
            let needs_link = probers.neighbour || probers.announcements;
            let link = if needs_link { Some(route::link_to(address, interface.as_deref())?) } else { None };
            targets.push(PreparedTarget {
                samples: TargetSamples { address, neighbour: None, udp: None, stream: None, connections: None },
                neighbour: match &link {
                    Some(link) if probers.neighbour => Some(neighbour::Prober::open(address, link)?),
                    _ => None,
                },
                udp: probers.udp.then(|| udp::Prober::open((address, *udp_port).into())).transpose()?,
                stream: probers.stream.then(|| stream::Prober::new((address, *tcp_port).into())),
                connections: probers.connections.then(|| connections::Prober::new((address, *tcp_port).into())),
            });
            links.extend(link);
        }
        let mut recorders = Vec::new();
        if probers.announcements {
            links.sort_by_key(|link| link.index);
            links.dedup_by_key(|link| link.index);
            for link in &links {
                recorders.push(announcement::Recorder::open(link)?);
            }
        }
        Ok(Self { targets, recorders })
    }

    fn start(self, clock: &Arc<Clock>) -> anyhow::Result<Threads> {
        let witness = spawn("witness", clock, |clock| Ok(witness::watch(clock)))?;
        let recorders = self
            .recorders
            .into_iter()
            .map(|recorder| spawn("announcements", clock, move |clock| recorder.run(clock)))
            .collect::<anyhow::Result<_>>()?;
        let mut targets = Vec::new();
        for PreparedTarget { samples, neighbour, udp, stream, connections } in self.targets {
            targets.push(TargetThreads {
                samples,
                neighbour: start(neighbour, "neighbour", clock, neighbour::Prober::run)?,
                udp: start(udp, "udp", clock, udp::Prober::run)?,
                stream: start(stream, "stream", clock, stream::Prober::run)?,
                connections: start(connections, "connections", clock, connections::Prober::run)?,
            });
        }
        Ok(Threads { witness, recorders, targets })
    }
}

type Thread<T> = JoinHandle<anyhow::Result<T>>;

/// The running probers.
struct Threads {
    witness: Thread<WitnessSamples>,
    recorders: Vec<Thread<Vec<Announcement>>>,
    targets: Vec<TargetThreads>,
}

struct TargetThreads {
    samples: TargetSamples,
    neighbour: Option<Thread<NeighbourSamples>>,
    udp: Option<Thread<UdpSamples>>,
    stream: Option<Thread<StreamSamples>>,
    connections: Option<Thread<Vec<Connection>>>,
}

impl Threads {
    /// Waits for the last answers and collects the samples; the caller fills in `origin_ns` and `ended`.
    fn finish(self) -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        for TargetThreads { samples: target, neighbour, udp, stream, connections } in self.targets {
            samples.targets.push(TargetSamples {
                neighbour: neighbour.map(join).transpose()?,
                udp: udp.map(join).transpose()?,
                stream: stream.map(join).transpose()?,
                connections: connections.map(join).transpose()?,
                ..target
            });
        }
        for recorder in self.recorders {
            samples.announcements.extend(join(recorder)?);
        }
        samples.announcements.sort_by_key(|announcement| announcement.at);
        samples.witness = join(self.witness)?;
        Ok(samples)
    }
}

/// Starts a prober that must receive an answer before the run counts as steady.
fn start<P: Send + 'static, T: Send + 'static>(
    prober: Option<P>,
    name: &str,
    clock: &Arc<Clock>,
    run: fn(P, &Clock) -> anyhow::Result<T>,
) -> anyhow::Result<Option<Thread<T>>> {
    let Some(prober) = prober else { return Ok(None) };
    clock.expect_answer();
    spawn(name, clock, move |clock| run(prober, clock)).map(Some)
}

fn spawn<T: Send + 'static>(
    name: &str,
    clock: &Arc<Clock>,
    run: impl FnOnce(&Clock) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Thread<T>> {
    let clock = Arc::clone(clock);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(&clock))
        .with_context(|| format!("cannot start the thread of the {name} prober"))
}

fn join<T>(thread: Thread<T>) -> anyhow::Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("a prober panicked; its message is above"),
    }
}
