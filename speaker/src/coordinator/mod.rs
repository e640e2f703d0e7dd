//! The speaker's core: every decision of the speaker, in one synchronous coordinator.
//!
//! No sockets, clock, tasks or API client are here. Facts go in through [`Coordinator::handle`] and
//! [`Coordinator::handle_frame`], time passes by [`Coordinator::handle_timeout`] (at the time of
//! [`Coordinator::poll_timeout`]), and actions come out of [`Coordinator::poll_output`] as values. The convention is
//! that of quinn-proto: the same code runs on a wire and under a test that makes time.
//!
//! **Ownership** is decided on each segment by its [`herald_protocol::Engine`]. The coordinator hands it the facts of
//! the API (which nodes may announce which address, by the order of [`rank`](crate::rank); which nodes are there),
//! carries its frames, and turns its events into statuses. The coordinator hands over nothing before every kind has
//! been listed once and the interfaces are known, or an earlier run has left both: until then, absence means nothing.
//!
//! **Status.** The node that announces an address writes VirtualIP.status. A node that loses an address to another
//! falls silent and writes nothing: the new owner overwrites the status. A node that may no longer announce, with no
//! other to follow, clears the status. Each write carries the version of the object it was decided from, so a node that
//! lost cannot overwrite a newer owner; when the API server refuses a write, the newer version comes in by the watch,
//! and the coordinator decides again.

mod active_segment;
mod address_state;
mod cluster_keys;
mod cluster_view;
mod essence;
mod evaluation;
mod from_segments;
mod interface_rules;
mod interface_selection;
mod io;
mod one_segment;
mod proxy_sync;
mod slice_watch;
mod sockets;
mod speaker_status;
mod speakers;
mod to_segments;
mod vip_status;
mod wire_warnings;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use herald_packet_socket::PacketType;
use herald_protocol::{Input as SegmentInput, Neighbour, SavedState, api_view::Shutdown, node::NodeId, twins::Twins};

use crate::{
    answer_table::Statement,
    api_objects::{Endpoint, Node, ServiceName},
    interfaces::Selection,
    keys::KeysError,
    kube_events::Coalescer,
    packet::{self, Asker, Family, Heard},
    rank::Scores,
    readiness::{Health, Joining},
    saved_state::{Claims, View},
};
use active_segment::ActiveSegment;
use address_state::{AddressState, Conflict};
use cluster_keys::ClusterKeys;
use cluster_view::{ClusterView, Effects};
use evaluation::Evaluation;
pub use io::{
    Announcing, ApiFact, Config, Event, Input, Interfaces, Now, Output, Purpose, Restored, SpeakerWrite, VipWrite,
};
pub use proxy_sync::PROXY_SYNC_TIMEOUT;
use proxy_sync::ProxySyncGate;
pub use sockets::SocketFailure;
use speaker_status::SpeakerReport;
use wire_warnings::WireWarnings;

/// The coordinator of one speaker.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    rng: fastrand::Rng,
    cluster: ClusterView,
    /// The scores from which the order of nodes was computed before.
    scores: Scores,
    evaluation: Evaluation,
    /// The time as of which the view is current, as the segments received it last.
    current_as_of: Option<Duration>,
    gate: ProxySyncGate,
    /// The selection of interfaces emitted last.
    selection: Option<Selection>,
    interfaces: Option<Interfaces>,
    keys: Option<ClusterKeys>,
    /// The reason why the Secret's present content is not in use.
    keys_error: Option<KeysError>,
    /// The claims on each interface that is not joined (of an earlier run, or from before the interface was lost), with
    /// whether they were made since the node was booted.
    remembered: BTreeMap<String, (SavedState, bool)>,
    /// Hosts that can be asked for a sign of life, by interface index: they may be known before the segment is joined.
    neighbours: BTreeMap<u32, Arc<[Neighbour]>>,
    /// The segments, by interface index.
    segments: BTreeMap<u32, ActiveSegment>,
    duties: BTreeMap<IpAddr, AddressState>,
    /// Other hosts and nodes that were seen on the wire to answer for addresses that this node owns.
    conflicts: BTreeMap<IpAddr, Conflict>,
    /// Addresses whose status may have to be written.
    unreported: BTreeSet<IpAddr>,
    wire_warnings: WireWarnings,
    /// The decision which of the interfaces are on one segment.
    twins: Twins,
    report: SpeakerReport,
    /// Whether a peer may be heard that has no SpeakerStatus and does not count yet.
    peers_to_count: bool,
    coalescer: Coalescer,
    /// Whether a fact has changed that SpeakerStatus reports.
    speaker_changed: bool,
    stopping: Option<Shutdown>,
    outputs: VecDeque<Output>,
}

