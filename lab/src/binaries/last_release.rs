//! The programs of Herald's last release, from which a cluster is upgraded to today's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::{cache_dir, hash_of, lock};
use super::herald::{cargo_progress_of, crates_done, workspace};
use crate::long_command;
use crate::progress::Progress;

/// The commit of the last release.
///
/// There is no tag yet, so that this is main as it stood when upgrades became a scenario. With each release it becomes
/// the commit of the tag before.
pub const LAST_RELEASE: &str = "71c0c242cbf769b41afa8510c1e1235fdc5e4771";

/// What builds it.
const SCRIPT: &str = include_str!("../../../e2e/last-release.sh");

/// The last release: its files, and its programs as static binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRelease {
    /// The files of the commit.
    pub sources: PathBuf,
    /// Path of herald-controller.
    pub controller: PathBuf,
    /// Path of herald-speaker.
    pub speaker: PathBuf,
}

/// Returns the remedy, if the last release can not be built here: this checkout is a shallow clone without the commit, or
/// no clone.
///
/// # Errors
/// When git cannot be started, or the workspace is not found.
pub fn lack_of_last_release() -> Result<Option<String>> {
    let mut git = Command::new("git");
    // Under sudo the checkout belongs to another user, which git refuses unless told otherwise.
    git.args(["-c", "safe.directory=*", "cat-file", "-e"]).arg(format!("{LAST_RELEASE}^{{commit}}"));
    let found = git.current_dir(workspace()?).output().context("cannot run git")?.status.success();
    Ok((!found).then(|| {
        format!("this checkout lacks commit {LAST_RELEASE}; to fetch it: git fetch --depth 1 origin {LAST_RELEASE}")
    }))
}

/// Builds the last release from the history of this checkout and keeps it in the cache.
///
/// # Errors
/// When the history lacks the commit (a shallow clone), or the build fails or is interrupted.
pub fn last_release(progress: &Progress) -> Result<LastRelease> {
    let workspace = workspace()?;
    let built = hash_of([LAST_RELEASE, SCRIPT].map(str::as_bytes));
    let directory = cache_dir()?.join("last-release").join(format!("{}-{built}", &LAST_RELEASE[..12]));
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let _lock = lock(&directory.with_extension("lock"), progress)?;
    let release = LastRelease {
        sources: directory.join("sources"),
        controller: directory.join("herald-controller"),
        speaker: directory.join("herald-speaker"),
    };
    // The script makes the speaker last.
    if !release.speaker.is_file() {
        let mut script = Command::new(workspace.join("e2e/last-release.sh"));
        script.arg(LAST_RELEASE).arg(&directory);
        cargo_progress_of(&mut script);
        long_command::run_measured(&mut script, "building Herald's last release", crates_done, progress).with_context(
            || format!("to build it alone: e2e/last-release.sh {LAST_RELEASE} {}", directory.display()),
        )?;
    }
    Ok(release)
}
