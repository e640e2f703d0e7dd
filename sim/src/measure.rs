//! How long detection and take-over take.

use std::time::Duration;

use serde::Serialize;

/// Samples of one quantity, in simulated time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<Duration>);

/// Summary of samples, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The smallest sample.
    pub min: Option<f64>,
    /// The median.
    pub median: Option<f64>,
    /// The 99th percentile; `None` for fewer than 100 samples.
    pub p99: Option<f64>,
    /// The largest sample.
    pub max: Option<f64>,
}

impl Samples {
    /// Adds one sample.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds the samples of another.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the summary.
    pub fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let ms = |duration: &Duration| (duration.as_secs_f64() * 1e5).round() / 100.0;
        let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1))).map(ms);
        Summary {
            min: sorted.first().map(ms),
            median: at(50),
            p99: if sorted.len() >= 100 { at(99) } else { None },
            max: sorted.last().map(ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_have_no_p99() {
        let mut samples = Samples::default();
        assert_eq!(samples.summary(), Summary::default());
        for ms in 1..=99 {
            samples.push(Duration::from_millis(ms));
        }
        let summary = samples.summary();
        assert_eq!((summary.min, summary.median, summary.p99, summary.max), (Some(1.0), Some(50.0), None, Some(99.0)));
        samples.push(Duration::from_millis(100));
        assert_eq!(samples.summary().p99, Some(100.0));
    }
}
