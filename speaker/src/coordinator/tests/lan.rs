//! Speakers on one or more segments, with an API server that stores what they write: real coordinators, without sockets
//! and clock.

pub(super) mod ports;
mod speaker_statuses;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use herald_crds::{
    speaker_status::{SpeakerStatusStatus, WarningKind},
    virtual_ip::{AnnouncedReason, VirtualIPStatus},
};
use herald_packet_socket::PacketType;
use herald_protocol::{mac::MacAddr, timers::Timers};
use jiff::Timestamp;
use k8s_openapi::ByteString;

use super::super::*;
use crate::{
    api_objects::{Change, Collection, Keyed, Node, Slice, Speaker, Vip},
    interfaces::Segment,
    keys::Keys,
    packet::{Asker, Heard, tests::ping::pong_to},
    rank::tests::{node, speaker},
};
use ports::{Port, Ports, WIRE, mac_of, reaches};

pub(super) const ETH0: u32 = 2;
/// A second interface.
pub(super) const ETH1: u32 = 3;
/// A third interface.
pub(super) const ETH2: u32 = 4;
/// A host outside the cluster, whose kernel answers for itself.
pub(super) const HOST: MacAddr = MacAddr([2, 0, 0, 0, 1, 9]);
pub(super) const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const STARTED: i64 = 1_800_000_000;

/// A node, with its coordinator while its speaker runs.
struct Host {
    coordinator: Option<Coordinator>,
    /// The state that its speaker keeps in memory.
    kept: Restored,
    powered: bool,
    /// The addresses that its sockets let through, by interface.
    heard: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Whether its watches bring changes.
    connected: bool,
    /// The node's interfaces.
    ports: Ports,
}

