//! Runs every scenario once on real clusters: `make e2e`. Needs root and what `e2e/setup.sh` installs.
//!
//! Scenarios start in their order, each on the cluster it wants. Neighbours that want the same cluster share it, and
//! concurrent scenarios run at the same time. The arguments are those of any Rust test: a word selects the scenarios
//! whose names contain it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test harness prints")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use herald_e2e::drill::Topology;
use herald_e2e::scenario::{Cluster, RunReport, Scenario, Schedule, all, run_on};
use herald_e2e::testbed::{Images, Testbed};
use herald_lab::binaries::lack_of_last_release;
use herald_lab::cluster::{LabId, Spec};
use herald_lab::progress::Progress;
use libtest_mimic::{Arguments, Failed, Trial};

/// Number of concurrent scenarios: with more of them on two processors, the additional waiting exceeds the gain.
const AT_ONCE: usize = 4;

/// The shared state of the scenarios of one run.
struct Suite {
    progress: Progress,
    chosen: Vec<Scenario>,
    turns: Schedule,
    site: Mutex<Site>,
    ledger: Mutex<RunReport>,
}

/// The cluster that is up, and the images that every cluster needs.
struct Site {
    images: Option<Images>,
    up: Up,
}

/// The cluster that is up: two processors carry one at a time.
enum Up {
    None,
    One(Cluster, Arc<Testbed>),
    /// The cluster could not be brought up, so no scenario can run on it.
    Failed(Cluster),
}

impl Suite {
    fn new(chosen: Vec<Scenario>) -> Self {
        Self {
            progress: Progress::printing(),
            turns: Schedule::of(&chosen),
            chosen,
            site: Mutex::new(Site { images: None, up: Up::None }),
            ledger: Mutex::default(),
        }
    }

    fn run(&self, position: usize) -> Result<()> {
        self.turns.take(position, || {
            let scenario = &self.chosen[position];
            let bed = lock(&self.site).cluster(scenario.cluster, &self.progress)?;
            let (number, all) = (position + 1, self.chosen.len());
            self.progress.step(format!("scenario {number} of {all}, {}: {}", scenario.name, scenario.about));
            let begun = Instant::now();
            let passed = catch_unwind(AssertUnwindSafe(|| run_on(&bed, scenario)));
            let passed = passed.unwrap_or_else(|_| Err(anyhow!("it panicked: the message is above")));
            let took = begun.elapsed();
            let failure = passed.as_ref().err().map(|error| format!("{error:#}"));
            lock(&self.ledger).add(scenario.name, took, scenario.budget, failure);
            let seconds = took.as_secs();
            match &passed {
                Ok(()) => self.progress.step(format!("scenario {} passed in {seconds} s", scenario.name)),
                // The failure is also reported at once: the harness reports failures only after all scenarios have run.
                Err(error) => self.progress.step(format!(
                    "scenario {name} FAILED after {seconds} s; alone: make e2e ONLY='{name} --exact': {error:#}",
                    name = scenario.name
                )),
            }
            passed
        })
    }
}

impl Site {
    /// Returns the cluster that a scenario wants, and keeps the current one if it is the same.
    fn cluster(&mut self, wanted: Cluster, progress: &Progress) -> Result<Arc<Testbed>> {
        if !matches!(&self.up, Up::One(cluster, _) | Up::Failed(cluster) if *cluster == wanted) {
            self.leave()?;
            self.up = Up::Failed(wanted);
            let images = match &self.images {
                Some(images) => images,
                None => self.images.insert(Images::build(progress)?),
            };
            self.up = Up::One(wanted, Arc::new(Testbed::up(&spec(wanted)?, images, progress)?));
        }
        match &self.up {
            Up::One(_, bed) => Ok(Arc::clone(bed)),
            Up::None | Up::Failed(_) => bail!("the cluster did not come up: see the first failure"),
        }
    }

    /// Takes the cluster down if one is up, and checks that nothing of the scenarios is left on it.
    fn leave(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.up, Up::None) {
            Up::One(_, bed) => {
                let swept = bed.swept();
                // The schedule ensures that the last scenario on a cluster has ended before the cluster is left.
                let bed = Arc::into_inner(bed).context("a scenario is still at work on the cluster")?;
                bed.into_lab().down().and(swept)
            }
            Up::None | Up::Failed(_) => Ok(()),
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the specification of a laboratory of this process, so that two runs of the suite do not collide.
fn spec(cluster: Cluster) -> Result<Spec> {
    let place = match cluster {
        Cluster::Shared => Topology::Three,
        Cluster::Own(place) => place,
    };
    let id: LabId = format!("suite{}", std::process::id()).parse()?;
    Ok(place.spec(&Spec { id, ..Spec::default() }))
}

/// The scenario that builds the last release from the history of this checkout.
const UPGRADE: &str = "upgrade";

/// Returns whether the arguments select a scenario, by the rules of the harness itself. (The schedule contains only the
/// selected ones.)
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let fits = |word: &String| if arguments.exact { name == word } else { name.contains(word.as_str()) };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let mut chosen: Vec<_> = all().into_iter().filter(|scenario| is_wanted(&arguments, scenario.name)).collect();
    // A clone without the history cannot build the last release. That is said, and is no fault of what is tested.
    let lack = lack_of_last_release().unwrap_or_else(|error| Some(format!("{error:#}")));
    let left_out = lack.filter(|_| chosen.iter().any(|scenario| scenario.name == UPGRADE));
    chosen.retain(|scenario| left_out.is_none() || scenario.name != UPGRADE);
    let suite = Arc::new(Suite::new(chosen));
    let trials = suite.chosen.iter().enumerate().map(|(position, scenario)| {
        let suite = Arc::clone(&suite);
        Trial::test(scenario.name, move || suite.run(position).map_err(|error| Failed::from(format!("{error:#}"))))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let left = lock(&suite.site).leave();
    if !arguments.list {
        println!("\n{}", lock(&suite.ledger));
        if let Some(lack) = left_out {
            println!("scenario {UPGRADE} was NOT RUN: {lack}");
        }
    }
    if let Err(error) = left {
        eprintln!("the last cluster could not be left behind clean: {error:#}");
        return ExitCode::FAILURE;
    }
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
