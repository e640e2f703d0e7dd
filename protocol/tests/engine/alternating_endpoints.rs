//! Endpoints of a Local Service that come and go, while the views of all nodes agree.

use std::time::Duration;

use crate::bus::{Bus, address, ms};

const SECOND: Duration = Duration::from_secs(1);

/// Two pods are ready in turn (each is overloaded as soon as it is alone). The address follows the ready pod.
#[test]
fn address_follows_endpoints_that_alternate() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.run(4 * SECOND);
    for round in 0..24 {
        let with_pod = 1 + round % 2;
        bus.publish_announced(address(1), 1, &[(with_pod, 0)], None);
        bus.refresh();
        let begun = bus.now;
        bus.until(SECOND, |bus| bus.reached(address(1)) == Some(with_pod));
        assert!(bus.now - begun < ms(500), "round {round}: {:?}", bus.now - begun);
        bus.run(15 * SECOND);
    }
}
