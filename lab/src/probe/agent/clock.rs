//! One clock for all probers of an agent: when it began, when to send, when to stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::probe::sample::At;

/// How long answers are awaited after the last probe was sent: what comes later counts as lost.
const DRAIN: Duration = Duration::from_millis(200);

/// "Nobody has stopped the run yet."
const RUNNING: u64 = u64::MAX;

/// The clock the probers share.
pub(super) struct Clock {
    origin: Instant,
    origin_ns: u64,
    /// Microseconds since the origin, or [`RUNNING`].
    stopped: AtomicU64,
    /// The number of the round in `rounds`, to be read without its lock.
    round: AtomicU64,
    rounds: Mutex<Round>,
}

/// A round: from the start, or from when it was asked for, until every prober has had an answer.
#[derive(Default)]
struct Round {
    number: u64,
    probers: usize,
    /// Probers that have not had an answer in this round.
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

    /// No more probes from here on; answers are still taken for a while.
    pub(super) fn stop_sending(&self) -> At {
        let now = self.now();
        self.stopped.store(now.0, Ordering::Release);
        now
    }

    pub(super) fn sending(&self) -> bool {
        self.stopped.load(Ordering::Acquire) == RUNNING
    }

    /// Whether the time for late answers is over too.
    pub(super) fn over(&self) -> bool {
        let stopped = self.stopped.load(Ordering::Acquire);
        stopped != RUNNING && u128::from(self.now().0.saturating_sub(stopped)) >= DRAIN.as_micros()
    }

    /// One prober more that has to be answered in each round.
    pub(super) fn expect_answer(&self) {
        let mut round = self.rounds();
        round.probers += 1;
        round.unanswered += 1;
    }

    /// Begins a round: every prober has to be answered once more.
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
        // Three numbers, each written whole.
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the clock once in each round that a prober has had an answer.
#[derive(Default)]
pub(super) struct FirstAnswer {
    /// The round it was last told in.
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

    /// Whether a probe is due. Beats missed by a stall of this process are skipped, not made up for in a burst.
    pub(super) fn due(&mut self, now: At) -> bool {
        let beat = now.0 / self.interval_us;
        let due = beat >= self.next;
        if due {
            self.next = beat + 1;
        }
        due
    }

    /// Time until the next beat; for ever once nothing is to be sent any more.
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
    fn beats_come_once_and_are_not_made_up_for() {
        let mut beat = Beat::every(Duration::from_millis(10));
        let steps = [
            (0, true, 10_000),
            (1, false, 9_999),
            (9_999, false, 1),
            (10_000, true, 10_000),
            (20_300, true, 9_700),
            // A stall over three beats: one probe, and the next is on the beat again.
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
    fn steady_once_every_prober_was_answered() {
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
