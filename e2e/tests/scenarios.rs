//! Every scenario, each once, on real clusters: `make e2e`. Needs root and what `e2e/setup.sh` installs.
//!
//! Scenarios run in their order, one after the other, each on the cluster it wants; neighbours that want the same one
//! share it. Arguments are those of any Rust test: a word runs the scenarios whose name holds it.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use herald_e2e::failover::Place;
use herald_e2e::lab::{LabId, Spec};
use herald_e2e::progress::Progress;
use herald_e2e::scenario::{Cluster, Images, Scenario, Testbed, all};
use libtest_mimic::{Arguments, Failed, Trial};

/// What the scenarios of one run share.
struct Stage {
    progress: Progress,
    images: Option<Images>,
    up: Up,
}

/// The cluster that is up: two cores carry one at a time.
enum Up {
    None,
    One(Cluster, Testbed),
    /// It could not be brought up, so no scenario on it can run.
    Failed(Cluster),
}

impl Stage {
    fn images(&mut self) -> Result<Images> {
        if self.images.is_none() {
            self.images = Some(Images::build(&self.progress)?);
        }
        self.images.clone().ok_or_else(|| anyhow::anyhow!("no images were built"))
    }

    fn run(&mut self, scenario: &Scenario) -> Result<()> {
        self.progress.step(format!("scenario {}: {}", scenario.name, scenario.about));
        let passed = self.cluster(scenario.cluster).and_then(|bed| bed.run(scenario));
        if let Err(error) = &passed {
            // Said at once too: the harness tells what failed when all have run.
            self.progress.step(format!("scenario {} FAILED: {error:#}", scenario.name));
        }
        passed
    }

    /// The cluster a scenario wants; the one before it stays if it is the same.
    fn cluster(&mut self, wanted: Cluster) -> Result<&Testbed> {
        if !matches!(&self.up, Up::One(cluster, _) | Up::Failed(cluster) if *cluster == wanted) {
            self.leave()?;
            let images = self.images()?;
            self.up = Up::Failed(wanted);
            self.up = Up::One(wanted, Testbed::up(&spec(wanted)?, &images, &self.progress)?);
        }
        match &self.up {
            Up::One(_, bed) => Ok(bed),
            Up::None | Up::Failed(_) => bail!("the cluster did not come up: see the first failure"),
        }
    }

    /// Takes the cluster down, if one is up; nothing of the scenarios may be left on it.
    fn leave(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.up, Up::None) {
            Up::One(_, bed) => {
                let swept = bed.swept();
                bed.into_lab().down().and(swept)
            }
            Up::None | Up::Failed(_) => Ok(()),
        }
    }
}

/// A laboratory of this process: two runs of the suite do not meet.
fn spec(cluster: Cluster) -> Result<Spec> {
    let place = match cluster {
        Cluster::Shared => Place::Three,
        Cluster::Own(place) => place,
    };
    let id: LabId = format!("suite{}", std::process::id()).parse()?;
    Ok(place.spec(&Spec { id, ..Spec::default() }))
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share a cluster, and some take Herald away.
    arguments.test_threads = Some(1);
    let stage = Arc::new(Mutex::new(Stage { progress: Progress::printing(), images: None, up: Up::None }));
    let trials = all()
        .into_iter()
        .map(|scenario| {
            let stage = Arc::clone(&stage);
            Trial::test(scenario.name, move || {
                let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
                stage.run(&scenario).map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let left = stage.lock().unwrap_or_else(PoisonError::into_inner).leave();
    if let Err(error) = left {
        eprintln!("the last cluster could not be left behind clean: {error:#}");
        return ExitCode::FAILURE;
    }
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
