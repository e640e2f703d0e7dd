//! A history: a cluster and the faults that happen to it. It is made from a seed ([`generate`](crate::generate)),
//! printed, replayed and shrunk.

use std::{fmt, time::Duration};

use fastrand::Rng;
use herald_protocol::{
    mutation::Mutation,
    timers::{CONFLICT_RETRY, Timers},
};

use crate::{
    fault::{Fault, Kind, Removal, Step, Stop},
    names::{AddrIx, NodeIx, Seconds},
};

/// The part of a history that the command line fixes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Number of nodes.
    pub nodes: Option<usize>,
    /// Number of addresses.
    pub addresses: Option<usize>,
    /// Only power-offs, for measuring; each frame is lost with this probability.
    pub power_off_at_loss: Option<f64>,
    /// The rule that is broken.
    pub mutation: Option<Mutation>,
    /// Number of nodes with a second interface on the same wire. If absent, each seed has its own number, mostly none.
    pub second_interfaces: Option<usize>,
}

/// A cluster and the faults that happen to it.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The seed from which all random values come.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of nodes of another cluster that announces some of the same addresses. Their indices come after the
    /// cluster's own.
    pub rivals: usize,
    /// What the other cluster has in common with this one.
    pub rivals_are: Rivals,
    /// When the other cluster's nodes start.
    pub rivals_from: Duration,
    /// Number of nodes, the first ones, whose kernels drop pings.
    pub firewalls: usize,
    /// Number of nodes, the first ones, that have a second interface on the same wire. The indices of these interfaces
    /// come last.
    pub second_interfaces: usize,
    /// Number of addresses.
    pub addresses: usize,
    /// Number of clients.
    pub clients: usize,
    /// Flows per client.
    pub flows: usize,
    /// Share of the addresses that are `externalTrafficPolicy: Local`.
    pub local_share: f64,
    /// The faults.
    pub faults: Vec<Fault>,
    /// When the history is over.
    pub end: Duration,
    /// The longest time for which an address may go unanswered during a history of one fault. `None`: the history
    /// checks only the invariants that hold after the faults.
    pub gap: Option<Duration>,
    /// Timers of all nodes.
    pub timers: Timers,
    /// The rule that is broken.
    pub mutation: Option<Mutation>,
}

/// The role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A node of the cluster.
    Member,
    /// A node of another cluster.
    Rival,
    /// The second interface of this node.
    SecondOf(NodeIx),
}

/// What another cluster on the segment has in common with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rivals {
    /// The Secret, as a backup or a Git repository carries it over. The cluster is another one, so its keys differ.
    Another,
    /// The cluster's UID as well, and the UIDs and births of all objects: made from a snapshot of etcd.
    Cloned,
}

/// A fault that lasts this long does not end.
pub const FOREVER: Duration = Duration::from_secs(1_000_000);

/// A single fault begins when the cluster has settled.
const FIRST: Duration = Duration::from_secs(8);

/// Returns the longest time that a history may need after its last step until everything is as it should be.
///
/// In the worst order: a stalled speaker catches up (2 intervals) or a started one ends its join barrier (max(1 s, 10
/// intervals)); then it finds that a peer is dead (3 intervals, 3 probes 50 ms apart after at least 1.5); then three
/// candidates that cannot claim are passed over (3 x 2 intervals); an address is probed for the first time (0.3 s);
/// watches and status writes lag (0.2 s). The sum is at most 1.85 s and 21 intervals; the rest is slack.
pub fn settle(interval: Duration) -> Duration {
    Duration::from_secs(3) + interval * 24
}

/// An address that a stranger held is claimed at the latest this long after the stranger has gone: the enquiry is
/// repeated after [`CONFLICT_RETRY`] and takes 0.3 s, and each candidate asks in its turn.
pub const RETRY: Duration = CONFLICT_RETRY.saturating_add(Duration::from_secs(3));

/// A history goes on for this long after it has settled: clients solicit again, and nothing may change.
const QUIET: Duration = Duration::from_secs(12);

