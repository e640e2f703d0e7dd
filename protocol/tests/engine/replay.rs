//! Replayed frames, incarnations that are set back, and views that contradict each other permanently.

use std::time::Duration;

use herald_protocol::{Event, Input, node::Incarnation, wire::Heard};

use crate::bus::{Bus, address, mac, ms, name};

const SECOND: Duration = Duration::from_secs(1);
const ALL: [(usize, u8); 3] = [(1, 0), (2, 0), (3, 0)];

/// After a power cut node 1 stays off, the others start again, and the API still names node 1. A host replays recorded
/// Hellos of two incarnations of node 1, in turn.
#[test]
fn replayed_hellos_of_a_dead_node_do_not_keep_its_address_unanswered() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.kill(1);
    bus.run(SECOND);
    bus.start(1, None);
    bus.run(3 * SECOND);
    let of_node_1 = bus.sent.iter().filter(|(node, bytes)| *node == 1 && bytes[1] == 1);
    let recorded: Vec<Vec<u8>> = of_node_1.map(|(_, bytes)| bytes.clone()).collect();
    let (one, two) = (recorded[5].clone(), recorded[recorded.len() - 5].clone());
    bus.power_off(1);
    bus.kill(2);
    bus.kill(3);
    bus.run(SECOND);
    bus.publish_announced(address(1), 1, &ALL, Some(1));
    bus.start(2, None);
    bus.start(3, None);
    let mut unanswered = Duration::ZERO;
    while bus.answers(address(1)).is_empty() {
        assert!(unanswered < 10 * SECOND, "the address stays unanswered for as long as recorded frames are replayed");
        bus.inject(one.clone());
        bus.inject(two.clone());
        bus.run(ms(100));
        unanswered += ms(100);
    }
    assert!(unanswered < 5 * SECOND, "{unanswered:?}");
}

/// A host replays the Hellos of a node's previous incarnation to a speaker that has just started. That speaker lacks a
/// claim of the node: its request has to reach the present incarnation.
#[test]
fn replayed_hellos_do_not_keep_claims_from_a_peer_that_requests_them() {
    let mut bus = Bus::new(2);
    bus.run(20 * SECOND);
    let of_node_1 = bus.sent.iter().filter(|(node, bytes)| *node == 1 && bytes[1] == 1);
    let recorded: Vec<Vec<u8>> = of_node_1.map(|(_, bytes)| bytes.clone()).collect();
    for node in 1..=2 {
        bus.kill(node);
        bus.start(node, None);
    }
    bus.run(5 * SECOND);
    bus.publish(address(1), 1, &[(1, 0)]);
    bus.until(SECOND, |bus| bus.reached(address(1)) == Some(1));
    // The claim is on its way to node 2 and is sent again after half an interval: both frames are lost.
    bus.loses_frames_to = Some(2);
    bus.run(ms(70));
    bus.loses_frames_to = None;
    for frame in recorded.into_iter().take(100) {
        bus.inject(frame);
        bus.run(ms(10));
    }
    assert!(bus.speakers[&2].is_claimed(address(1)), "node 2 has requested the claim for a second");
}

/// A virtual machine is set back to a snapshot with its memory: its peers have heard frames that it is yet to send.
#[test]
fn reverted_incarnation_is_detected_by_the_hello_of_a_peer() {
    let mut bus = Bus::with_addresses(2, &[1]);
    let incarnation = Incarnation(1);
    let mention = |sequence| Heard {
        node: name(1).id(),
        incarnation,
        sequence,
        age: ms(5),
        kernel: None,
        wants_echo: false,
        wants_claims: false,
        suspect: true,
    };
    let reverted =
        |bus: &Bus| bus.events.iter().filter(|(_, node, event)| *node == 1 && *event == Event::Reverted).count();
    let now = bus.forge_hello(2, |hello| hello.heard = vec![mention(1)]);
    bus.inject(now);
    bus.run(ms(200));
    assert_eq!(reverted(&bus), 0, "the last frame of node 1 that was heard was an old one");
    let later = bus.forge_hello(2, |hello| hello.heard = vec![mention(1_000_000)]);
    bus.inject(later);
    bus.run(ms(200));
    assert_eq!(reverted(&bus), 1);
}

/// Since the snapshot all peers have been replaced as well, and the node counts none of their incarnations.
#[test]
fn reverted_incarnation_is_detected_by_the_hello_of_an_uncounted_peer() {
    let mut bus = Bus::with_addresses(2, &[1]);
    let mention = Heard {
        node: name(1).id(),
        incarnation: Incarnation(1),
        sequence: 1_000_000,
        age: ms(5),
        kernel: None,
        wants_echo: false,
        wants_claims: false,
        suspect: true,
    };
    let of_a_new_run = bus.forge_hello_of(2, Incarnation(77), |hello| hello.heard = vec![mention]);
    bus.inject(of_a_new_run);
    bus.run(ms(200));
    assert!(bus.events.iter().any(|(_, node, event)| *node == 1 && *event == Event::Reverted));
}

/// Speakers are configured differently: each half of the nodes does not count the other half as candidates.
#[test]
fn nodes_whose_views_differ_permanently_move_the_address_ever_less_often() {
    let mut bus = Bus::new(4);
    bus.run(SECOND);
    bus.publish(address(1), 1, &[(1, 0), (2, 0), (3, 0), (4, 0)]);
    bus.run(3 * SECOND);
    bus.late_views = [3, 4].into();
    bus.publish(address(1), 1, &[(1, 0), (2, 0)]);
    bus.late_views = [1, 2].into();
    bus.publish(address(1), 1, &[(3, 0), (4, 0)]);
    let begun = bus.now;
    for _ in 0..60 {
        bus.refresh();
        bus.run(10 * SECOND);
    }
    let moves = bus.claims_since(begun).len();
    // Each of the four nodes moves the address twice without a pause, then after 1, 2, 4, ... 32 s, and once a minute
    // in the time that is left.
    assert!(moves <= 4 * (2 + 6 + 10), "{moves} moves in ten minutes");
    let last_minute = bus.claims_since(bus.now - 60 * SECOND).len();
    assert!(last_minute <= 4, "{last_minute} moves in the last minute");
}

/// A speaker has two interfaces. A frame of one interface that is heard on the other shows that both are on one
/// network, if the frame was sent just now; a replayed frame does not.
#[test]
fn frame_of_another_interface_is_distinguished_from_a_recorded_one() {
    let mut bus = Bus::new(1);
    bus.run(20 * SECOND);
    let own: Vec<Vec<u8>> = bus.sent.iter().filter(|(node, _)| *node == 1).map(|(_, bytes)| bytes.clone()).collect();
    let first = bus.speakers.remove(&1).unwrap();
    bus.start(1, None);
    let (now, mut other) = (bus.now, bus.speakers.remove(&1).unwrap());
    other.handle_frame(now, &own[0]);
    assert_eq!(other.take_sibling(), None, "the other incarnation is not known yet");
    other.handle(now, Input::Siblings([(first.incarnation(), mac(2))].into()));
    for (bytes, lately) in [(&own[0], false), (own.last().unwrap(), true)] {
        other.handle_frame(now, bytes);
        let heard = other.take_sibling().unwrap();
        assert_eq!(first.has_sent(heard), lately);
        assert_eq!(other.take_sibling(), None, "a sibling is reported once");
    }
}
