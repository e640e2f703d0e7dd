//! The warden: a small process that outlives the one which made a laboratory, and takes the laboratory down when
//! that one ends, however it ends.

use std::io::Read;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

use super::boot::own_program;
use super::paths::Paths;
use super::process::ProcessId;
use super::record::{Lock, Phase, Record};
use super::spec::LabId;
use super::teardown::tear_down_locked;

/// Held by the process that made a laboratory. Its end, by a drop or by the death of the process, wakes the warden.
#[derive(Debug)]
pub(super) struct Leash {
    /// The writing end of a pipe that the warden reads to its end.
    pipe: Option<ChildStdin>,
    warden: Child,
}

impl Leash {
    /// Starts the warden of a laboratory.
    pub(super) fn new(id: &LabId) -> Result<Self> {
        let mut warden = Command::new(own_program()?)
            .args(["warden", id.as_str()])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the warden")?;
        let pipe = warden.stdin.take();
        Ok(Self { pipe, warden })
    }

    /// The warden.
    pub(super) fn warden(&self) -> Option<ProcessId> {
        i32::try_from(self.warden.id()).ok().and_then(ProcessId::of)
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // The laboratory is detached or gone. The warden is waited for, so that it cannot mistake a later laboratory
        // of the same name for this one.
        self.pipe = None;
        if let Err(error) = self.warden.wait() {
            tracing::warn!("waiting for the warden: {error}");
        }
    }
}

/// Runs as the warden: waits for the end of the leash on standard input, then takes the laboratory down unless it
/// was detached or is gone.
///
/// # Errors
/// When it cannot be taken down.
pub fn guard(id: &LabId) -> Result<()> {
    // Ctrl-C goes to everyone in the terminal's session, and the warden must survive it.
    nix::unistd::setsid().context("leaving the session")?;
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).context("reading the leash")?;
    let paths = Paths::of(id);
    let _lock = Lock::acquire(&paths)?;
    match Record::read(&paths)? {
        Some(record) if record.phase != Phase::Detached => tear_down_locked(id),
        _ => Ok(()),
    }
}
