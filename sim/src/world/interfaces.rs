//! Nodes with two interfaces on the wire. The speaker's own code ([`herald_protocol::twins`]) decides which of them
//! takes part, and this module acts on the decision as the speaker does (speaker/src/coordinator/one_segment.rs and
//! segments.rs).
//!
//! Each interface has a run of the protocol. For its run, an interface that yields has no carrier.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use herald_protocol::{
    Engine, Input,
    api_view::{Candidates, Shutdown, Vip},
    mac::MacAddr,
    node::Incarnation,
    twins::{Interface, Others, Role, Twins},
};

use super::{Event, World, members::REGISTER_DELAY};
use crate::names::{self, AddrIx, NodeIx};

/// The names of a node's interfaces, in the order in which they are tried.
const NAMES: [&str; 2] = ["eth0", "eth1"];

/// Both interfaces are in one subnet.
const SUBNETS: [(IpAddr, u8); 1] = [(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 16)];

/// State that the process of a node with two interfaces keeps about them.
#[derive(Debug, Default)]
pub(super) struct Pair {
    twins: Twins,
    runs: [Run; 2],
    /// The wake-up that is in the queue (simulation time).
    wake: Option<Duration>,
    /// The time (of its own clock) at which its view of the API was last current.
    fresh: Option<Duration>,
    /// Whether the API has listed everything, or an earlier run left a complete list.
    listed: bool,
    /// By address, the interface on which it lies.
    lies: BTreeMap<AddrIx, usize>,
    /// Whether it was asked to stop, and how.
    stopping: Option<Shutdown>,
}

/// The run on one interface.
#[derive(Debug, Default)]
struct Run {
    /// Whether the run takes part.
    speaks: bool,
    /// Whether the run has sent its last word.
    finished: bool,
    /// The addresses as the run was last told of them.
    told: BTreeMap<AddrIx, Arc<Vip>>,
    /// The other run's incarnation and MAC, as this run was told.
    siblings: BTreeMap<Incarnation, MacAddr>,
}

/// The number by which [`Twins`] knows an interface. The kernel numbers interfaces from 1 on.
fn number(side: usize) -> u32 {
    side as u32 + 1
}

