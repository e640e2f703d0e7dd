//! The speaker's core: everything it decides, as one synchronous machine.
//!
//! No sockets, clock, tasks or API client here. Facts go in through [`Machine::handle`] and [`Machine::handle_frame`],
//! time passes by [`Machine::handle_timeout`] (when [`Machine::poll_timeout`] says so), and what is to be done comes
//! out of [`Machine::poll_output`] as values. The convention is that of quinn-proto: the same code runs on a wire and
//! under a test that makes time.
//!
//! **Ownership** is decided on each segment by its [`herald_segment::Segment`]. This machine tells it what the API says
//! (who may announce which address, by the order of [`rank`](crate::rank); which nodes are there), carries its frames,
//! and turns what comes of it into statuses. It tells nothing before every kind has been listed once and the interfaces
//! are known, or an earlier run has left both: until then, absence means nothing.
//!
//! **Status.** Whoever announces writes VirtualIP.status. A node that loses an address to another falls silent and
//! writes nothing: the new owner overwrites it. A node that may no longer announce, with no other to follow, clears the
//! status. Each write carries the version of the object it was decided from, so a node that lost cannot overwrite a
//! newer owner; the version that refused it comes in by the watch and is decided anew.

mod cluster_keys;
mod cluster_view;
mod duty;
mod evaluation;
mod gate;
mod interface_rules;
mod interface_selection;
mod local;
mod one_segment;
mod outcome;
mod segments;
mod slice_watch;
mod sockets;
mod speaker_report;
mod speakers;
mod status;
mod types;
mod wire_warnings;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use herald_segment::{Input as SegmentInput, Neighbour, SavedState, node::NodeId, twins::Twins, view::Shutdown};

