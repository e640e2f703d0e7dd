//! A wire for a handful of engines: every frame reaches every node a millisecond later. (Loss, partitions and a
//! thousand nodes are subjects of the simulator.)

mod delivery;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use herald_protocol::{
    Config, Engine, Event, Input, Neighbour, Output, SavedState,
    announce::Pace,
    api_view::{ExpectedPeer, Packet, Vip},
    claim::Reason,
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
    timers::Timers,
    wire::{Body, Frame, Hello, Key, Keyring},
};

use crate::next_build::Build;

/// A host of the segment outside the cluster, which a node asks for a sign of life when it hears no other node.
pub const GATEWAY: Neighbour =
    Neighbour { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)), mac: MacAddr([2, 0, 0, 0, 0, 0xfe]) };

/// The key of the cluster.
pub const SECRET: [u8; 32] = [7; 32];

/// Time that a frame takes on its way.
const DELAY: Duration = Duration::from_millis(1);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

pub fn name(node: usize) -> NodeName {
    NodeName::new(&format!("node{node}"))
}

pub fn mac(node: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, u8::try_from(node).unwrap()])
}

fn own_address(node: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(node).unwrap()])
}

#[derive(Clone, Debug)]
enum Traffic {
    Frame(Vec<u8>),
    Packet(Packet, Option<MacAddr>),
    /// A ping: the address that is asked for, the host asked, and the host that asks.
    Ping {
        address: IpAddr,
        to: MacAddr,
        from: MacAddr,
    },
    /// The answer to a ping: the address that answers, its host, and the host that asked.
    Pong {
        address: IpAddr,
        from: MacAddr,
        to: MacAddr,
    },
}

/// The loss of a node's next Claims frame and, for a while, of its Hellos and announcements.
#[derive(Clone, Copy, Debug)]
pub struct Losses {
    node: usize,
    lasts: Duration,
    /// When the first announcement was lost, which goes out just before the claim.
    begun: Option<Duration>,
    claims_lost: bool,
}

impl Losses {
    pub fn new(node: usize, lasts: Duration) -> Self {
        Self { node, lasts, begun: None, claims_lost: false }
    }

    /// Returns whether this output is lost.
    fn takes(&mut self, now: Duration, from: usize, output: &Output) -> bool {
        if from != self.node {
            return false;
        }
        match output {
            // The type is the second byte of a frame; 2 is Claims.
            Output::Send(bytes) if bytes[1] == 2 => !std::mem::replace(&mut self.claims_lost, true),
            Output::Send(_) => self.begun.is_some_and(|begun| now < begun + self.lasts),
            Output::Announce { .. } => now < *self.begun.get_or_insert(now) + self.lasts,
            _ => false,
        }
    }
}

/// Returns the input by which the API lists these nodes.
pub fn stations(nodes: impl IntoIterator<Item = usize>) -> Input {
    let station = |node| ExpectedPeer { node: name(node), mac: mac(node), address: own_address(node) };
    Input::Stations(nodes.into_iter().map(station).collect())
}

/// Returns the keyring with which the speakers of a build read and write frames.
pub fn keyring(build: Build) -> Keyring {
    keys(&SECRET[..1]).with_versions(build.versions())
}

/// Returns a ring of one key for each of these bytes, the oldest first. All bytes of a key are the same.
pub fn keys(bytes: &[u8]) -> Keyring {
    Keyring::new(bytes.iter().map(|byte| Key::new(&[*byte; 32]).unwrap()).collect()).unwrap()
}

