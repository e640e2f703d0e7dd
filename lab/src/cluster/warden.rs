//! The warden: a small process that outlives the owner of a laboratory, and takes the laboratory down when the owner
//! ends for any reason.

use std::io::Read;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

use super::boot::own_program;
use super::paths::Paths;
use super::process::ProcessId;
use super::record::{Lock, Phase, Record};
use super::spec::LabId;
use super::teardown::tear_down_locked;

/// The link between the owner of a laboratory and the warden. Its end, by a drop or by the death of the process, wakes
/// the warden.
#[derive(Debug)]
pub(super) struct Leash {
    /// The writing end of a pipe that the warden reads until it is closed.
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

    /// Returns the process of the warden.
    pub(super) fn warden(&self) -> Option<ProcessId> {
        i32::try_from(self.warden.id()).ok().and_then(ProcessId::of)
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // The laboratory is detached or gone. The drop waits for the warden, so that the warden cannot mistake a later
        // laboratory with the same ID for this one.
        self.pipe = None;
        if let Err(error) = self.warden.wait() {
            tracing::warn!("waiting for the warden: {error}");
        }
    }
}

/// Runs as the warden: waits for the end of the leash on standard input, then takes the laboratory down unless it was
/// detached or is gone.
///
/// # Errors
/// When the laboratory cannot be taken down.
pub fn guard(id: &LabId) -> Result<()> {
    // Ctrl-C reaches every process of the terminal's session, and the warden must survive it.
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
