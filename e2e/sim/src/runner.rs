//! Runs many seeds on all cores.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    check::Violation,
    history::{History, Shape},
    measure::Samples,
    world::{self, Detail, Outcome},
};

/// What came of all seeds.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// How many were run.
    pub seeds: u64,
    /// Simulated time of all.
    pub simulated: Duration,
    /// Time it took.
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
    /// The most frames that one node sent in one second.
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

    /// Frames per second and node, over all.
    pub fn frames_per_s_per_node(&self) -> f64 {
        if self.node_seconds == 0.0 { 0.0 } else { self.frames as f64 / self.node_seconds }
    }
}

/// After so many violations no more seeds are begun: the rest would say the same.
const ENOUGH: usize = 200;

/// Runs the seeds from `first` on. `progress` is called now and then with what there is so far.
pub fn run(first: u64, count: u64, shape: Shape, progress: &(dyn Fn(&Totals) + Sync)) -> Totals {
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let totals = Mutex::new(Totals::default());
    // Where there are fewer seeds than cores, a large crowd is shared out among those that are left.
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads() {
            scope.spawn(|_| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) {
                        return;
                    }
                    let outcome = world::run(&History::generate(seed, shape), Detail::Nothing);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.add(seed, outcome);
                    totals.wall = started.elapsed();
                    progress(&totals);
                    if totals.violations.len() >= ENOUGH {
                        return;
                    }
                }
            });
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.violations.sort_by_key(|(seed, _)| *seed);
    totals.wall = started.elapsed();
    totals
}
