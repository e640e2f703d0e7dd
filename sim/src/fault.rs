//! Faults as values, and the conditions that they impose on the world.

use std::time::Duration;

use herald_protocol::api_view::Shutdown;

use crate::names::{AddrIx, NodeIx, Seconds};

/// One fault of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts (a fault of several parts: until its last part has ended).
    pub lasts: Duration,
    /// The kind of fault.
    pub kind: Kind,
}

/// How a node's speaker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGKILL or a crash.
    Killed,
    /// Killed, and its pod deleted: the state file is gone.
    Deleted,
    /// SIGTERM.
    Asked(Shutdown),
}

/// The frames that a forger sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Random bytes.
    Noise,
    /// Frames of another cluster.
    Foreign,
    /// Good frames with a bit changed.
    Flipped,
    /// Frames of this and earlier runs that were sent before.
    Replay,
    /// Hellos of runs that are over, with several of one node among them: each looks like a speaker that has just
    /// started.
    FormerRuns,
}

/// The state of a node's machine while the API does not list the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Machine and speaker run on: the kubelet is broken, and a person deletes the Node.
    MachineStays,
    /// The speaker is stopped first and started last; the kernel runs on.
    SpeakerStops,
    /// The machine is switched off first. Another machine has its name afterwards, with another MAC and the same
    /// address.
    MachineReplaced,
}

/// The kinds of faults.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Frames are lost, each with this probability.
    Loss(f64),
    /// Frames take this long, plus up to as much again at random.
    Delay(Duration),
    /// Frames arrive twice, each with this probability.
    Duplicate(f64),
    /// Frames are delayed by up to 30 ms, each with this probability.
    Reorder(f64),
    /// No frame gets from the first node to the second.
    OneWay(NodeIx, NodeIx),
    /// These nodes are cut off from the other nodes and the clients.
    Partition(Vec<NodeIx>),
    /// SIGSTOP.
    StallSpeaker(NodeIx),
    /// The hypervisor does not run the node.
    PauseNode {
        /// The node.
        node: NodeIx,
        /// Whether the node's monotonic clock goes on and shows the pause afterwards.
        clock: bool,
    },
    /// The speaker does not run.
    Speaker(NodeIx, Stop),
    /// The nodes' speakers are stopped by SIGTERM and started again, one after the other.
    RollingUpgrade {
        /// How long each is down.
        down: Duration,
        /// Time from one node to the next.
        step: Duration,
    },
    /// The node loses power and gets it back. Its speaker starts some time after the kernel.
    PowerOff {
        /// The node.
        node: NodeIx,
        /// Time from power-on to the speaker's start.
        boot: Duration,
    },
    /// All nodes lose power and come back with the state that they had, one `step` after the other.
    SitePowerCycle {
        /// Time from one node to the next.
        step: Duration,
    },
    /// The link loses carrier; after its return the switch forwards nothing for `silent`.
    Cable {
        /// The node.
        node: NodeIx,
        /// Duration of spanning tree's listening and learning.
        silent: Duration,
    },
    /// The node receives nothing (on its first interface, if it has two).
    Deaf(NodeIx),
    /// The node sends nothing (on its first interface, if it has two).
    Mute(NodeIx),
    /// [`Kind::Cable`] of the node's second interface. If it begins with the history, the cable is plugged in at the
    /// end.
    SecondCable {
        /// The node.
        node: NodeIx,
        /// Duration of spanning tree's listening and learning.
        silent: Duration,
    },
    /// The plug of the node's second interface is loose.
    SecondFlapping {
        /// The node.
        node: NodeIx,
        /// The interface has carrier for half of this period.
        period: Duration,
    },
    /// The switch drops the protocol's EtherType at the port of the node's second interface.
    SecondUnheard(NodeIx),
    /// All second interfaces, and the first ones of these nodes, are on another switch, and the cable between the two
    /// switches is pulled.
    SwitchesParted(Vec<NodeIx>),
    /// The node is cut from the API: no events, no writes.
    ApiLost(NodeIx),
    /// No client can reach the API server.
    ApiDown,
    /// The VirtualIP is deleted at the beginning and created again at the end.
    Recreate(AddrIx),
    /// The same, but the younger object has the older creationTimestamp: the API servers' clocks differ, or were set back.
    RecreateOlder(AddrIx),
    /// The Node is deleted from the API, and registered again at the end.
    NodeDeleted(NodeIx, Removal),
    /// The node's own addresses on the segment change: it keeps one of the other family only, or none at all (then it
    /// is neither a candidate nor an expected peer). At the end it has its former addresses.
    Renumbered {
        /// The node.
        node: NodeIx,
        /// Whether no address is left.
        none_left: bool,
    },
    /// The node's link carries packets of this length at most, and the node knows it.
    Mtu(NodeIx, u32),
    /// The segment carries packets of this length at most, and no node knows it.
    PathMtu(u32),
    /// At the end the node's virtual machine goes on from a snapshot taken at the beginning.
    Reverted(NodeIx),
    /// The node is NotReady.
    NotReady(NodeIx),
    /// The node is excluded.
    Excluded(NodeIx),
    /// The node changes between Ready and NotReady with this period.
    Flapping {
        /// The node.
        node: NodeIx,
        /// The node is Ready for half of this period, and NotReady for the other half.
        period: Duration,
    },
    /// The Local address has no endpoint on this node.
    NoEndpoint(AddrIx, NodeIx),
    /// The switch answers ARP for hosts that do not answer.
    ProxyArp,
    /// The switch answers unicast probes of nodes by itself, in the name of the host that is asked, dead or alive, with
    /// that host's link-layer address as Ethernet source. It does not answer pings.
    Suppression,
    /// The switch drops the protocol's EtherType on all ports, or at that of one node's first interface.
    EtherTypeDropped(Option<NodeIx>),
    /// A host outside the cluster announces the address and answers for it.
    Stranger(AddrIx),
    /// The node's kernel answers for the address: another provider assigned it, or IPVS runs with arp_ignore=0.
    KernelAnswers(AddrIx, NodeIx),
    /// The same, and the node announces the address when its kernel takes it, as another provider does.
    KernelTakes(AddrIx, NodeIx),
    /// The cluster's key is replaced. The nodes accept a second key one after the other; when all have done so for the
    /// time of the fault, they drop the first one after the other. (In reality the operator waits until the API can
    /// tell a node that is cut off; here the node is told at once.)
    KeyRotation {
        /// Time from one node to the next.
        step: Duration,
    },
    /// A forger sends 50 frames in a second.
    Forged(Forgery),
}

