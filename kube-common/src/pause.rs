//! Pauses that double.

use std::time::Duration;

/// Returns `first` doubled `times` times, but at most `longest`.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(times)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_whatever_the_count() {
        let longest = Duration::from_secs(1);
        let pauses = [0, 1, 2, 3, 4, 5, 31, 32, u32::MAX]
            .map(|times| doubled(Duration::from_millis(100), times, longest).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000, 1000, 1000, 1000]);
    }
}
