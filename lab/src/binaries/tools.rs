//! Programs that are not the cluster's: each is built from its Go module like those, and kept in a directory of its own, so that
//! another version of one makes no other program be built again.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::cache::{cache_dir, lock};
use super::go;
use super::pins::{self, Pin};
use crate::progress::Progress;

/// Returns Helm, with which many install Herald.
///
/// # Errors
/// When the build fails, or Go is missing and cannot be installed in the cache.
pub fn helm(progress: &Progress) -> Result<PathBuf> {
    Ok(tools(&pins::HELM, "helm", progress)
        .context("to build Helm alone: target/herald/herald-lab build-helm")?
        .join("helm"))
}

/// Returns a registry of images that asks for a name and a password.
///
/// # Errors
/// When the build fails, or Go is missing and cannot be installed in the cache.
pub(crate) fn registry(progress: &Progress) -> Result<PathBuf> {
    Ok(tools(&pins::REGISTRY, "registry", progress)?.join("registry"))
}

/// Returns the directory of the programs of a pin, which are built first where they are not in the cache.
fn tools(pin: &Pin, name: &str, progress: &Progress) -> Result<PathBuf> {
    let directory = cache_dir()?.join("tools").join(format!("{name}-{}", pins::hash_of_pin(pin, go::COMPILER_FLAGS)));
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let _lock = lock(&directory.with_extension("lock"), progress)?;
    for package in pin.packages {
        if !directory.join(package.program).is_file() {
            go::build(pin, &[package], &directory, progress)?;
        }
    }
    Ok(directory)
}
