//! Every scenario, each once, on real clusters: `make e2e`. Needs root and what `e2e/setup.sh` installs.
//!
//! Scenarios begin in their order, each on the cluster it wants; neighbours that want the same one share it, and those
//! that bear each other run at the same time. Arguments are those of any Rust test: a word runs the scenarios whose
//! name holds it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test harness prints")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use herald_e2e::drill::Topology;
use herald_e2e::scenario::{Cluster, RunReport, Scenario, Schedule, all, run_on};
use herald_e2e::testbed::{Images, Testbed};
use herald_lab::cluster::{LabId, Spec};
use herald_lab::progress::Progress;
use libtest_mimic::{Arguments, Failed, Trial};

/// Scenarios that bear each other and run at the same time: more than two processors carry without making each other
/// wait for longer than they save.
const AT_ONCE: usize = 4;

/// What the scenarios of one run share.
struct Suite {
    progress: Progress,
    chosen: Vec<Scenario>,
    turns: Schedule,
    site: Mutex<Site>,
    ledger: Mutex<RunReport>,
}

/// The one cluster that is up, and what every one of them needs.
struct Site {
    images: Option<Images>,
    up: Up,
}

/// The cluster that is up: two processors carry one at a time.
enum Up {
    None,
    One(Cluster, Arc<Testbed>),
    /// It could not be brought up, so no scenario on it can run.
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
                // Said at once too: the harness tells what failed when all have run.
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
    /// The cluster a scenario wants; the one before it stays if it is the same.
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

    /// Takes the cluster down, if one is up; nothing of the scenarios may be left on it.
    fn leave(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.up, Up::None) {
            Up::One(_, bed) => {
                let swept = bed.swept();
                // The turns see to it that a cluster is left after the last scenario on it has ended.
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

/// A laboratory of this process: two runs of the suite do not meet.
fn spec(cluster: Cluster) -> Result<Spec> {
    let place = match cluster {
        Cluster::Shared => Topology::Three,
        Cluster::Own(place) => place,
    };
    let id: LabId = format!("suite{}", std::process::id()).parse()?;
    Ok(place.spec(&Spec { id, ..Spec::default() }))
}

/// Returns whether the arguments ask for a scenario, as the harness itself decides it. (Schedule are for those that run.)
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let fits = |word: &String| if arguments.exact { name == word } else { name.contains(word.as_str()) };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let chosen = all().into_iter().filter(|scenario| is_wanted(&arguments, scenario.name)).collect();
    let suite = Arc::new(Suite::new(chosen));
    let trials = suite.chosen.iter().enumerate().map(|(position, scenario)| {
        let suite = Arc::clone(&suite);
        Trial::test(scenario.name, move || suite.run(position).map_err(|error| Failed::from(format!("{error:#}"))))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let left = lock(&suite.site).leave();
    if !arguments.list {
        println!("\n{}", lock(&suite.ledger));
    }
    if let Err(error) = left {
        eprintln!("the last cluster could not be left behind clean: {error:#}");
        return ExitCode::FAILURE;
    }
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
