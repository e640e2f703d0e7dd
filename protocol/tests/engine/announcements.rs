//! Announcements by those that cover for an owner which is silent.

use std::time::Duration;

use herald_protocol::announce::Pace;

use crate::bus::{Bus, address};

const SECOND: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(10);

/// The speaker of node 1 is killed, and node 2 takes its address for a class. Then no node is a candidate any more: node 2
/// withdraws, and the claim of node 1, which is covered, is the best again. Returns when that was.
fn withdrawn_before_a_silent_owner() -> (Bus, Duration) {
    let mut bus = Bus::new(4);
    bus.pace = Pace { refresh: Some(REFRESH), ..Pace::default() };
    for node in 1..=4 {
        bus.kill(node);
        bus.start(node, None);
    }
    bus.run(3 * SECOND);
    bus.publish(address(1), 1, &[(1, 0), (2, 0)]);
    bus.run(3 * SECOND);
    bus.kill(1);
    bus.run(SECOND);
    bus.publish(address(1), 1, &[(2, 0)]);
    bus.refresh();
    bus.run(5 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
    let withdrawn = bus.now;
    bus.publish(address(1), 1, &[]);
    bus.run(4 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(1));
    (bus, withdrawn)
}

/// Clients know the address at the node that has withdrawn.
#[test]
fn coverers_announce_an_owner_whose_successor_withdraws() {
    let (bus, withdrawn) = withdrawn_before_a_silent_owner();
    let announced = bus.announced.iter().filter(|(at, ..)| *at >= withdrawn).count();
    assert!(announced >= 5, "{announced} announcements");
}

/// What is announced all along is what a node owns: a cover ends, and the address may be gone then.
#[test]
fn only_owners_announce_all_along() {
    let (mut bus, _) = withdrawn_before_a_silent_owner();
    let since = bus.now;
    bus.run(REFRESH * 5);
    let announced: Vec<_> = bus.announced.iter().filter(|(at, ..)| *at > since).collect();
    assert_eq!(announced, Vec::<&(Duration, usize, std::net::IpAddr)>::new());
}