impl World<'_> {
    /// Returns the interfaces of a node.
    pub(super) fn interfaces(&self, node: NodeIx) -> impl Iterator<Item = NodeIx> + use<> {
        self.seconds.interfaces(node)
    }

    fn has_two(&self, node: NodeIx) -> bool {
        self.seconds.of(node).is_some()
    }

    /// Returns the interface of a node on one side.
    fn on_side(&self, node: NodeIx, side: usize) -> NodeIx {
        self.seconds.of(node).filter(|_| side == 1).unwrap_or(node)
    }

    fn side_of(&self, interface: NodeIx) -> usize {
        usize::from(self.seconds.contains(interface))
    }

    /// The process of a node that may have two interfaces begins: it knows nothing yet, and decides which of them takes
    /// part.
    pub(super) fn begin_interfaces(&mut self, node: NodeIx) {
        if self.has_two(node) {
            self.pairs[node] = Pair::default();
            self.decide_roles(node);
        }
    }

    /// Returns whether the run on an interface takes part in the protocol.
    pub(super) fn takes_part(&self, interface: NodeIx) -> bool {
        let node = self.seconds.node(interface);
        !self.has_two(node) || self.pairs[node].runs[self.side_of(interface)].speaks
    }

    /// A run begins on an interface. Returns whether it may resume the claims of an earlier run there.
    pub(super) fn begin_run(&mut self, interface: NodeIx) -> bool {
        let (node, side) = (self.seconds.node(interface), self.side_of(interface));
        if !self.has_two(node) {
            return true;
        }
        let role = self.pairs[node].twins.role(number(side));
        self.pairs[node].runs[side] = Run { speaks: role == Role::Speaks, ..Run::default() };
        // If the interface yields, the earlier claims belong to the other interface.
        !matches!(role, Role::Yields(_))
    }

    /// The interfaces of a node or their carrier may have changed: decides the role of each, and acts on it.
    pub(super) fn update_interfaces(&mut self, node: NodeIx) {
        if !self.has_two(node) {
            let carrier = self.net.carrier(node);
            self.speaker_handles(node, Input::Carrier(carrier));
            return;
        }
        if !self.runs_both(node) {
            return;
        }
        self.decide_roles(node);
        for side in 0..2 {
            self.take_role(node, side);
        }
        self.tell_siblings(node);
        self.tell_addresses(node);
        for address in 0..self.history.addresses {
            self.recheck(address);
        }
        self.queue.push(self.now + REGISTER_DELAY, Event::Registers(node));
        self.schedule_decision(node);
    }

    /// Returns whether the process of a node with two interfaces runs.
    fn runs_both(&self, node: NodeIx) -> bool {
        self.has_two(node) && self.interfaces(node).all(|interface| self.nodes[interface].speaks())
    }

    /// Decides the role of each interface of a node, and returns whether a role has changed.
    fn decide_roles(&mut self, node: NodeIx) -> bool {
        let now = self.nodes[node].local(self.now);
        let runs_on = |side: usize| -> BTreeSet<Incarnation> {
            let speaker = self.nodes[self.on_side(node, side)].speaker.as_ref();
            speaker.map(|speaker| speaker.machine.segment().heard_runs(now)).unwrap_or_default()
        };
        let runs = [runs_on(0), runs_on(1)];
        let of_side = |side: usize| {
            let interface = self.on_side(node, side);
            let here = &self.nodes[interface];
            let segment = here.speaker.as_ref().map(|speaker| speaker.machine.segment());
            Interface {
                index: number(side),
                name: NAMES[side],
                able: self.net.carrier(interface),
                default_route: side == 0,
                macvlan_on: None,
                has_claims: segment.is_none() && here.saved.as_ref().is_some_and(|(left, _)| !left.claims.is_empty()),
                hears: segment.is_some_and(|segment| segment.is_hearing()),
                heard: segment.map(|segment| segment.last_evidence()).unwrap_or_default(),
                runs: &runs[side],
                in_use: self.pairs[node].lies.values().any(|lies| *lies == side),
                subnets: &SUBNETS,
            }
        };
        let interfaces = [of_side(0), of_side(1)];
        let segments = || self.interfaces(node).filter_map(|interface| self.nodes[interface].speaker.as_ref());
        let intervals = segments().map(|speaker| speaker.machine.segment().interval());
        let interval = intervals.max().unwrap_or_else(|| self.history.timers.interval(0));
        let has_peers = |interface: &NodeIx| {
            let speaker = self.nodes[*interface].speaker.as_ref().filter(|_| self.takes_part(*interface));
            speaker.is_some_and(|speaker| speaker.machine.segment().totals().peers > 0)
        };
        let others = Others {
            heard: self.interfaces(node).any(|interface| has_peers(&interface)),
            listed: !self.nodes[node].stations.is_empty(),
        };
        let twins = &mut self.pairs[node].twins;
        let before = [1, 2].map(|index| twins.role(index));
        let changed = twins.decide(now, interval, &interfaces, others, |_| false);
        let roles = [1, 2].map(|index| twins.role(index));
        if roles != before {
            self.trace(|| format!("node {node}: {}: {:?}, {}: {:?}", NAMES[0], roles[0], NAMES[1], roles[1]));
        }
        changed
    }

    /// An interface takes the role that was decided.
    fn take_role(&mut self, node: NodeIx, side: usize) {
        let interface = self.on_side(node, side);
        let speaks = self.pairs[node].twins.role(number(side)) == Role::Speaks;
        if self.pairs[node].runs[side].speaks && !speaks {
            self.speaker_handles(interface, Input::Superseded);
            // Its claims now belong to the other interface.
            self.nodes[interface].saved = None;
            return self.rejoin(interface);
        }
        self.pairs[node].runs[side].speaks = speaks;
        let carrier = self.net.carrier(interface);
        self.speaker_handles(interface, Input::Carrier(carrier && speaks));
    }

    /// The run on one interface ends without a word, and another begins with its saved state.
    pub(super) fn rejoin(&mut self, interface: NodeIx) {
        let node = self.seconds.node(interface);
        let told_of_stations = self.nodes[interface].speaker.as_ref().is_some_and(|speaker| speaker.told_of_stations);
        self.end_run(interface);
        self.join(interface);
        if told_of_stations {
            self.tell_stations_on(interface);
        }
        if let Some(how) = self.pairs[node].stopping {
            self.speaker_handles(interface, Input::Shutdown(how));
        }
        self.tell_siblings(node);
        self.tell_addresses(node);
        if let Some(fresh) = self.pairs[node].fresh {
            self.speaker_handles(interface, Input::Fresh(fresh));
        }
    }

    /// Tells each run of the other run of its process.
    fn tell_siblings(&mut self, node: NodeIx) {
        let run = |interface: NodeIx| {
            let here = &self.nodes[interface];
            here.speaker.as_ref().map(|speaker| (speaker.incarnation, here.mac))
        };
        let runs = [0, 1].map(|side| run(self.on_side(node, side)));
        for side in 0..2 {
            let siblings: BTreeMap<Incarnation, MacAddr> = runs[1 - side].into_iter().collect();
            if self.pairs[node].runs[side].siblings != siblings {
                self.pairs[node].runs[side].siblings.clone_from(&siblings);
                self.speaker_handles(self.on_side(node, side), Input::Siblings(siblings));
                let other = self.nodes[self.on_side(node, 1 - side)].speaker.as_ref();
                let known = other.map(|other| other.machine.segment().deletions().cloned().collect());
                self.speaker_handles(self.on_side(node, side), Input::Deletions(known.unwrap_or_default()));
            }
        }
    }

    /// Passes on to the other interface what this one heard and the other needs to know.
    pub(super) fn note_sibling(&mut self, interface: NodeIx) {
        let node = self.seconds.node(interface);
        if !self.runs_both(node) {
            return;
        }
        let hearer = self.side_of(interface);
        let reminded = self.nodes[interface].speaker.as_mut().map(|speaker| speaker.machine.take_reminded());
        for address in reminded.unwrap_or_default().into_iter().filter_map(names::vip_index) {
            self.tell_address(node, address);
        }
        let sender = 1 - hearer;
        let deletions = self.nodes[interface].speaker.as_mut().map(|speaker| speaker.machine.take_deletions());
        if let Some(deletions) = deletions.filter(|deletions| !deletions.is_empty()) {
            self.speaker_handles(self.on_side(node, sender), Input::Deletions(deletions));
        }
        let heard = self.nodes[interface].speaker.as_mut().and_then(|speaker| speaker.machine.take_sibling());
        let Some(sibling) = heard else { return };
        let other = self.nodes[self.on_side(node, sender)].speaker.as_ref();
        if !other.is_some_and(|other| other.machine.segment().has_sent(sibling)) {
            return;
        }
        let now = self.nodes[node].local(self.now);
        if self.pairs[node].twins.heard(now, number(sender), number(hearer)) {
            self.update_interfaces(node);
        }
    }

    /// The time for a node's decision has come.
    pub(super) fn decision_is_due(&mut self, node: NodeIx) {
        if self.pairs[node].wake != Some(self.now) {
            return;
        }
        self.pairs[node].wake = None;
        if !self.runs_both(node) {
            return;
        }
        let now = self.nodes[node].local(self.now);
        let is_due = self.pairs[node].twins.poll_timeout().is_some_and(|at| at <= now);
        if is_due && self.decide_roles(node) {
            self.update_interfaces(node);
        } else {
            self.schedule_decision(node);
        }
    }

    /// Sets the timer for the next decision.
    pub(super) fn schedule_decision(&mut self, node: NodeIx) {
        if !self.has_two(node) {
            return;
        }
        let Some(due) = self.pairs[node].twins.poll_timeout() else { return };
        let due = self.nodes[node].global(due).max(self.now);
        if self.pairs[node].wake.is_none_or(|wake| due < wake) {
            self.pairs[node].wake = Some(due);
            self.queue.push(due, Event::Decide(node));
        }
    }

    /// The view of a node's process is complete.
    pub(super) fn is_listed(&mut self, node: NodeIx) {
        if self.has_two(node) {
            self.pairs[node].listed = true;
        }
    }

    /// Tells a node's process when its view was last current.
    pub(super) fn view_is_fresh(&mut self, node: NodeIx) {
        let now = self.nodes[node].local(self.now);
        if self.has_two(node) && self.nodes[node].speaks() {
            self.pairs[node].fresh = Some(now);
        }
        for interface in self.interfaces(node) {
            self.speaker_handles(interface, Input::Fresh(now));
        }
    }

    /// Tells the runs of a node with two interfaces what has changed of each address.
    fn tell_addresses(&mut self, node: NodeIx) {
        if self.pairs[node].listed {
            for address in 0..self.history.addresses {
                self.tell_address(node, address);
            }
        }
    }

    /// Tells a node's process the content of its view of an address.
    pub(super) fn tell_address(&mut self, node: NodeIx, address: AddrIx) {
        let (vip, told) = (names::vip(address), self.nodes[node].view[address].clone());
        if !self.has_two(node) {
            self.speaker_handles(node, Input::Vip(vip, told));
            return;
        }
        if !self.runs_both(node) {
            return;
        }
        let lies = self.lies_on(node, address);
        for side in 0..2 {
            let interface = self.on_side(node, side);
            if told.is_some() && lies.is_some_and(|lies| lies != side) && self.asks(interface, |run| run.resumes(vip)) {
                self.speaker_handles(interface, Input::LiesElsewhere(vip));
            }
            let claims = self.asks(interface, |run| run.claims_or_resumes(vip));
            let run = &mut self.pairs[node].runs[side];
            let knows = run.told.contains_key(&address) || claims;
            let told = match &told {
                None if run.told.remove(&address).is_some() || claims => None,
                Some(viewed) if lies == Some(side) => Some(viewed.clone()),
                // An address that no longer lies on this side has no candidate there.
                Some(viewed) if knows => {
                    Some(Arc::new(Vip { candidates: Candidates::default(), ..(**viewed).clone() }))
                }
                None | Some(_) => continue,
            };
            if let Some(told) = &told
                && run.told.insert(address, told.clone()).is_some_and(|before| before == *told)
            {
                continue;
            }
            self.speaker_handles(interface, Input::Vip(vip, told));
        }
    }

    /// Returns the side of a node on which an address lies. Both sides are in its subnet.
    fn lies_on(&mut self, node: NodeIx, address: AddrIx) -> Option<usize> {
        let pair = &mut self.pairs[node];
        let speaking = (0..2).filter(|side| pair.runs[*side].speaks).map(number);
        let equal: Vec<u32> = speaking.filter(|index| !pair.twins.is_deaf(*index)).collect();
        let now_on = pair.lies.get(&address).map(|side| number(*side));
        let side = (0..2).find(|side| Some(number(*side)) == pair.twins.choose(&equal, now_on))?;
        pair.lies.insert(address, side);
        Some(side)
    }

    /// Returns the answer of the run on an interface, or false if there is none.
    fn asks(&self, interface: NodeIx, question: impl Fn(&Engine) -> bool) -> bool {
        self.nodes[interface].speaker.as_ref().is_some_and(|speaker| question(speaker.machine.segment()))
    }

    /// A claim of its own that a node learns of from peers may lie on its other interface.
    pub(super) fn note_where_it_lies(&mut self, interface: NodeIx, address: AddrIx) {
        let node = self.seconds.node(interface);
        if self.has_two(node) {
            let run = &self.pairs[node].runs[self.side_of(interface)];
            if run.told.get(&address).is_none_or(|told| told.candidates.is_empty()) {
                self.tell_address(node, address);
            }
        }
    }

    /// Returns the interface by which others know a node: the one that takes part, or will unless it turns out to be on
    /// the segment of the other. `None`: that is not decided yet.
    pub(super) fn published_interface(&self, node: NodeIx) -> Option<NodeIx> {
        if !self.has_two(node) || !self.runs_both(node) {
            return Some(node);
        }
        let pair = &self.pairs[node];
        if pair.twins.is_deciding(self.nodes[node].local(self.now)) {
            return None;
        }
        let side = (0..2).find(|side| pair.runs[*side].speaks);
        let tried = || (0..2).find(|side| pair.twins.role(number(*side)) == Role::Tried);
        Some(self.on_side(node, side.or_else(tried).unwrap_or(0)))
    }

    /// A node's speaker is asked to stop.
    pub(super) fn shut_down(&mut self, node: NodeIx, how: Shutdown) {
        if self.runs_both(node) {
            self.pairs[node].stopping = Some(how);
        }
        for interface in self.interfaces(node) {
            if let Some(speaker) = self.nodes[interface].speaker.as_mut().filter(|_| how == Shutdown::Leaving) {
                speaker.leaving = true;
            }
            self.speaker_handles(interface, Input::Shutdown(how));
        }
    }

    /// A run has sent its last word. Returns whether all runs of its process have.
    pub(super) fn run_has_finished(&mut self, interface: NodeIx) -> bool {
        let node = self.seconds.node(interface);
        if !self.has_two(node) {
            return true;
        }
        let side = self.side_of(interface);
        let runs = &mut self.pairs[node].runs;
        runs[side].finished = true;
        runs.iter().all(|run| run.finished)
    }
}
