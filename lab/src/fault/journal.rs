//! The faults in force, stored with the laboratory so that another process can heal them.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::model::Fault;
use crate::cluster::Paths;

/// The faults in force. While a process has the journal open, no other can open it.
pub(super) struct Journal {
    file: PathBuf,
    faults: Vec<Fault>,
    _lock: Flock<File>,
}

impl Journal {
    pub(super) fn open(paths: &Paths) -> Result<Self> {
        let lock = paths.run().join("faults.lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let opened = opened.with_context(|| lock.display().to_string())?;
        let lock = Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("locking {}", lock.display()))?;
        let file = paths.run().join("faults.json");
        let faults = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} does not list faults; `herald-lab down` removes it", file.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        Ok(Self { file, faults, _lock: lock })
    }

    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Replaces the faults in force, in one step.
    pub(super) fn set(&mut self, faults: Vec<Fault>) -> Result<()> {
        let next = self.file.with_extension("json.next");
        fs::write(&next, serde_json::to_vec_pretty(&faults)?).with_context(|| next.display().to_string())?;
        fs::rename(&next, &self.file).with_context(|| self.file.display().to_string())?;
        self.faults = faults;
        Ok(())
    }

    pub(super) fn add(&mut self, fault: Fault) -> Result<()> {
        let mut faults = self.faults.clone();
        faults.push(fault);
        self.set(faults)
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&Fault) -> bool) -> Result<()> {
        let mut faults = self.faults.clone();
        faults.retain(keep);
        if faults.len() == self.faults.len() { Ok(()) } else { self.set(faults) }
    }
}
