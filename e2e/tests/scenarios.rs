//! Every scenario, each once, on real clusters: `make e2e`. Needs root and what `e2e/setup.sh` installs.
//!
//! Scenarios of the shared cluster run in their order, one after the other; each of the others gets a cluster of its
//! own. Arguments are those of any Rust test: a word runs the scenarios whose name holds it.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use herald_e2e::lab::{LabId, Spec};
use herald_e2e::progress::Progress;
use herald_e2e::scenario::{Cluster, Images, Scenario, Testbed, all};
use libtest_mimic::{Arguments, Failed, Trial};

/// What the scenarios of one run share.
struct Stage {
    progress: Progress,
    images: Option<Images>,
    shared: Shared,
}

/// The cluster most scenarios share.
enum Shared {
    /// No scenario has asked for it.
    NotYet,
    Up(Testbed),
    /// It could not be brought up, so no scenario on it can run.
    Failed,
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
        match scenario.cluster {
            Cluster::Shared => self.shared()?.run(scenario),
            Cluster::Own { nodes } => {
                // Two cores: one cluster at a time.
                self.leave()?;
                let spec = Spec { nodes, ..self.spec("own")? };
                let bed = Testbed::up(&spec, &self.images()?, &self.progress)?;
                let result = bed.run(scenario);
                bed.into_lab().down()?;
                result
            }
        }
    }

    fn shared(&mut self) -> Result<&Testbed> {
        if matches!(self.shared, Shared::NotYet) {
            self.shared = Shared::Failed;
            let bed = Testbed::up(&self.spec("shared")?, &self.images()?, &self.progress)?;
            self.shared = Shared::Up(bed);
        }
        match &self.shared {
            Shared::Up(bed) => Ok(bed),
            Shared::NotYet | Shared::Failed => bail!("the shared cluster did not come up: see the first failure"),
        }
    }

    /// Takes the shared cluster down, if it is up; a scenario that wants it later gets a new one.
    fn leave(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.shared, Shared::NotYet) {
            Shared::Up(bed) => bed.into_lab().down(),
            Shared::NotYet | Shared::Failed => Ok(()),
        }
    }

    /// A laboratory of this process: two runs of the suite do not meet.
    fn spec(&self, name: &str) -> Result<Spec> {
        let id: LabId = format!("{name}{}", std::process::id()).parse()?;
        Ok(Spec { id, ..Spec::default() })
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share a cluster, and some take Herald away.
    arguments.test_threads = Some(1);
    let stage = Arc::new(Mutex::new(Stage { progress: Progress::printing(), images: None, shared: Shared::NotYet }));
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
        eprintln!("the shared cluster could not be taken down: {error:#}");
        return ExitCode::FAILURE;
    }
    if conclusion.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
