//! The claims of an owner that has restarted and listens: only its coverers can state them.

use std::time::Duration;

use herald_protocol::{Event, inspect::SpeakerState};

use crate::bus::{Bus, address, ms};

/// Node 3 does not hear that node 2 takes its address, and node 2 restarts at once, without its state. Node 2 does not
/// state its claims until it has heard all peers; the coverer of node 2 answers with the link-layer address of node 2.
#[test]
fn claims_of_a_listening_owner_are_accepted_from_its_coverers() {
    let mut bus = Bus::new(4);
    bus.run(ms(1000));
    // A restarted speaker goes on listening while a peer is silent.
    bus.kill(4);
    bus.publish(address(1), 1, &[(3, 0), (1, 1), (2, 1)]);
    bus.run(ms(6000));
    assert_eq!(bus.reached(address(1)), Some(3));
    bus.late_views.insert(3);
    bus.loses_frames_to = Some(3);
    bus.publish(address(1), 1, &[(2, 0), (1, 1), (3, 1)]);
    bus.refresh();
    bus.run(ms(5));
    bus.kill(2);
    bus.start(2, None);
    bus.run(ms(20));
    bus.loses_frames_to = None;
    let since = bus.now;
    bus.run(ms(150));
    let lost = |(at, node, event): &&(Duration, usize, Event)| {
        *at >= since && *node == 3 && matches!(event, Event::Lost { .. } | Event::Withdrawn { .. })
    };
    assert_eq!(bus.speakers[&2].snapshot(bus.now).state, SpeakerState::Listening);
    assert_eq!(bus.events.iter().filter(lost).count(), 1, "{:#?}", bus.events_since(since));
    bus.run(ms(2000));
    assert_eq!(bus.reached(address(1)), Some(2));
}