impl History {
    /// Returns a history in which nothing happens.
    pub fn quiet(seed: u64, nodes: usize, addresses: usize) -> Self {
        let mut history = Self {
            seed,
            nodes,
            rivals: 0,
            rivals_are: Rivals::Another,
            rivals_from: Duration::ZERO,
            firewalls: 0,
            second_interfaces: 0,
            addresses,
            clients: 3,
            flows: addresses.min(4),
            local_share: 0.0,
            faults: Vec::new(),
            end: Duration::ZERO,
            gap: None,
            timers: Timers::default(),
            mutation: None,
        };
        history.end = history.settled_end();
        history
    }

    /// Returns this history with one fault and the bound that holds for it.
    pub fn with_single(mut self, fault: Fault) -> Self {
        self.gap = gap(&fault.kind, self.interval(), self.nodes);
        self.faults = vec![fault];
        self.end = self.settled_end();
        self
    }

    /// Returns this history with other faults.
    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self.gap = None;
        self.end = self.settled_end();
        self
    }

    /// Returns the number of interfaces on the segment: those of the cluster's nodes, those of the other cluster's, and
    /// second ones.
    pub fn speakers(&self) -> usize {
        self.nodes + self.rivals + self.seconds().count
    }

    /// Returns the second interfaces.
    pub fn seconds(&self) -> Seconds {
        Seconds { first: self.nodes + self.rivals, count: self.second_interfaces.min(self.nodes) }
    }

    /// Returns all steps of its faults.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        self.faults.iter().flat_map(|fault| fault.steps(self.nodes, self.addresses, self.seconds()))
    }

    /// Returns the role of a node, by its index among all that speak.
    pub fn role(&self, index: NodeIx) -> Role {
        if index < self.nodes {
            Role::Member
        } else if index < self.nodes + self.rivals {
            Role::Rival
        } else {
            Role::SecondOf(index - self.nodes - self.rivals)
        }
    }

    /// Returns whether the protocol cannot tell the other cluster from this one.
    pub fn is_cloned(&self) -> bool {
        self.rivals > 0 && self.rivals_are == Rivals::Cloned
    }

    /// Returns whether the other cluster, if there is one, uses this address as well. If the two clusters differ, half
    /// of the addresses, of both families, are used by one cluster alone.
    pub fn is_contested(&self, address: AddrIx) -> bool {
        self.rivals > 0 && (self.rivals_are == Rivals::Cloned || address % 4 < 2)
    }

    /// Returns the hello interval of its speakers while all are there.
    pub fn interval(&self) -> Duration {
        self.timers.interval(self.speakers().saturating_sub(1))
    }

    /// Returns the time that the history needs to settle.
    pub fn settle(&self) -> Duration {
        // An interface that has yielded ceases to hear the other (20 intervals) and is on trial for 3 intervals.
        let twins = if self.seconds().count > 0 { self.interval() * 24 } else { Duration::ZERO };
        settle(self.interval()) + twins
    }

    /// Returns when the first fault may come.
    pub fn start(&self) -> Duration {
        FIRST.max(self.settle() + Duration::from_secs(1))
    }

    /// Returns when the history may end: everything has settled after the last step within reach, and then some time
    /// has passed.
    pub fn settled_end(&self) -> Duration {
        let horizon = FOREVER / 2;
        // A fault that lasts to the end of the history does not prolong it.
        let last = self.steps().map(|step| step.at).filter(|at| *at < horizon).max().unwrap_or_default();
        let longest = self.start() + Duration::from_secs(120);
        let last =
            if self.faults.iter().any(|f| f.lasts > Duration::from_secs(500)) { last.min(longest) } else { last };
        // An address that a stranger held is claimed again only at the next retry.
        let held =
            |fault: &Fault| matches!(fault.kind, Kind::Stranger(_) | Kind::KernelAnswers(..) | Kind::KernelTakes(..));
        let retry = if self.faults.iter().any(held) { RETRY } else { Duration::ZERO };
        last.max(self.start()) + self.settle() + retry + QUIET
    }

    /// Returns how often the key is replaced.
    pub fn rotations(&self) -> usize {
        self.faults.iter().filter(|fault| matches!(fault.kind, Kind::KeyRotation { .. })).count()
    }

    /// Returns, for a Local address, whether each node has an endpoint; `None` for other addresses.
    pub fn endpoints(&self, address: AddrIx) -> Option<Vec<bool>> {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(31).wrapping_add(address as u64));
        let local = rng.f64() < self.local_share;
        // One node always has an endpoint: an address that no node may announce shows nothing.
        local.then(|| (0..self.nodes).map(|node| node == address % self.nodes || rng.u32(0..3) == 0).collect())
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes, {} addresses ({:.0} % Local), {} clients, until {:.1} s{}",
            self.seed,
            self.nodes,
            self.addresses,
            self.local_share * 100.0,
            self.clients,
            self.end.as_secs_f64(),
            self.mutation.map_or_else(String::new, |mutation| format!(", broken on purpose: {mutation:?}"))
        )?;
        if self.rivals > 0 {
            let (from, are) = (self.rivals_from.as_secs_f64(), self.rivals_are);
            writeln!(f, "  from {from:.1} s on: {} nodes of another cluster ({are:?})", self.rivals)?;
        }
        if self.firewalls > 0 {
            writeln!(f, "  from the start: {} nodes drop pings", self.firewalls)?;
        }
        if self.second_interfaces > 0 {
            writeln!(f, "  from the start: {} nodes have a second interface on the wire", self.second_interfaces)?;
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

/// Returns how long an address may go unanswered because of one fault of this kind. `None`: that depends on clients,
/// paths and chance.
pub fn gap(kind: &Kind, interval: Duration, nodes: usize) -> Option<Duration> {
    let margin = Duration::from_millis(30);
    // P1: cover begins one and a half intervals after the last Hello; the frame and the timer take the margin.
    let cover = interval * 3 / 2 + margin;
    // P2. Above 100 nodes: three intervals, then at most three probes, then the first candidate takes over.
    let takeover =
        if nodes <= 100 { Duration::from_millis(500) } else { interval * 3 + Duration::from_millis(150) + margin };
    match kind {
        // Without a second node to cover or succeed it, an address is answered again when its node is back.
        Kind::StallSpeaker(_)
        | Kind::Speaker(..)
        | Kind::RollingUpgrade { .. }
        | Kind::PauseNode { .. }
        | Kind::PowerOff { .. }
        | Kind::Cable { .. }
        | Kind::Mute(_)
        | Kind::Deaf(_)
        | Kind::NodeDeleted(..)
        | Kind::Renumbered { .. }
            if nodes == 1 =>
        {
            None
        }
        Kind::StallSpeaker(_)
        | Kind::Speaker(_, Stop::Killed | Stop::Deleted)
        | Kind::NodeDeleted(_, Removal::SpeakerStops) => Some(cover),
        Kind::Speaker(_, Stop::Asked(_)) | Kind::RollingUpgrade { .. } => Some(margin),
        Kind::PauseNode { .. }
        | Kind::PowerOff { .. }
        | Kind::Cable { .. }
        | Kind::Mute(_)
        | Kind::NodeDeleted(_, Removal::MachineReplaced)
        | Kind::Renumbered { none_left: true, .. } => Some(takeover),
        // Three intervals until the node knows, and one until its Hello reports it.
        Kind::Deaf(_) => Some(takeover + interval),
        // Watches, the first-claim probe (0.3 s), and candidates whose turns pass.
        Kind::Recreate(_) | Kind::RecreateOlder(_) => Some(Duration::from_millis(600) + interval * 6),
        Kind::Duplicate(_)
        | Kind::ApiLost(_)
        | Kind::ApiDown
        | Kind::NotReady(_)
        | Kind::Excluded(_)
        | Kind::Flapping { .. }
        | Kind::ProxyArp
        | Kind::Suppression
        | Kind::Stranger(_)
        | Kind::KernelAnswers(..)
        | Kind::KernelTakes(..)
        | Kind::KeyRotation { .. }
        | Kind::NodeDeleted(_, Removal::MachineStays)
        | Kind::Renumbered { .. }
        | Kind::Mtu(..)
        // The first interface is in use.
        | Kind::SecondCable { .. }
        | Kind::SecondFlapping { .. }
        | Kind::SecondUnheard(_)
        | Kind::Forged(_) => Some(margin),
        // The endpoint is gone at once, and the watch is late.
        Kind::NoEndpoint(..) => None,
        Kind::Loss(_)
        | Kind::Delay(_)
        | Kind::Reorder(_)
        | Kind::OneWay(..)
        | Kind::Partition(_)
        | Kind::SwitchesParted(_)
        | Kind::SitePowerCycle { .. }
        | Kind::PathMtu(_)
        | Kind::Reverted(_)
        | Kind::EtherTypeDropped(_) => None,
    }
}
