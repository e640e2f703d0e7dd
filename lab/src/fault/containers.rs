//! The processes of a container, found without the API server: a fault must be possible while the API server is away.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::pods::PodFound;
use crate::cluster::netns::output_of;
use crate::cluster::{Host, ProcessId};

/// A running container.
pub(super) struct Container {
    pub(super) id: String,
    processes: Vec<Process>,
}

struct Process {
    id: ProcessId,
    /// Whether it is the first process of the container.
    first: bool,
}

impl Container {
    /// Returns the running container of a pod on its node.
    pub(super) fn of(pod: &PodFound, host: &Host, bin_dir: &Path) -> Result<Self> {
        let filter = format!(
            "labels.\"io.kubernetes.pod.uid\"=={},labels.\"io.kubernetes.container.name\"=={}",
            pod.uid, pod.container
        );
        let mut list = host.command(bin_dir.join("ctr"))?;
        let ids = output_of(list.args(["--namespace", "k8s.io", "containers", "list", "--quiet", &filter]))?;
        // The runtime keeps the ended container of a restarted one for its log.
        let running = ids.lines().map(Self::with_id).find(|found| found.as_ref().is_ok_and(Self::runs));
        running.with_context(|| format!("container {} of pod {pod} does not run on {}", pod.container, pod.node))?
    }

    /// Returns the container with this ID, which may have ended.
    pub(super) fn with_id(id: &str) -> Result<Self> {
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc").context("/proc")? {
            let entry = entry.context("/proc")?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end between the reads of the directory and of its files.
            let Ok(cgroup) = fs::read_to_string(entry.path().join("cgroup")) else { continue };
            if !is_in(&cgroup, id) {
                continue;
            }
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let Some(process) = ProcessId::of(pid) else { continue };
            processes.push(Process { id: process, first: is_first(&status) });
        }
        Ok(Self { id: id.to_owned(), processes })
    }

    pub(super) fn runs(&self) -> bool {
        self.processes.iter().any(|process| process.id.is_alive())
    }

    /// Sends a signal to the first process, like the runtime when it ends a container.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        match self.processes.iter().find(|process| process.first).or(self.processes.first()) {
            Some(process) => process.id.signal(signal),
            None => bail!("container {} has no process", self.id),
        }
    }

    /// Returns whether its first process has ended.
    pub(super) fn first_has_ended(&self) -> bool {
        !self.processes.iter().any(|process| process.first && process.id.is_alive())
    }

    /// Sends a signal to every process.
    pub(super) fn signal_all(&self, signal: Signal) -> Result<()> {
        self.processes.iter().try_for_each(|process| process.id.signal(signal))
    }
}

/// Returns whether one of the cgroups is the container's or below it. The container's ID is the name of its cgroup
/// directory.
fn is_in(cgroup: &str, id: &str) -> bool {
    cgroup.lines().any(|line| line.split('/').any(|part| part == id))
}

/// Returns whether the process has number 1 in the innermost of its process namespaces.
fn is_first(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|numbers| numbers.split_whitespace().last())
        .is_some_and(|number| number == "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    const V1: &str = "12:pids:/lab/node1/kubepods/besteffort/pod7f/c0ffee\n1:name=systemd:/lab/node1\n";
    const V2: &str = "0::/lab/node1/kubepods/besteffort/pod7f/c0ffee/init\n";

    #[test_case(V1, "c0ffee", true; "cgroup v1")]
    #[test_case(V2, "c0ffee", true; "cgroup v2, below the container's")]
    #[test_case(V1, "c0ff", false; "only the beginning")]
    #[test_case(V1, "deadbeef", false; "another container")]
    fn membership_is_read_from_cgroups(cgroup: &str, id: &str, expected: bool) {
        assert_eq!(is_in(cgroup, id), expected);
    }

    #[test_case("Name:\tx\nNSpid:\t4711\t88\t1\n", true; "first")]
    #[test_case("Name:\tx\nNSpid:\t4711\t88\t12\n", false; "later")]
    #[test_case("Name:\tx\nNSpid:\t4711\t91\n", false; "with the host's process namespace")]
    #[test_case("Name:\tx\n", false; "an old kernel")]
    fn first_process_is_recognised(status: &str, expected: bool) {
        assert_eq!(is_first(status), expected);
    }
}
