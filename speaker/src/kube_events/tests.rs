use herald_protocol::{
    claim::{Birth, Claim, ClaimKey, Epoch},
    node::NodeName,
};
use proptest::prelude::*;
use test_case::test_case;

use super::*;

const MAC: MacAddr = MacAddr([2, 0, 0x5e, 0x10, 0, 1]);

/// Nodes node1 to node3, and two Services that share 192.0.2.1.
struct Cluster;

impl Directory for Cluster {
    fn node(&self, id: NodeId) -> Option<NodeReference> {
        let known = (1..=3).map(|number| format!("node{number}")).find(|name| NodeName::new(name).id() == id);
        known.map(|name| NodeReference { uid: format!("uid-{name}"), name })
    }

    fn services(&self, address: IpAddr) -> Vec<ServiceReference> {
        let shared = address == self::address(1);
        let names = if shared { &["web", "dns"][..] } else { &[] };
        let service = |name: &&str| ServiceReference {
            namespace: "default".to_owned(),
            name: (*name).to_owned(),
            uid: format!("uid-{name}"),
        };
        names.iter().map(service).collect()
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn id(name: &str) -> NodeId {
    NodeName::new(name).id()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Returns the wall clock at a moment.
fn wall(now: Duration) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + i64::try_from(now.as_millis()).unwrap()).unwrap()
}

fn owned(last: u8, reason: Reason, from: Option<&str>, silent_ms: Option<u64>) -> Event {
    let claim =
        Claim { address: address(last), birth: Birth(1), epoch: Epoch(2), key: ClaimKey(3), reason, cover: true };
    Event::Owned { claim, from: from.map(id), silent_for: silent_ms.map(ms) }
}

fn tell(coalescer: &mut Coalescer, now: u64, event: &Event) {
    coalescer.event(ms(now), wall(ms(now)), "eth0", event, &Cluster);
}

/// Returns all Events that are posted until none waits, each with its time.
fn drain(coalescer: &mut Coalescer, mut now: u64) -> Vec<(u64, EventValue)> {
    let mut posted = Vec::new();
    while let Some(at) = coalescer.poll_timeout() {
        now = now.max(u64::try_from(at.as_millis()).unwrap());
        let value = coalescer.poll(ms(now), wall(ms(now))).expect("a timeout that has nothing makes a hot loop");
        posted.push((now, value));
    }
    posted
}

fn notes(coalescer: &mut Coalescer, now: u64) -> Vec<(u64, String)> {
    drain(coalescer, now).into_iter().map(|(at, value)| (at, value.note)).collect()
}

#[test]
fn failover_is_one_event_on_the_node_that_failed() {
    let mut coalescer = Coalescer::new("node2");
    for last in 1..=12 {
        tell(
            &mut coalescer,
            100 + u64::from(last),
            &owned(last, Reason::Dead, Some("node1"), Some(298 + u64::from(last))),
        );
    }
    assert_eq!(coalescer.poll(ms(1100), wall(ms(1100))), None);
    let posted = drain(&mut coalescer, 113);
    let [(1101, value)] = &posted[..] else { panic!("{posted:?}") };
    assert_eq!(value.note, "node2 took over 12 addresses from node1 (its node is dead) 310 ms after it was last heard");
    assert_eq!((value.warning, value.reason), (true, "AddressesTakenOver"));
    assert_eq!(value.regarding, Regarding::Node(Cluster.node(id("node1")).unwrap()));
    assert_eq!(value.at, wall(ms(1101)));
}

#[test]
fn take_overs_are_separate_by_node_and_reason() {
    let mut coalescer = Coalescer::new("node2");
    tell(&mut coalescer, 0, &owned(1, Reason::Leaving, Some("node1"), None));
    tell(&mut coalescer, 100, &owned(2, Reason::Dead, Some("node3"), Some(300)));
    tell(&mut coalescer, 200, &owned(3, Reason::Dead, Some("node1"), Some(400)));
    let expected = [
        (1000, "node2 took over the address 192.0.2.1 from node1 (it leaves)"),
        (1100, "node2 took over the address 192.0.2.2 from node3 (its node is dead) 300 ms after it was last heard"),
        (1200, "node2 took over the address 192.0.2.3 from node1 (its node is dead) 400 ms after it was last heard"),
    ];
    assert_eq!(notes(&mut coalescer, 200), expected.map(|(at, note)| (at, note.to_owned())));
}

#[test]
fn repeated_take_over_is_another_event() {
    let mut coalescer = Coalescer::new("node2");
    let event = owned(1, Reason::Dead, Some("node1"), Some(300));
    tell(&mut coalescer, 0, &event);
    let first = drain(&mut coalescer, 0);
    tell(&mut coalescer, 5000, &event);
    let second = drain(&mut coalescer, 5000);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first[0].1.name, second[0].1.name);
}

