//! Times without an answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::probe::sample::At;

/// Number of half intervals between two consecutive answers above which the time is a gap. One or two lost probes make
/// two or three intervals and are only counted as lost; the additional half keeps the jitter of the third interval from
/// deciding.
const HALF_INTERVALS: u32 = 7;

/// Number of gaps that a report lists.
const LISTED: usize = 10;

/// The times without an answer. The time before the first answer does not count.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gaps {
    /// Number of gaps.
    pub count: usize,
    /// Milliseconds of the shortest; 0 if there is none.
    pub min_ms: f64,
    /// Milliseconds of the median; 0 if there is none.
    pub median_ms: f64,
    /// Milliseconds of the longest; 0 if there is none.
    pub max_ms: f64,
    /// The longest ten, longest first.
    pub largest: Vec<Gap>,
}

/// One time without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Milliseconds from the start of the run to the last answer before it.
    pub from_ms: f64,
    /// Milliseconds from that answer to the next.
    pub length_ms: f64,
    /// Whether the run ended before an answer came.
    pub open: bool,
}

impl Gaps {
    /// Returns the gaps between answers that should have come every `interval` until `ended`.
    #[must_use]
    pub fn between(answers: &[At], ended: At, interval: Duration) -> Self {
        let limit = At(u64::try_from((interval * HALF_INTERVALS / 2).as_micros()).unwrap_or(u64::MAX)).ms();
        let mut times = answers.to_vec();
        times.sort_unstable();
        let closed = times.windows(2).map(|pair| Gap {
            from_ms: pair[0].ms(),
            length_ms: pair[1].ms_since(pair[0]),
            open: false,
        });
        let open = times.last().map(|&last| Gap { from_ms: last.ms(), length_ms: ended.ms_since(last), open: true });
        let mut gaps: Vec<Gap> = closed.chain(open).filter(|gap| gap.length_ms > limit).collect();
        gaps.sort_by(|a, b| b.length_ms.total_cmp(&a.length_ms));
        let length = |index: usize| gaps.get(index).map_or(0.0, |gap| gap.length_ms);
        let count = gaps.len();
        Self {
            count,
            min_ms: length(count.saturating_sub(1)),
            // The longer one of the two in the middle of an even number.
            median_ms: length(count.saturating_sub(1) / 2),
            max_ms: length(0),
            largest: gaps.iter().take(LISTED).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    fn at(ms: &[u64]) -> Vec<At> {
        ms.iter().map(|ms| At(ms * 1000)).collect()
    }

    // Answers every 10 ms: a gap is longer than 35 ms.
    #[test_case(&[0, 10, 20, 30], 40, &[]; "steady")]
    #[test_case(&[0, 10, 30, 60], 70, &[]; "two lost probes")]
    #[test_case(&[0, 10, 50, 60], 70, &[(10, 40, false)]; "one gap")]
    #[test_case(&[0, 10, 50, 60, 200, 210], 220, &[(60, 140, false), (10, 40, false)]; "longest first")]
    #[test_case(&[60, 0, 10, 50], 70, &[(10, 40, false)]; "answers out of order")]
    #[test_case(&[0, 10], 500, &[(10, 490, true)]; "never answered again")]
    #[test_case(&[300, 310], 320, &[]; "time before the first answer")]
    #[test_case(&[], 1000, &[]; "no answer at all")]
    #[test_case(&[0, 10, 20, 90], 25, &[(20, 70, false)]; "an answer after the last probe")]
    fn gaps_between_answers_are_found(answers: &[u64], ended: u64, expected: &[(u64, u64, bool)]) {
        let found = Gaps::between(&at(answers), At(ended * 1000), Duration::from_millis(10));
        let largest: Vec<Gap> = expected
            .iter()
            .map(|&(from, length, open)| Gap { from_ms: from as f64, length_ms: length as f64, open })
            .collect();
        assert_eq!(found.largest, largest);
        assert_eq!(found.count, expected.len());
        assert_eq!(found.max_ms, largest.first().map_or(0.0, |gap| gap.length_ms));
        assert_eq!(found.min_ms, largest.last().map_or(0.0, |gap| gap.length_ms));
    }

    #[test]
    fn median_is_an_existing_gap() {
        let interval = Duration::from_millis(10);
        let three = Gaps::between(&at(&[0, 40, 90, 150]), At(150_000), interval);
        assert_eq!((three.min_ms, three.median_ms, three.max_ms), (40.0, 50.0, 60.0));
        let four = Gaps::between(&at(&[0, 40, 90, 150, 220]), At(220_000), interval);
        assert_eq!((four.min_ms, four.median_ms, four.max_ms), (40.0, 60.0, 70.0));
    }

    #[test]
    fn only_the_longest_gaps_are_listed() {
        let answers: Vec<At> = (0..100).map(|n| At(n * 50_000)).collect();
        let found = Gaps::between(&answers, At(99 * 50_000), Duration::from_millis(10));
        assert_eq!((found.count, found.largest.len()), (99, LISTED));
    }
}
