//! The record of a laboratory, and the lock that guards its changes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::cgroup::Hierarchies;
use super::paths::Paths;
use super::process::ProcessId;
use super::spec::Spec;

/// The state of a laboratory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Coming up. When the process that creates it is gone, any process may clear it.
    Starting,
    /// Ready; it is taken down when the process that created it ends.
    Owned,
    /// Ready; it stays up until a user takes it down.
    Detached,
}

/// The contents of lab.json.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its specification.
    pub spec: Spec,
    /// Its state.
    pub phase: Phase,
    /// The process that created it.
    pub owner: ProcessId,
    /// The process that takes it down when the owner ends.
    pub warden: Option<ProcessId>,
    /// Directory of its binaries.
    pub bin_dir: PathBuf,
    /// Directories that must be visible on every host at the same path, even below /tmp and /run.
    pub visible: Vec<PathBuf>,
    /// The cgroups below which the laboratory's own are.
    pub cgroups: Hierarchies,
    /// The launcher and the first process of each host that is powered on.
    pub hosts: BTreeMap<String, HostProcesses>,
}

/// The processes that represent a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProcesses {
    /// `unshare`, outside the host's namespaces; when it ends the host's init is killed.
    pub launcher: ProcessId,
    /// First process of the host.
    pub init: ProcessId,
}

impl Record {
    /// Returns whether its owner is gone and it is not detached.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.phase != Phase::Detached && !self.owner.is_alive()
    }

    /// Reads the record; returns `None` if it does not exist.
    ///
    /// # Errors
    /// When the record cannot be read or parsed.
    pub fn read(paths: &Paths) -> Result<Option<Self>> {
        let file = paths.record();
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| file.display().to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    /// Replaces the record in one step.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn write(&self, paths: &Paths) -> Result<()> {
        let file = paths.record();
        let next = file.with_extension("json.next");
        fs::write(&next, serde_json::to_vec_pretty(self)?).with_context(|| next.display().to_string())?;
        fs::rename(&next, &file).with_context(|| file.display().to_string())
    }
}

/// The lock that is held while a laboratory is created, changed or taken down. Dropping it, or the end of the process,
/// releases it.
#[derive(Debug)]
pub struct Lock {
    #[expect(dead_code, reason = "held for its Drop, which unlocks")]
    file: Flock<File>,
    paths: Paths,
}

impl Lock {
    /// Waits until no other process holds the lock, and takes it.
    ///
    /// # Errors
    /// When the lock file cannot be created or locked.
    pub fn acquire(paths: &Paths) -> Result<Self> {
        loop {
            let locked = Flock::lock(Self::open(paths)?, FlockArg::LockExclusive);
            let file =
                locked.map_err(|(_, errno)| errno).with_context(|| format!("locking {}", paths.lock().display()))?;
            if let Some(lock) = Self::current(file, paths)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock; returns `None` if another process holds it or the laboratory was removed meanwhile.
    ///
    /// # Errors
    /// When the lock file cannot be created or locked.
    pub fn try_acquire(paths: &Paths) -> Result<Option<Self>> {
        match Flock::lock(Self::open(paths)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Self::current(file, paths),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).with_context(|| format!("locking {}", paths.lock().display())),
        }
    }

    /// Returns `None` if the lock file was removed together with its laboratory during the wait: a lock on the removed
    /// file has no effect.
    fn current(file: Flock<File>, paths: &Paths) -> Result<Option<Self>> {
        let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let locked = file.metadata().map(|m| identity(&m)).with_context(|| paths.lock().display().to_string())?;
        match fs::metadata(paths.lock()) {
            Ok(named) if identity(&named) == locked => Ok(Some(Self { file, paths: paths.clone() })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| paths.lock().display().to_string()),
        }
    }

    fn open(paths: &Paths) -> Result<File> {
        fs::create_dir_all(Paths::root()).with_context(|| Paths::root().display().to_string())?;
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(paths.lock())
            .with_context(|| paths.lock().display().to_string())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock file is removed with its laboratory, while the lock is still held: a waiting process then sees that
        // the file is gone.
        if !self.paths.run().exists()
            && let Err(error) = fs::remove_file(self.paths.lock())
        {
            tracing::warn!("removing {}: {error}", self.paths.lock().display());
        }
    }
}
