//! What goes wrong: faults as values, and the conditions they put the world in.

use std::time::Duration;

use herald_protocol::api_view::Shutdown;

use crate::names::{AddrIx, NodeIx, Seconds};

/// One fault of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts (or until its last part has ended, for those made of several).
    pub lasts: Duration,
    /// What it is.
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

/// What a forger puts on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Random bytes.
    Noise,
    /// Frames of another cluster.
    Foreign,
    /// Good frames with a bit changed.
    Flipped,
    /// Frames sent before, of this and earlier runs.
    Replay,
    /// Hellos of runs that are over, several of one node among them: each looks like a speaker that has just started.
    FormerRuns,
}

/// What becomes of a node's machine while the API does not list the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Machine and speaker run on: the kubelet is broken, and somebody deletes the Node.
    MachineStays,
    /// The speaker is taken away first and comes back last; the kernel runs on.
    SpeakerStops,
    /// The machine is switched off first. Another bears its name afterwards, with another MAC and the same address.
    MachineReplaced,
}

/// The kinds of faults.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Frames are lost, each with this probability.
    Loss(f64),
    /// Frames take this long, and up to as much again.
    Delay(Duration),
    /// Frames arrive twice, each with this probability.
    Duplicate(f64),
    /// Frames are held back for up to 30 ms, each with this probability.
    Reorder(f64),
    /// Nothing gets from the first node to the second.
    OneWay(NodeIx, NodeIx),
    /// These nodes are cut off from the other nodes and the clients.
    Partition(Vec<NodeIx>),
    /// SIGSTOP.
    StallSpeaker(NodeIx),
    /// The hypervisor does not run the node. Does its monotonic clock go on?
    PauseNode {
        /// Which.
        node: NodeIx,
        /// Does the clock show the pause afterwards?
        clock: bool,
    },
    /// The speaker is down.
    Speaker(NodeIx, Stop),
    /// One node's speaker after the other is stopped by SIGTERM and started again.
    RollingUpgrade {
        /// How long each is down.
        down: Duration,
        /// From one node to the next.
        step: Duration,
    },
    /// Power off, and on again. Its speaker starts this long after the kernel.
    PowerOff {
        /// Which.
        node: NodeIx,
        /// From power-on to the speaker's start.
        boot: Duration,
    },
    /// All nodes lose power and come back with the state they had, one `step` after the other.
    SitePowerCycle {
        /// From one node to the next.
        step: Duration,
    },
    /// The link loses carrier; after its return the switch forwards nothing for `silent`.
    Cable {
        /// Which node's.
        node: NodeIx,
        /// Spanning tree's listening and learning.
        silent: Duration,
    },
    /// The node receives nothing (on its first interface, if it has two).
    Deaf(NodeIx),
    /// The node sends nothing (on its first interface, if it has two).
    Mute(NodeIx),
    /// [`Kind::Cable`] of the node's second interface. From the start on: it is plugged in at the end.
    SecondCable {
        /// Which node's.
        node: NodeIx,
        /// Spanning tree's listening and learning.
        silent: Duration,
    },
    /// The plug of the node's second interface is loose: half of this period it has carrier.
    SecondFlapping {
        /// Which node's.
        node: NodeIx,
        /// Half of it with carrier, half without.
        period: Duration,
    },
    /// The switch drops the protocol's EtherType at the port of the node's second interface.
    SecondUnheard(NodeIx),
    /// All second interfaces, and the first ones of these nodes, are on another switch, and the cable between the two
    /// switches is pulled.
    SwitchesParted(Vec<NodeIx>),
    /// The node is cut from the API: no events, no writes.
    ApiLost(NodeIx),
    /// The API server is away for everybody.
    ApiDown,
    /// The VirtualIP is deleted at the beginning and created anew at the end.
    Recreate(AddrIx),
    /// The same, but the younger object has the older creationTimestamp: the API servers' clocks differ, or were set back.
    RecreateOlder(AddrIx),
    /// The Node is deleted from the API, and registered again at the end.
    NodeDeleted(NodeIx, Removal),
    /// The node's own addresses on the segment change: it keeps one of the other family only, or none at all (then it is
    /// no candidate, and no station). At the end it has what it had.
    Renumbered {
        /// Which.
        node: NodeIx,
        /// Is none left?
        none_left: bool,
    },
    /// The node's link carries packets of this length at most, and the node knows.
    Mtu(NodeIx, u32),
    /// The segment carries packets of this length at most, and nobody knows.
    PathMtu(u32),
    /// At the end the node's virtual machine goes on from a snapshot of the beginning.
    Reverted(NodeIx),
    /// The node is NotReady.
    NotReady(NodeIx),
    /// The node is excluded.
    Excluded(NodeIx),
    /// The node changes between Ready and NotReady with this period.
    Flapping {
        /// Which.
        node: NodeIx,
        /// Half of it Ready, half NotReady.
        period: Duration,
    },
    /// The Local address has no endpoint on this node.
    NoEndpoint(AddrIx, NodeIx),
    /// The switch answers ARP for hosts that do not.
    ProxyArp,
    /// The switch answers unicast probes of nodes itself, in the name of the host that is asked, dead or alive, with that
    /// host's link-layer address as Ethernet source. It answers no pings.
    Suppression,
    /// The switch drops the protocol's EtherType on all ports, or at that of one node's first interface.
    EtherTypeDropped(Option<NodeIx>),
    /// A host outside the cluster announces the address and answers for it.
    Stranger(AddrIx),
    /// The node's kernel answers for the address: another provider's, or IPVS with arp_ignore=0.
    KernelAnswers(AddrIx, NodeIx),
    /// The same, and the node announces the address when it takes it, as another provider does.
    KernelTakes(AddrIx, NodeIx),
    /// The cluster's key is replaced. One node after the other accepts a second one; when all have done so for the time
    /// of the fault, one after the other drops the first. (What the API tells a node that is cut off from it, the
    /// operator waits for: here it is told at once.)
    KeyRotation {
        /// From one node to the next.
        step: Duration,
    },
    /// Somebody forges frames, 50 in a second.
    Forged(Forgery),
}

/// From power-on to the speaker's start of a machine that replaces another.
const BOOT: Duration = Duration::from_secs(1);

/// A state of the world that lasts for a while. What is about a wire or a port is about an interface: a node's own index is
/// its first one.
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
    /// The object does not exist; the next one has an older birth than it.
    AbsentBeforeOlder(AddrIx),
    /// The API does not list the node. See [`Kind::NodeDeleted`].
    Unlisted(NodeIx),
    /// Another machine bears the node's name (from the beginning on, for good).
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
    /// The node accepts the next key besides the one it had; afterwards only the next. See [`Kind::KeyRotation`].
    TwoKeys(NodeIx),
    /// See [`Kind::Forged`].
    Forged(Forgery),
}

/// A condition begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When.
    pub at: Duration,
    /// Does it begin?
    pub begins: bool,
    /// What.
    pub condition: Condition,
}

impl Fault {
    /// The steps of this fault on a segment of so many nodes, some of which have second interfaces. Faults of nodes,
    /// addresses and interfaces beyond have none.
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
                // What is wrong with the machine comes first: that is why the Node is deleted.
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

    /// The node it is about, if one.
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

    /// The address it is about, if one.
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
