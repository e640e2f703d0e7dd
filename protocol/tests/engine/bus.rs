//! A wire for a handful of segments: every frame reaches everybody a millisecond later. (Loss, partitions and a thousand
//! nodes are the simulator's.)

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

/// A host of the segment that is no node: what a node asks for a sign of life when it hears nobody else.
pub const GATEWAY: Neighbour =
    Neighbour { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)), mac: MacAddr([2, 0, 0, 0, 0, 0xfe]) };

/// The key of the cluster.
pub const SECRET: [u8; 32] = [7; 32];

/// How long a frame is on its way.
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
    /// A ping: who is asked for which address, and by whom.
    Ping {
        address: IpAddr,
        to: MacAddr,
        from: MacAddr,
    },
    /// Its answer: who answers from which address, and to whom.
    Pong {
        address: IpAddr,
        from: MacAddr,
        to: MacAddr,
    },
}

/// A node's next Claims frame is lost, and for a while its Hellos and announcements are.
#[derive(Clone, Copy, Debug)]
pub struct Losses {
    node: usize,
    lasts: Duration,
    /// When the first announcement was lost: it goes out just before the claim.
    begun: Option<Duration>,
    claims_lost: bool,
}

impl Losses {
    pub fn new(node: usize, lasts: Duration) -> Self {
        Self { node, lasts, begun: None, claims_lost: false }
    }

    /// Is this lost?
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

/// The API lists these nodes.
pub fn stations(nodes: impl IntoIterator<Item = usize>) -> Input {
    let station = |node| ExpectedPeer { node: name(node), mac: mac(node), address: own_address(node) };
    Input::Stations(nodes.into_iter().map(station).collect())
}

/// What the speakers of a build read and write frames with.
pub fn keyring(build: Build) -> Keyring {
    keys(&SECRET[..1]).with_versions(build.versions())
}

/// Keys of which all bytes are these, oldest first.
pub fn keys(bytes: &[u8]) -> Keyring {
    Keyring::new(bytes.iter().map(|byte| Key::new(&[*byte; 32]).unwrap()).collect()).unwrap()
}

/// Some nodes on one wire.
pub struct Bus {
    pub now: Duration,
    pub speakers: BTreeMap<usize, Engine>,
    /// Nodes whose kernels answer.
    pub kernels: BTreeSet<usize>,
    /// Nodes for which the switch answers ARP and ND in their name, with their link-layer address as Ethernet source, be
    /// they alive or not: suppression.
    pub suppressed: BTreeSet<usize>,
    /// Who drops whose pings: a firewall at the first, or on the way.
    pub drops_pings: BTreeSet<(MacAddr, MacAddr)>,
    /// So many percent of the pings are lost, and of the answers.
    loses_pings: u8,
    /// How long an answer to a ping takes.
    pub pong_delay: Duration,
    /// Pings: time, node, who is asked.
    pub pings: Vec<(Duration, usize, MacAddr)>,
    /// Nodes that hear nothing.
    pub deaf: BTreeSet<usize>,
    /// Nodes nobody hears.
    pub mute: BTreeSet<usize>,
    /// How often the speakers that are started from now on announce.
    pub pace: Pace,
    /// Frames that are lost.
    pub loses: Option<Losses>,
    /// The switch drops the protocol, and passes everything else.
    pub drops_protocol: bool,
    /// Nodes whose watches show nothing new.
    pub late_views: BTreeSet<usize>,
    /// Frames of the protocol to this node are lost.
    pub loses_frames_to: Option<usize>,
    /// Longer frames of the protocol are lost.
    pub carries: usize,
    /// Every event, with its time and node.
    pub events: Vec<(Duration, usize, Event)>,
    /// Every frame of the protocol, with its sender.
    pub sent: Vec<(usize, Vec<u8>)>,
    /// Announcements: time, node, address.
    pub announced: Vec<(Duration, usize, IpAddr)>,
    /// Suspicions in Hellos: time, who suspects, who is suspected.
    pub suspicions: Vec<(Duration, usize, NodeId)>,
    /// Requests for claims in Hellos: time, who asks, whose claims it lacks.
    pub requests: Vec<(Duration, usize, NodeId)>,
    /// The builds of the speakers that are started from now on; today's where none is given.
    pub builds: BTreeMap<usize, Build>,
    /// What a node of the next build has read of another that only the next build says: reader, what.
    pub read_of_next: BTreeSet<(usize, &'static str)>,
    in_flight: Vec<(Duration, usize, Traffic)>,
    runs: u64,
    views: BTreeMap<IpAddr, Arc<Vip>>,
    nodes: usize,
    /// Decides which pings are lost.
    luck: fastrand::Rng,
    strangers: BTreeMap<IpAddr, MacAddr>,
}

impl Bus {
    /// Nodes 1 to `nodes`, all of them there, listening.
    pub fn new(nodes: usize) -> Self {
        Self::of(nodes, BTreeMap::new())
    }

