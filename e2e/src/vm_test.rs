//! `herald-lab vm-test`: the scenarios of other kernels in a user-mode Linux.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::testbed::Images;
use herald_lab::binaries::{self, cache_dir, lock, workspace};
use herald_lab::cluster::{Spec, own_program};
use herald_lab::images;
use herald_lab::progress::Progress;
use herald_lab::vm::kernel;
use herald_lab::vm::machine::{self, Errand};
use herald_lab::wait_factor;

/// Factor of all time limits: a system call costs about 70 times as much in user-mode Linux, and with this factor
/// everything tested came up.
const WAIT_FACTOR: &str = "5";

/// The environment variables that the test and its programs use.
const INHERITED: [&str; 4] = ["PATH", "HOME", "KUBEBUILDER_ASSETS", "HERALD_LAB_LOG"];

/// Builds what is missing (the kernel, the cluster's programs, the images), starts user-mode Linux and runs `herald-lab
/// kernel-test` in it with these names of scenarios. Output, report and the files of failures are in `target/vm-test`.
///
/// # Errors
/// When a part cannot be built or started, or a scenario failed.
pub fn run(names: &[String], jobs: usize, progress: &Progress) -> Result<()> {
    let kernel = kernel::build(jobs, progress)?;
    // The programs are built on the host: a compiler inside user-mode Linux would take an hour.
    binaries::provide(Spec::default().bin_dir.as_deref(), progress)?;
    images::pause(progress)?;
    let images = Images::build(progress)?;

    let target = workspace()?.join("target");
    let shared = target.join("vm-test");
    let _lock = lock(&target.join("vm-test.lock"), progress)?;
    if shared.exists() {
        fs::remove_dir_all(&shared).with_context(|| shared.display().to_string())?;
    }
    fs::create_dir_all(&shared).with_context(|| shared.display().to_string())?;

    let init = own_program()?;
    let text = |path: &Path| path.display().to_string();
    let mut command = vec![text(&init), "kernel-test".to_owned()];
    command.extend(["--herald-image".to_owned(), text(&images.herald), "--echo-image".to_owned(), text(&images.echo)]);
    command.extend(names.iter().cloned());
    let mut environment: BTreeMap<String, String> =
        INHERITED.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect();
    environment.insert("HERALD_LAB_CACHE".to_owned(), text(&cache_dir()?));
    environment.insert(wait_factor::VARIABLE.to_owned(), WAIT_FACTOR.to_owned());
    let kept = BTreeMap::from([
        ("failures".to_owned(), target.join("failures")),
        ("not-up".to_owned(), cache_dir()?.join("failed")),
    ]);
    let errand = Errand { command, environment, kept };
    progress.step(format!("starting user-mode Linux; all it says goes to {}", shared.display()));
    let status = machine::run(&kernel, &init, &shared, &errand, progress)?;
    ensure!(status == 0, "the test in user-mode Linux failed (exit status {status}); see {}", shared.display());
    progress.step("the test in user-mode Linux passed");
    Ok(())
}