/// Time from power-on to the speaker's start of a machine that replaces another.
const BOOT: Duration = Duration::from_secs(1);

/// A state of the world that lasts for a while. A state of a wire or a port belongs to an interface: a node's own index
/// means its first one.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// See [`Kind::Loss`].
    Loss(f64),
    /// See [`Kind::Delay`].
    Delay(Duration),
    /// See [`Kind::Duplicate`].
    Duplicate(f64),
    /// See [`Kind::Reorder`].
    Reorder(f64),
    /// See [`Kind::OneWay`].
    OneWay(NodeIx, NodeIx),
    /// See [`Kind::Partition`].
    Partition(Vec<NodeIx>),
    /// See [`Kind::StallSpeaker`].
    Stalled(NodeIx),
    /// See [`Kind::PauseNode`].
    Paused(NodeIx, bool),
    /// The speaker does not run.
    Down(NodeIx, Stop),
    /// No power.
    Off(NodeIx),
    /// No carrier.
    NoCarrier(NodeIx),
    /// Carrier, but the switch does not forward.
    PortSilent(NodeIx),
    /// See [`Kind::Deaf`].
    Deaf(NodeIx),
    /// See [`Kind::Mute`].
    Mute(NodeIx),
    /// See [`Kind::ApiLost`]; `None`: for all.
    ApiLost(Option<NodeIx>),
    /// The object does not exist.
    Absent(AddrIx),
    /// The object does not exist; its successor has an older birth.
    AbsentBeforeOlder(AddrIx),
    /// The API does not list the node. See [`Kind::NodeDeleted`].
    Unlisted(NodeIx),
    /// Another machine has the node's name (from the beginning on, for good).
    OtherMachine(NodeIx),
    /// See [`Kind::Renumbered`].
    Renumbered(NodeIx, bool),
    /// See [`Kind::Mtu`].
    Mtu(NodeIx, u32),
    /// See [`Kind::PathMtu`].
    PathMtu(u32),
    /// See [`Kind::Reverted`].
    Reverted(NodeIx),
    /// See [`Kind::NotReady`].
    NotReady(NodeIx),
    /// See [`Kind::Excluded`].
    Excluded(NodeIx),
    /// See [`Kind::NoEndpoint`].
    NoEndpoint(AddrIx, NodeIx),
    /// See [`Kind::ProxyArp`].
    ProxyArp,
    /// See [`Kind::Suppression`].
    Suppression,
    /// See [`Kind::EtherTypeDropped`].
    EtherTypeDropped(Option<NodeIx>),
    /// See [`Kind::Stranger`].
    Stranger(AddrIx),
    /// See [`Kind::KernelAnswers`].
    KernelAnswers(AddrIx, NodeIx),
    /// See [`Kind::KernelTakes`].
    KernelTakes(AddrIx, NodeIx),
    /// The node accepts the next key besides its present one, and afterwards only the next. See [`Kind::KeyRotation`].
    TwoKeys(NodeIx),
    /// See [`Kind::Forged`].
    Forged(Forgery),
}

