//! The teardown of a laboratory in any state, with a check that nothing is left.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::cgroup::Hierarchies;
use super::netns;
use super::paths::Paths;
use super::plan::netns_prefix;
use super::process::{ProcessId, in_netns};
use super::record::{Lock, Record};
use super::spec::LabId;
use crate::progress::Progress;

/// A killed node unmounts its volumes and ends its pods' namespaces within a second; the rest is a margin for a busy
/// machine.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// The remaining parts of a laboratory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Names of network namespaces.
    pub namespaces: Vec<String>,
    /// Processes inside them.
    pub processes: Vec<ProcessId>,
    /// Mount points below its directories.
    pub mounts: Vec<PathBuf>,
    /// Its cgroups.
    pub cgroups: Vec<PathBuf>,
    /// Its directories.
    pub directories: Vec<PathBuf>,
}

impl Leftovers {
    /// Finds the remaining parts. Without a record, the cgroups are searched for below the caller's own.
    ///
    /// # Errors
    /// When /proc or /run cannot be read.
    pub fn of(id: &LabId) -> Result<Self> {
        let paths = Paths::of(id);
        let namespaces = netns::list(&netns_prefix(id))?;
        let mut processes = Vec::new();
        for name in &namespaces {
            processes.extend(in_netns(&netns::path(name))?);
        }
        let directories: Vec<PathBuf> = [paths.run(), paths.data()]
            .into_iter()
            .filter(|directory| directory.exists())
            .map(Path::to_owned)
            .collect();
        let mounts = mounts_below(&directories)?;
        let cgroups = hierarchies(&paths)?.existing(id);
        Ok(Self { namespaces, processes, mounts, cgroups, directories })
    }

    /// Returns whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Takes a laboratory down: kills the processes in its namespaces (and no others), waits until they are gone, then
/// removes namespaces, cgroups and files. The function succeeds if the laboratory does not exist.
///
/// # Errors
/// When a part cannot be removed; a later call continues where this one stopped.
pub fn tear_down(id: &LabId) -> Result<()> {
    let paths = Paths::of(id);
    let _lock = Lock::acquire(&paths)?;
    tear_down_locked(id)
}

pub(super) fn tear_down_locked(id: &LabId) -> Result<()> {
    let paths = Paths::of(id);
    let record = readable_record(&paths);
    let patience = Progress::quiet();
    patience.wait_for(&format!("the processes of lab {id} to end"), GONE_WITHIN, || {
        let mut alive = Leftovers::of(id)?.processes;
        if let Some(record) = &record {
            // A launcher joins the namespace a moment after its start.
            alive.extend(
                record.hosts.values().flat_map(|host| [host.launcher, host.init]).filter(|process| process.is_alive()),
            );
        }
        for process in &alive {
            process.signal(Signal::SIGKILL)?;
            process.reap();
        }
        Ok(alive.is_empty().then_some(()))
    })?;
    if let Some(record) = &record {
        for host in record.hosts.values() {
            host.launcher.reap();
        }
    }
    for mount in Leftovers::of(id)?.mounts.iter().rev() {
        nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", mount.display()))?;
    }
    for name in netns::list(&netns_prefix(id))? {
        netns::delete(&name)?;
    }
    let cgroups = hierarchies(&paths)?;
    // A killed process leaves its cgroup a moment after it has disappeared from /proc.
    let mut last = None;
    let emptied = patience.wait_for("the cgroups to be empty", GONE_WITHIN, || {
        last = cgroups.remove_lab(id).err();
        Ok(last.is_none().then_some(()))
    });
    if let (Err(error), Some(last)) = (emptied, last) {
        return Err(last.context(error.to_string()));
    }
    // The record is removed last, so that an interrupted teardown can be continued.
    remove_directory(paths.data())?;
    remove_directory(paths.run())?;
    let left = Leftovers::of(id)?;
    if !left.is_empty() {
        bail!("lab {id} left something behind: {left:?}");
    }
    Ok(())
}

/// Reads the record and ignores a damaged one: a damaged record must not prevent the removal of the rest, to which it
/// only adds what cannot be found otherwise.
fn readable_record(paths: &Paths) -> Option<Record> {
    Record::read(paths).unwrap_or_else(|error| {
        tracing::warn!("ignoring a damaged record: {error:#}");
        None
    })
}

fn hierarchies(paths: &Paths) -> Result<Hierarchies> {
    readable_record(paths).map_or_else(Hierarchies::discover, |record| Ok(record.cgroups))
}

/// Takes down every laboratory that is not detached and whose owner is gone; returns their IDs.
///
/// # Errors
/// When a laboratory cannot be taken down.
pub fn clear_abandoned() -> Result<Vec<LabId>> {
    let mut cleared = Vec::new();
    for id in Paths::known_ids().context("listing laboratories")? {
        let paths = Paths::of(&id);
        // Another process works on this laboratory, so it is not abandoned.
        let Some(_lock) = Lock::try_acquire(&paths)? else { continue };
        // A laboratory without a record belongs to a process that died before it could write one.
        let record =
            Record::read(&paths).with_context(|| format!("take lab {id} down: `herald-lab down --id {id}`"))?;
        if record.is_none_or(|record| record.is_abandoned()) {
            tear_down_locked(&id).with_context(|| format!("clearing lab {id}"))?;
            cleared.push(id);
        }
    }
    Ok(cleared)
}

/// Returns the mount points at or below these directories, in the order of mounting.
fn mounts_below(directories: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|point| directories.iter().any(|directory| point.starts_with(directory)))
        .collect())
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}
