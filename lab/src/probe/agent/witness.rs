//! The witness: it measures how long this machine kept a client that only sleeps from running.

use std::time::Duration;

use super::clock::Clock;
use crate::probe::sample::{Stall, WitnessSamples};

const SLEEP: Duration = Duration::from_millis(5);

/// Microseconds of the shortest listed stall; shorter ones are ordinary timer noise.
const LISTED_US: u64 = 10_000;

pub(super) fn watch(clock: &Clock) -> WitnessSamples {
    let mut seen = WitnessSamples::default();
    while clock.sending() {
        let before = clock.now();
        std::thread::sleep(SLEEP);
        let at = clock.now();
        let us = (at.0 - before.0).saturating_sub(SLEEP.as_micros() as u64);
        seen.max_us = seen.max_us.max(us);
        if us > LISTED_US {
            seen.stalls.push(Stall { at, us });
        }
    }
    seen
}
