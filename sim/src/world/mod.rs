//! The world: nodes, wire, API and clients in one queue of events.

mod facts;
mod forge;
mod interfaces;
mod judges;
mod keys;
mod members;
mod outputs;
mod pace;
mod pings;
mod process;
mod rivals;
mod steps;
mod strangers;
mod talk;
mod traffic;
mod trouble;
mod views;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use fastrand::Rng;
use herald_protocol::{
    api_view::{ExpectedPeer, Packet, Vip},
    claim::Claim,
    mac::MacAddr,
    node::NodeName,
    wire::Keyring,
};

use crate::{
    api::Api,
    carried::Carried,
    check::Violation,
    client::Flow,
    fault::{Condition, Step},
    history::{History, Role},
    measure::Samples,
    names::{self, AddrIx, HostIx, NodeIx, Seconds},
    net::Network,
    node::Node,
};
use forge::Forger;
use judges::Judges;
#[cfg(test)]
pub(crate) use keys::keyring;
#[cfg(not(test))]
use keys::keyring;
use strangers::Strangers;
use trouble::Trouble;

/// The receivers of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// All hosts but the sender.
    All,
    /// One host.
    Host(HostIx),
}

/// Future events.
#[derive(Debug)]
enum Event {
    /// A node's timer.
    Wake(NodeIx),
    /// A frame of the protocol arrives.
    Frame(To, Arc<Carried>),
    /// An ARP packet arrives.
    Packet { from: HostIx, to: To, packet: Packet },
    /// A ping arrives at a host.
    Ping { from: NodeIx, to: HostIx, address: IpAddr },
    /// The answer to a ping arrives.
    Pong { from: HostIx, to: NodeIx, address: IpAddr, mac: MacAddr },
    /// Answers to a broadcast echo request arrive.
    EchoReplies(NodeIx),
    /// The watches of these nodes deliver an address.
    View { watch: usize, address: AddrIx, vip: Option<Arc<Vip>> },
    /// A node's watches have listed everything.
    Listed(NodeIx),
    /// The watches of these nodes deliver the nodes on the segment.
    Stations { watch: usize, all: Arc<[ExpectedPeer]> },
    /// A node decides which of its interfaces takes part.
    Decide(NodeIx),
    /// A node's speaker writes its SpeakerStatus.
    Registers(NodeIx),
    /// The edges note that their watches make progress.
    Fresh,
    /// A speaker's status write arrives: it owns the address, or has ceased to.
    Status { node: NodeIx, address: AddrIx },
    /// A flow's next packet.
    Talk { client: usize, flow: usize },
    /// The next step of the history.
    Step(usize),
    /// A speaker starts, unless a condition keeps it down.
    Start(NodeIx),
    /// A speaker that was asked to stop and still runs is killed.
    Kill { node: NodeIx, started: u64 },
    /// A stranger announces an address.
    Stranger(AddrIx),
    /// A forged frame.
    Forge(usize),
    /// Everything has had its time to settle since the step with this number.
    Settled(u64),
    /// An address may have been unanswered for too long.
    Answered { address: AddrIx, since: Duration },
    /// Checks whether all is well, if it should be.
    Look,
    /// The history ends.
    End,
}

/// The result of a history.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The first invariant that was violated.
    pub violation: Option<Violation>,
    /// Simulated time.
    pub simulated: Duration,
    /// From a node's power-off to the verdict at the node that then claims.
    pub detect: Samples,
    /// From a node's power-off to the first answer or announcement of another node.
    pub takeover: Samples,
    /// Frames of the protocol that all nodes sent.
    pub frames: u64,
    /// Nodes times seconds.
    pub node_seconds: f64,
    /// The largest number of frames that one node sent in one second.
    pub peak: u32,
    /// What happened, if a trace was asked for.
    pub trace: Vec<String>,
}

/// Measurements around power-offs.
#[derive(Debug)]
struct Measured {
    /// The node without power, and since when. Only a fault that is alone is measured.
    off: Option<(NodeIx, Duration)>,
    /// By node: when it found the other node dead.
    found_dead: Vec<Option<Duration>>,
    /// By node: whether its detection is counted.
    counted: Vec<bool>,
    /// By address: whether its take-over is counted.
    taken: Vec<bool>,
}

