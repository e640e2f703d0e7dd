//! The choice of the cgroup in a version 2 hierarchy that contains the laboratories' cgroups, and the controllers that
//! reach it.
//!
//! A cgroup that contains processes cannot delegate controllers to its children, unless it is the root of the hierarchy
//! (the kernel's cgroup-v2.rst, "No Internal Process Constraint"). The cgroup of a login session contains processes and
//! belongs to systemd; one that systemd delegated (`Delegate=yes`) belongs to the processes in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::make;

/// Controllers that kubelet and runc use where the kernel offers them.
const WANTED: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// Controllers without which kubelet does not start.
const REQUIRED: [&str; 2] = ["memory", "pids"];

/// Child of a delegated cgroup that receives the processes of that cgroup.
const STARTER: &str = "starter";

/// Number of rounds in which the processes of a delegated cgroup are moved: a process that is started during a move is
/// moved in the next round.
const ROUNDS: usize = 10;

/// Returns the nearest cgroup at or above `own` that can delegate the required controllers. Makes it and those above it
/// delegate all controllers that kubelet uses. Does not go beyond a cgroup that systemd delegated.
///
/// # Errors
/// If no such cgroup exists, or the processes of a delegated cgroup cannot be moved.
pub(super) fn parent_for_labs(own: &Path) -> Result<PathBuf> {
    parent_in(&levels(own, is_delegated))
}

/// A cgroup at or above a process's own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    directory: PathBuf,
    /// Whether systemd delegated it to the processes in it.
    delegated: bool,
}

/// Returns the cgroups from `own` up to the delegated one, or to the root of the mount.
fn levels(own: &Path, is_delegated: impl Fn(&Path) -> bool) -> Vec<Level> {
    let mut levels = Vec::new();
    for directory in own.ancestors().take_while(|directory| directory.join("cgroup.controllers").exists()) {
        let delegated = is_delegated(directory);
        levels.push(Level { directory: directory.to_owned(), delegated });
        if delegated {
            break;
        }
    }
    levels
}

fn parent_in(levels: &[Level]) -> Result<PathBuf> {
    for (position, Level { directory, delegated }) in levels.iter().enumerate() {
        if !hands_required_down(directory) && hand_down(directory).is_err() {
            if !delegated {
                continue;
            }
            step_aside(directory)?;
        }
        // systemd does not delegate cpuset, io and hugetlb where no unit requires them. Without cpuset kubelet reports
        // FailedNodeAllocatableEnforcement once a minute.
        for above in levels[position..].iter().rev() {
            if let Err(error) = hand_down(&above.directory) {
                tracing::debug!("some controllers do not reach the laboratory: {error:#}");
            }
        }
        return Ok(directory.clone());
    }
    let own = levels.first().map_or(Path::new("/sys/fs/cgroup"), |level| &level.directory);
    bail!("no cgroup at or above {} can hand the controllers {} down", own.display(), REQUIRED.join(" and "))
}

fn hands_required_down(cgroup: &Path) -> bool {
    let handed_down = fs::read_to_string(cgroup.join("cgroup.subtree_control")).unwrap_or_default();
    REQUIRED.iter().all(|controller| handed_down.split_whitespace().any(|name| name == *controller))
}

/// Delegates all wanted controllers of a cgroup to its children.
///
/// # Errors
/// If the cgroup contains processes, or is not a cgroup of version 2.
pub(crate) fn hand_down(cgroup: &Path) -> Result<()> {
    let offered = cgroup.join("cgroup.controllers");
    let offered = fs::read_to_string(&offered).with_context(|| offered.display().to_string())?;
    let wanted: Vec<String> =
        offered.split_whitespace().filter(|name| WANTED.contains(name)).map(|name| format!("+{name}")).collect();
    let control = cgroup.join("cgroup.subtree_control");
    fs::write(&control, wanted.join(" ")).with_context(|| control.display().to_string())
}

