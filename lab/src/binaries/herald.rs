//! Herald's own programs as the images contain them: static and optimised.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::long_command;
use crate::progress::Progress;

/// Herald's programs as static binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticBinaries {
    /// Path of herald-controller.
    pub controller: PathBuf,
    /// Path of herald-speaker.
    pub speaker: PathBuf,
    /// Path of herald-echo, the workload of the laboratory.
    pub echo: PathBuf,
}

/// Builds Herald's programs with `e2e/programs.sh`; cargo rebuilds only what has changed.
///
/// # Errors
/// When the build fails or is interrupted.
pub fn build_static(progress: &Progress) -> Result<StaticBinaries> {
    let workspace = workspace()?;
    let mut script = Command::new(workspace.join("e2e/programs.sh"));
    cargo_progress_of(&mut script);
    long_command::run_measured(&mut script, "building Herald's programs", crates_done, progress)
        .context("to build them alone: e2e/programs.sh")?;
    let binary = |name: &str| -> Result<PathBuf> {
        let path = workspace.join("target/herald").join(name);
        if path.is_file() { Ok(path) } else { bail!("e2e/programs.sh did not make {}", path.display()) }
    };
    Ok(StaticBinaries {
        controller: binary("herald-controller")?,
        speaker: binary("herald-speaker")?,
        echo: binary("herald-echo")?,
    })
}

/// Prepares a command that runs cargo, for [`crates_done`] to read its progress.
pub(super) fn cargo_progress_of(command: &mut Command) {
    // Under `cargo test` and `cargo run` these variables describe this program. Build scripts that read them (ring's)
    // would trigger a full rebuild whenever the two ways of starting alternate.
    for (name, _) in std::env::vars_os() {
        let of_this_program = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_TARGET_TMPDIR"];
        if name.to_str().is_some_and(|name| of_this_program.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    // cargo's progress bar goes to a file, from which the progress is read.
    command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "80");
}

/// Parses the last state of cargo's progress bar: `Building [=====>   ] 120/344: k8s-openapi`.
pub(super) fn crates_done(output: &str) -> Option<String> {
    let (_, last) = output.rsplit_once("] ")?;
    let (done, all) = last.split(':').next()?.split_once('/')?;
    let (done, all): (usize, usize) = (done.trim().parse().ok()?, all.trim().parse().ok()?);
    Some(format!("{done} of {all} crates"))
}

/// Returns the directory of the workspace from which this program was built.
///
/// # Errors
/// When the directory no longer exists.
pub fn workspace() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match root.canonicalize() {
        Ok(root) => Ok(root),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{} is gone: run herald-lab from the checkout it was built in", root.display())
        }
        Err(error) => Err(error).with_context(|| root.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("   Compiling libc v0.2\r    Building [=>    ] 3/344: libc\r    Building [==>   ] 12/344: syn, libc\r",
        Some("12 of 344 crates"); "the last of several")]
    #[test_case("    Finished `release` profile [optimized] target(s) in 0.14s", None; "nothing to do")]
    #[test_case("", None; "not yet")]
    fn progress_is_read_from_cargos_bar(output: &str, expected: Option<&str>) {
        assert_eq!(crates_done(output).as_deref(), expected);
    }
}
