//! The laboratory's programs: Kubernetes, etcd and containerd, built once from the Go modules pinned in this crate and
//! kept in a cache; and Herald's own programs as static binaries.

mod cache;
mod gateway_api;
mod go;
mod herald;
mod last_release;
mod pins;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress::Progress;
use pins::{PINS, Package};

pub use cache::cache_dir;
pub(crate) use cache::hash_of;
pub use cache::lock;

pub use gateway_api::gateway_definition;
pub(crate) use go::build_file;
pub use herald::{StaticBinaries, build_static, workspace};
pub use last_release::{LAST_RELEASE, LastRelease, lack_of_last_release, last_release};
pub use tools::helm;
pub(crate) use tools::registry;

/// Returns a directory with all programs of a cluster. Programs in `ready` are taken from there; the others come from
/// the cache, and missing ones are built first.
///
/// # Errors
/// When a build fails, or Go is missing and cannot be installed in the cache.
pub fn provide(ready: Option<&Path>, progress: &Progress) -> Result<PathBuf> {
    let is_offered = |package: &Package| ready.is_some_and(|directory| directory.join(package.program).is_file());
    let (offered, others): (Vec<_>, Vec<_>) =
        PINS.iter().flat_map(|pin| pin.packages).partition(|package| is_offered(package));
    let cache = match ready {
        Some(ready) if others.is_empty() => return ready.canonicalize().with_context(|| ready.display().to_string()),
        _ => cache_dir()?.join("bin"),
    };
    let pinned = pins::hash_of_pins(go::COMPILER_FLAGS);
    let directory = cache.join(&pinned);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let _lock = lock(&directory.with_extension("lock"), progress)?;
    for pin in PINS {
        let is_missing = |package: &&Package| !is_offered(package) && !directory.join(package.program).is_file();
        let missing: Vec<&Package> = pin.packages.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            go::build(pin, &missing, &directory, progress)
                .context("to build the cluster's programs alone: target/herald/herald-lab build")?;
        }
    }
    let Some(ready) = ready.filter(|_| !offered.is_empty()) else { return Ok(directory) };
    let names: Vec<&str> = offered.iter().map(|package| package.program).collect();
    progress.step(format!("using {} from {}", names.join(", "), ready.display()));
    // A mixture has a directory of its own, so that the cache contains only what was built from the pins.
    let paths = hash_of([ready.as_os_str().as_encoded_bytes()]);
    let mixture = cache.join(format!("{pinned}-with-{paths}"));
    fs::create_dir_all(&mixture).with_context(|| mixture.display().to_string())?;
    for (packages, source) in [(offered, ready), (others, directory.as_path())] {
        for package in packages {
            copy_if_newer(&source.join(package.program), &mixture.join(package.program))?;
        }
    }
    Ok(mixture)
}

fn copy_if_newer(source: &Path, target: &Path) -> Result<()> {
    let age = |file: &Path| fs::metadata(file).and_then(|found| Ok((found.len(), found.modified()?)));
    let (length, changed) = age(source).with_context(|| source.display().to_string())?;
    if age(target).is_ok_and(|(copied, at)| copied == length && at >= changed) {
        return Ok(());
    }
    let next = target.with_extension("next");
    fs::copy(source, &next).with_context(|| source.display().to_string())?;
    fs::rename(&next, target).with_context(|| target.display().to_string())
}
