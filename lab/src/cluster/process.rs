//! Processes, distinguished by their start time from a later one with the same process ID.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that was seen running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its process ID in the machine's process namespace.
    pub pid: i32,
    /// Clock ticks after boot at which it started (field 22 of /proc/PID/stat).
    pub started: u64,
}

struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

/// Returns `None` if the process does not exist.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself contain blanks and parentheses.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl ProcessId {
    /// Returns the calling process.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id()).context("own process id")?;
        Self::of(pid).context("this process is not in /proc: is /proc mounted?")
    }

    /// Returns the process that has this process ID now, if any.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Returns whether the process still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Returns its first child.
    #[must_use]
    pub fn child(self) -> Option<Self> {
        all_pids().into_iter().find_map(|pid| {
            let stat = stat(pid)?;
            (stat.parent == self.pid).then_some(Self { pid, started: stat.started })
        })
    }

    /// Sends a signal. The function succeeds if the process is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno).with_context(|| format!("sending {signal} to process {}", self.pid)),
        }
    }

    /// Reaps the process if it is an ended child of this process, so that no zombie is left.
    pub fn reap(self) {
        // ECHILD: the process is the child of another one, which will reap it.
        match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(_) | Err(Errno::ECHILD) => {}
            Err(errno) => tracing::warn!("collecting process {}: {errno}", self.pid),
        }
    }
}

/// Returns all processes whose network namespace is the one at `netns`, except for the calling one.
///
/// # Errors
/// When `netns` cannot be accessed.
pub fn in_netns(netns: &Path) -> Result<Vec<ProcessId>> {
    use std::os::unix::fs::MetadataExt;
    let wanted = fs::metadata(netns).with_context(|| format!("looking at {}", netns.display()))?;
    let own = std::process::id();
    Ok(all_pids()
        .into_iter()
        .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != own))
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| found.ino() == wanted.ino() && found.dev() == wanted.dev())
        })
        .filter_map(ProcessId::of)
        .collect())
}

fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_child_is_not_alive_before_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        crate::progress::Progress::quiet()
            .wait_for("the child's end", std::time::Duration::from_secs(10), || Ok((!id.is_alive()).then_some(())))
            .unwrap();
        id.reap();
        assert!(child.wait().is_err(), "it was collected already");
    }

    #[test]
    fn later_process_with_the_same_pid_is_another() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn own_namespace_lists_only_other_processes() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pids: Vec<i32> = in_netns(Path::new("/proc/self/ns/net")).unwrap().iter().map(|p| p.pid).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pids.contains(&i32::try_from(child.id()).unwrap()));
        assert!(!pids.contains(&i32::try_from(std::process::id()).unwrap()));
    }
}