impl Coordinator {
    /// Returns a coordinator that knows the state that an earlier run left.
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
            gate: ProxySyncGate::default(),
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
            peers_to_count: false,
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
        // Inputs of this kind are rare.
        self.speaker_changed = true;
        match input {
            Input::Api(fact) => self.api_says(now, fact),
            Input::Interfaces(interfaces) => {
                self.interfaces = Some(interfaces);
                self.update_segments(now);
            }
            Input::Neighbours(segment, neighbours) => {
                if let Some(local) = self.segments.get_mut(&segment) {
                    local.engine.handle(now.monotonic, SegmentInput::Neighbours(Arc::clone(&neighbours)));
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

    /// Carries out the consequences of a fact of the API.
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
        // An advertisement may name the interface that yields.
        if self.twins.yielding().next().is_some() && self.decide_roles(now) {
            self.update_segments(now);
        }
        self.tell_fresh(now);
    }

    /// Takes in a frame of the segment protocol, without its Ethernet header.
    pub fn handle_hello(&mut self, now: Now, segment: u32, bytes: &[u8]) {
        if let Some(local) = self.segments.get_mut(&segment) {
            local.engine.handle_frame(now.monotonic, bytes);
            self.note_sibling(now, segment);
            self.settle(now);
        }
    }

    /// Takes in a whole Ethernet frame of ARP, IPv4 or IPv6. `answered`: it asks for an address, and was answered as
    /// [`Coordinator::state_answers`] said.
    pub fn handle_frame(
        &mut self,
        now: Now,
        segment: u32,
        kind: PacketType,
        frame: &[u8],
        family: Family,
        answered: bool,
    ) {
        let Some(local) = self.segments.get_mut(&segment) else { return };
        let own = local.interface.segment.mac;
        let heard = match family {
            Family::Ipv4 => packet::read_arp(frame, kind, own).or_else(|| packet::read_ipv4(frame, kind, own)),
            Family::Ipv6 => packet::read_ipv6(frame, kind, own),
        };
        match heard {
            None => return,
            Some(Heard::Pong { address, mac }) => {
                local.engine.handle(now.monotonic, SegmentInput::Pong { address, mac });
            }
            Some(Heard::Evidence) => local.engine.handle(now.monotonic, SegmentInput::Evidence),
            Some(Heard::Packet { packet, asker }) => {
                let at = local.engine.handle_packet(now.monotonic, &packet);
                if let (false, Some(at), Some(asker), Some(address)) = (answered, at, asker, packet.asks) {
                    self.answer(segment, &asker, address, at);
                }
            }
        }
        self.settle(now);
    }

    /// Emits an answer, ahead of all other outputs.
    fn answer(&mut self, segment: u32, asker: &Asker, address: IpAddr, at: herald_protocol::mac::MacAddr) {
        if let Some(local) = self.segments.get(&segment) {
            let frame = asker.answer(local.interface.segment.mac, at);
            self.outputs.push_front(Output::Transmit { segment, frame, purpose: Purpose::Answer(address) });
        }
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        for local in self.segments.values_mut() {
            if local.engine.poll_timeout().is_some_and(|at| at <= now.monotonic) {
                local.engine.handle_timeout(now.monotonic);
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
        if self.segments.values().filter_map(ActiveSegment::stations_due).any(|at| at <= now.monotonic) {
            self.update_stations(now);
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
            local.engine.handle(now.monotonic, SegmentInput::Keys(keys.keyring()));
        }
    }

    /// Returns the time at which [`Coordinator::handle_timeout`] has work; `None`: not before another input.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let segments = self.segments.values().flat_map(|local| {
            let engine = [local.engine.poll_timeout(), local.stations_due()];
            engine.into_iter().chain([local.sockets.poll_timeout(), local.relisten_at()]).flatten()
        });
        let others = [
            self.evaluation.poll_timeout(),
            self.cluster.poll_timeout(),
            self.gate.poll_timeout(),
            // The report waits for the decision about interfaces on one segment.
            self.report.poll_timeout().max(self.report.poll_timeout().and(self.twins.suspense_ends())),
            self.conflicts_end(),
            self.duties.values().filter_map(|duty| duty.outage_due).min(),
            self.wire_warnings.expire_at(),
            self.twins.poll_timeout(),
            self.keys.as_ref().and_then(ClusterKeys::poll_timeout),
        ];
        segments.chain(others.into_iter().flatten()).min()
    }

    /// States what is answered on each segment. Whoever answers by these statements takes them after each call of the
    /// coordinator, before its outputs: an address that this node gives up is silent before any node learns of it.
    pub fn state_answers(&mut self) -> impl Iterator<Item = (u32, Statement)> {
        self.segments.iter_mut().map(|(index, local)| (*index, local.state_answers()))
    }

    /// Returns the next action.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the claims of each segment, by interface name, which outlive a restart of the process.
    pub fn saved_claims(&self) -> Claims {
        let joined =
            self.segments.values().map(|l| (l.interface.segment.interface.name.clone(), l.engine.saved_state()));
        // These segments are not joined yet: their claims are still those that an earlier run left.
        let remembered = self.remembered.iter().map(|(interface, (claims, _))| (interface.clone(), claims.clone()));
        remembered.chain(joined).collect()
    }

    /// Returns the view of the API, once there is one; it outlives a restart of the process.
    pub fn saved_view(&self) -> Option<View> {
        self.cluster.is_listed().then(|| self.cluster.saved(self.keys.as_ref().map(|keys| keys.current().clone())))
    }

    /// Counts a frame that the kernel refused to send.
    pub fn count_unsent(&mut self, segment: u32) {
        if let Some(local) = self.segments.get_mut(&segment) {
            local.engine.count_unsent();
        }
    }

    /// Returns the facts that the kubelet's probes ask for.
    pub fn health(&self, now: Duration) -> Health {
        let joining = self.segments.values().filter(|local| local.speaks).filter_map(|local| {
            let waited = now.saturating_sub(local.engine.joining_since()?);
            let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            Some(Joining { interface: local.interface.segment.interface.name.clone(), waited_ms })
        });
        Health {
            has_key: self.keys.is_some(),
            key_error: self.keys_error.as_ref().map(ToString::to_string),
            interfaces_listed: self.interfaces.is_some(),
            unlisted: self.cluster.unlisted().map(str::to_owned).collect(),
            segments: self.segments().count(),
            joining: joining.collect(),
        }
    }

    /// Returns the segments on which this node takes part: the name of the interface, and the engine.
    pub fn segments(&self) -> impl Iterator<Item = (&str, &herald_protocol::Engine)> {
        let speaking = self.segments.values().filter(|local| local.speaks);
        speaking.map(|local| (local.interface.segment.interface.name.as_str(), &local.engine))
    }

    /// Returns the name of a node, as the API or the wire gives it; its id where neither does.
    pub fn name_of(&self, id: NodeId) -> String {
        let heard = || self.segments.values().find_map(|local| local.peers.get(&id)).map(|name| name.as_str());
        self.cluster.name_of(id).or_else(heard).map_or_else(|| format!("{id:?}"), str::to_owned)
    }

    /// Returns this node's name.
    pub fn node(&self) -> &str {
        &self.config.node
    }

    /// Returns the addresses of this node's own on its segments.
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

    /// Evaluates every address again, over several turns if there are many.
    fn evaluate_all(&mut self, now: Now) {
        let known = self.cluster.vips.iter().map(|vip| vip.address);
        // Addresses that are claimed and no longer known to the API are among them.
        let told = self.segments.values().flat_map(|local| local.told.keys().copied());
        let all: BTreeSet<IpAddr> = known.chain(told).chain(self.duties.keys().copied()).collect();
        self.evaluate_each(now, all);
    }

    /// Evaluates these addresses again: a few of them now, the others in the turns that follow.
    fn evaluate_each(&mut self, now: Now, addresses: impl IntoIterator<Item = IpAddr>) {
        let was_done = self.evaluation.is_done();
        self.evaluation.add(now.monotonic, addresses);
        // While others wait, new addresses do not add a turn to each fact.
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

    /// Hands the segments the time as of which the view is current, once they have received all that is in the view.
    fn tell_fresh(&mut self, now: Now) {
        let current = self.cluster.current_as_of();
        if !self.evaluation.is_done() || !self.cluster.is_listed() || current == self.current_as_of {
            return;
        }
        self.current_as_of = current;
        if let Some(at) = current {
            for local in self.segments.values_mut() {
                local.engine.handle(now.monotonic, SegmentInput::Fresh(at));
            }
        }
    }

    /// Hands the segments the facts of the API about an address.
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

    fn observe_endpoint(&mut self, now: Now, vip: &crate::api_objects::Vip, endpoint: Endpoint) {
        if !self.gate.observe(now.monotonic, vip.address, endpoint) {
            return;
        }
        let port = vip.local.and_then(|local| local.health_check_node_port);
        // An endpoint without a port to ask counts after [`PROXY_SYNC_TIMEOUT`].
        let target = self.own_node().and_then(|node| proxy_sync::target(&node.internal_ips, vip.address, port));
        if let (Some(target), Some(service)) = (target, vip.services.first().map(ServiceName::from)) {
            self.outputs.push_back(Output::AskProxy { address: vip.address, service, target });
        }
    }

    /// Stops: a restart moves nothing, a departure first hands all addresses over.
    fn terminate(&mut self, now: Now) {
        let leaving = self.own_node().is_some_and(Node::is_leaving);
        let kind = if leaving { Shutdown::Leaving } else { Shutdown::Restarting };
        self.stopping = Some(kind);
        for local in self.segments.values_mut() {
            local.engine.handle(now.monotonic, SegmentInput::Shutdown(kind));
        }
    }

    /// Ends each call: carries out the outputs of the segments, and emits the statuses that follow from them.
    fn settle(&mut self, now: Now) {
        self.share_deletions(now);
        self.drain_segments(now);
        if self.count_heard_peers(now) {
            self.drain_segments(now);
        }
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

#[cfg(test)]
mod tests;