/// The nodes, their segments, the API server and the records of a test.
pub(super) struct Lan {
    pub now: u64,
    hosts: BTreeMap<&'static str, Host>,
    vips: Collection<Vip>,
    nodes: Collection<Node>,
    speakers: Collection<Speaker>,
    slices: Collection<Slice>,
    /// Whether the API server knows the kind SpeakerStatus.
    has_speaker_kind: bool,
    version: u64,
    /// Addresses that a stranger answers for.
    pub strangers: BTreeSet<IpAddr>,
    /// Whether the switch drops the protocol, and passes everything else.
    pub drops_protocol: bool,
    /// Nodes in whose name the switch answers ARP, with their link-layer address, whether they have power or not.
    pub suppressed: BTreeSet<&'static str>,
    /// Nodes that send and receive no frames.
    pub cut_off: BTreeSet<&'static str>,
    /// The last write of each address by nodes whose API server is away, as their queues keep it.
    queued: BTreeMap<(&'static str, String), VipWrite>,
    /// Addresses that the kernels of nodes have, in addition to their own.
    held: BTreeSet<(&'static str, IpAddr)>,
    /// Events that were posted: the time, the node, the reason.
    pub posted: Vec<(u64, &'static str, &'static str)>,
    /// Announcements: the time, the node, the address.
    pub announced: Vec<(u64, &'static str, IpAddr)>,
    /// Writes of statuses: the time, the node, the address.
    pub written: Vec<(u64, &'static str, IpAddr)>,
    /// SpeakerStatuses that nodes reported.
    reports: Vec<(&'static str, SpeakerStatusStatus)>,
    /// Openings of segments that were not open: the time, the node.
    pub opened: Vec<(u64, &'static str)>,
    /// Other outputs that tests look at.
    pub asked_proxy: Vec<(&'static str, IpAddr)>,
    pub finished: BTreeSet<&'static str>,
    starts: u64,
}

pub(super) fn mac(name: &str) -> MacAddr {
    speaker(name).segments[0].mac
}

/// Returns the link-layer address of a node's second interface.
pub(super) fn second_mac(name: &str) -> MacAddr {
    mac_of(name, ETH1)
}

fn own_address(name: &str) -> Ipv4Addr {
    match node(name).internal_ips[..] {
        [IpAddr::V4(address)] => address,
        ref other => panic!("{other:?}"),
    }
}

/// Returns a set of one key, whose bytes all have this value.
pub(super) fn key(byte: u8) -> Keys {
    Keys::new(vec![ByteString(vec![byte; 32])]).unwrap()
}

impl Lan {
    /// Returns nodes with their speakers, all of them known to the API, after enough time to have joined.
    pub(super) fn of(names: &[&'static str]) -> Self {
        let mut lan = Self {
            now: 0,
            hosts: BTreeMap::new(),
            vips: Collection::restored(vec![]),
            nodes: Collection::restored(names.iter().map(|name| node(name)).collect()),
            speakers: Collection::restored(names.iter().map(|name| speaker_at(name)).collect()),
            slices: Collection::restored(vec![]),
            has_speaker_kind: true,
            version: 100,
            strangers: BTreeSet::new(),
            drops_protocol: false,
            suppressed: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            queued: BTreeMap::new(),
            held: BTreeSet::new(),
            posted: vec![],
            announced: vec![],
            written: vec![],
            reports: vec![],
            asked_proxy: vec![],
            opened: vec![],
            finished: BTreeSet::new(),
            starts: 0,
        };
        for name in names {
            let host = Host {
                coordinator: None,
                kept: Restored::default(),
                powered: true,
                heard: BTreeMap::new(),
                connected: true,
                ports: Ports::from([(ETH0, Port::on(WIRE))]),
            };
            lan.hosts.insert(name, host);
            lan.start(name);
        }
        lan.pass(3000);
        lan
    }

    fn moment(&self) -> Now {
        let wall = Timestamp::from_millisecond(STARTED * 1000 + i64::try_from(self.now).unwrap()).unwrap();
        Now { monotonic: Duration::from_millis(self.now), wall }
    }

    /// Starts the speaker of a node, with the state that the one before it left.
    pub(super) fn start(&mut self, name: &'static str) {
        self.start_without_key(name);
        self.tell(name, Input::Keys(Ok(key(7))));
    }

    /// Deletes the pod of a speaker that does not run, with the state that the speaker kept.
    pub(super) fn delete_pod(&mut self, name: &str) {
        self.hosts.get_mut(name).unwrap().kept = Restored::default();
    }

    /// Returns the answer of a speaker to the kubelet's readiness probe.
    pub(super) fn readiness(&self, name: &str) -> Result<String, String> {
        let machine = self.hosts[name].coordinator.as_ref().unwrap();
        machine.health(Duration::from_millis(self.now)).readiness()
    }

    /// Starts the speaker of a node; its only keys are those that the one before it left.
    pub(super) fn start_without_key(&mut self, name: &'static str) {
        self.starts += 1;
        let config = Config {
            node: name.to_owned(),
            interfaces: vec![],
            version: "0".to_owned(),
            announcing: Announcing::default(),
            timers: Timers::default(),
            seed: self.starts,
        };
        let host = self.hosts.get_mut(name).unwrap();
        host.coordinator = Some(Coordinator::new(config, Restored { same_boot: true, ..host.kept.clone() }));
        let connected = host.connected;
        self.tell(name, Input::Interfaces(self.interfaces(name)));
        self.tell_neighbours(name);
        if connected {
            self.list(name);
        }
    }

    /// Hands the kernel's neighbours to a node's speaker once, until they change or the interface is new.
    fn tell_neighbours(&mut self, name: &'static str) {
        let neighbour = herald_protocol::Neighbour { address: HOST_ADDRESS.into(), mac: HOST };
        for index in self.hosts[name].ports.keys().copied().collect::<Vec<_>>() {
            self.tell(name, Input::Neighbours(index, [neighbour].into()));
        }
    }

    /// Lets a node join its segment with a new incarnation, as after a return to a snapshot of its memory.
    pub(super) fn revert(&mut self, name: &str) {
        let now = self.moment();
        self.hosts.get_mut(name).unwrap().coordinator.as_mut().unwrap().join_anew(now, ETH0);
        self.work();
    }

    /// Lets the watches of a node list everything.
    pub(super) fn list(&mut self, name: &'static str) {
        fn steps<T: Keyed + Clone + PartialEq>(all: &Collection<T>, fact: fn(Change<T>) -> ApiFact) -> Vec<Input> {
            let items = all.iter().cloned().map(Change::Applied);
            let steps = std::iter::once(Change::Listing).chain(items).chain([Change::Listed, Change::Current]);
            steps.map(|step| Input::Api(fact(step))).collect()
        }
        let mut facts = steps(&self.nodes, ApiFact::Node);
        if self.has_speaker_kind {
            facts.extend(steps(&self.speakers, ApiFact::Speaker));
        }
        facts.extend(steps(&self.vips, ApiFact::Vip));
        facts.into_iter().for_each(|fact| self.tell(name, fact));
    }

    /// Kills the speaker of a node.
    pub(super) fn kill(&mut self, name: &str) {
        self.hosts.get_mut(name).unwrap().coordinator = None;
    }

    /// Takes a node's power away.
    pub(super) fn power_off(&mut self, name: &str) {
        self.kill(name);
        self.hosts.get_mut(name).unwrap().powered = false;
    }

    /// Cuts a node's speaker off from the API, which goes on without it.
    pub(super) fn disconnect(&mut self, name: &str) {
        self.hosts.get_mut(name).unwrap().connected = false;
    }

    /// Connects a node's speaker to the API server again: the writes that its queue has kept are done.
    pub(super) fn reconnect(&mut self, name: &'static str) {
        self.hosts.get_mut(name).unwrap().connected = true;
        for write in self.queued.extract_if(.., |(by, _), _| *by == name).map(|(_, write)| write).collect::<Vec<_>>() {
            self.write(name, &write);
        }
        self.work();
    }

    pub(super) fn tell(&mut self, name: &'static str, input: Input) {
        let now = self.moment();
        if let Some(machine) = self.hosts.get_mut(name).unwrap().coordinator.as_mut() {
            machine.handle(now, input);
        }
        self.work();
    }

    fn broadcast(&mut self, fact: &ApiFact) {
        let names: Vec<_> = self.hosts.iter().filter(|(_, host)| host.connected).map(|(name, _)| *name).collect();
        names.into_iter().for_each(|name| self.tell(name, Input::Api(fact.clone())));
    }

    /// Stores an object in the API, in a new version.
    pub(super) fn apply(&mut self, mut vip: Vip) {
        self.version += 1;
        vip.resource_version = self.version.to_string();
        self.vips.apply(Change::Applied(vip.clone()));
        self.broadcast(&ApiFact::Vip(Change::Applied(vip)));
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        self.vips.apply(Change::Deleted(address));
        self.broadcast(&ApiFact::Vip(Change::Deleted(address)));
    }

    pub(super) fn apply_node(&mut self, node: Node) {
        self.nodes.apply(Change::Applied(node.clone()));
        self.broadcast(&ApiFact::Node(Change::Applied(node)));
    }

    /// Deletes a node, as `kubectl delete node` does.
    pub(super) fn remove_node(&mut self, name: &str) {
        self.nodes.apply(Change::Deleted(name.to_owned()));
        self.broadcast(&ApiFact::Node(Change::Deleted(name.to_owned())));
    }

    pub(super) fn apply_slice(&mut self, slice: Slice) {
        self.slices.apply(Change::Applied(slice.clone()));
        self.broadcast(&ApiFact::Slice(Change::Applied(slice)));
    }

    /// Lets every watch make progress.
    pub(super) fn refresh(&mut self) {
        for fact in [
            ApiFact::Vip(Change::Current),
            ApiFact::Node(Change::Current),
            ApiFact::Speaker(Change::Current),
            ApiFact::Slice(Change::Current),
        ] {
            self.broadcast(&fact);
        }
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        let mut rounds = (self.now, 0);
        loop {
            self.work();
            let due = self.hosts.values().filter_map(|host| host.coordinator.as_ref()?.poll_timeout()).min();
            // Rounded up: a timeout that is not due yet would be asked for again at once.
            let due = due.map(|due| u64::try_from(due.as_nanos().div_ceil(1_000_000)).unwrap());
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            rounds = if rounds.0 == self.now { (self.now, rounds.1 + 1) } else { (self.now, 1) };
            assert!(rounds.1 < 100, "timers stay due at {} ms: the loop would spin", self.now);
            let now = self.moment();
            for host in self.hosts.values_mut() {
                let is_due = |machine: &Coordinator| machine.poll_timeout().is_some_and(|at| at <= now.monotonic);
                if let Some(machine) = host.coordinator.as_mut().filter(|machine| is_due(machine)) {
                    machine.handle_timeout(now);
                }
            }
        }
        self.now = until;
    }

    /// Carries out the outputs of the coordinators until there are no more.
    fn work(&mut self) {
        let names: Vec<&'static str> = self.hosts.keys().copied().collect();
        loop {
            let next = names.iter().find_map(|name| {
                let machine = self.hosts.get_mut(name)?.coordinator.as_mut()?;
                Some((*name, machine.poll_output()?))
            });
            let Some((name, output)) = next else { return };
            self.carry_out(name, output);
        }
    }

    fn carry_out(&mut self, name: &'static str, output: Output) {
        let now = self.moment();
        match output {
            Output::Hello { .. } if self.drops_protocol => {}
            Output::Hello { segment, bytes, .. } => {
                for (other, index) in self.reached(name, segment) {
                    if let Some(machine) = &mut self.hosts.get_mut(other).unwrap().coordinator {
                        machine.handle_hello(now, index, &bytes);
                    }
                }
            }
            Output::Transmit { segment, frame, purpose } => {
                if let Purpose::Announcement(address) = purpose {
                    let heard = self.hosts[name].heard.get(&segment).is_some_and(|heard| heard.contains(&address));
                    assert!(heard, "{name} announces {address}, and nobody could ask for it");
                    self.announced.push((self.now, name, address));
                }
                self.deliver(name, segment, &frame);
            }
            Output::WriteVip(write) => self.write(name, &write),
            Output::WriteSpeaker(write) => self.report(name, write),
            Output::Post(event) => self.posted.push((self.now, name, event.reason)),
            Output::Listen { segment, addresses } => {
                self.hosts.get_mut(name).unwrap().heard.insert(segment, addresses);
            }
            Output::Segments(_) => self.opened.push((self.now, name)),
            Output::Select(_) | Output::Event(_) => {}
            Output::WatchSlices(selection) => {
                let listed = [Change::Listing]
                    .into_iter()
                    .chain(self.slices.iter().cloned().map(Change::Applied))
                    .chain([Change::Listed, Change::Current]);
                let facts: Vec<_> = listed.map(|step| Input::Api(ApiFact::Slice(step))).collect();
                facts.into_iter().for_each(|fact| self.tell(name, fact));
                self.tell(name, Input::Api(ApiFact::SlicesCover(selection)));
            }
            Output::AskProxy { address, .. } => self.asked_proxy.push((name, address)),
            Output::ClaimsChanged | Output::ViewChanged => {
                let host = self.hosts.get_mut(name).unwrap();
                if let Some(machine) = &host.coordinator {
                    host.kept.claims = machine.saved_claims();
                    host.kept.view = machine.saved_view();
                }
            }
            Output::Finished => {
                self.finished.insert(name);
                self.kill(name);
            }
        }
    }

    /// Sends a frame from a node, whatever its speaker does.
    pub(super) fn frame(&mut self, name: &'static str, frame: &[u8]) {
        self.deliver(name, ETH0, frame);
        self.work();
    }

    /// Lets the kernel of a node answer for an address that none of the interfaces known to its speaker has.
    pub(super) fn answer_for(&mut self, name: &'static str, address: &str) {
        self.held.insert((name, address.parse().unwrap()));
    }

    /// Returns the interfaces that a frame reaches which a node sends by one of its own, among them others of the node.
    fn reached(&self, from: &str, sender: u32) -> Vec<(&'static str, u32)> {
        let is_cut_off = |name: &str| self.cut_off.contains(name);
        let mut found = Vec::new();
        for (other, host) in self.hosts.iter().filter(|(other, _)| !is_cut_off(from) && !is_cut_off(other)) {
            for index in host.ports.keys().copied().filter(|index| *other != from || *index != sender) {
                if reaches(&self.hosts[from].ports, sender, &host.ports, index) {
                    found.push((*other, index));
                }
            }
        }
        found
    }

    /// Delivers a frame of ARP or a ping to all hosts or to one; kernels answer for their nodes, and strangers for what
    /// they hold.
    fn deliver(&mut self, from: &'static str, segment: u32, frame: &[u8]) {
        if self.cut_off.contains(from) {
            return;
        }
        let now = self.moment();
        let to = MacAddr(frame[..6].try_into().unwrap());
        let all = to == MacAddr::BROADCAST;
        for (other, index) in self.reached(from, segment) {
            if !all && to != mac_of(other, index) {
                continue;
            }
            let kind = if all { PacketType::Broadcast } else { PacketType::Host };
            if let Some(machine) = &mut self.hosts.get_mut(other).unwrap().coordinator {
                machine.handle_frame(now, index, kind, frame, Family::Ipv4);
            }
        }
        let powered = |(name, _): &(&'static str, u32)| *name != from && self.hosts[name].powered;
        let reachable: Vec<_> = self.reached(from, segment).into_iter().filter(powered).collect();
        let kernel = |(name, index): &(&'static str, u32)| {
            let [a, b, c] = self.hosts[name].ports[index].net;
            (mac_of(name, *index), IpAddr::from([a, b, c, own_address(name).octets()[3]]))
        };
        let mut kernels: Vec<(MacAddr, IpAddr)> = reachable.iter().map(kernel).collect();
        let suppressed = self.suppressed.iter().filter(|name| !self.cut_off.contains(*name));
        kernels.extend(suppressed.map(|name| (mac(name), own_address(name).into())));
        let is_beside_the_host = self.hosts[from].ports.get(&segment).is_some_and(|port| port.wire == WIRE);
        kernels.extend(is_beside_the_host.then_some((HOST, HOST_ADDRESS.into())));
        let held = self.held.iter().filter(|(name, _)| *name != from && self.hosts[name].powered);
        kernels.extend(held.map(|(name, address)| (mac(name), *address)));
        kernels.extend(self.strangers.iter().map(|address| (HOST, *address)));
        for (own, address) in kernels {
            if (all || to == own)
                && let Some(answer) = ask(frame, own, address, own)
            {
                self.answer(from, segment, &answer);
            }
        }
        let is_up =
            to == HOST && is_beside_the_host || reachable.iter().any(|(name, index)| mac_of(name, *index) == to);
        if let Some(pong) = pong_to(frame).filter(|_| is_up) {
            self.answer(from, segment, &pong);
        }
    }

    fn answer(&mut self, to: &str, segment: u32, frame: &[u8]) {
        let now = self.moment();
        if self.hosts[to].ports.get(&segment).is_none_or(|port| !port.carrier || port.mute || port.deaf) {
            return;
        }
        if let Some(machine) = self.hosts.get_mut(to).and_then(|host| host.coordinator.as_mut()) {
            machine.handle_frame(now, segment, PacketType::Host, frame, Family::Ipv4);
        }
    }

    fn write(&mut self, name: &'static str, write: &VipWrite) {
        if !self.hosts[name].connected {
            self.queued.insert((name, write.name.clone()), write.clone());
            return;
        }
        let Some(vip) = self.vips.iter().find(|vip| vip.name == write.name).cloned() else { return };
        self.written.push((self.now, name, vip.address));
        // The API server refuses a status that was decided from an old version; the watch brings the new one.
        if vip.resource_version == write.resource_version {
            self.apply(Vip { status: write.status.clone(), ..vip });
        }
    }

    /// Stores a SpeakerStatus in the API.
    fn report(&mut self, name: &'static str, write: SpeakerWrite) {
        self.reports.push((name, write.status.clone()));
        if !self.has_speaker_kind || !self.hosts[name].connected {
            return;
        }
        let speaker = self.speakers.get(&name.to_owned()).cloned().unwrap_or_else(|| speaker_at(name));
        let held = write.status.held_addresses.iter().map(|address| address.parse().unwrap()).collect();
        let segments = write.status.segments.iter().filter_map(Segment::from_status).collect();
        let speaker = Speaker { held, segments, ..speaker };
        let moved = self.speakers.get(&name.to_owned()) != Some(&speaker);
        self.speakers.apply(Change::Applied(speaker.clone()));
        let own = Speaker { own: Some(write.status), ..speaker.clone() };
        self.tell(name, Input::Api(ApiFact::Speaker(Change::Applied(own))));
        if moved {
            let others: Vec<_> = self.hosts.keys().copied().filter(|other| *other != name).collect();
            for other in others {
                self.tell(other, Input::Api(ApiFact::Speaker(Change::Applied(speaker.clone()))));
            }
        }
    }

    /// Gives the kernel of a node an address, or takes it away.
    pub(super) fn hold(&mut self, name: &'static str, address: &str, holds: bool) {
        let address: IpAddr = address.parse().unwrap();
        if holds {
            self.held.insert((name, address));
        } else {
            self.held.remove(&(name, address));
        }
        self.tell(name, Input::Interfaces(self.interfaces(name)));
    }

    fn interfaces(&self, name: &str) -> Interfaces {
        let held: Vec<IpAddr> =
            self.held.iter().filter(|(holder, _)| *holder == name).map(|(_, address)| *address).collect();
        ports::interfaces(name, &self.hosts[name].ports, &held)
    }

    /// Plugs the second interface of a node into the same wire, or pulls it out.
    pub(super) fn set_second(&mut self, name: &'static str, plugged: bool) {
        self.set_port(name, ETH1, plugged.then_some(Port::on(WIRE)));
    }

    /// Adds, changes or removes an interface of a node.
    pub(super) fn set_port(&mut self, name: &'static str, index: u32, port: Option<Port>) {
        let ports = &mut self.hosts.get_mut(name).unwrap().ports;
        let before: Vec<u32> = ports.keys().copied().collect();
        ports.remove(&index);
        ports.extend(port.map(|port| (index, port)));
        let is_other = !ports.keys().eq(&before);
        self.tell(name, Input::Interfaces(self.interfaces(name)));
        if is_other {
            self.tell_neighbours(name);
        }
    }

    /// Changes an interface of a node.
    pub(super) fn change_port(&mut self, name: &'static str, index: u32, change: impl Fn(&mut Port)) {
        let mut port = self.hosts[name].ports[&index];
        change(&mut port);
        self.set_port(name, index, Some(port));
    }

    /// Sets the interface of a node up or down.
    pub(super) fn set_link(&mut self, name: &'static str, up: bool) {
        let interfaces = if up { self.interfaces(name) } else { Interfaces::default() };
        self.tell(name, Input::Interfaces(interfaces));
        if up {
            self.tell_neighbours(name);
        }
    }

    /// Gives the interface of a node another name.
    pub(super) fn rename(&mut self, name: &'static str, to: &str) {
        let mut interfaces = self.interfaces(name);
        interfaces.segments[0].segment.interface = to.to_owned();
        self.tell(name, Input::Interfaces(interfaces));
    }

    /// Plugs in or pulls the cable of a node.
    pub(super) fn set_carrier(&mut self, name: &'static str, carrier: bool) {
        self.change_port(name, ETH0, |port| port.carrier = carrier);
    }

    /// Returns the status, reason and message of a condition of an address.
    pub(super) fn condition(&self, address: &str, kind: &str) -> Option<(String, String, String)> {
        let conditions = self.status(address).conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((found.status, found.reason, found.message))
    }

    /// Returns the number of peers and the warnings that a node reported last.
    pub(super) fn reported(&self, name: &str) -> (i64, Vec<WarningKind>) {
        let (_, status) = self.reports.iter().rev().find(|(by, _)| *by == name).unwrap();
        (status.segments[0].peers, status.warnings.iter().map(|warning| warning.kind).collect())
    }

    /// Returns the interfaces that `herald-speaker inspect` shows as segments.
    pub(super) fn inspected(&self, name: &str) -> Vec<&str> {
        self.hosts[name].coordinator.as_ref().unwrap().segments().map(|(interface, _)| interface).collect()
    }

    /// Returns the interfaces for which the first one speaks, as a node has reported it last.
    pub(super) fn speaks_for(&self, name: &str) -> &[String] {
        let (_, status) = self.reports.iter().rev().find(|(by, _)| *by == name).unwrap();
        &status.segments[0].speaks_for
    }

    /// Returns the interfaces in each report of a node.
    pub(super) fn ever_reported(&self, name: &str) -> Vec<Vec<&str>> {
        let reports = self.reports.iter().filter(|(by, _)| *by == name);
        reports.map(|(_, status)| status.segments.iter().map(|segment| segment.interface.as_str()).collect()).collect()
    }

    /// Returns the covered nodes in each report of a node, without repetitions.
    pub(super) fn covering(&self, name: &str) -> Vec<Vec<String>> {
        let mut told: Vec<_> =
            self.reports.iter().filter(|(by, _)| *by == name).map(|(_, status)| status.covering.clone()).collect();
        told.dedup();
        told
    }

    /// Returns the number of a node's reports in which a peer is heard.
    pub(super) fn reports(&self, name: &str) -> usize {
        self.reports.iter().filter(|(by, status)| *by == name && status.segments[0].peers > 0).count()
    }

    /// Asks for an address by broadcast, and returns the link-layer addresses in the answers.
    pub(super) fn who_has(&mut self, address: &str) -> BTreeSet<MacAddr> {
        self.who_has_on(WIRE, address)
    }

    /// Asks for an address by broadcast on a wire, and returns the link-layer addresses in the answers.
    pub(super) fn who_has_on(&mut self, wire: u8, address: &str) -> BTreeSet<MacAddr> {
        let address: IpAddr = address.parse().unwrap();
        let origin = crate::packet::Origin {
            mac: HOST,
            addresses: vec![format!("{HOST_ADDRESS}/24").parse().unwrap()],
            link_local: None,
        };
        let question = crate::packet::probe(address, MacAddr::BROADCAST, &origin).unwrap();
        let now = self.moment();
        let mut told = BTreeSet::new();
        for host in self.hosts.values_mut() {
            let Some(machine) = &mut host.coordinator else { continue };
            let heard = host.ports.iter().filter(|(_, port)| port.carrier && !port.deaf && port.wire == wire);
            for (index, _) in heard {
                machine.handle_frame(now, *index, PacketType::Broadcast, &question, Family::Ipv4);
            }
            let outputs: Vec<Output> = std::iter::from_fn(|| machine.poll_output()).collect();
            for output in outputs {
                match output {
                    // An answer that is lost on its way does not arrive.
                    Output::Transmit { segment, purpose: Purpose::Answer(_), .. } if host.ports[&segment].mute => {}
                    Output::Transmit { frame, purpose: Purpose::Answer(_), .. } => {
                        let heard = crate::packet::read_arp(&frame, PacketType::Host, HOST);
                        let Some(Heard::Packet { packet, .. }) = heard else { panic!("{heard:?}") };
                        told.insert(packet.binding.unwrap().1);
                    }
                    other => machine.outputs.push_back(other),
                }
            }
        }
        self.work();
        told
    }

    pub(super) fn status(&self, address: &str) -> VirtualIPStatus {
        self.vips.get(&address.parse().unwrap()).map(|vip| vip.status.clone()).unwrap_or_default()
    }

    pub(super) fn vip(&self, address: &str) -> Vip {
        self.vips.get(&address.parse().unwrap()).cloned().unwrap()
    }

    /// Returns the reason of the condition `Announced`.
    pub(super) fn reason(&self, address: &str) -> Option<String> {
        self.status(address).conditions.iter().find(|c| c.type_ == "Announced").map(|c| c.reason.clone())
    }

    pub(super) fn announcer(&self, address: &str) -> Option<String> {
        let announced = self.reason(address).as_deref() == Some(AnnouncedReason::Announcing.as_str());
        self.status(address).node.filter(|_| announced)
    }
}

fn speaker_at(name: &str) -> Speaker {
    let mut speaker = speaker(name);
    speaker.segments[0].address = Some(own_address(name).into());
    speaker
}

/// Returns the answer of a host at `own` that holds `address` to a frame: the address is at `at`.
fn ask(frame: &[u8], own: MacAddr, address: IpAddr, at: MacAddr) -> Option<Vec<u8>> {
    let kind = if frame[..6] == own.0 { PacketType::Host } else { PacketType::Broadcast };
    let Some(Heard::Packet { packet, asker: Some(asker) }) = crate::packet::read_arp(frame, kind, own) else {
        return None;
    };
    let asker: Asker = asker;
    (packet.asks == Some(address)).then(|| asker.answer(own, at))
}
