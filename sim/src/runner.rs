//! Runs many seeds on all cores.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    check::Violation,
    history::{History, Shape},
    measure::Samples,
    world::{self, Detail, Outcome},
};

/// The results of all seeds.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Number of seeds that were run.
    pub seeds: u64,
    /// Simulated time of all seeds.
    pub simulated: Duration,
    /// Time that the run took.
    pub wall: Duration,
    /// Each seed that violates an invariant, in ascending order.
    pub violations: Vec<(u64, Violation)>,
    /// Detection times.
    pub detect: Samples,
    /// Take-over times.
    pub takeover: Samples,
    /// Frames sent by all nodes.
    pub frames: u64,
    /// Nodes times seconds.
    pub node_seconds: f64,
    /// The largest number of frames that one node sent in one second.
    pub peak: u32,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.violations.extend(outcome.violation.map(|violation| (seed, violation)));
        self.detect.extend(&outcome.detect);
        self.takeover.extend(&outcome.takeover);
        self.frames += outcome.frames;
        self.node_seconds += outcome.node_seconds;
        self.peak = self.peak.max(outcome.peak);
    }

    /// Returns frames per second and node, over all seeds.
    pub fn frames_per_s_per_node(&self) -> f64 {
        if self.node_seconds == 0.0 { 0.0 } else { self.frames as f64 / self.node_seconds }
    }
}

/// Progress of one core.
#[derive(Debug, Default)]
struct Beat {
    seed: AtomicU64,
    /// Number of events of all its histories.
    done: AtomicU64,
}

/// Time after which a core without progress counts as hung. An event takes a core some milliseconds at most; other work
/// on the machine may hold it up for a minute or two.
const HUNG: Duration = Duration::from_secs(300);

/// Time from one look at the cores to the next.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reports a seed that hangs (a call of a machine that does not return cannot be ended from outside), until told to
/// end.
fn watch(beats: &[Beat], hung_after: Duration, look_every: Duration, end: &mpsc::Receiver<()>, hangs: &dyn Fn(u64)) {
    let look = |beat: &Beat| beat.done.load(Ordering::Relaxed);
    let mut seen: Vec<_> = beats.iter().map(|beat| (look(beat), Instant::now())).collect();
    while end.recv_timeout(look_every) == Err(mpsc::RecvTimeoutError::Timeout) {
        for (beat, (done, since)) in beats.iter().zip(&mut seen) {
            let done_now = look(beat);
            if done_now != *done || beat.seed.load(Ordering::Relaxed) == IDLE {
                (*done, *since) = (done_now, Instant::now());
            } else if since.elapsed() >= hung_after {
                hangs(beat.seed.load(Ordering::Relaxed));
                *since = Instant::now();
            }
        }
    }
}

/// Stands for a core that has no seed left.
const IDLE: u64 = u64::MAX;

/// After this number of violations no more seeds are started: the rest would show the same.
const ENOUGH: usize = 200;

/// Runs the seeds from `first` on. Calls `progress` now and then with the results so far, and `hangs` with a seed that
/// makes no progress and never will.
pub fn run(
    first: u64,
    count: u64,
    shape: Shape,
    progress: &(dyn Fn(&Totals) + Sync),
    hangs: &(dyn Fn(u64) + Sync),
) -> Totals {
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let totals = Mutex::new(Totals::default());
    let beats: Vec<Beat> = (0..rayon::current_num_threads()).map(|_| Beat::default()).collect();
    thread::scope(|watched| {
        let (finished, end) = mpsc::channel();
        let beats = &beats;
        watched.spawn(move || watch(beats, HUNG, LOOK_EVERY, &end, hangs));
        run_on_all_cores(first.saturating_add(count), shape, progress, beats, (&next, &totals, started));
        drop(finished);
    });
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.violations.sort_by_key(|(seed, _)| *seed);
    totals.wall = started.elapsed();
    totals
}

fn run_on_all_cores(
    end: u64,
    shape: Shape,
    progress: &(dyn Fn(&Totals) + Sync),
    beats: &[Beat],
    (next, totals, started): (&AtomicU64, &Mutex<Totals>, Instant),
) {
    // If fewer seeds than cores are left, a large crowd is shared out among the idle cores.
    rayon::scope(|scope| {
        for beat in beats {
            scope.spawn(move |_| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    beat.seed.store(if seed < end { seed } else { IDLE }, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = world::run_watched(&History::generate(seed, shape), Detail::Nothing, &beat.done);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.add(seed, outcome);
                    totals.wall = started.elapsed();
                    progress(&totals);
                    if totals.violations.len() >= ENOUGH {
                        beat.seed.store(IDLE, Ordering::Relaxed);
                        return;
                    }
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_of_a_hung_core_is_reported() {
        let beats = [Beat::default(), Beat::default()];
        beats[1].seed.store(7, Ordering::Relaxed);
        let (finished, end) = mpsc::channel();
        let named = AtomicU64::new(IDLE);
        let ms = Duration::from_millis;
        thread::scope(|scope| {
            let (beats, named) = (&beats, &named);
            scope.spawn(move || {
                while named.load(Ordering::Relaxed) != 7 {
                    beats[0].done.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                }
                drop(finished);
            });
            watch(beats, ms(50), ms(2), &end, &|seed| named.store(seed, Ordering::Relaxed));
        });
    }
}