/// A condition begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Time of the step.
    pub at: Duration,
    /// Whether the condition begins.
    pub begins: bool,
    /// The condition.
    pub condition: Condition,
}

impl Fault {
    /// Returns the steps of this fault on a segment with this number of nodes, some of which have second interfaces. A
    /// fault of a node, address or interface that does not exist has no steps.
    pub fn steps(&self, nodes: usize, addresses: usize, seconds: Seconds) -> Vec<Step> {
        if self.node().is_some_and(|node| node >= nodes) || self.address().is_some_and(|a| a >= addresses) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        let mut during = |from: Duration, lasts: Duration, condition: Condition| {
            steps.push(Step { at: self.at + from, begins: true, condition: condition.clone() });
            steps.push(Step { at: self.at + from + lasts, begins: false, condition });
        };
        let none = Duration::ZERO;
        let whole = self.lasts;
        match &self.kind {
            Kind::Loss(p) => during(none, whole, Condition::Loss(*p)),
            Kind::Delay(delay) => during(none, whole, Condition::Delay(*delay)),
            Kind::Duplicate(p) => during(none, whole, Condition::Duplicate(*p)),
            Kind::Reorder(p) => during(none, whole, Condition::Reorder(*p)),
            Kind::OneWay(from, to) if *to < nodes => during(none, whole, Condition::OneWay(*from, *to)),
            Kind::OneWay(..) => {}
            Kind::Partition(cut) => {
                let cut = cut.iter().copied().filter(|node| *node < nodes);
                let cut = cut.flat_map(|node| seconds.interfaces(node)).collect();
                during(none, whole, Condition::Partition(cut));
            }
            Kind::SwitchesParted(there) => {
                let there = there.iter().copied().filter(|node| *node < nodes);
                let cut = there.chain(seconds.all()).collect();
                during(none, whole, Condition::Partition(cut));
            }
            Kind::SecondCable { node, silent } => {
                if let Some(second) = seconds.of(*node) {
                    during(none, whole, Condition::NoCarrier(second));
                    if !silent.is_zero() {
                        during(none, whole + *silent, Condition::PortSilent(second));
                    }
                }
            }
            Kind::SecondFlapping { node, period } => {
                let mut from = none;
                while let Some(second) = seconds.of(*node).filter(|_| from < whole) {
                    during(from, *period / 2, Condition::NoCarrier(second));
                    from += *period;
                }
            }
            Kind::SecondUnheard(node) => {
                if let Some(second) = seconds.of(*node) {
                    during(none, whole, Condition::EtherTypeDropped(Some(second)));
                }
            }
            Kind::StallSpeaker(node) => during(none, whole, Condition::Stalled(*node)),
            Kind::PauseNode { node, clock } => during(none, whole, Condition::Paused(*node, *clock)),
            Kind::Speaker(node, stop) => during(none, whole, Condition::Down(*node, *stop)),
            Kind::RollingUpgrade { down, step } => {
                for node in 0..nodes {
                    during(*step * node as u32, *down, Condition::Down(node, Stop::Asked(Shutdown::Restarting)));
                }
            }
            Kind::PowerOff { node, boot } => {
                during(none, whole, Condition::Off(*node));
                during(none, whole + *boot, Condition::Down(*node, Stop::Deleted));
            }
            Kind::SitePowerCycle { step } => {
                for node in 0..nodes {
                    let off = whole + *step * node as u32;
                    during(none, off, Condition::Off(node));
                    during(none, off + Duration::from_millis(300), Condition::Down(node, Stop::Killed));
                }
            }
            Kind::Cable { node, silent } => {
                during(none, whole, Condition::NoCarrier(*node));
                if !silent.is_zero() {
                    during(none, whole + *silent, Condition::PortSilent(*node));
                }
            }
            Kind::Deaf(node) => during(none, whole, Condition::Deaf(*node)),
            Kind::Mute(node) => during(none, whole, Condition::Mute(*node)),
            Kind::ApiLost(node) => during(none, whole, Condition::ApiLost(Some(*node))),
            Kind::ApiDown => during(none, whole, Condition::ApiLost(None)),
            Kind::Recreate(address) => during(none, whole, Condition::Absent(*address)),
            Kind::RecreateOlder(address) => during(none, whole, Condition::AbsentBeforeOlder(*address)),
            Kind::NodeDeleted(node, removal) => {
                // The fault of the machine comes first: the Node is deleted because of it.
                let before = whole / 4;
                match removal {
                    Removal::MachineStays => {}
                    Removal::SpeakerStops => during(none, whole, Condition::Down(*node, Stop::Deleted)),
                    Removal::MachineReplaced => {
                        during(none, whole, Condition::Off(*node));
                        during(none, whole + BOOT, Condition::Down(*node, Stop::Deleted));
                        during(before, whole - before, Condition::OtherMachine(*node));
                    }
                }
                during(before, whole - before, Condition::Unlisted(*node));
            }
            Kind::Renumbered { node, none_left } => during(none, whole, Condition::Renumbered(*node, *none_left)),
            Kind::Mtu(node, mtu) => during(none, whole, Condition::Mtu(*node, *mtu)),
            Kind::PathMtu(mtu) => during(none, whole, Condition::PathMtu(*mtu)),
            Kind::Reverted(node) => during(none, whole, Condition::Reverted(*node)),
            Kind::NotReady(node) => during(none, whole, Condition::NotReady(*node)),
            Kind::Excluded(node) => during(none, whole, Condition::Excluded(*node)),
            Kind::Flapping { node, period } => {
                let mut from = none;
                while from < whole {
                    during(from, *period / 2, Condition::NotReady(*node));
                    from += *period;
                }
            }
            Kind::NoEndpoint(address, node) => during(none, whole, Condition::NoEndpoint(*address, *node)),
            Kind::ProxyArp => during(none, whole, Condition::ProxyArp),
            Kind::Suppression => during(none, whole, Condition::Suppression),
            Kind::EtherTypeDropped(node) => during(none, whole, Condition::EtherTypeDropped(*node)),
            Kind::Stranger(address) => during(none, whole, Condition::Stranger(*address)),
            Kind::KernelAnswers(address, node) => during(none, whole, Condition::KernelAnswers(*address, *node)),
            Kind::KernelTakes(address, node) => during(none, whole, Condition::KernelTakes(*address, *node)),
            Kind::KeyRotation { step } => {
                for node in 0..nodes {
                    during(*step * node as u32, *step * nodes as u32 + whole, Condition::TwoKeys(node));
                }
            }
            Kind::Forged(forgery) => during(none, whole, Condition::Forged(*forgery)),
        }
        steps
    }

