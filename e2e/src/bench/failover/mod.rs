//! `make bench-failover`: every drill, repeated, in laboratories of each kind.

mod figures;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::drill::{Drill, FaultLength, PhaseResult, Setup, TooBusy, Topology, drills, perform, violations};
use crate::testbed::at_rest::{AtRest, come_to_rest};
use crate::testbed::audit_log::AuditLog;
use crate::testbed::{Images, TestNamespace, Testbed};
use figures::{Rest, Row};
use herald_lab::cluster::Spec;
use herald_lab::progress::Progress;

/// Percentage of void runs above which the machine cannot measure.
const VOID_PERCENT: usize = 30;

/// Time for which Herald's requests at rest are counted after the runs of a drill: each of its watches restarts once in
/// this time, after 18 to 22 s.
const AT_REST: Duration = Duration::from_secs(22);

/// Upper bound for Herald to come to rest after a drill. The cluster is whole by then, and the outstanding writes take
/// seconds.
const REST_WITHIN: Duration = Duration::from_secs(120);
/// A repeated drill changes its L2Advertisement and the nodes more than five times a minute, and an object that is
/// written so often waits up to 30 s for its next write (kube-common/src/pacing.rs).
const QUIET_AFTER_REPEATS: Duration = Duration::from_secs(31);

/// The third octet of the benchmark's addresses.
const BLOCK: u8 = 200;

/// Options of the benchmark.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Runs of each fault.
    #[arg(long, default_value_t = 10)]
    repeat: usize,
    /// Only faults whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Only in this laboratory.
    #[arg(long, value_enum)]
    place: Option<Topology>,
}

/// The results of drills and of the time at rest after them.
#[derive(Default)]
struct Measured {
    rows: Vec<Row>,
    rests: Vec<Rest>,
    runs: usize,
    void: usize,
    failures: Vec<String>,
}

impl Measured {
    fn add(&mut self, Self { rows, rests, runs, void, failures }: Self) {
        self.rows.extend(rows);
        self.rests.extend(rests);
        self.runs += runs;
        self.void += void;
        self.failures.extend(failures);
    }
}

/// Brings laboratories up, does every drill, prints a table and writes `target/bench/failover.json`.
///
/// # Errors
/// When a laboratory does not come up, more than 30 % of the runs were void, a promise was broken, or Herald sent more
/// requests at rest than it should. The tables are printed before.
pub fn run(spec: &Spec, options: &Options, progress: &Progress) -> Result<()> {
    let wanted = |place| {
        let fits = move |drill: &&Drill| drill.places.contains(&place) && drill.name.contains(&options.only);
        drills().filter(fits).collect::<Vec<_>>()
    };
    let images = Images::build(progress)?;
    let mut all = Measured::default();
    let places = Topology::value_variants().iter().filter(|place| options.place.is_none_or(|only| only == **place));
    for &place in places {
        let chosen = wanted(place);
        if chosen.is_empty() {
            continue;
        }
        progress.step(format!("{place}: {} drills, {} runs each", chosen.len(), options.repeat));
        let bed = Testbed::up(&place.spec(spec), &images, progress)?;
        let measured = measure(&bed, place, &chosen, options.repeat, progress);
        bed.into_lab().down()?;
        all.add(measured?);
        // The figures are written after each laboratory, so that a failure in a later one does not lose hours of
        // measurement.
        write(&all)?;
    }
    if all.rows.is_empty() && all.failures.is_empty() {
        bail!("no fault that is injected there has a name that contains {:?}", options.only);
    }
    report(&all)
}

fn measure(bed: &Testbed, place: Topology, chosen: &[&Drill], repeat: usize, progress: &Progress) -> Result<Measured> {
    let ns = TestNamespace::named(bed, "failover", BLOCK)?;
    let services = chosen.iter().map(|drill| drill.more_services).max().unwrap_or_default() + 2;
    let setup = Setup::set(&ns, place.segment(), services, FaultLength::Full)?;
    let mut all = Measured::default();
    for drill in chosen {
        let mut measured = measure_one(&setup, place, drill, repeat, progress)?;
        let name = format!("{}{}", drill.name, place.suffix());
        progress.step(format!("{name}: counting requests at rest for {} s", AT_REST.as_secs()));
        match rest(bed) {
            Ok(seen) => {
                measured.failures.extend(seen.violations().iter().map(|what| format!("{name}: {what}")));
                measured.rests.push(Rest { after: name, proxy: place.proxy(), seen });
            }
            Err(error) => measured.failures.push(format!("{name}: {error:#}")),
        }
        all.add(measured);
    }
    Ok(all)
}

/// Counts Herald's requests once the drill is over and everything is whole.
fn rest(bed: &Testbed) -> Result<AtRest> {
    come_to_rest(bed, &mut AuditLog::from_now(&bed.lab().audit_log())?, QUIET_AFTER_REPEATS, REST_WITHIN)?;
    AtRest::watched(bed, AT_REST)
}

fn measure_one(
    setup: &Setup<'_>,
    place: Topology,
    drill: &Drill,
    repeat: usize,
    progress: &Progress,
) -> Result<Measured> {
    let mut phases: Vec<Vec<PhaseResult>> = vec![Vec::new(); drill.phases.len()];
    let (mut runs, mut void, mut failures) = (0, 0, Vec::new());
    // A void run is repeated, up to one more than the share that may be void. A run that fails is not repeated.
    while runs - void < repeat && void <= 1 + repeat * VOID_PERCENT / 100 {
        progress.check()?;
        runs += 1;
        progress.step(format!("{}{}, run {runs}", drill.name, place.suffix()));
        match perform(setup, drill, 1) {
            Ok(performances) if performances.iter().any(|run| run.void) => void += 1,
            Ok(performances) => {
                for (runs, run) in phases.iter_mut().zip(performances) {
                    failures.extend(run.seen.iter().flat_map(|seen| violations(&run.phase, seen)));
                    runs.push(run);
                }
            }
            Err(error) if error.is::<TooBusy>() => void += 1,
            Err(error) => failures.push(format!("{}{}: {error:#}", drill.name, place.suffix())),
        }
    }
    // The two probed Services and the others have two addresses each.
    let addresses = 2 * (2 + usize::from(drill.more_services));
    let rows = phases
        .iter()
        .flat_map(|runs| figures::rows(runs, place.proxy(), place.suffix(), addresses))
        .collect::<Vec<_>>();
    progress.step(format!("\n{}", figures::table(&rows)));
    Ok(Measured { rows, rests: Vec::new(), runs, void, failures })
}

/// Writes both tables as JSON and returns the path of the first.
fn write(Measured { rows, rests, .. }: &Measured) -> Result<PathBuf> {
    let directory = herald_lab::binaries::workspace()?.join("target/bench");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let (file, at_rest) = (directory.join("failover.json"), directory.join("failover-at-rest.json"));
    std::fs::write(&at_rest, serde_json::to_vec_pretty(rests)?).with_context(|| at_rest.display().to_string())?;
    std::fs::write(&file, serde_json::to_vec_pretty(rows)?).with_context(|| file.display().to_string())?;
    Ok(file)
}

fn report(all: &Measured) -> Result<()> {
    let file = write(all)?;
    let Measured { rows, rests, runs, void, failures } = all;
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n{}", figures::table(rows), figures::rest_table(rests)).context("printing")?;
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
