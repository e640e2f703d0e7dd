//! Herald's requests to the API server while nothing changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::testbed::Testbed;
use crate::testbed::audit_log::{AuditLog, CONTROLLER, Request, SPEAKER};

/// Time without a write after which Herald has nothing left to write. Its slowest writes are the status of pools, once
/// a second, and the status of VirtualIPs.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// Requests per second that one speaker may make at rest. It has at most five watches, each of which restarts after 18
/// to 22 s, and a quiet watch asks once for missed events: ten requests in 20 s.
const MOST_PER_SPEAKER: f64 = 0.5;

/// Requests per second by which two measurements may differ by chance: in a minute, one for each of a speaker's
/// watches.
const CHANCE: f64 = 5.0 / 60.0;

/// A time without any change from outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AtRest {
    /// Requests per second of the speaker that made the most.
    pub(crate) busiest_speaker_per_s: f64,
    /// Requests per second of all controllers, including renewals of their lease.
    pub(crate) controllers_per_s: f64,
    /// The writes in this time.
    pub(crate) writes: Vec<String>,
}

impl AtRest {
    /// Counts requests for this long from now on. The cluster must not be changed meanwhile.
    pub(crate) fn watched(bed: &Testbed, lasts: Duration) -> Result<Self> {
        let mut log = AuditLog::from_now(&bed.lab().audit_log())?;
        // The pause is the measured time, not a wait for a condition.
        std::thread::sleep(lasts);
        Ok(Self::of(&log.read()?, lasts))
    }

    fn of(requests: &[Request], lasted: Duration) -> Self {
        let per_s = |count: usize| count as f64 / lasted.as_secs_f64();
        let mut speakers: BTreeMap<&str, usize> = BTreeMap::new();
        for request in requests.iter().filter(|request| request.account == SPEAKER) {
            *speakers.entry(&request.source).or_default() += 1;
        }
        let controllers = requests.iter().filter(|request| request.account == CONTROLLER).count();
        Self {
            busiest_speaker_per_s: per_s(speakers.values().copied().max().unwrap_or_default()),
            controllers_per_s: per_s(controllers),
            writes: requests.iter().filter(|request| request.is_write()).map(ToString::to_string).collect(),
        }
    }

    /// Returns the violations, in words.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if !self.writes.is_empty() {
            broken.push(format!("at rest Herald wrote: {}", self.writes.join("; ")));
        }
        if self.busiest_speaker_per_s > MOST_PER_SPEAKER {
            let rate = self.busiest_speaker_per_s;
            broken.push(format!("at rest a speaker made {rate:.2} requests a second, more than {MOST_PER_SPEAKER}"));
        }
        broken
    }

    /// Returns the violations, including an increase over an earlier measurement.
    pub(crate) fn violations_after(&self, before: &Self) -> Vec<String> {
        let mut broken = self.violations();
        let (now, then) = (self.busiest_speaker_per_s, before.busiest_speaker_per_s);
        if now > then + CHANCE {
            broken.push(format!("at rest a speaker made {now:.2} requests a second, and {then:.2} before"));
        }
        broken
    }
}

impl std::fmt::Display for AtRest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { busiest_speaker_per_s, controllers_per_s, writes } = self;
        write!(
            f,
            "a speaker {busiest_speaker_per_s:.2} requests a second at most, the controllers {controllers_per_s:.2}, {} writes",
            writes.len()
        )
    }
}

/// Waits until Herald has not written for `quiet`, and returns its writes until then.
///
/// # Errors
/// When Herald still writes after `within`.
pub(crate) fn come_to_rest(
    bed: &Testbed,
    log: &mut AuditLog,
    quiet: Duration,
    within: Duration,
) -> Result<Vec<Request>> {
    let mut since = Instant::now();
    let mut all = Vec::new();
    bed.wait_for("Herald to write nothing more", within, || {
        let writes = log.writes()?;
        if !writes.is_empty() {
            since = Instant::now();
        }
        all.extend(writes);
        Ok((since.elapsed() >= quiet).then_some(()))
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::audit_log::tests::request;

    #[test]
    fn speakers_are_distinguished_by_their_address() {
        let watch = |source| request(SPEAKER, source, "watch", "nodes");
        let renewal = request(CONTROLLER, "10.10.0.11", "update", "leases");
        let requests = [watch("10.10.0.11"), watch("10.10.0.12"), watch("10.10.0.12"), renewal.clone(), renewal];
        let seen = AtRest::of(&requests, Duration::from_secs(4));
        assert_eq!(seen, AtRest { busiest_speaker_per_s: 0.5, controllers_per_s: 0.5, writes: Vec::new() });
        assert_eq!(seen.violations(), Vec::<String>::new());
    }

    #[test]
    fn write_or_too_many_requests_are_a_violation() {
        let patch = request(SPEAKER, "10.10.0.11", "patch", "virtualips/status");
        let seen = AtRest::of(&[patch.clone(), patch], Duration::from_secs(2));
        assert_eq!((seen.writes.len(), seen.violations().len()), (2, 2));
    }

    #[test]
    fn increase_beyond_chance_is_a_violation() {
        let speaker = |busiest_speaker_per_s| AtRest { busiest_speaker_per_s, controllers_per_s: 0.5, writes: vec![] };
        assert_eq!(speaker(0.4).violations_after(&speaker(0.33)).len(), 0);
        assert_eq!(speaker(0.4).violations_after(&speaker(0.3)).len(), 1);
    }
}
