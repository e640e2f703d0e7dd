//! `herald-lab drill`: drills on a laboratory that is already up.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};

use super::{Drill, FaultLength, Setup, drills, perform, violations};
use crate::testbed::{TestNamespace, Testbed};
use herald_lab::cluster::Lab;
use herald_lab::progress::Progress;

/// The third octet of the addresses.
const BLOCK: u8 = 220;

/// The drills to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of drills; they are listed if omitted.
    names: Vec<String>,
    /// Number of runs of each drill.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Number of the segment whose addresses are probed.
    #[arg(long, default_value_t = 0)]
    segment: u8,
    /// Let faults last as long as in the benchmark.
    #[arg(long)]
    full: bool,
}

/// Does drills on a laboratory with Herald and two clients, and prints what the clients observed.
///
/// # Errors
/// When a name is unknown, a step fails, or a promise was broken.
pub fn run(arguments: &Args, open: impl FnOnce() -> Result<Lab>) -> Result<()> {
    let progress = Progress::printing();
    if arguments.names.is_empty() {
        drills().for_each(|drill| progress.step(format!("{}: {}", drill.name, drill.about)));
        return Ok(());
    }
    let find = |name: &String| {
        drills()
            .find(|drill| drill.name == name)
            .with_context(|| format!("no drill {name}: `herald-lab drill` lists them"))
    };
    let chosen = arguments.names.iter().map(find).collect::<Result<Vec<_>>>()?;
    let bed = Testbed::on(open()?, &progress)?;
    let ns = TestNamespace::named(&bed, "drill", BLOCK)?;
    let services = chosen.iter().map(|drill| drill.more_services).max().unwrap_or_default() + 2;
    let pace = if arguments.full { FaultLength::Full } else { FaultLength::Short };
    let setup = Setup::set(&ns, arguments.segment, services, pace)?;
    let done = all(&setup, &chosen, arguments.repeat, &progress);
    setup.leave()?;
    let broken = done?;
    if broken > 0 {
        bail!("{broken} promises were broken");
    }
    Ok(())
}

/// Does the drills and returns the number of broken promises.
fn all(setup: &Setup<'_>, chosen: &[&Drill], repeat: usize, progress: &Progress) -> Result<usize> {
    let mut broken = 0;
    for drill in chosen {
        for run in 1..=repeat {
            progress.step(format!("{}, run {run}: {}", drill.name, drill.about));
            for performance in perform(setup, drill, 1)? {
                let found = performance.seen.iter().flat_map(|seen| violations(&performance.phase, seen));
                let found: Vec<String> = found.map(|what| format!("BROKEN: {what}")).collect();
                broken += found.len();
                writeln!(io::stdout().lock(), "{}\n{}\n", performance.reports, found.join("\n")).context("printing")?;
            }
        }
    }
    Ok(broken)
}
