//! How long to wait before the next attempt.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

/// Doubles from a first pause to a longest one. Each is spread over its upper half, so that those who failed at once do
/// not return at once.
#[derive(Clone, Copy, Debug)]
pub struct Doubling {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Doubling {
    /// `first` is the first pause, at most; `longest` what none exceeds.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause. `jitter` is 0 to 1.
    pub fn wait(&mut self, jitter: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// All is well: the next pause is the first.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Before a watch is tried again the first time.
const FIRST: Duration = Duration::from_millis(200);
/// An API server that is back is noticed within this: seven watches that try every 5 s are 1.4 requests a second.
const LONGEST: Duration = Duration::from_secs(5);
/// A watch that has lasted for this long was a good one.
const GOOD: Duration = Duration::from_secs(30);

/// The backoff of a watch. Upstream's reaches 30 s, which is what a Service created after an outage would wait for.
///
/// The stream resets it with every event, and a watcher that cannot list says each time that it begins to: so only a
/// while without failure counts, and [`Backoff::reset`] does nothing.
#[derive(Debug)]
pub struct WatchBackoff {
    pauses: Doubling,
    failed: Option<Instant>,
}

impl Default for WatchBackoff {
    fn default() -> Self {
        Self { pauses: Doubling::new(FIRST, LONGEST), failed: None }
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.failed.is_none_or(|at| at.elapsed() > GOOD) {
            self.pauses.reset();
        }
        self.failed = Some(Instant::now());
        Some(self.pauses.wait(fastrand::f64()))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_longest_and_from_the_first_again() {
        let mut pauses = Doubling::new(FIRST, LONGEST);
        let waits: Vec<_> = (0..7).map(|_| pauses.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        pauses.reset();
        assert_eq!(pauses.wait(0.0), FIRST / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_between_two_failures_does_not_reset_it_and_half_a_minute_does() {
        let mut backoff = WatchBackoff::default();
        for _ in 0..10 {
            Backoff::reset(&mut backoff);
            backoff.next();
        }
        assert!(backoff.next().unwrap() >= LONGEST / 2);
        tokio::time::advance(GOOD * 2).await;
        assert!(backoff.next().unwrap() <= FIRST);
    }
}
