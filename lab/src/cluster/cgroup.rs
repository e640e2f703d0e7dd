//! A subtree of cgroups per host, below the cgroup in which the laboratory was started, so that limits and accounting
//! of the starter still apply.

mod delegation;

pub(crate) use delegation::hand_down;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::spec::LabId;

/// One mounted cgroup v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Its controllers as /proc/self/cgroup names them: `memory`, `cpu,cpuacct`, `name=systemd`.
    pub controllers: String,
    /// Directory of the cgroup below which the laboratory's cgroups are created.
    pub parent: PathBuf,
}

/// The machine's cgroups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hierarchies {
    /// A hierarchy per controller.
    V1(Vec<Hierarchy>),
    /// One hierarchy for all controllers.
    V2 {
        /// Directory of the cgroup below which the laboratory's cgroups are created.
        parent: PathBuf,
    },
}

/// Cgroup of a host's first process on version 2, below the host's own: a cgroup that delegates controllers may not
/// contain processes itself.
const FIRST_PROCESS: &str = "init";

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: Vec<&'a str>,
}

/// Returns the cgroup file systems among the lines of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
fn cgroup_mounts(mountinfo: &str) -> Vec<Mount<'_>> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let mut file_system = file_system.split(' ');
            let found = Mount {
                root: mount.next()?,
                point: mount.next()?,
                kind: file_system.next()?,
                options: file_system.nth(1)?.split(',').collect(),
            };
            found.kind.starts_with("cgroup").then_some(found)
        })
        .collect()
}

/// Returns the directory of the cgroup `path` below a mount; `None` if the mount does not show it.
fn directory(mount: &Mount<'_>, path: &str) -> Option<PathBuf> {
    let below = Path::new(path).strip_prefix(mount.root).ok()?;
    Some(Path::new(mount.point).join(below))
}

/// Returns the starter's own cgroups from /proc/self/cgroup and /proc/self/mountinfo.
fn parse(own: &str, mountinfo: &str) -> Option<Hierarchies> {
    let mounts = cgroup_mounts(mountinfo);
    let lines = || own.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
    let v1: Vec<Hierarchy> = lines()
        .filter_map(|[_, controllers, path]: [&str; 3]| {
            let mount = mounts.iter().find(|mount| {
                mount.kind == "cgroup"
                    && !controllers.is_empty()
                    && controllers.split(',').all(|wanted| mount.options.contains(&wanted))
            })?;
            Some(Hierarchy { controllers: controllers.to_owned(), parent: directory(mount, path)? })
        })
        .collect();
    if v1.iter().any(|hierarchy| hierarchy.controllers.split(',').any(|name| name == "memory")) {
        return Some(Hierarchies::V1(v1));
    }
    lines().find_map(|[_, controllers, path]| {
        let mount = mounts.iter().find(|mount| mount.kind == "cgroup2" && controllers.is_empty())?;
        Some(Hierarchies::V2 { parent: directory(mount, path)? })
    })
}

impl Hierarchies {
    /// Returns the hierarchies of the calling process.
    ///
    /// # Errors
    /// When /proc cannot be read or no usable cgroup file system is mounted.
    pub fn discover() -> Result<Self> {
        let read = |file: &str| fs::read_to_string(file).with_context(|| file.to_owned());
        let found = parse(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
            .context("no cgroup file system with the memory controller is mounted below /sys/fs/cgroup")?;
        match found {
            Self::V1(_) => Ok(found),
            Self::V2 { parent } => Ok(Self::V2 { parent: delegation::parent_for_labs(&parent)? }),
        }
    }

    /// Returns the existing cgroups of a laboratory, at most one per hierarchy.
    #[must_use]
    pub fn existing(&self, id: &LabId) -> Vec<PathBuf> {
        self.lab_directories(id).into_iter().filter(|cgroup| cgroup.exists()).collect()
    }

    fn lab_directories(&self, id: &LabId) -> Vec<PathBuf> {
        let name = format!("herald-lab-{id}");
        match self {
            Self::V1(hierarchies) => hierarchies.iter().map(|hierarchy| hierarchy.parent.join(&name)).collect(),
            Self::V2 { parent } => vec![parent.join(&name)],
        }
    }

    /// Creates a host's cgroups.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn create(&self, id: &LabId, host: &str) -> Result<()> {
        for lab in self.lab_directories(id) {
            let cgroup = lab.join(host);
            make(&lab)?;
            if let Self::V2 { .. } = self {
                delegation::hand_down(&lab)?;
            }
            make(&cgroup)?;
        }
        Ok(())
    }

