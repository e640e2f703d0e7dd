//! The enquiries before a first claim.

use herald_protocol::{mac::MacAddr, timers::CONFLICT_RETRY};

use crate::bus::{Bus, address, ms};

const STRANGER: MacAddr = MacAddr([2, 9, 9, 9, 9, 9]);

/// The network drops the protocol, so no silent peer tells a node that it has ceased to hear.
#[test]
fn who_hears_nothing_learns_nothing_by_asking() {
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

/// The same node claims what is free while nobody is heard, as long as anybody answers anything.
#[test]
fn who_hears_no_peer_claims_what_is_free() {
    let mut bus = Bus::new(2);
    bus.drops_protocol = true;
    bus.run(ms(2000));
    bus.publish(address(1), 1, &[(1, 0)]);
    let took = bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(1));
    assert!(took <= ms(400), "two enquiries, and 100 ms: {took:?}");
}