/// Returns whether systemd marked a cgroup as delegated (systemd's CGROUP_DELEGATION.md; before version 251 only with the
/// `trusted` attribute).
fn is_delegated(cgroup: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|attribute| {
        let mut value = [0; 1];
        rustix::fs::getxattr(cgroup, *attribute, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// Moves the processes of a delegated cgroup to a child of it, so that it can delegate controllers.
fn step_aside(cgroup: &Path) -> Result<()> {
    let starter = cgroup.join(STARTER);
    make(&starter)?;
    let (from, to) = (cgroup.join("cgroup.procs"), starter.join("cgroup.procs"));
    for _ in 0..ROUNDS {
        let processes = fs::read_to_string(&from).with_context(|| from.display().to_string())?;
        for process in processes.lines() {
            match fs::write(&to, process) {
                // The process has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                moved => moved.with_context(|| format!("moving process {process} to {}", to.display()))?,
            }
        }
        if hand_down(cgroup).is_ok() {
            return Ok(());
        }
    }
    hand_down(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a tree of directories that look like cgroups, with the controllers that each delegates. `None` makes a
    /// cgroup refuse to delegate.
    fn tree(levels: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, handed_down) in levels {
            let cgroup = root.path().join(path);
            fs::create_dir_all(&cgroup).unwrap();
            fs::write(cgroup.join("cgroup.controllers"), "cpuset cpu io memory pids rdma\n").unwrap();
            match handed_down {
                Some(controllers) => fs::write(cgroup.join("cgroup.subtree_control"), controllers).unwrap(),
                // Writing to a directory fails, like writing to the file of a cgroup with processes.
                None => fs::create_dir(cgroup.join("cgroup.subtree_control")).unwrap(),
            }
        }
        root
    }

    fn handed_down(cgroup: &Path) -> String {
        fs::read_to_string(cgroup.join("cgroup.subtree_control")).unwrap()
    }

    const ALL: &str = "+cpuset +cpu +io +memory +pids";

    #[test]
    fn login_session_gets_every_controller_from_the_root_down() {
        let root = tree(&[
            ("root", Some("cpu memory pids")),
            ("root/user.slice", Some("cpu memory pids")),
            ("root/user.slice/user-0.slice", Some("memory pids")),
            ("root/user.slice/user-0.slice/session-1.scope", None),
        ]);
        let slice = root.path().join("root/user.slice/user-0.slice");
        let own = slice.join("session-1.scope");
        assert_eq!(parent_in(&levels(&own, |_| false)).unwrap(), slice);
        for cgroup in slice.ancestors().take(3) {
            assert_eq!(handed_down(cgroup), ALL, "{}", cgroup.display());
        }
    }

    #[test]
    fn nothing_beyond_a_delegated_cgroup_is_touched() {
        let root = tree(&[("root", Some("memory")), ("root/scope", Some("")), ("root/scope/starter", None)]);
        let scope = root.path().join("root/scope");
        let chosen = parent_in(&levels(&scope.join("starter"), |cgroup| cgroup.ends_with("scope"))).unwrap();
        assert_eq!(chosen, scope);
        assert_eq!((handed_down(&scope).as_str(), handed_down(&root.path().join("root")).as_str()), (ALL, "memory"));
    }

    #[test]
    fn processes_of_a_delegated_cgroup_are_moved() {
        let root = tree(&[("root", Some("cpu memory pids")), ("root/scope", None)]);
        let scope = root.path().join("root/scope");
        fs::write(scope.join("cgroup.procs"), "17\n").unwrap();
        let error = parent_in(&levels(&scope, |cgroup| cgroup == scope)).unwrap_err();
        assert!(format!("{error:#}").contains("root/scope/cgroup.subtree_control"), "{error:#}");
        assert_eq!(fs::read_to_string(scope.join("starter/cgroup.procs")).unwrap(), "17");
    }

    #[test]
    fn refusal_names_cgroup_and_controllers() {
        let root = tree(&[("root", None)]);
        let own = root.path().join("root");
        let error = parent_in(&levels(&own, |_| false)).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("no cgroup at or above {} can hand the controllers memory and pids down", own.display())
        );
    }
}
