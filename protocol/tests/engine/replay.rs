//! Frames that come again, runs that are set back, and views that contradict each other for good.

use std::time::Duration;

use herald_protocol::{Event, Input, node::Incarnation, wire::Heard};

use crate::bus::{Bus, address, mac, ms, name};

const SECOND: Duration = Duration::from_secs(1);
const ALL: [(usize, u8); 3] = [(1, 0), (2, 0), (3, 0)];

/// A power cut: node 1 stays off, the others start anew, and the API still names node 1. Somebody plays back what was
/// recorded of two runs of node 1, in turn.
#[test]
fn recorded_hellos_of_a_dead_node_keep_nothing_unanswered() {
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
        assert!(unanswered < 10 * SECOND, "it stays unanswered for as long as somebody plays recorded frames");
        bus.inject(one.clone());
        bus.inject(two.clone());
        bus.run(ms(100));
        unanswered += ms(100);
    }
    assert!(unanswered < 5 * SECOND, "{unanswered:?}");
}

/// Somebody plays back what was recorded of a node's run before to one that has just started. It lacks a claim of that node:
/// its request has to reach the run that is at work.
#[test]
fn recorded_hellos_do_not_keep_claims_from_who_asks_for_them() {
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
    // The claim is on its way, and is said again after half an interval.
    bus.loses_frames_to = Some(2);
    bus.run(ms(70));
    bus.loses_frames_to = None;
    for frame in recorded.into_iter().take(100) {
        bus.inject(frame);
        bus.run(ms(10));
    }
    assert!(bus.speakers[&2].is_claimed(address(1)), "it has asked for a second");
}

/// A virtual machine is set back to a snapshot with its memory: its peers have heard what it has yet to say.
#[test]
fn run_that_was_set_back_is_told_so() {
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
    assert_eq!(reverted(&bus), 0, "an old frame of its was the last one that was heard");
    let later = bus.forge_hello(2, |hello| hello.heard = vec![mention(1_000_000)]);
    bus.inject(later);
    bus.run(ms(200));
    assert_eq!(reverted(&bus), 1);
}

/// The same, and since the snapshot all its peers have been replaced: it counts none of their runs.
#[test]
fn run_that_was_set_back_is_told_so_by_who_is_not_counted() {
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

/// Speakers are configured differently: each half of the nodes takes the other half for no candidates.
#[test]
fn nodes_whose_views_differ_for_good_do_not_fight_without_end() {
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
    // Each of the four moves it twice without a pause, then after 1, 2, 4, ... 32 s, and once a minute in what is left.
    assert!(moves <= 4 * (2 + 6 + 10), "{moves} moves in ten minutes");
    let last_minute = bus.claims_since(bus.now - 60 * SECOND).len();
    assert!(last_minute <= 4, "{last_minute} moves in the last minute");
}

/// Two interfaces of one speaker. A frame of the one that is heard on the other shows that both are on one network, if it was
/// sent just now; not if somebody has recorded it.
#[test]
fn frame_of_another_interface_is_told_from_a_recorded_one() {
    let mut bus = Bus::new(1);
    bus.run(20 * SECOND);
    let own: Vec<Vec<u8>> = bus.sent.iter().filter(|(node, _)| *node == 1).map(|(_, bytes)| bytes.clone()).collect();
    let first = bus.speakers.remove(&1).unwrap();
    bus.start(1, None);
    let (now, mut other) = (bus.now, bus.speakers.remove(&1).unwrap());
    other.handle_frame(now, &own[0]);
    assert_eq!(other.take_sibling(), None, "it knows of no other run yet");
    other.handle(now, Input::Siblings([(first.incarnation(), mac(2))].into()));
    for (bytes, lately) in [(&own[0], false), (own.last().unwrap(), true)] {
        other.handle_frame(now, bytes);
        let heard = other.take_sibling().unwrap();
        assert_eq!(first.has_sent(heard), lately);
        assert_eq!(other.take_sibling(), None, "once");
    }
}