/// Some nodes on one wire.
pub struct Bus {
    pub now: Duration,
    pub speakers: BTreeMap<usize, Engine>,
    /// Nodes whose kernels answer.
    pub kernels: BTreeSet<usize>,
    /// Nodes in whose name the switch answers ARP and ND (suppression), with their link-layer address as Ethernet
    /// source, whether they are alive or not.
    pub suppressed: BTreeSet<usize>,
    /// Pairs of hosts: pings to the first from the second are dropped, by a firewall at the first or on the way.
    pub drops_pings: BTreeSet<(MacAddr, MacAddr)>,
    /// Percentage of the pings, and of the answers, that are lost.
    loses_pings: u8,
    /// Time from the arrival of a ping to the arrival of its answer.
    pub pong_delay: Duration,
    /// Pings: the time, the node that asks, the host that is asked.
    pub pings: Vec<(Duration, usize, MacAddr)>,
    /// Nodes that hear nothing.
    pub deaf: BTreeSet<usize>,
    /// Nodes that no other node hears.
    pub mute: BTreeSet<usize>,
    /// Pace of the announcements of speakers that are started from now on.
    pub pace: Pace,
    /// Frames that are lost.
    pub loses: Option<Losses>,
    /// Whether the switch drops the protocol, and passes everything else.
    pub drops_protocol: bool,
    /// Nodes whose watches show nothing new.
    pub late_views: BTreeSet<usize>,
    /// The node on the way to which frames of the protocol are lost.
    pub loses_frames_to: Option<usize>,
    /// Length in bytes of the longest frame of the protocol that is not lost.
    pub carries: usize,
    /// Every event, with its time and node.
    pub events: Vec<(Duration, usize, Event)>,
    /// Every frame of the protocol, with its sender.
    pub sent: Vec<(usize, Vec<u8>)>,
    /// Announcements: time, node, address.
    pub announced: Vec<(Duration, usize, IpAddr)>,
    /// Suspicions in Hellos: the time, the node that suspects, the node that is suspected.
    pub suspicions: Vec<(Duration, usize, NodeId)>,
    /// Requests for claims in Hellos: the time, the node that asks, the node whose claims it lacks.
    pub requests: Vec<(Duration, usize, NodeId)>,
    /// The builds of the nodes' speakers, set before they start; today's where none is given.
    pub builds: BTreeMap<usize, Build>,
    /// Additions of the next build that a node of that build has read in frames of another node: the reader, the
    /// addition.
    pub read_of_next: BTreeSet<(usize, &'static str)>,
    in_flight: Vec<(Duration, usize, Traffic)>,
    runs: u64,
    views: BTreeMap<IpAddr, Arc<Vip>>,
    nodes: usize,
    /// Random numbers that decide which pings are lost.
    luck: fastrand::Rng,
    strangers: BTreeMap<IpAddr, MacAddr>,
}

impl Bus {
    /// Returns a bus with the nodes 1 to `nodes`, whose speakers have all started and listen.
    pub fn new(nodes: usize) -> Self {
        Self::of(nodes, BTreeMap::new())
    }

    /// Returns a bus as [`Bus::new`] does; the speakers of these nodes are of these builds.
    pub fn of(nodes: usize, builds: BTreeMap<usize, Build>) -> Self {
        let mut bus = Self {
            now: ms(1000),
            speakers: BTreeMap::new(),
            kernels: (1..=nodes).collect(),
            suppressed: BTreeSet::new(),
            drops_pings: BTreeSet::new(),
            loses_pings: 0,
            pong_delay: DELAY,
            pings: Vec::new(),
            deaf: BTreeSet::new(),
            mute: BTreeSet::new(),
            pace: Pace::default(),
            loses: None,
            drops_protocol: false,
            late_views: BTreeSet::new(),
            loses_frames_to: None,
            carries: usize::MAX,
            events: Vec::new(),
            sent: Vec::new(),
            announced: Vec::new(),
            suspicions: Vec::new(),
            requests: Vec::new(),
            builds,
            read_of_next: BTreeSet::new(),
            in_flight: Vec::new(),
            runs: 0,
            views: BTreeMap::new(),
            nodes,
            luck: fastrand::Rng::with_seed(1),
            strangers: BTreeMap::new(),
        };
        (1..=nodes).for_each(|node| bus.start(node, None));
        bus
    }

    /// Returns a bus with the nodes 1 to `nodes`, which have joined, and these addresses, each with all nodes as
    /// candidates in their order.
    pub fn with_addresses(nodes: usize, addresses: &[u8]) -> Self {
        let mut bus = Self::new(nodes);
        bus.run(ms(1000));
        for last in addresses {
            let order: Vec<_> = (1..=nodes).map(|node| (node, 0)).collect();
            bus.publish(address(*last), 1, &order);
        }
        bus.run(ms(2000));
        bus
    }

    /// Starts a speaker.
    pub fn start(&mut self, node: usize, restored: Option<(SavedState, bool)>) {
        self.runs += 1;
        let config = Config {
            node: name(node),
            incarnation: Incarnation(self.runs),
            mac: mac(node),
            address: Some(own_address(node)),
            timers: Timers::default(),
            pace: self.pace,
            first_claim_probe: true,
            seed: self.runs,
            #[cfg(feature = "mutations")]
            mutation: None,
        };
        let keys = Arc::new(keyring(self.build(node)));
        let mut segment = Engine::new(self.now, config, keys, restored);
        segment.handle(self.now, stations((1..=self.nodes).filter(|other| *other != node)));
        segment.handle(self.now, Input::Neighbours([GATEWAY].into()));
        for (address, vip) in &self.views {
            segment.handle(self.now, Input::Vip(*address, Some(Arc::clone(vip))));
        }
        if !self.late_views.contains(&node) {
            segment.handle(self.now, Input::Fresh(self.now));
        }
        self.speakers.insert(node, segment);
    }

    /// Returns the build of a node's speaker.
    fn build(&self, node: usize) -> Build {
        self.builds.get(&node).copied().unwrap_or(Build::Today)
    }

    /// Kills a speaker, whose node goes on, and returns the state that the speaker saved.
    pub fn kill(&mut self, node: usize) -> SavedState {
        self.speakers.remove(&node).unwrap().saved_state()
    }

