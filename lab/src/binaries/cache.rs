//! The directory for results that take long to build and can be reused.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::progress::Progress;

/// Returns the directory of the cache: `$HERALD_LAB_CACHE`, else `$XDG_CACHE_HOME/herald-lab`, else
/// `~/.cache/herald-lab`.
///
/// # Errors
/// When none of these variables is set.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("HERALD_LAB_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("herald-lab")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/herald-lab")))
        .context("no directory for the cache: set HERALD_LAB_CACHE, XDG_CACHE_HOME or HOME")?;
    // The path is absolute because its programs are started from other directories.
    std::path::absolute(&directory).with_context(|| directory.display().to_string())
}

/// Upper bound of the wait for another run, whose build takes about ten minutes at most.
const LOCKED_FOR: Duration = Duration::from_secs(3600);

/// Locks a file of the cache. Reports when another run holds the lock, and waits. Dropping the result releases the
/// lock.
///
/// # Errors
/// When the file cannot be created or locked, or the wait is interrupted.
pub fn lock(file: &Path, progress: &Progress) -> Result<Flock<File>> {
    let mut said = false;
    progress.wait_for(&format!("the lock {}", file.display()), LOCKED_FOR, || {
        let open = File::create(file).with_context(|| file.display().to_string())?;
        match Flock::lock(open, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => {
                if !std::mem::replace(&mut said, true) {
                    progress.step(format!("another process is building the same: waiting for {}", file.display()));
                }
                Ok(None)
            }
            Err((_, errno)) => Err(errno).with_context(|| file.display().to_string()),
        }
    })
}

/// Returns 16 hexadecimal digits of the SHA-256 over parts; the boundaries of the parts are hashed too.
pub(crate) fn hash_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_the_boundaries_of_parts() {
        assert_ne!(hash_of([b"ab".as_slice(), b"c"]), hash_of([b"a".as_slice(), b"bc"]));
    }
}
