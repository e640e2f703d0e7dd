//! The cost of a fact in a large cluster, in counts rather than in time.

use herald_protocol::timers::Timers;
use jiff::Timestamp;

use super::{super::*, lan::key};
use crate::{
    api_objects::{Change, Vip},
    interfaces::tests::local,
    rank::{
        hashes,
        tests::{node, segment, speaker, vip},
    },
};

const ADDRESSES: u64 = 1000;
const NODES: u64 = 100;

fn name(number: u64) -> String {
    format!("node{number}")
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), wall: Timestamp::UNIX_EPOCH }
}

fn nth(number: u64) -> Vip {
    let [.., high, low] = number.to_be_bytes();
    vip(&IpAddr::from([192, 0, 2 + high, low]).to_string())
}

/// The speaker of node0, with a view of the cluster.
struct Large {
    coordinator: Coordinator,
    now: u64,
}

impl Large {
    /// Returns a speaker that has looked at the addresses of one turn.
    fn new() -> Self {
        let here = || segment("eth0", 1, "192.0.0.0/16");
        let speakers = (0..NODES).map(|n| crate::api_objects::Speaker { segments: vec![here()], ..speaker(&name(n)) });
        let view = View {
            vips: (0..ADDRESSES).map(nth).collect(),
            nodes: (0..NODES).map(|n| node(&name(n))).collect(),
            speakers: speakers.collect(),
            keys: Some(key(1)),
            ..View::default()
        };
        let config = Config {
            node: name(0),
            interfaces: vec![],
            version: "0".to_owned(),
            announcing: Announcing::default(),
            timers: Timers::default(),
            seed: 1,
        };
        let machine = Coordinator::new(config, Restored { view: Some(view), ..Restored::default() });
        let mut large = Self { coordinator: machine, now: 0 };
        large.tell(Input::Interfaces(Interfaces { segments: vec![local(2, here())], ..Interfaces::default() }));
        large
    }

    fn tell(&mut self, input: Input) {
        self.coordinator.handle(at(self.now), input);
    }

    fn told(&self) -> usize {
        self.coordinator.segments[&2].told.len()
    }

    /// Goes on until all addresses have been looked at; returns the number of turns.
    fn finish(&mut self) -> u64 {
        let mut turns = 0;
        while !self.coordinator.evaluation.is_done() {
            assert!(self.coordinator.poll_timeout().unwrap() <= at(self.now).monotonic, "the next turn is due at once");
            self.coordinator.handle_timeout(at(self.now));
            self.now += 1;
            turns += 1;
        }
        turns
    }

    /// Returns the cost of a fact: hashes, and turns beyond the one in which it came.
    fn cost(&mut self, fact: ApiFact) -> (u64, u64) {
        let before = hashes();
        self.tell(Input::Api(fact));
        let turns = self.finish();
        (hashes() - before, turns)
    }

    fn every_watch_makes_progress(&mut self) {
        for fact in [ApiFact::Vip(Change::Current), ApiFact::Node(Change::Current), ApiFact::Speaker(Change::Current)] {
            self.tell(Input::Api(fact));
        }
    }

    /// Returns the number of addresses let through, for each output that sets them.
    fn listened(&mut self) -> Vec<usize> {
        let outputs = std::iter::from_fn(|| self.coordinator.poll_output());
        let listened = outputs.filter_map(|output| match output {
            Output::Listen { addresses, .. } => Some(addresses.len()),
            _ => None,
        });
        listened.collect()
    }
}

fn applied(node: Node) -> ApiFact {
    ApiFact::Node(Change::Applied(node))
}

#[test]
fn cost_of_a_change_follows_what_changed() {
    let before = hashes();
    let mut large = Large::new();
    assert_eq!(large.told(), 20, "a turn takes 2,000 looks");
    assert_eq!(large.finish(), 49);
    assert_eq!((hashes() - before, large.told()), (ADDRESSES * NODES, 1000));

    let mut labelled = node(&name(7));
    labelled.labels.insert("feature.node.kubernetes.io/cpu".to_owned(), "new".to_owned());
    assert_eq!(large.cost(applied(labelled)), (0, 0), "a label no rule looks at");
    let cordoned = Node { cordoned: true, ..node(&name(8)) };
    assert_eq!(large.cost(applied(cordoned)), (0, 0), "a cordon");
    let unready = Node { ready: false, ..node(&name(9)) };
    assert_eq!(large.cost(applied(unready)), (0, 49), "looked at, and nothing is hashed");
    assert_eq!(large.cost(applied(node("new"))), (0, 0), "a node without a speaker");
    assert_eq!(large.cost(ApiFact::Vip(Change::Applied(nth(ADDRESSES)))), (NODES, 0), "a new address");
}

#[test]
fn view_is_current_once_the_segments_have_received_all_of_it() {
    let mut large = Large::new();
    large.finish();
    large.every_watch_makes_progress();
    let first = Some(at(large.now).monotonic);
    assert_eq!(large.coordinator.current_as_of, first);
    large.now += 1000;
    large.tell(Input::Api(applied(Node { ready: false, ..node(&name(9)) })));
    large.every_watch_makes_progress();
    let second = Some(at(large.now).monotonic);
    assert_eq!(large.coordinator.current_as_of, first, "the addresses wait for their turns");
    large.finish();
    assert_eq!(large.coordinator.current_as_of, second);
}

#[test]
fn addresses_of_a_listing_are_let_through_together() {
    let mut large = Large::new();
    large.finish();
    large.listened();
    for number in 0..500 {
        large.tell(Input::Api(ApiFact::Vip(Change::Applied(nth(ADDRESSES + number)))));
    }
    assert_eq!(large.listened(), [0_usize; 0], "not yet");
    large.now += 20;
    large.coordinator.handle_timeout(at(large.now));
    assert_eq!(large.listened(), [1500]);
}
