//! `herald-lab run`: scenarios on a laboratory that is already up.

use anyhow::{Context, Result, bail};

use super::install::{self, Images, Overlay};
use super::{Cluster, Scenario, Testbed, all};
use crate::lab::Lab;
use crate::progress::Progress;

/// Which scenarios to run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Their names; without any, they are listed.
    names: Vec<String>,
    /// Build, load and install Herald first.
    #[arg(long)]
    install: bool,
}

/// Runs scenarios on the laboratory that `open` opens.
///
/// # Errors
/// When there is none of a name, or one fails.
pub fn run(arguments: &Args, open: impl FnOnce() -> Result<Lab>) -> Result<()> {
    let progress = Progress::printing();
    if arguments.names.is_empty() {
        for Scenario { name, about, .. } in all() {
            progress.step(format!("{name}: {about}"));
        }
        return Ok(());
    }
    let mut chosen = Vec::new();
    for name in &arguments.names {
        let scenario = all().into_iter().find(|s| s.name == name);
        let scenario = scenario.with_context(|| format!("there is no scenario {name}: `herald-lab run` lists them"))?;
        if let Cluster::Own(place) = scenario.cluster {
            bail!("{name} wants a laboratory of its own ({place}): make e2e ONLY={name}");
        }
        chosen.push(scenario);
    }
    let lab = open()?;
    if arguments.install {
        Images::build(&progress)?.load(&lab)?;
        install::apply(&lab, Overlay::Class, &progress)?;
    }
    let bed = Testbed::on(lab, &progress)?;
    for scenario in &chosen {
        progress.step(format!("scenario {}: {}", scenario.name, scenario.about));
        bed.run(scenario)?;
    }
    bed.swept()?;
    progress.step("passed");
    Ok(())
}
