//! `herald-lab run`: scenarios on a laboratory that is already up.

use anyhow::{Result, bail};

use super::{Cluster, Scenario, catalogue, named, run_on};
use crate::testbed::Testbed;
use crate::testbed::install::{self, Images};
use crate::testbed::manifests::Manifest;
use herald_lab::cluster::Lab;
use herald_lab::cluster::preflight;
use herald_lab::progress::Progress;

/// The scenarios to run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of scenarios; they are listed if omitted.
    names: Vec<String>,
    /// Build, load and install Herald first.
    #[arg(long)]
    install: bool,
}

/// Runs scenarios on the laboratory that `open` opens.
///
/// # Errors
/// When a name is unknown or a scenario fails.
pub fn run(arguments: &Args, open: impl FnOnce() -> Result<Lab>) -> Result<()> {
    let progress = Progress::printing();
    if arguments.names.is_empty() {
        for Scenario { name, about, .. } in catalogue() {
            progress.step(format!("{name}: {about}"));
        }
        return Ok(());
    }
    let mut chosen = Vec::new();
    for name in &arguments.names {
        let scenario = named(name)?;
        if let Cluster::Own(place) = scenario.cluster {
            bail!("{name} wants a laboratory of its own ({place}): make e2e ONLY={name}");
        }
        chosen.push(scenario);
    }
    let needed: Vec<_> = chosen.iter().flat_map(|scenario| scenario.needs).copied().collect();
    preflight::check_features(&needed)?;
    let lab = open()?;
    if arguments.install {
        Images::build(&progress)?.load(&lab)?;
        install::apply(&lab, Manifest::CLASS, &progress)?;
    }
    let bed = Testbed::on(lab, &progress)?;
    for scenario in &chosen {
        progress.step(format!("scenario {}: {}", scenario.name, scenario.about));
        run_on(&bed, scenario)?;
    }
    bed.swept()?;
    progress.step("passed");
    Ok(())
}