/// The world.
struct World<'h> {
    history: &'h History,
    now: Duration,
    queue: crate::queue::Queue<Event>,
    rng: Rng,
    steps: Vec<Step>,
    conditions: Vec<Condition>,
    net: Network,
    /// All interfaces: the nodes' first ones, then their second ones.
    nodes: Vec<Node>,
    seconds: Seconds,
    /// By node: what it knows of its interfaces, if it has two.
    pairs: Vec<interfaces::Pair>,
    /// Number of nodes from which all cores share the work on a frame.
    crowd: usize,
    api: Api,
    /// By client, its flows.
    clients: Vec<Vec<Flow>>,
    /// All keys that the cluster uses in the history.
    keys: Arc<Keyring>,
    /// The keys of the other cluster, if there is one.
    rival_keys: Arc<Keyring>,
    /// Whether each receiver opens frames by its own keys.
    opens_itself: bool,
    /// By node: what the API lists of it, if anything.
    stations: Vec<Option<ExpectedPeer>>,
    /// The other cluster, if there is one.
    other: rivals::Other,
    forger: Forger,
    strangers: Strangers,
    trouble: Trouble,
    /// Number of steps so far.
    step_count: u64,
    judges: Judges,
    measured: Measured,
    outcome: Outcome,
    detail: Detail,
}

/// How much the trace contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing.
    Nothing,
    /// The events that the machines report.
    Events,
    /// Frames as well.
    Frames,
}

/// Runs a history to its end or to the first violation.
pub fn run(history: &History, detail: Detail) -> Outcome {
    World::new(history, detail).run(None)
}

/// Runs a history likewise, and counts each event in `done`, so that another thread sees progress.
pub fn run_watched(history: &History, detail: Detail, done: &AtomicU64) -> Outcome {
    World::new(history, detail).run(Some(done))
}

/// Number of nodes from which a frame is taken in on all cores: that is a tenth of a millisecond of work, ten times the
/// cost of handing half of it over.
const CROWD: usize = 200;

