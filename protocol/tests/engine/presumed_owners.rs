//! Presumed owners: nodes that are not heard and are taken to own an address, and when that ends.

use std::time::Duration;

use crate::bus::{Bus, address, mac, stations};

const SECOND: Duration = Duration::from_secs(1);
const ALL: [(usize, u8); 3] = [(1, 0), (2, 0), (3, 0)];

/// Returns a network that drops the protocol, on which the speaker of the announcing node 1 is killed and others cover
/// for it.
fn covered_without_hellos() -> Bus {
    let mut bus = Bus::new(3);
    bus.drops_protocol = true;
    bus.run(3 * SECOND);
    bus.publish(address(1), 1, &ALL);
    bus.run(5 * SECOND);
    bus.publish_announced(address(1), 1, &ALL, Some(1));
    bus.kill(1);
    bus.run(5 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(1));
    bus
}

/// A watch has started over: the view shows the next object of the address, and has not shown that the previous object
/// is gone. The node that announced the previous object is not a candidate for the next.
#[test]
fn announcement_of_the_previous_object_does_not_count_for_the_next() {
    let mut bus = covered_without_hellos();
    bus.publish_object(address(1), 2, "the next", &[(2, 0), (3, 0)]);
    bus.refresh();
    bus.until(SECOND, |bus| bus.answers(address(1)) == [(2, mac(2))]);
}

/// A Node is deleted, then its SpeakerStatus, and its machine is switched off: no node probes its kernel any longer.
#[test]
fn node_that_the_api_no_longer_lists_owns_nothing() {
    let mut bus = covered_without_hellos();
    bus.publish_announced(address(1), 1, &[(2, 0), (3, 0)], Some(1));
    bus.refresh();
    bus.run(SECOND);
    bus.tell(2, stations([3]));
    bus.tell(3, stations([2]));
    bus.power_off_kernel(1);
    bus.until(3 * SECOND, |bus| bus.answers(address(1)) == [(2, mac(2))]);
}

/// The API is away, and all speakers have been replaced but that of the node which the API names. While two of them
/// run, neither uses the view that it saved; when one of the two is gone, the other does.
#[test]
fn last_running_speaker_covers_by_its_saved_view() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.publish_announced(address(1), 1, &ALL, Some(1));
    bus.run(SECOND);
    bus.late_views = [2, 3].into();
    for node in 1..=3 {
        bus.kill(node);
    }
    bus.run(SECOND);
    bus.start(2, None);
    bus.start(3, None);
    bus.run(5 * SECOND);
    assert_eq!(bus.answers(address(1)), []);
    bus.power_off(2);
    bus.until(SECOND, |bus| bus.answers(address(1)) == [(3, mac(1))]);
}