    /// Returns the node that the fault concerns, if it is one.
    pub fn node(&self) -> Option<NodeIx> {
        match &self.kind {
            Kind::OneWay(node, _)
            | Kind::StallSpeaker(node)
            | Kind::PauseNode { node, .. }
            | Kind::Speaker(node, _)
            | Kind::PowerOff { node, .. }
            | Kind::Cable { node, .. }
            | Kind::Deaf(node)
            | Kind::Mute(node)
            | Kind::SecondCable { node, .. }
            | Kind::SecondFlapping { node, .. }
            | Kind::SecondUnheard(node)
            | Kind::ApiLost(node)
            | Kind::NotReady(node)
            | Kind::Excluded(node)
            | Kind::Flapping { node, .. }
            | Kind::NoEndpoint(_, node)
            | Kind::KernelAnswers(_, node)
            | Kind::KernelTakes(_, node)
            | Kind::NodeDeleted(node, _)
            | Kind::Renumbered { node, .. }
            | Kind::Mtu(node, _)
            | Kind::Reverted(node)
            | Kind::EtherTypeDropped(Some(node)) => Some(*node),
            Kind::Loss(_)
            | Kind::Delay(_)
            | Kind::Duplicate(_)
            | Kind::Reorder(_)
            | Kind::Partition(_)
            | Kind::SwitchesParted(_)
            | Kind::RollingUpgrade { .. }
            | Kind::SitePowerCycle { .. }
            | Kind::KeyRotation { .. }
            | Kind::ApiDown
            | Kind::Recreate(_)
            | Kind::RecreateOlder(_)
            | Kind::PathMtu(_)
            | Kind::Stranger(_)
            | Kind::ProxyArp
            | Kind::Suppression
            | Kind::EtherTypeDropped(None)
            | Kind::Forged(_) => None,
        }
    }

    /// Returns the address that the fault concerns, if it is one.
    pub fn address(&self) -> Option<AddrIx> {
        match self.kind {
            Kind::Recreate(address)
            | Kind::RecreateOlder(address)
            | Kind::NoEndpoint(address, _)
            | Kind::Stranger(address)
            | Kind::KernelAnswers(address, _)
            | Kind::KernelTakes(address, _) => Some(address),
            _ => None,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:8.3} s, for {:.3} s: {:?}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.kind)
    }
}
