//! How long to wait before the next attempt.

use std::time::Duration;

/// Before the second attempt, at most: an API server that was restarted behind a load balancer is back at once.
const FIRST: Duration = Duration::from_millis(200);
/// At most: an outage that ends is noticed within this.
const LAST: Duration = Duration::from_secs(10);

/// Doubles from [`FIRST`] to [`LAST`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next wait. `jitter` in 0..1 spreads it over its upper half, so that the speakers of a cluster do not come
    /// back all at once, and never at once.
    pub(super) fn wait(&mut self, jitter: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(LAST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_ten_seconds() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    }

    #[test]
    fn jitter_takes_half_of_it_at_most() {
        assert_eq!(Backoff::default().wait(0.0), FIRST / 2);
        assert_eq!(Backoff::default().wait(0.5), FIRST * 3 / 4);
    }
}
