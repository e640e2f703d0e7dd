//! Processes, told apart from a later one with the same number by their start time.

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
    /// Its number in the machine's process namespace.
    pub pid: i32,
    /// Clock ticks after boot at which it started (field 22 of /proc/PID/stat).
    pub started: u64,
}

struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

/// None when there is no such process.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold blanks and parentheses.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl ProcessId {
    /// The calling process.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id()).context("own process id")?;
        Self::of(pid).context("this process is not in /proc: is /proc mounted?")
    }

    /// The process that has this number now, if any.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, started: stat.started })
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// The first child of it.
    #[must_use]
    pub fn child(self) -> Option<Self> {
        all_pids().into_iter().find_map(|pid| {
            let stat = stat(pid)?;
            (stat.parent == self.pid).then_some(Self { pid, started: stat.started })
        })
    }

    /// Sends a signal; a process that is gone is no error.
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

    /// Collects its exit status if it is a dead child of this process, so that it leaves no zombie.
    pub fn reap(self) {
        // ECHILD: it is someone else's child, who will collect it.
        match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(_) | Err(Errno::ECHILD) => {}
            Err(errno) => tracing::warn!("collecting process {}: {errno}", self.pid),
        }
    }
}

/// All processes whose network namespace is the one at `netns`, but for the calling one.
///
/// # Errors
/// When `netns` cannot be looked at.
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
    fn a_dead_child_is_not_alive_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        crate::progress::Progress::quiet()
            .wait_for("the child's end", std::time::Duration::from_secs(10), || Ok((!id.is_alive()).then_some(())))
            .unwrap();
        id.reap();
        assert!(child.wait().is_err(), "it was collected already");
    }

    #[test]
    fn a_later_process_with_the_same_number_is_another() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started: own.started + 1, ..own }.is_alive());
    }

    #[test]
    fn the_own_namespace_holds_other_processes_than_this_one() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pids: Vec<i32> = in_netns(Path::new("/proc/self/ns/net")).unwrap().iter().map(|p| p.pid).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pids.contains(&i32::try_from(child.id()).unwrap()));
        assert!(!pids.contains(&i32::try_from(std::process::id()).unwrap()));
    }
}