    /// Puts the calling process in a host's cgroups, in a cgroup namespace that begins there. The program that replaces
    /// the process, and its children, stay there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self, id: &LabId, host: &str) -> Result<()> {
        let own: Vec<PathBuf> = self.lab_directories(id).iter().map(|lab| lab.join(host)).collect();
        own.iter().try_for_each(|cgroup| join(cgroup))?;
        // The root of a new cgroup namespace is the cgroup of its creator (cgroup_namespaces(7)).
        unshare(CloneFlags::CLONE_NEWCGROUP).context("making a cgroup namespace")?;
        match self {
            Self::V1(_) => Ok(()),
            Self::V2 { .. } => own.iter().try_for_each(|cgroup| {
                let first = cgroup.join(FIRST_PROCESS);
                make(&first)?;
                join(&first)
            }),
        }
    }

    /// Removes a host's cgroups; all processes in them must be gone.
    ///
    /// # Errors
    /// When one is still in use.
    pub fn remove_host(&self, id: &LabId, host: &str) -> Result<()> {
        self.lab_directories(id).iter().try_for_each(|lab| remove_tree(&lab.join(host)))
    }

    /// Removes all cgroups of a laboratory; all processes in them must be gone.
    ///
    /// # Errors
    /// When one is still in use.
    pub fn remove_lab(&self, id: &LabId) -> Result<()> {
        self.lab_directories(id).iter().try_for_each(|lab| remove_tree(lab))
    }

    /// Mounts the host's cgroups on /sys/fs/cgroup, inside a host whose cgroup namespace begins at its own cgroups.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn mount_inside(&self) -> Result<()> {
        let root = Path::new("/sys/fs/cgroup");
        match self {
            Self::V1(hierarchies) => {
                mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                    .context("mounting tmpfs on /sys/fs/cgroup")?;
                hierarchies.iter().try_for_each(|hierarchy| mount_v1(root, &hierarchy.controllers))
            }
            Self::V2 { .. } => {
                mount(Some("cgroup2"), root, Some("cgroup2"), MsFlags::empty(), None::<&str>)
                    .context("mounting cgroup2 on /sys/fs/cgroup")?;
                delegation::hand_down(root)
            }
        }
    }
}

fn mount_v1(root: &Path, controllers: &str) -> Result<()> {
    let name = controllers.strip_prefix("name=").unwrap_or(controllers);
    let point = root.join(name);
    make(&point)?;
    mount(Some("cgroup"), &point, Some("cgroup"), MsFlags::empty(), Some(controllers))
        .with_context(|| format!("mounting the cgroup controllers {controllers}"))?;
    let parts: Vec<&str> = name.split(',').collect();
    if parts.len() > 1 {
        for part in parts {
            std::os::unix::fs::symlink(name, root.join(part)).with_context(|| format!("linking {part} to {name}"))?;
        }
    }
    Ok(())
}

/// Puts the calling process in a cgroup.
fn join(cgroup: &Path) -> Result<()> {
    let processes = cgroup.join("cgroup.procs");
    fs::write(&processes, "0").with_context(|| format!("entering {}", processes.display()))
}

/// Creates a cgroup. A new cpuset of version 1 may not contain a process until it has CPUs and memory nodes.
fn make(cgroup: &Path) -> Result<()> {
    match fs::create_dir(cgroup) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("making {}", cgroup.display())),
    }
    let Some(parent) = cgroup.parent() else { return Ok(()) };
    if cgroup.join("cgroup.clone_children").exists() && cgroup.join("cpuset.cpus").exists() {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let inherited =
                fs::read_to_string(parent.join(file)).with_context(|| format!("{file} of {}", parent.display()))?;
            fs::write(cgroup.join(file), inherited.trim())
                .with_context(|| format!("{file} of {}", cgroup.display()))?;
        }
        fs::write(cgroup.join("cgroup.clone_children"), "1")
            .with_context(|| format!("cgroup.clone_children of {}", cgroup.display()))?;
    }
    Ok(())
}

fn remove_tree(cgroup: &Path) -> Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| cgroup.display().to_string()),
    };
    for entry in entries {
        let entry = entry.with_context(|| cgroup.display().to_string())?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", cgroup.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_hierarchies_are_parsed() {
        let own = "4:memory:/runner/7f\n3:cpuset:/\n2:cpu,cpuacct:/batch\n1:name=systemd:/\n0::/\n";
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n\
            35 31 0:32 /runner /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let hierarchy =
            |controllers: &str, parent: &str| Hierarchy { controllers: controllers.into(), parent: parent.into() };
        assert_eq!(
            parse(own, mountinfo),
            Some(Hierarchies::V1(vec![
                hierarchy("memory", "/sys/fs/cgroup/memory/7f"),
                hierarchy("cpuset", "/sys/fs/cgroup/cpuset"),
                hierarchy("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/batch"),
                hierarchy("name=systemd", "/sys/fs/cgroup/systemd"),
            ]))
        );
    }

    #[test]
    fn version_2_hierarchy_is_parsed() {
        let mountinfo = "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            parse("0::/user.slice/user-0.slice/session-1.scope\n", mountinfo),
            Some(Hierarchies::V2 { parent: "/sys/fs/cgroup/user.slice/user-0.slice/session-1.scope".into() })
        );
    }

    #[test]
    fn missing_mount_yields_no_hierarchy() {
        assert_eq!(parse("0::/\n", "31 23 0:28 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