#[test_case(owned(1, Reason::Vacant, None, None); "a first claim")]
#[test_case(owned(1, Reason::Resumed, None, None); "a resumed claim")]
#[test_case(owned(1, Reason::Recreated, Some("node1"), None); "another object")]
#[test_case(owned(1, Reason::Dead, Some("node9"), Some(300)); "of a node that the API does not have")]
#[test_case(Event::Conflict { address: address(9), mac: MAC }; "an address of no Service")]
#[test_case(Event::PeerDead(id("node1")); "a death that moves nothing")]
fn event_without_a_take_over_or_an_object_is_not_reported(event: Event) {
    let mut coalescer = Coalescer::new("node2");
    tell(&mut coalescer, 0, &event);
    assert_eq!(notes(&mut coalescer, 0), []);
}

#[test]
fn conflict_is_reported_once_on_each_service() {
    let mut coalescer = Coalescer::new("node2");
    let conflict = Event::Conflict { address: address(1), mac: MAC };
    tell(&mut coalescer, 0, &conflict);
    let posted = drain(&mut coalescer, 0);
    let about: Vec<_> = posted.iter().map(|(_, value)| value.regarding.name_and_uid().0).collect();
    assert_eq!(about, ["web", "dns"]);
    assert!(posted.iter().all(|(at, value)| *at == 0 && value.warning && value.reason == "AddressConflict"));
    // The conflict goes on for an hour, and is defended every ten seconds.
    for now in (10_000..3_600_000).step_by(10_000) {
        tell(&mut coalescer, now, &conflict);
    }
    assert_eq!(notes(&mut coalescer, 3_600_000), []);
    // The conflict is over for a while, and returns.
    tell(&mut coalescer, 3_590_000 + 360_000, &conflict);
    assert_eq!(notes(&mut coalescer, 3_950_000).len(), 2);
    // Another host makes another conflict.
    tell(&mut coalescer, 3_950_000, &Event::Conflict { address: address(1), mac: MacAddr([2; 6]) });
    assert_eq!(notes(&mut coalescer, 3_950_000).len(), 2);
}

#[test]
fn fact_that_several_speakers_see_has_one_name() {
    for event in [Event::Conflict { address: address(1), mac: MAC }, Event::CoveringLong(id("node1"))] {
        let [one, two] = ["node2", "node3"].map(|node| {
            let mut coalescer = Coalescer::new(node);
            tell(&mut coalescer, 0, &event);
            drain(&mut coalescer, 0).into_iter().map(|(_, value)| value.name).collect::<Vec<_>>()
        });
        assert!(!one.is_empty());
        assert_eq!(one, two);
    }
    let [one, two] = ["node2", "node3"].map(|node| {
        let mut coalescer = Coalescer::new(node);
        tell(&mut coalescer, 0, &owned(1, Reason::Dead, Some("node1"), None));
        drain(&mut coalescer, 0).remove(0).1.name
    });
    assert_ne!(one, two, "each took over something else");
}

#[test]
fn long_silence_of_a_speaker_is_reported_on_its_node() {
    let mut coalescer = Coalescer::new("node2");
    tell(&mut coalescer, 0, &Event::CoveringLong(id("node1")));
    tell(&mut coalescer, 1, &Event::CoveringLong(id("node1")));
    let posted = drain(&mut coalescer, 1);
    assert_eq!(posted.len(), 1, "two segments, one node");
    assert_eq!((posted[0].1.warning, posted[0].1.reason), (true, "SpeakerSilent"));
}

#[test]
fn invented_conflicts_are_bounded() {
    let mut coalescer = Coalescer::new("node2");
    for number in 0..10_000u16 {
        let [high, low] = number.to_be_bytes();
        tell(&mut coalescer, 0, &Event::Conflict { address: address(1), mac: MacAddr([2, 0, 0, 0, high, low]) });
    }
    assert_eq!(coalescer.told.len(), FACTS);
    assert_eq!(notes(&mut coalescer, 0).len(), 2 * FACTS);
}

proptest! {
    /// Names are DNS subdomains of at most 253 bytes (RFC 1123), whatever the object's name is.
    #[test]
    fn names_are_valid_dns_subdomains(object in "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", fact in ".{0,20}") {
        let regarding = Regarding::Node(NodeReference { name: object.replace("..", "xx").replace(".-", "xx").replace("-.", "xx"), uid: "u".to_owned() });
        let name = name(&regarding, &[&fact]);
        prop_assert!(name.len() <= 253);
        for label in name.split('.') {
            prop_assert!(!label.is_empty() && !label.starts_with('-') && !label.ends_with('-'), "{}", name);
        }
    }
}
