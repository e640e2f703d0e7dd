//! One clock for all probers of an agent: the origin of time, the beats of sending, and the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::probe::sample::At;

/// Time for which answers are awaited after the last probe was sent; a later answer counts as lost.
const DRAIN: Duration = Duration::from_millis(200);

/// Value of `stopped` while the run has not been stopped.
const RUNNING: u64 = u64::MAX;

/// The clock that the probers share.
pub(super) struct Clock {
    origin: Instant,
    origin_ns: u64,
    /// Microseconds since the origin, or [`RUNNING`].
    stopped: AtomicU64,
    /// A copy of the number of the round in `rounds`, readable without its lock.
    round: AtomicU64,
    rounds: Mutex<Round>,
}

/// A round lasts from the start, or from a request, until every prober has received an answer.
#[derive(Default)]
struct Round {
    number: u64,
    probers: usize,
    /// Number of probers that have not received an answer in this round.
    unanswered: usize,
}

impl Clock {
    pub(super) fn start() -> anyhow::Result<Self> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        Ok(Self {
            origin: Instant::now(),
            origin_ns: u64::try_from(Duration::from(now).as_nanos())?,
            stopped: AtomicU64::new(RUNNING),
            round: AtomicU64::new(0),
            rounds: Mutex::default(),
        })
    }

    pub(super) fn origin_ns(&self) -> u64 {
        self.origin_ns
    }

    pub(super) fn now(&self) -> At {
        At(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(RUNNING - 1))
    }

    /// Ends the sending of probes; answers are still accepted for a while.
    pub(super) fn stop_sending(&self) -> At {
        let now = self.now();
        self.stopped.store(now.0, Ordering::Release);
        now
    }

    pub(super) fn sending(&self) -> bool {
        self.stopped.load(Ordering::Acquire) == RUNNING
    }

    /// Returns whether the time for late answers is over too.
    pub(super) fn over(&self) -> bool {
        let stopped = self.stopped.load(Ordering::Acquire);
        stopped != RUNNING && u128::from(self.now().0.saturating_sub(stopped)) >= DRAIN.as_micros()
    }

    /// Adds a prober that has to receive an answer in each round.
    pub(super) fn expect_answer(&self) {
        let mut round = self.rounds();
        round.probers += 1;
        round.unanswered += 1;
    }

    /// Starts a round: every prober has to receive an answer again.
    pub(super) fn ask_again(&self) {
        let mut round = self.rounds();
        round.number += 1;
        round.unanswered = round.probers;
        self.round.store(round.number, Ordering::Relaxed);
    }

    pub(super) fn all_answered(&self) -> bool {
        self.rounds().unanswered == 0
    }

    fn rounds(&self) -> MutexGuard<'_, Round> {
        // A poisoned lock is harmless: each of the three numbers is written as a whole.
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports to the clock, once in each round, that a prober has received an answer.
#[derive(Default)]
pub(super) struct FirstAnswer {
    /// The round of the last report.
    told: Option<u64>,
}

impl FirstAnswer {
    pub(super) fn came(&mut self, clock: &Clock) {
        if self.told == Some(clock.round.load(Ordering::Relaxed)) {
            return;
        }
        let mut round = clock.rounds();
        if self.told != Some(round.number) {
            self.told = Some(round.number);
            round.unanswered -= 1;
        }
    }
}

/// The beat of one prober: multiples of its interval since the clock's origin.
pub(super) struct Beat {
    interval_us: u64,
    /// The next beat, counted from the origin.
    next: u64,
}

impl Beat {
    pub(super) fn every(interval: Duration) -> Self {
        Self { interval_us: u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1), next: 0 }
    }

    /// Returns whether a probe is due. Beats missed by a stall of this process are skipped, not caught up in a burst.
    pub(super) fn due(&mut self, now: At) -> bool {
        let beat = now.0 / self.interval_us;
        let due = beat >= self.next;
        if due {
            self.next = beat + 1;
        }
        due
    }

    /// Returns the time until the next beat, or an unlimited time once sending has ended.
    pub(super) fn wait(&self, clock: &Clock) -> Duration {
        if clock.sending() { self.until_next(clock.now()) } else { Duration::MAX }
    }

    fn until_next(&self, now: At) -> Duration {
        Duration::from_micros(self.next.saturating_mul(self.interval_us).saturating_sub(now.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_beats_are_skipped() {
        let mut beat = Beat::every(Duration::from_millis(10));
        let steps = [
            (0, true, 10_000),
            (1, false, 9_999),
            (9_999, false, 1),
            (10_000, true, 10_000),
            (20_300, true, 9_700),
            // After a stall over three beats a single probe is sent, and the next one is on the beat again.
            (57_000, true, 3_000),
            (57_100, false, 2_900),
            (60_000, true, 10_000),
        ];
        for (now, due, wait) in steps {
            assert_eq!(beat.due(At(now)), due, "at {now}");
            assert_eq!(beat.until_next(At(now)), Duration::from_micros(wait), "at {now}");
        }
    }

    #[test]
    fn stop_leaves_time_for_answers() {
        let clock = Clock::start().unwrap();
        assert!(clock.sending() && !clock.over());
        clock.stop_sending();
        assert!(!clock.sending() && !clock.over());
    }

    #[test]
    fn round_ends_when_every_prober_was_answered() {
        let clock = Clock::start().unwrap();
        let (mut one, mut two) = (FirstAnswer::default(), FirstAnswer::default());
        clock.expect_answer();
        clock.expect_answer();
        one.came(&clock);
        one.came(&clock);
        assert!(!clock.all_answered());
        two.came(&clock);
        assert!(clock.all_answered());

        clock.ask_again();
        one.came(&clock);
        one.came(&clock);
        assert!(!clock.all_answered());
        two.came(&clock);
        assert!(clock.all_answered());
    }
}