    /// Cuts a node's power.
    pub fn power_off(&mut self, node: usize) {
        self.speakers.remove(&node);
        self.kernels.remove(&node);
    }

    /// Cuts the power of a node whose speaker does not run.
    pub fn power_off_kernel(&mut self, node: usize) {
        self.kernels.remove(&node);
    }

    /// Gives an address to a host outside the cluster.
    pub fn stranger(&mut self, address: IpAddr, mac: MacAddr) {
        self.strangers.insert(address, mac);
    }

    /// Hands a fact to the engine of one node.
    pub fn tell(&mut self, node: usize, input: Input) {
        let now = self.now;
        self.speakers.get_mut(&node).unwrap().handle(now, input);
        self.collect(node);
    }

    /// Sends a frame to all nodes, as a host does that has recorded the frame or has the key.
    pub fn inject(&mut self, bytes: Vec<u8>) {
        self.in_flight.push((self.now + DELAY, 0, Traffic::Frame(bytes)));
    }

    /// Returns a forged Hello of a node: the last one that the node sent, changed and signed again.
    pub fn forge_hello(&self, node: usize, change: impl FnOnce(&mut Hello)) -> Vec<u8> {
        self.forge(node, |frame| {
            if let Body::Hello(hello) = &mut frame.body {
                change(hello);
            }
        })
    }

    /// Returns a Hello as [`Bus::forge_hello`] does, of another incarnation of the node.
    pub fn forge_hello_of(&self, node: usize, run: Incarnation, change: impl FnOnce(&mut Hello)) -> Vec<u8> {
        self.forge(node, |frame| {
            frame.sender.incarnation = run;
            if let Body::Hello(hello) = &mut frame.body {
                change(hello);
            }
        })
    }

    fn forge(&self, node: usize, change: impl FnOnce(&mut Frame)) -> Vec<u8> {
        let hello = |bytes: &Vec<u8>| {
            keyring(Build::Today).open(bytes).ok().filter(|frame| matches!(frame.body, Body::Hello(_)))
        };
        let mut sent = self.sent.iter().rev().filter(|(sender, _)| *sender == node);
        let mut frame = sent.find_map(|(_, bytes)| hello(bytes)).unwrap();
        frame.sender.sequence += 1;
        change(&mut frame);
        keyring(Build::Today).seal(Key::new(&SECRET).unwrap().id(), 1, &frame).unwrap()
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.speakers.iter().filter_map(|(node, s)| Some((s.poll_timeout()?.max(self.now), 1, *node)));
            let arriving = self.in_flight.iter().enumerate().map(|(index, (at, ..))| (*at, 0, index));
            let Some((at, kind, which)) = due.chain(arriving).min().filter(|(at, ..)| *at <= end) else { break };
            self.now = at;
            if kind == 1 {
                self.speakers.get_mut(&which).unwrap().handle_timeout(at);
                let next = self.speakers[&which].poll_timeout();
                assert!(next.is_none_or(|next| next > at), "node{which} would run hot: due at {next:?}, at {at:?}");
                self.collect(which);
            } else {
                let (_, from, traffic) = self.in_flight.remove(which);
                self.deliver(from, &traffic);
            }
        }
        self.now = end;
    }

    /// Returns the answers that a broadcast solicitation would get: the nodes that answer, and the link-layer addresses
    /// that they give.
    pub fn answers(&self, address: IpAddr) -> Vec<(usize, MacAddr)> {
        self.speakers.iter().filter_map(|(node, s)| Some((*node, s.answer(address)?))).collect()
    }

    /// Returns the node whose link-layer address is given, if all answers give the same one.
    pub fn reached(&self, address: IpAddr) -> Option<usize> {
        let mut given: Vec<_> = self.answers(address).into_iter().map(|(_, mac)| mac).collect();
        given.dedup();
        match given[..] {
            [only] => (1..=self.nodes).find(|node| mac(*node) == only),
            _ => None,
        }
    }

    /// Lets time pass until a condition holds, and returns the time that passed.
    pub fn until(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !condition(self) {
            assert!(self.now < begun + limit, "not within {limit:?}; events since: {:#?}", self.events_since(begun));
            self.run(ms(1));
        }
        self.now - begun
    }

    /// Returns the events since a moment.
    pub fn events_since(&self, since: Duration) -> Vec<&(Duration, usize, Event)> {
        self.events.iter().filter(|(at, ..)| *at >= since).collect()
    }

    /// Returns the changes of owners since a moment: the new owner and the reason.
    pub fn claims_since(&self, since: Duration) -> Vec<(usize, Reason)> {
        let claim = |(at, node, event): &(Duration, usize, Event)| match event {
            Event::Owned { claim, .. } if *at >= since => Some((*node, claim.reason)),
            _ => None,
        };
        self.events.iter().filter_map(claim).collect()
    }
}
