//! Helm, with which many install Herald: built from its Go module like the cluster's programs, and kept in a directory
//! of its own, so that another version of it makes no other program be built again.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::cache::{cache_dir, lock};
use super::{go, pins};
use crate::progress::Progress;

/// Returns the program, which is built first where it is not in the cache.
///
/// # Errors
/// When the build fails, or Go is missing and cannot be installed in the cache.
pub fn helm(progress: &Progress) -> Result<PathBuf> {
    let directory =
        cache_dir()?.join("tools").join(format!("helm-{}", pins::hash_of_pin(&pins::HELM, go::COMPILER_FLAGS)));
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let _lock = lock(&directory.with_extension("lock"), progress)?;
    for package in pins::HELM.packages {
        let program = directory.join(package.program);
        if !program.is_file() {
            go::build(&pins::HELM, &[package], &directory, progress)
                .context("to build Helm alone: target/herald/herald-lab build-helm")?;
        }
    }
    Ok(directory.join("helm"))
}
