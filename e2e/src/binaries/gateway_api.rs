//! The definition of Gateway API's kind Gateway, from the project's Go module at a pinned version.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::cache::{cache_dir, lock};
use super::go;
use crate::progress::Progress;

const MODULE: &str = "sigs.k8s.io/gateway-api";
/// Later versions need Go 1.27.
const VERSION: &str = "v1.6.3";
/// The hash of its files, as in go.sum.
const SUM: &str = "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=";
/// The definition that clusters have: the standard channel's.
const DEFINITION: &str = "config/crd/standard/gateway.networking.k8s.io_gateways.yaml";

/// Returns a file with the definition; it is downloaded into the cache the first time.
///
/// # Errors
/// When the module cannot be downloaded, or is not the one that is pinned.
pub fn gateway_definition(progress: &Progress) -> Result<PathBuf> {
    let cache = cache_dir()?.join("gateway-api");
    let file = cache.join(format!("gateways-{VERSION}.yaml"));
    fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let _lock = lock(&cache.join("lock"), progress)?;
    if file.is_file() {
        return Ok(file);
    }
    let directory = tempfile::tempdir().context("making a directory for the download")?;
    let go::Downloaded { dir, sum } = go::download(MODULE, VERSION, directory.path(), progress)?;
    ensure!(sum == SUM, "{MODULE} {VERSION} has the hash {sum}, not {SUM}");
    let next = file.with_extension("next");
    fs::copy(dir.join(DEFINITION), &next).with_context(|| format!("{DEFINITION} of {MODULE} {VERSION}"))?;
    fs::rename(&next, &file).with_context(|| file.display().to_string())?;
    Ok(file)
}
