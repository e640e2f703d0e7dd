//! Speakers on one or more segments, with an API server that stores what they write: real coordinators, without sockets
//! and clock.

mod api;
mod interfaces;
mod observed;
pub(super) mod ports;
mod speaker_statuses;
mod wire;

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
    answer_table::{AnswerTable, Response},
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
    /// What its responder answers, by interface.
    answers: BTreeMap<u32, AnswerTable>,
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
                answers: BTreeMap::new(),
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
        host.answers.clear();
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

    /// Kills the speaker of a node.
    pub(super) fn kill(&mut self, name: &str) {
        self.hosts.get_mut(name).unwrap().coordinator = None;
    }

    /// Takes a node's power away.
    pub(super) fn power_off(&mut self, name: &str) {
        self.kill(name);
        self.hosts.get_mut(name).unwrap().powered = false;
    }

    pub(super) fn tell(&mut self, name: &'static str, input: Input) {
        let now = self.moment();
        if let Some(machine) = self.hosts.get_mut(name).unwrap().coordinator.as_mut() {
            machine.handle(now, input);
        }
        self.work();
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        let mut rounds = (self.now, 0);
        loop {
            self.work();
            let due = self.hosts.values().filter_map(|host| host.coordinator.as_ref()?.poll_timeout()).min();
            // The time is rounded up: a timeout that is not due yet would be asked for again at once.
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
}

fn speaker_at(name: &str) -> Speaker {
    let mut speaker = speaker(name);
    speaker.segments[0].address = Some(own_address(name).into());
    speaker
}
