//! A wire for a handful of segments: every frame reaches everybody a millisecond later. (Loss, partitions and a thousand
//! nodes are the simulator's.)

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use herald_segment::{
    Config, Event, Input, Neighbour, Output, SavedState, Segment,
    claim::{Birth, Reason},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
    timers::Timers,
    view::{Candidate, Class, Packet, Station, Vip},
    wire::{Body, Key, Keyring},
};

/// A host of the segment that is no node: what a node asks for a sign of life when it hears nobody else.
const GATEWAY: Neighbour =
    Neighbour { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)), mac: MacAddr([2, 0, 0, 0, 0, 0xfe]) };

/// How long a frame is on its way.
const DELAY: Duration = Duration::from_millis(1);

pub fn ms(ms: u64) -> Duration {
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
    let station = |node| Station { node: name(node), mac: mac(node), address: own_address(node) };
    Input::Stations(nodes.into_iter().map(station).collect())
}

/// Keys of which all bytes are these, oldest first.
pub fn keyring(bytes: &[u8]) -> Keyring {
    Keyring::new(bytes.iter().map(|byte| Key::new(&[*byte; 32]).unwrap()).collect()).unwrap()
}

/// Some nodes on one wire.
pub struct Bus {
    pub now: Duration,
    pub speakers: BTreeMap<usize, Segment>,
    /// Nodes whose kernels answer.
    pub kernels: BTreeSet<usize>,
    /// Nodes that hear nothing.
    pub deaf: BTreeSet<usize>,
    /// Nodes nobody hears.
    pub mute: BTreeSet<usize>,
    /// Frames that are lost.
    pub loses: Option<Losses>,
    /// The switch drops the protocol, and passes everything else.
    pub drops_protocol: bool,
    /// Longer frames of the protocol are lost.
    pub carries: usize,
    /// Every event, with its time and node.
    pub events: Vec<(Duration, usize, Event)>,
    /// Announcements: time, node, address.
    pub announced: Vec<(Duration, usize, IpAddr)>,
    /// Suspicions in Hellos: time, who suspects, who is suspected.
    pub suspicions: Vec<(Duration, usize, NodeId)>,
    in_flight: Vec<(Duration, usize, Traffic)>,
    runs: u64,
    views: BTreeMap<IpAddr, Arc<Vip>>,
    nodes: usize,
    strangers: BTreeMap<IpAddr, MacAddr>,
}

