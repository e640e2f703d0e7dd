//! `make bench-failover`: every drill, again and again, in laboratories of each kind.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::figures::{self, Row};
use super::{Drill, Pace, Performance, Place, Stage, drills, perform, violations};
use crate::lab::Spec;
use crate::progress::Progress;
use crate::scenario::{Images, Scene, Testbed};

/// More void runs than this many of a hundred say that the machine cannot measure.
const VOID_PERCENT: usize = 30;

/// The third octet of the benchmark's addresses.
const BLOCK: u8 = 200;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Runs of each fault.
    #[arg(long, default_value_t = 10)]
    repeat: usize,
    /// Only faults whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only in this laboratory.
    #[arg(long, value_enum)]
    place: Option<Place>,
}

/// Runs of one drill in one laboratory.
struct Measured {
    rows: Vec<Row>,
    runs: usize,
    void: usize,
    failures: Vec<String>,
}

/// Brings laboratories up, does every drill, prints a table, writes `target/bench/failover.json`.
///
/// # Errors
/// When a laboratory does not come up, more than 30 % of the runs were void, or a promise was broken; the table is
/// printed before.
pub fn run(spec: &Spec, options: &Options, progress: &Progress) -> Result<()> {
    let wanted = |place| {
        let fits = move |drill: &&Drill| drill.places.contains(&place) && drill.name.contains(&options.only);
        drills().filter(fits).collect::<Vec<_>>()
    };
    let images = Images::build(progress)?;
    let (mut rows, mut runs, mut void, mut failures) = (Vec::new(), 0, 0, Vec::new());
    let places = Place::value_variants().iter().filter(|place| options.place.is_none_or(|only| only == **place));
    for &place in places {
        let chosen = wanted(place);
        if chosen.is_empty() {
            continue;
        }
        progress.step(format!("{place}: {} drills, {} runs each", chosen.len(), options.repeat));
        let bed = Testbed::up(&place.spec(spec), &images, progress)?;
        let measured = measure(&bed, place, &chosen, options.repeat, progress);
        bed.into_lab().down()?;
        for drill in measured? {
            rows.extend(drill.rows);
            runs += drill.runs;
            void += drill.void;
            failures.extend(drill.failures);
        }
        // After each laboratory: hours of figures are not lost to what the last one does.
        write(&rows)?;
    }
    if rows.is_empty() && failures.is_empty() {
        bail!("no fault that is done there has a name that holds {:?}", options.only);
    }
    report(&rows, runs, void, &failures)
}

fn measure(
    bed: &Testbed,
    place: Place,
    chosen: &[&Drill],
    repeat: usize,
    progress: &Progress,
) -> Result<Vec<Measured>> {
    let scene = Scene::named(bed, "failover", BLOCK)?;
    let services = chosen.iter().map(|drill| drill.more_services).max().unwrap_or_default() + 2;
    let stage = Stage::set(&scene, place.segment(), services, Pace::Full)?;
    chosen.iter().map(|drill| measure_one(&stage, place, drill, repeat, progress)).collect()
}

fn measure_one(stage: &Stage<'_>, place: Place, drill: &Drill, repeat: usize, progress: &Progress) -> Result<Measured> {
    let mut phases: Vec<Vec<Performance>> = vec![Vec::new(); drill.phases.len()];
    let (mut runs, mut void, mut failures) = (0, 0, Vec::new());
    // Void runs are done again, as many as may be void and one; a run that fails is not.
    while runs - void < repeat && void <= 1 + repeat * VOID_PERCENT / 100 {
        progress.check()?;
        runs += 1;
        progress.step(format!("{}{}, run {runs}", drill.name, place.suffix()));
        match perform(stage, drill) {
            Ok(performances) if performances.iter().any(|run| run.void) => void += 1,
            Ok(performances) => {
                for (runs, run) in phases.iter_mut().zip(performances) {
                    failures.extend(run.seen.iter().flat_map(|seen| violations(&run.phase, seen)));
                    runs.push(run);
                }
            }
            Err(error) => failures.push(format!("{}{}: {error:#}", drill.name, place.suffix())),
        }
    }
    // Two Services, and the others; each has two addresses.
    let addresses = 2 * (2 + usize::from(drill.more_services));
    let rows = phases
        .iter()
        .flat_map(|runs| figures::rows(runs, place.proxy(), place.suffix(), addresses))
        .collect::<Vec<_>>();
    progress.step(format!("\n{}", figures::table(&rows)));
    Ok(Measured { rows, runs, void, failures })
}

fn write(rows: &[Row]) -> Result<PathBuf> {
    let directory = crate::binaries::workspace()?.join("target/bench");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let file = directory.join("failover.json");
    std::fs::write(&file, serde_json::to_vec_pretty(rows)?).with_context(|| file.display().to_string())?;
    Ok(file)
}

fn report(rows: &[Row], runs: usize, void: usize, failures: &[String]) -> Result<()> {
    let file = write(rows)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", figures::table(rows)).context("printing")?;
    writeln!(out, "{void} of {runs} runs were void and repeated. Written to {}", file.display()).context("printing")?;
    for failure in failures {
        writeln!(out, "BROKEN: {failure}").context("printing")?;
    }
    if void * 100 > runs * VOID_PERCENT {
        bail!("{void} of {runs} runs were void: this machine is too busy to measure");
    }
    if !failures.is_empty() {
        bail!("{} promises were broken", failures.len());
    }
    Ok(())
}