impl<'h> World<'h> {
    fn run(mut self, done: Option<&AtomicU64>) -> Outcome {
        self.begin();
        while let Some((at, event)) = self.queue.pop() {
            if let Some(violation) = self.judges.pace.event(at) {
                self.violate(violation);
                break;
            }
            if let Some(done) = done {
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            self.now = at;
            if matches!(event, Event::End) {
                break;
            }
            self.dispatch(event);
            if !self.judges.two_macs.is_empty()
                && let Some(violation) = self.judges.two_macs.overdue(at)
            {
                self.violate(violation);
            }
            if self.outcome.violation.is_some() {
                break;
            }
        }
        self.finish()
    }

    fn new(history: &'h History, detail: Detail) -> Self {
        let mut rng = Rng::with_seed(history.seed);
        let (count, addresses) = (history.speakers(), history.addresses);
        // Clocks started at some time before the simulation, and long enough before: all pauses together are shorter.
        let mut nodes: Vec<_> = (0..count)
            .map(|index| {
                let clock = Duration::from_secs(10_000) + Duration::from_secs(1_000_000).mul_f64(rng.f64());
                let watch = rng.usize(0..crate::api::WATCH_DELAYS.len());
                match history.role(index) {
                    Role::Member => Node::new(index, addresses, clock, watch),
                    Role::Rival => {
                        Node::named(NodeName::new(&format!("other-{index:04}")), index, addresses, clock, watch)
                    }
                    Role::SecondOf(first) => {
                        let name = Node::new(first, 0, clock, watch).name;
                        Node { has_two_interfaces: true, ..Node::named(name, index, addresses, clock, watch) }
                    }
                }
            })
            .collect();
        let seconds = history.seconds();
        for interface in seconds.all() {
            let clock = nodes[seconds.node(interface)].clock;
            nodes[seconds.node(interface)].has_two_interfaces = true;
            nodes[interface].clock = clock;
        }
        let names: Vec<_> = nodes.iter().map(|node| node.name.clone()).collect();
        let homes: Vec<_> = (0..addresses).map(|address| address % history.nodes).collect();
        let local: Vec<_> = (0..addresses).map(|address| history.endpoints(address)).collect();
        let mut steps: Vec<_> = history.steps().collect();
        steps.sort_by_key(|step| step.at);
        let (stations, known) = members::stations(history, &nodes);
        for (node, known) in nodes.iter_mut().zip(known) {
            node.stations = known;
        }
        for step in &steps {
            if let Condition::Reverted(node) = step.condition {
                nodes[node].is_virtual = true;
            }
        }
        let clients = (0..history.clients)
            .map(|client| {
                (0..history.flows)
                    .map(|flow| {
                        let address = (client + flow * history.addresses.div_ceil(history.flows.max(1))) % addresses;
                        Flow::new(Duration::ZERO, address, Duration::from_secs(10 + rng.u64(0..10)))
                    })
                    .collect()
            })
            .collect();
        let forger = Forger::new(&steps);
        Self {
            history,
            now: Duration::ZERO,
            queue: crate::queue::Queue::default(),
            seconds,
            pairs: (0..seconds.count).map(|_| interfaces::Pair::default()).collect(),
            crowd: CROWD,
            net: Network::new(count + history.clients + 1),
            api: Api::new(&names, history.nodes, &homes, &local),
            stations,
            other: rivals::Other::new(history, &nodes),
            steps,
            conditions: Vec::new(),
            clients,
            keys: Arc::new(keyring(0..=history.rotations())),
            rival_keys: Arc::new(keys::rival_keyring(history)),
            opens_itself: history.rotations() > 0 || history.rivals > 0,
            forger,
            strangers: Strangers::new(addresses),
            trouble: Trouble::none(count),
            step_count: 0,
            judges: Judges::of(history),
            measured: Measured {
                off: None,
                found_dead: vec![None; count],
                counted: vec![false; count],
                taken: vec![false; addresses],
            },
            outcome: Outcome::default(),
            detail,
            nodes,
            rng,
        }
    }

    /// Queues the events that happen from the start.
    fn begin(&mut self) {
        for address in 0..self.history.addresses {
            let view = self.api.publish(Duration::ZERO, address);
            for node in &mut self.nodes[..self.history.nodes] {
                node.view[address].clone_from(&view);
            }
        }
        for node in 0..self.seconds.first {
            let at = Duration::from_millis(300).mul_f64(self.rng.f64());
            let from = if self.is_rival(node) { self.history.rivals_from } else { Duration::ZERO };
            self.queue.push(from + at, Event::Start(node));
        }
        for client in 0..self.clients.len() {
            for flow in 0..self.clients[client].len() {
                let at = Duration::from_secs(1) + Duration::from_millis(50).mul_f64(self.rng.f64());
                self.queue.push(at, Event::Talk { client, flow });
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            self.queue.push(step.at, Event::Step(index));
        }
        self.queue.push(self.history.settle(), Event::Settled(0));
        self.queue.push(Duration::from_secs(1), Event::Fresh);
        self.queue.push(Duration::from_secs(1), Event::Look);
        self.queue.push(self.history.end, Event::End);
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Wake(node) => self.wake(node),
            Event::Frame(to, carried) => self.frame_arrives(to, &carried),
            Event::Packet { from, to, packet } => self.packet_arrives(from, to, &packet),
            Event::Ping { from, to, address } => self.ping_arrives(from, to, address),
            Event::Pong { from, to, address, mac } => self.pong_arrives(from, to, address, mac),
            Event::EchoReplies(node) => self.echo_replies(node),
            Event::View { watch, address, vip } => self.view_arrives(watch, address, &vip),
            Event::Listed(node) => self.listed(node),
            Event::Stations { watch, all } => self.stations_arrive(watch, &all),
            Event::Decide(node) => self.decision_is_due(node),
            Event::Registers(node) => self.registers(node),
            Event::Fresh => self.fresh(),
            Event::Status { node, address } => self.status_arrives(node, address),
            Event::Talk { client, flow } => self.talk(client, flow),
            Event::Step(index) => self.step(index),
            Event::Start(node) => self.start(node),
            Event::Kill { node, started } => self.kill_if_still(node, started),
            Event::Stranger(address) => self.stranger_announces(address),
            Event::Forge(kind) => self.forge(kind),
            Event::Settled(step) => self.settles(step),
            Event::Answered { address, since } => self.check_answered(address, since),
            Event::Look => self.look(),
            Event::End => {}
        }
    }

    fn violate(&mut self, violation: Violation) {
        self.trace(|| format!("VIOLATION {violation}"));
        self.outcome.violation.get_or_insert(violation);
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.detail >= Detail::Events {
            self.outcome.trace.push(format!("{:10.4} {}", self.now.as_secs_f64(), line()));
        }
    }

    fn finish(mut self) -> Outcome {
        self.outcome.simulated = self.now;
        self.outcome.frames = self.judges.load.frames;
        self.outcome.peak = self.judges.load.peak;
        self.outcome.node_seconds = self.now.as_secs_f64() * self.nodes.len() as f64;
        self.outcome
    }

    fn claim_text(claim: &Claim) -> String {
        let address = names::vip_index(claim.address).map_or_else(|| claim.address.to_string(), |a| a.to_string());
        format!("address {address}, birth {}, epoch {}, {:?}", claim.birth.0, claim.epoch.0, claim.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Shape;

    #[test]
    fn history_runs_the_same_each_time() {
        for seed in 0..12 {
            let history = History::generate(seed, Shape::default());
            let once = run(&history, Detail::Frames);
            assert!(!once.trace.is_empty());
            let again = run(&history, Detail::Frames);
            assert_eq!((again.trace, again.frames), (once.trace, once.frames), "seed {seed}");
        }
    }

    #[test]
    fn crowd_hears_as_if_one_after_the_other() {
        for seed in 0..24 {
            let history = History::generate(seed, Shape::default());
            let [together, one_by_one] = [0, usize::MAX].map(|crowd| {
                let mut world = World::new(&history, Detail::Frames);
                world.crowd = crowd;
                world.run(None).trace
            });
            assert_eq!(together, one_by_one, "seed {seed}");
        }
    }
}
