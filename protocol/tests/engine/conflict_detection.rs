//! Address conflict detection before a first claim.

use herald_protocol::{mac::MacAddr, timers::CONFLICT_RETRY};

use crate::bus::{Bus, address, ms};

const STRANGER: MacAddr = MacAddr([2, 9, 9, 9, 9, 9]);

/// The network drops the protocol, so the node does not notice by silent peers that it has become deaf.
#[test]
fn deaf_node_does_not_claim_after_unanswered_probes() {
    let mut bus = Bus::new(2);
    bus.drops_protocol = true;
    bus.run(ms(2000));
    bus.stranger(address(1), STRANGER);
    bus.publish(address(1), 1, &[(1, 0)]);
    bus.run(ms(20_000));
    bus.deaf.insert(1);
    bus.run(CONFLICT_RETRY * 2);
    assert_eq!(bus.claims_since(ms(0)), []);
}

/// A node claims a free address while it hears no peer, as long as any host answers anything.
#[test]
fn node_that_hears_no_peer_claims_a_free_address() {
    let mut bus = Bus::new(2);
    bus.drops_protocol = true;
    bus.run(ms(2000));
    bus.publish(address(1), 1, &[(1, 0)]);
    let took = bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(1));
    assert!(took <= ms(400), "two ACD probes, and 100 ms: {took:?}");
}