    /// The same; the speakers of these nodes are of these builds.
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

    /// Nodes 1 to `nodes` that have joined, and these addresses, each with all nodes as candidates in their order.
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

    /// The build that a node's speaker is of.
    fn build(&self, node: usize) -> Build {
        self.builds.get(&node).copied().unwrap_or(Build::Today)
    }

    /// Kills a speaker; its node goes on.
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

    /// A host outside the cluster holds an address.
    pub fn stranger(&mut self, address: IpAddr, mac: MacAddr) {
        self.strangers.insert(address, mac);
    }

    /// A fact for one node.
    pub fn tell(&mut self, node: usize, input: Input) {
        let now = self.now;
        self.speakers.get_mut(&node).unwrap().handle(now, input);
        self.collect(node);
    }

    /// Somebody who has recorded a frame, or has the key, sends it to all.
    pub fn inject(&mut self, bytes: Vec<u8>) {
        self.in_flight.push((self.now + DELAY, 0, Traffic::Frame(bytes)));
    }

    /// A Hello of a node as it might be: the last one it sent, changed and signed anew.
    pub fn forge_hello(&self, node: usize, change: impl FnOnce(&mut Hello)) -> Vec<u8> {
        self.forge(node, |frame| {
            if let Body::Hello(hello) = &mut frame.body {
                change(hello);
            }
        })
    }

    /// The same, of another run of the node.
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

    /// What a broadcast solicitation would be answered with: the nodes that answer and the link-layer addresses they
    /// give.
    pub fn answers(&self, address: IpAddr) -> Vec<(usize, MacAddr)> {
        self.speakers.iter().filter_map(|(node, s)| Some((*node, s.answer(address)?))).collect()
    }

    /// The node whose link-layer address is given, if all give the same.
    pub fn reached(&self, address: IpAddr) -> Option<usize> {
        let mut given: Vec<_> = self.answers(address).into_iter().map(|(_, mac)| mac).collect();
        given.dedup();
        match given[..] {
            [only] => (1..=self.nodes).find(|node| mac(*node) == only),
            _ => None,
        }
    }

    /// Runs until a condition holds; how long that took.
    pub fn until(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !condition(self) {
            assert!(self.now < begun + limit, "not within {limit:?}; events since: {:#?}", self.events_since(begun));
            self.run(ms(1));
        }
        self.now - begun
    }

    /// What happened since a moment.
    pub fn events_since(&self, since: Duration) -> Vec<&(Duration, usize, Event)> {
        self.events.iter().filter(|(at, ..)| *at >= since).collect()
    }

    /// Changes of owners since a moment: node and reason.
    pub fn claims_since(&self, since: Duration) -> Vec<(usize, Reason)> {
        let claim = |(at, node, event): &(Duration, usize, Event)| match event {
            Event::Owned { claim, .. } if *at >= since => Some((*node, claim.reason)),
            _ => None,
        };
        self.events.iter().filter_map(claim).collect()
    }
}
