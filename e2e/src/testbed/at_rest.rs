//! What Herald asks of the API server while nothing changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::testbed::Testbed;
use crate::testbed::audit_log::{AuditLog, CONTROLLER, Request, SPEAKER};

/// Herald has nothing left to write when it has not written for this long. The slowest thing it waits for are pools'
/// statuses, once a second, and statuses of VirtualIPs.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// Requests a second that one speaker may make at rest. It has at most five watches, each begun again after 18 to 22 s, and
/// one that was quiet asks once for what it may have missed: ten requests in 20 s.
const MOST_PER_SPEAKER: f64 = 0.5;

/// So many requests a second more than at another time are chance: in a minute, one for each of a speaker's watches.
const CHANCE: f64 = 5.0 / 60.0;

/// A time in which nobody changed anything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AtRest {
    /// Requests a second of the speaker that made the most.
    pub(crate) busiest_speaker_per_s: f64,
    /// Requests a second of all controllers, renewals of their lease among them.
    pub(crate) controllers_per_s: f64,
    /// What was written all the same.
    pub(crate) writes: Vec<String>,
}

impl AtRest {
    /// Counts for this long, from now on. Nothing may be done to the cluster meanwhile.
    pub(crate) fn watched(bed: &Testbed, lasts: Duration) -> Result<Self> {
        let mut log = AuditLog::from_now(&bed.lab().audit_log())?;
        // Not a condition waited for: the time that is counted.
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

    /// What of it should not be, in words.
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

    /// The same, and what is more than it was before something was done.
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

/// Waits until Herald has not written for so long, and returns what it wrote until then.
///
/// # Errors
/// When it still writes after this long.
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
    fn speakers_are_told_apart_by_where_they_are() {
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
    fn more_than_before_is_a_violation_unless_it_is_chance() {
        let speaker = |busiest_speaker_per_s| AtRest { busiest_speaker_per_s, controllers_per_s: 0.5, writes: vec![] };
        assert_eq!(speaker(0.4).violations_after(&speaker(0.33)).len(), 0);
        assert_eq!(speaker(0.4).violations_after(&speaker(0.3)).len(), 1);
    }
}