impl Bus {
    /// Nodes 1 to `nodes`, all of them there, listening.
    pub fn new(nodes: usize) -> Self {
        let mut bus = Self {
            now: ms(1000),
            speakers: BTreeMap::new(),
            kernels: (1..=nodes).collect(),
            deaf: BTreeSet::new(),
            mute: BTreeSet::new(),
            loses: None,
            drops_protocol: false,
            carries: usize::MAX,
            events: Vec::new(),
            announced: Vec::new(),
            suspicions: Vec::new(),
            in_flight: Vec::new(),
            runs: 0,
            views: BTreeMap::new(),
            nodes,
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
            announce_rate: 500,
            seed: self.runs,
            #[cfg(feature = "mutations")]
            mutation: None,
        };
        let keys = Arc::new(keyring(&[7]));
        let mut segment = Segment::new(self.now, config, keys, restored);
        segment.handle(self.now, stations((1..=self.nodes).filter(|other| *other != node)));
        segment.handle(self.now, Input::Neighbours([GATEWAY].into()));
        for (address, vip) in &self.views {
            segment.handle(self.now, Input::Vip(*address, Some(Arc::clone(vip))));
        }
        segment.handle(self.now, Input::Fresh(self.now));
        self.speakers.insert(node, segment);
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

    /// Every node's view shows this: candidates with their classes, first in rank first.
    pub fn publish(&mut self, address: IpAddr, birth: u64, candidates: &[(usize, u8)]) {
        self.publish_announced(address, birth, candidates, None);
    }

    /// The same, with the node that announces it by VirtualIP.status.
    pub fn publish_announced(&mut self, address: IpAddr, birth: u64, candidates: &[(usize, u8)], by: Option<usize>) {
        let candidates =
            candidates.iter().map(|(node, class)| Candidate { node: name(*node).id(), class: Class(*class) }).collect();
        let uid = format!("uid-{birth}").into();
        let announced_by = by.map(|node| name(node).id());
        let seen = self.views.get(&address).is_some_and(|vip| vip.birth == Birth(birth));
        let ever_announced = seen || by.is_some();
        let vip = Arc::new(Vip { birth: Birth(birth), uid, candidates, announced_by, ever_announced, cover: true });
        self.views.insert(address, Arc::clone(&vip));
        for node in self.speakers.keys().copied().collect::<Vec<_>>() {
            self.tell(node, Input::Vip(address, Some(Arc::clone(&vip))));
        }
    }

    /// The object of an address is gone, and every node that runs is told.
    pub fn unpublish(&mut self, address: IpAddr) {
        self.views.remove(&address);
        for node in self.speakers.keys().copied().collect::<Vec<_>>() {
            self.tell(node, Input::Vip(address, None));
        }
    }

    /// A fact for one node.
    pub fn tell(&mut self, node: usize, input: Input) {
        let now = self.now;
        self.speakers.get_mut(&node).unwrap().handle(now, input);
        self.collect(node);
    }

    /// Every view is fresh.
    pub fn refresh(&mut self) {
        for node in self.speakers.keys().copied().collect::<Vec<_>>() {
            self.tell(node, Input::Fresh(self.now));
        }
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

    fn deliver(&mut self, from: usize, traffic: &Traffic) {
        if let Traffic::Packet(packet, Some(to)) = traffic
            && *to == GATEWAY.mac
        {
            let binding = Some((GATEWAY.address, GATEWAY.mac));
            let answer = Packet { source: GATEWAY.mac, binding, asks: None };
            self.in_flight.push((self.now + DELAY, 0, Traffic::Packet(answer, Some(packet.source))));
        }
        for node in 1..=self.nodes {
            if node == from || self.deaf.contains(&node) {
                continue;
            }
            if let Traffic::Packet(packet, to) = traffic {
                if to.is_some_and(|to| to != mac(node)) {
                    continue;
                }
                if packet.asks == Some(own_address(node)) && self.kernels.contains(&node) && !self.mute.contains(&node)
                {
                    let answer =
                        Packet { source: mac(node), binding: Some((own_address(node), mac(node))), asks: None };
                    self.in_flight.push((self.now + DELAY, node, Traffic::Packet(answer, Some(packet.source))));
                }
            }
            let Some(segment) = self.speakers.get_mut(&node) else { continue };
            match traffic {
                Traffic::Frame(bytes) => segment.handle_frame(self.now, bytes),
                Traffic::Packet(packet, _) => {
                    segment.handle_packet(self.now, packet);
                }
            }
            self.collect(node);
        }
    }

    fn collect(&mut self, node: usize) {
        while let Some(output) = self.speakers.get_mut(&node).unwrap().poll_output() {
            let now = self.now;
            if self.loses.as_mut().is_some_and(|losses| losses.takes(now, node, &output)) {
                continue;
            }
            let packet = |asks, binding| Packet { source: mac(node), binding, asks };
            let mine = Some((own_address(node), mac(node)));
            let traffic = match output {
                Output::Send(_) if self.drops_protocol => continue,
                Output::Send(bytes) if bytes.len() > self.carries => continue,
                Output::Send(bytes) => {
                    if let Body::Hello(hello) = keyring(&[7, 8]).open(&bytes).unwrap().body {
                        let suspects = hello.heard.iter().filter(|heard| heard.suspect);
                        self.suspicions.extend(suspects.map(|heard| (now, node, heard.node)));
                    }
                    Traffic::Frame(bytes)
                }
                Output::Probe { address, mac } => Traffic::Packet(packet(Some(address), mine), Some(mac)),
                Output::Enquire(address) => {
                    if let Some(mac) = self.strangers.get(&address) {
                        let answer = Packet { source: *mac, binding: Some((address, *mac)), asks: None };
                        self.in_flight.push((self.now + DELAY * 2, 0, Traffic::Packet(answer, None)));
                    }
                    Traffic::Packet(packet(Some(address), None), None)
                }
                Output::Announce { address, mac } => {
                    self.announced.push((self.now, node, address));
                    Traffic::Packet(packet(Some(address), Some((address, mac))), None)
                }
                Output::EchoAll | Output::Answers { .. } => continue,
                Output::Event(event) => {
                    self.events.push((self.now, node, event));
                    continue;
                }
            };
            if !self.mute.contains(&node) {
                self.in_flight.push((self.now + DELAY, node, traffic));
            }
        }
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
