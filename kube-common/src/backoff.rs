//! Pauses between attempts.

use std::time::Duration;

use crate::pause::doubled;

/// Pauses that double from a first to a longest one. Each is spread over its upper half, so that programs that failed
/// together do not return together, and none returns at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    waits: u32,
}

impl Backoff {
    /// Returns a backoff whose first pause is at most `first` and whose longest is at most `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, waits: 0 }
    }

    /// Returns the next pause. `jitter` is 0 to 1.
    pub fn wait(&mut self, jitter: f64) -> Duration {
        let pause = doubled(self.first, self.waits, self.longest);
        self.waits = self.waits.saturating_add(1);
        pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }

    /// Makes the next pause the first one again. Callers use it after a success.
    pub fn reset(&mut self) {
        self.waits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(10);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let waits: Vec<_> = (0..8).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.wait(1.0), FIRST);
    }

    #[test]
    fn jitter_takes_half_of_a_pause_at_most() {
        assert_eq!(Backoff::new(FIRST, LONGEST).wait(0.0), FIRST / 2);
        assert_eq!(Backoff::new(FIRST, LONGEST).wait(0.5), FIRST * 3 / 4);
    }
}