use crate::{
    cluster::{Change, Endpoint, Node, ServiceName},
    events::Coalescer,
    interfaces::Selection,
    keys::KeysError,
    packet::{self, Asker, Heard},
    rank::Scores,
    readiness::{Health, Joining},
    socket::PacketType,
    state::{Claims, View},
};
use cluster_keys::ClusterKeys;
use cluster_view::{ClusterView, Effects, Own};
use duty::{Conflict, Duty};
use evaluation::Evaluation;
use gate::Gate;
pub use gate::PROXY_SYNC;
use local::Local;
pub use sockets::SocketFailure;
use speaker_report::SpeakerReport;
use speakers::Wire;
pub use types::{
    Announcing, ApiFact, Config, Event, Input, Interfaces, Now, Output, Purpose, Restored, SpeakerWrite, VipWrite,
};
use wire_warnings::WireWarnings;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    rng: fastrand::Rng,
    cluster: ClusterView,
    /// What the order of nodes was computed from before.
    scores: Scores,
    evaluation: Evaluation,
    /// As of when the segments were told that the view is current.
    current_as_of: Option<Duration>,
    gate: Gate,
    /// Which interfaces are wanted, as it was emitted last.
    selection: Option<Selection>,
    interfaces: Option<Interfaces>,
    keys: Option<ClusterKeys>,
    /// Why the Secret's present content is not in use.
    keys_error: Option<KeysError>,
    /// What was claimed on each interface that is not joined (by an earlier run, or before the interface was lost), and
    /// whether that was since the machine was booted.
    remembered: BTreeMap<String, (SavedState, bool)>,
    /// Hosts that can be asked for a sign of life, by interface index: they may be known before the segment is joined.
    neighbours: BTreeMap<u32, Arc<[Neighbour]>>,
    /// By interface index.
    segments: BTreeMap<u32, Local>,
    duties: BTreeMap<IpAddr, Duty>,
    /// Others that answer for what this node owns, by what was seen on the wire.
    conflicts: BTreeMap<IpAddr, Conflict>,
    /// Addresses whose status may have to be written.
    unreported: BTreeSet<IpAddr>,
    wire_warnings: WireWarnings,
    /// Which of the interfaces are on one segment.
    twins: Twins,
    report: SpeakerReport,
    coalescer: Coalescer,
    /// Has anything changed that SpeakerStatus tells?
    speaker_changed: bool,
    stopping: Option<Shutdown>,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A machine that knows what an earlier run left.
    pub fn new(config: Config, restored: Restored) -> Self {
        let Restored { same_boot, claims, view } = restored;
        let keys = view.as_ref().and_then(|view| view.keys.clone());
        let mut machine = Self {
            rng: fastrand::Rng::with_seed(config.seed),
            coalescer: Coalescer::new(&config.node),
            config,
            cluster: view.map(ClusterView::restored).unwrap_or_default(),
            scores: Scores::default(),
            evaluation: Evaluation::default(),
            current_as_of: None,
            gate: Gate::default(),
            selection: None,
            interfaces: None,
            keys: keys.map(ClusterKeys::new),
            keys_error: None,
            remembered: claims.into_iter().map(|(interface, claims)| (interface, (claims, same_boot))).collect(),
            neighbours: BTreeMap::new(),
            segments: BTreeMap::new(),
            duties: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            unreported: BTreeSet::new(),
            wire_warnings: WireWarnings::default(),
            twins: Twins::default(),
            report: SpeakerReport::default(),
            speaker_changed: true,
            stopping: None,
            outputs: VecDeque::new(),
        };
        if machine.cluster.is_listed() {
            machine.select_interfaces();
        }
        if !machine.cluster.watched_slices().is_empty() {
            machine.outputs.push_back(Output::WatchSlices(machine.cluster.watched_slices().clone()));
        }
        machine
    }

    /// Takes in a fact and decides what follows from it.
    pub fn handle(&mut self, now: Now, input: Input) {
        // None of these comes often.
        self.speaker_changed = true;
        match input {
            Input::Api(fact) => self.api_says(now, fact),
            Input::Interfaces(interfaces) => {
                self.interfaces = Some(interfaces);
                self.update_segments(now);
            }
            Input::Neighbours(segment, neighbours) => {
                if let Some(local) = self.segments.get_mut(&segment) {
                    local.machine.handle(now.monotonic, SegmentInput::Neighbours(Arc::clone(&neighbours)));
                }
                self.neighbours.insert(segment, neighbours);
            }
            Input::Keys(Ok(keys)) => {
                self.keys_error = None;
                match &mut self.keys {
                    Some(in_use) => in_use.replace(now.monotonic, keys),
                    None => self.keys = Some(ClusterKeys::new(keys)),
                }
                self.hand_keys_to_segments(now);
                self.outputs.push_back(Output::ViewChanged);
                self.update_segments(now);
            }
            // The keys in use stay in use.
            Input::Keys(Err(error)) => self.keys_error = Some(error),
            Input::ProxySynced(address) => {
                if self.gate.open(address) {
                    self.evaluate(now, address);
                }
            }
            Input::Sockets(segment, result) => self.sockets_are(now, segment, result),
            Input::Terminate => self.terminate(now),
        }
        self.settle(now);
    }

    /// Takes in what the API says.
    fn api_says(&mut self, now: Now, fact: ApiFact) {
        let was_listed = self.cluster.is_listed();
        let may_miss_own = matches!(&fact, ApiFact::Speaker(Change::Listed | Change::Deleted(_)));
        let segments: Vec<_> = self.segments.values().map(|local| &local.interface.segment).collect();
        let wires = Wire::of(self.segments.values());
        let own = Own { node: &self.config.node, segments: &segments, wires: &wires };
        let effects = self.cluster.take_in(now.monotonic, fact, own);
        if may_miss_own && self.cluster.speakers.written(&self.config.node).is_none() {
            self.report.write_again();
        }
        self.watch_slices(now);
        self.follow(now, effects, was_listed);
    }

    /// Does what follows from a fact of the API.
    fn follow(&mut self, now: Now, effects: Effects, was_listed: bool) {
        let Effects { addresses, view, statuses, stations, selection, gone } = effects;
        gone.iter().for_each(|node| self.scores.forget_node(node));
        if !self.cluster.is_listed() {
            return;
        }
        if view || !was_listed {
            self.outputs.push_back(Output::ViewChanged);
        }
        if selection || !was_listed {
            self.select_interfaces();
        }
        if stations || !was_listed {
            self.update_stations(now);
        }
        if statuses {
            self.unreported.extend(self.duties.keys());
        }
        if was_listed {
            self.evaluate_each(now, addresses);
        } else {
            self.evaluate_all(now);
        }
        // An advertisement may name the other one.
        if self.twins.yielding().next().is_some() && self.decide_roles(now) {
            self.update_segments(now);
        }
        self.tell_fresh(now);
    }

    /// Takes in a frame of the segment protocol, without its Ethernet header.
    pub fn handle_hello(&mut self, now: Now, segment: u32, bytes: &[u8]) {
        if let Some(local) = self.segments.get_mut(&segment) {
            local.machine.handle_frame(now.monotonic, bytes);
            self.note_sibling(now, segment);
            self.settle(now);
        }
    }

    /// Takes in a whole Ethernet frame of ARP, IPv4 or IPv6.
    pub fn handle_frame(&mut self, now: Now, segment: u32, kind: PacketType, frame: &[u8], family: Family) {
        let Some(local) = self.segments.get_mut(&segment) else { return };
        let own = local.interface.segment.mac;
        let heard = match family {
            Family::Ipv4 => packet::read_arp(frame, kind, own).or_else(|| packet::read_ipv4(frame, kind, own)),
            Family::Ipv6 => packet::read_ipv6(frame, kind, own),
        };
        match heard {
            None => return,
            Some(Heard::Pong { address, mac }) => {
                local.machine.handle(now.monotonic, SegmentInput::Pong { address, mac });
            }
            Some(Heard::Evidence) => local.machine.handle(now.monotonic, SegmentInput::Evidence),
            Some(Heard::Packet { packet, asker }) => {
                let at = local.machine.handle_packet(now.monotonic, &packet);
                if let (Some(at), Some(asker), Some(address)) = (at, asker, packet.asks) {
                    self.answer(segment, &asker, address, at);
                }
            }
        }
        self.settle(now);
    }

    /// An answer goes out before all else.
    fn answer(&mut self, segment: u32, asker: &Asker, address: IpAddr, at: herald_segment::mac::MacAddr) {
        if let Some(local) = self.segments.get(&segment) {
            let frame = asker.answer(local.interface.segment.mac, at);
            self.outputs.push_front(Output::Transmit { segment, frame, purpose: Purpose::Answer(address) });
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        for local in self.segments.values_mut() {
            if local.machine.poll_timeout().is_some_and(|at| at <= now.monotonic) {
                local.machine.handle_timeout(now.monotonic);
            }
        }
        for address in self.gate.expire(now.monotonic) {
            self.evaluate(now, address);
        }
        if self.evaluation.poll_timeout().is_some_and(|at| at <= now.monotonic) {
            self.evaluate_turn(now);
        }
        if self.cluster.poll_timeout().is_some_and(|at| at <= now.monotonic) {
            self.watch_slices(now);
            self.expire_speakers(now);
        }
        if self.twins.poll_timeout().is_some_and(|at| at <= now.monotonic) && self.decide_roles(now) {
            self.update_segments(now);
        }
        self.retry_sockets(now);
        self.end_conflicts(now);
        self.tell_outages(now);
        if self.keys.as_mut().is_some_and(|keys| keys.retire(now.monotonic)) {
            self.hand_keys_to_segments(now);
        }
        self.settle(now);
    }

    fn hand_keys_to_segments(&mut self, now: Now) {
        let Some(keys) = &self.keys else { return };
        for local in self.segments.values_mut() {
            local.machine.handle(now.monotonic, SegmentInput::Keys(keys.keyring()));
        }
    }

    /// When [`Machine::handle_timeout`] has something to do; `None`: not before something else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let segments = self.segments.values().flat_map(|local| {
            [local.machine.poll_timeout(), local.sockets.poll_timeout(), local.relisten_at()].into_iter().flatten()
        });
        let others = [
            self.evaluation.poll_timeout(),
            self.cluster.poll_timeout(),
            self.gate.poll_timeout(),
            // It waits for what is being decided.
            self.report.poll_timeout().max(self.report.poll_timeout().and(self.twins.suspense_ends())),
            self.conflicts_end(),
            self.duties.values().filter_map(|duty| duty.outage_due).min(),
            self.wire_warnings.expire_at(),
            self.twins.poll_timeout(),
            self.keys.as_ref().and_then(ClusterKeys::poll_timeout),
        ];
        segments.chain(others.into_iter().flatten()).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What outlives a restart of the process: the claims of each segment, by interface name.
    pub fn saved_claims(&self) -> Claims {
        let joined = self.segments.values().map(|l| (l.interface.segment.interface.clone(), l.machine.saved_state()));
        // Not joined yet: what an earlier run left is still all there is.
        let remembered = self.remembered.iter().map(|(interface, (claims, _))| (interface.clone(), claims.clone()));
        remembered.chain(joined).collect()
    }

    /// What outlives a restart of the process: the view of the API, once there is one.
    pub fn saved_view(&self) -> Option<View> {
        self.cluster.is_listed().then(|| self.cluster.saved(self.keys.as_ref().map(|keys| keys.current().clone())))
    }

    /// Counts a frame that the kernel refused to send.
    pub fn count_unsent(&mut self, segment: u32) {
        if let Some(local) = self.segments.get_mut(&segment) {
            local.machine.count_unsent();
        }
    }

    /// What the kubelet's probes ask for.
    pub fn health(&self, now: Duration) -> Health {
        let joining = self.segments.values().filter(|local| local.speaks).filter_map(|local| {
            let waited = now.saturating_sub(local.machine.joining_since()?);
            let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            Some(Joining { interface: local.interface.segment.interface.clone(), waited_ms })
        });
        Health {
            has_key: self.keys.is_some(),
            key_error: self.keys_error.as_ref().map(ToString::to_string),
            interfaces_listed: self.interfaces.is_some(),
            segments: self.segments().count(),
            joining: joining.collect(),
        }
    }

    /// The segments on which this node takes part: name of the interface, and the protocol's machine.
    pub fn segments(&self) -> impl Iterator<Item = (&str, &herald_segment::Segment)> {
        let speaking = self.segments.values().filter(|local| local.speaks);
        speaking.map(|local| (local.interface.segment.interface.as_str(), &local.machine))
    }

    /// The name of a node, as the API or the wire gives it; its id where neither does.
    pub fn name_of(&self, id: NodeId) -> String {
        let heard = || self.segments.values().find_map(|local| local.peers.get(&id)).map(|name| name.as_str());
        self.cluster.name_of(id).or_else(heard).map_or_else(|| format!("{id:?}"), str::to_owned)
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.config.node
    }

    /// The addresses of this node's own on its segments.
    fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let interfaces = self.interfaces.iter().flat_map(|interfaces| &interfaces.segments);
        interfaces.flat_map(|segment| segment.addresses.iter().map(|network| network.addr()))
    }

    fn own_node(&self) -> Option<&Node> {
        self.cluster.nodes.get(&self.config.node)
    }

    fn watch_slices(&mut self, now: Now) {
        if let Some(selection) = self.cluster.poll_slice_watch(now.monotonic) {
            self.outputs.push_back(Output::WatchSlices(selection));
        }
    }

    /// Looks at every address again, over some turns if there are many.
    fn evaluate_all(&mut self, now: Now) {
        let known = self.cluster.vips.iter().map(|vip| vip.address);
        // Also what is claimed and no longer known.
        let told = self.segments.values().flat_map(|local| local.told.keys().copied());
        let all: BTreeSet<IpAddr> = known.chain(told).chain(self.duties.keys().copied()).collect();
        self.evaluate_each(now, all);
    }

    /// Looks at these addresses again: a few of them now, the others in the turns that follow.
    fn evaluate_each(&mut self, now: Now, addresses: impl IntoIterator<Item = IpAddr>) {
        let was_done = self.evaluation.is_done();
        self.evaluation.add(now.monotonic, addresses);
        // While others wait, these do not add a turn to each fact.
        if was_done {
            self.evaluate_turn(now);
        }
    }

    fn evaluate_turn(&mut self, now: Now) {
        let nodes = self.cluster.nodes.iter().len();
        for address in self.evaluation.turn(now.monotonic, nodes) {
            self.evaluate(now, address);
        }
        self.tell_fresh(now);
    }

    /// Tells the segments as of when the view is current: once all that is in it has been told.
    fn tell_fresh(&mut self, now: Now) {
        let current = self.cluster.current_as_of();
        if !self.evaluation.is_done() || !self.cluster.is_listed() || current == self.current_as_of {
            return;
        }
        self.current_as_of = current;
        if let Some(at) = current {
            for local in self.segments.values_mut() {
                local.machine.handle(now.monotonic, SegmentInput::Fresh(at));
            }
        }
    }

    /// Tells the segments what the API says of an address.
    fn evaluate(&mut self, now: Now, address: IpAddr) {
        if !self.cluster.is_listed() {
            return;
        }
        self.unreported.insert(address);
        let Some(vip) = self.cluster.vips.get(&address).filter(|vip| !vip.deleting).cloned() else {
            self.gate.forget(address);
            self.scores.forget_address(address);
            self.tell_gone(now, address);
            return;
        };
        if !self.cluster.knows_endpoints_of(&vip) {
            return;
        }
        if vip.local.is_some() {
            let endpoint = self.cluster.slices.best(&vip.services, address, &self.config.node);
            self.observe_endpoint(now, &vip, endpoint);
        } else {
            self.gate.forget(address);
        }
        self.tell_candidates(now, &vip);
    }

    fn observe_endpoint(&mut self, now: Now, vip: &crate::cluster::Vip, endpoint: Endpoint) {
        if !self.gate.observe(now.monotonic, vip.address, endpoint) {
            return;
        }
        let port = vip.local.and_then(|local| local.health_check_node_port);
        // Without a port to ask, the endpoint counts when it has waited long enough.
        let target = self.own_node().and_then(|node| gate::target(&node.internal_ips, vip.address, port));
        if let (Some(target), Some(service)) = (target, vip.services.first().map(ServiceName::from)) {
            self.outputs.push_back(Output::AskProxy { address: vip.address, service, target });
        }
    }

    /// Stops: a restart moves nothing, a departure hands everything over first.
    fn terminate(&mut self, now: Now) {
        let leaving = self.own_node().is_some_and(Node::is_leaving);
        let kind = if leaving { Shutdown::Leaving } else { Shutdown::Restarting };
        self.stopping = Some(kind);
        for local in self.segments.values_mut() {
            local.machine.handle(now.monotonic, SegmentInput::Shutdown(kind));
        }
    }

    /// Each call ends here: what the segments want done, and what is to be written of it.
    fn settle(&mut self, now: Now) {
        self.drain_segments(now);
        self.listen(now);
        self.report_vips(now);
        self.report_speaker(now);
        while let Some(event) = self.coalescer.poll(now.monotonic, now.wall) {
            self.outputs.push_back(Output::Post(event));
        }
        if self.stopping.is_some() && self.segments.values().all(|local| local.finished) {
            self.outputs.push_back(Output::Finished);
        }
    }
}

/// What a frame that is not the protocol's is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ARP, or IPv4 itself.
    Ipv4,
    /// IPv6.
    Ipv6,
}

#[cfg(test)]
mod tests;
