//! Links that carry only short frames of the protocol.

use std::time::Duration;

use herald_protocol::{Event, Input, wire::FrameLimit};

use crate::bus::{Bus, address, mac, ms, name};

/// The type of a frame, its second byte, that says claims.
const CLAIMS: u8 = 2;

/// Sixty addresses on node1, all announced; then node2 restarts as a new pod, on links that carry so many bytes.
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

/// Sixty addresses of node1, which node2 has learned if it covers for them as node3 does.
fn are_covered(mut bus: Bus) {
    bus.kill(1);
    bus.run(ms(1000));
    let covered = (1..=60).filter(|last| bus.reached(address(*last)) == Some(1)).count();
    assert_eq!(covered, 60, "node2 has learned all of them, and covers as node3 does");
}

/// A port or a tunnel on the way carries less than the node's own link: the lists are sent in shorter frames then, and nobody
/// has to be told.
#[test]
fn claims_that_are_asked_for_in_vain_come_in_short_frames() {
    let bus = replaced_on_short_links(1300, None);
    assert_eq!(addresses_of_node1(&bus), 60, "claims: {:?}", bus.claims_since(ms(7000)));
    assert_eq!(told_lacking(&bus), []);
    are_covered(bus);
}

/// When node2 told that the claims of node1 do not come through.
fn told_lacking(bus: &Bus) -> Vec<Duration> {
    let lacks = |node: usize, event: &Event| node == 2 && *event == Event::ClaimsLacking(name(1).id());
    bus.events.iter().filter(|(_, node, event)| lacks(*node, event)).map(|(at, ..)| *at).collect()
}

/// The links carry not even the shortest frames of a list: a peer's claims that do not come through are taken to be on what
/// seems vacant.
#[test]
fn claims_that_do_not_come_through_make_nothing_vacant() {
    let mut bus = replaced_on_short_links(500, None);
    assert_eq!(addresses_of_node1(&bus), 60, "claims: {:?}", bus.claims_since(ms(7000)));
    assert_eq!(told_lacking(&bus).len(), 1, "once a minute");
    bus.sent.clear();
    bus.run(ms(10_000));
    let lists = bus.sent.iter().filter(|(node, frame)| *node == 1 && frame[1] == CLAIMS).count();
    assert!((10..=60).contains(&lists), "sixty claims are five short frames, a list a second: {lists} frames");
}
