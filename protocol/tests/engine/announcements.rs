//! Announcements by the nodes that cover for a silent owner.

use std::time::Duration;

use herald_protocol::announce::Pace;

use crate::bus::{Bus, address};

const SECOND: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(10);

/// Kills the speaker of node 1, and lets node 2 take its address for a class. Then the API removes the last candidate:
/// node 2 withdraws, and the claim of node 1, which is covered, is the best one again. Returns the bus, and when the
/// last candidate was removed.
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

/// Clients have the link-layer address of the node that has withdrawn.
#[test]
fn coverers_announce_for_an_owner_whose_successor_withdraws() {
    let (bus, withdrawn) = withdrawn_before_a_silent_owner();
    let announced = bus.announced.iter().filter(|(at, ..)| *at >= withdrawn).count();
    assert!(announced >= 5, "{announced} announcements");
}

/// Periodic announcements are for owned addresses only: a cover ends, and the address may be gone by then.
#[test]
fn only_owners_announce_periodically() {
    let (mut bus, _) = withdrawn_before_a_silent_owner();
    let since = bus.now;
    bus.run(REFRESH * 5);
    let announced: Vec<_> = bus.announced.iter().filter(|(at, ..)| *at > since).collect();
    assert_eq!(announced, Vec::<&(Duration, usize, std::net::IpAddr)>::new());
}
