//! Links that carry only short frames of the protocol.

use std::time::Duration;

use herald_protocol::{Event, Input, wire::FrameLimit};

use crate::bus::{Bus, address, mac, ms, name};

/// The type of a Claims frame, in the second byte of the frame.
const CLAIMS: u8 = 2;

/// Returns a bus with sixty addresses on node1, all announced, on which node2 has restarted as a new pod, on links that
/// carry frames of up to `carries` bytes.
fn replaced_on_short_links(carries: usize, limit: Option<FrameLimit>) -> Bus {
    let mut bus = Bus::new(3);
    bus.run(ms(1000));
    let order: Vec<_> = (1..=3).map(|node| (node, 0)).collect();
    for last in 1..=60 {
        bus.publish(address(last), 1, &order);
    }
    bus.run(ms(5000));
    for last in 1..=60 {
        bus.publish_announced(address(last), 1, &order, Some(1));
    }
    bus.carries = carries;
    for (node, limit) in (1..=3).filter_map(|node| Some((node, limit?))) {
        bus.tell(node, Input::FrameLimit(limit));
    }
    bus.kill(2);
    bus.run(ms(500));
    bus.start(2, None);
    if let Some(limit) = limit {
        bus.tell(2, Input::FrameLimit(limit));
    }
    bus.run(ms(60_000));
    bus
}

fn addresses_of_node1(bus: &Bus) -> usize {
    (1..=60).filter(|last| bus.answers(address(*last)) == [(1, mac(1))]).count()
}

#[test]
fn claims_fit_the_frames_of_a_short_link() {
    let bus = replaced_on_short_links(1300, Some(FrameLimit::of_mtu(1300)));
    assert_eq!(addresses_of_node1(&bus), 60);
    are_covered(bus);
}

/// Asserts that the sixty addresses of node1 are covered, by node2 as by node3: node2 has learned them.
fn are_covered(mut bus: Bus) {
    bus.kill(1);
    bus.run(ms(1000));
    let answers = (1..=60).map(|last| bus.answers(address(last)));
    let covered = answers.filter(|answers| *answers == [(2, mac(1)), (3, mac(1))]).count();
    assert_eq!(covered, 60, "node2 has learned all of them, and covers as node3 does");
}

/// A port or a tunnel on the way carries less than the node's own link: full lists are then sent in shorter frames, and
/// no warning is needed.
#[test]
fn claims_that_do_not_arrive_are_sent_in_short_frames() {
    let bus = replaced_on_short_links(1300, None);
    assert_eq!(addresses_of_node1(&bus), 60, "claims: {:?}", bus.claims_since(ms(7000)));
    assert_eq!(told_lacking(&bus), []);
    are_covered(bus);
}

/// Returns when node2 reported that the claims of node1 do not come through.
fn told_lacking(bus: &Bus) -> Vec<Duration> {
    let lacks = |node: usize, event: &Event| node == 2 && *event == Event::ClaimsLacking(name(1).id());
    bus.events.iter().filter(|(_, node, event)| lacks(*node, event)).map(|(at, ..)| *at).collect()
}

/// The links do not carry even the shortest frames of a full list. A peer's claims that do not come through are then
/// taken to be on any address that seems vacant.
#[test]
fn claims_that_do_not_come_through_leave_no_address_vacant() {
    let mut bus = replaced_on_short_links(500, None);
    assert_eq!(addresses_of_node1(&bus), 60, "claims: {:?}", bus.claims_since(ms(7000)));
    assert_eq!(told_lacking(&bus).len(), 1, "one report a minute");
    bus.sent.clear();
    bus.run(ms(10_000));
    let lists = bus.sent.iter().filter(|(node, frame)| *node == 1 && frame[1] == CLAIMS).count();
    assert!((10..=60).contains(&lists), "sixty claims are five short frames, a list a second: {lists} frames");
}
