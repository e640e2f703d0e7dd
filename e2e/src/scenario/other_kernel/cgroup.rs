//! The laboratory on a machine with cgroup version 2 alone: each host is a subtree that delegates controllers, and pods
//! are accounted for there.

use anyhow::{Context, Result, ensure};

use crate::testbed::TestNamespace;
use herald_lab::cluster::{Host, netns};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.deploy_echo(1)?;
    for node in ns.bed.lab().nodes()? {
        let handed_down = read(&node, "/sys/fs/cgroup/cgroup.subtree_control")?;
        for controller in ["cpu", "memory", "pids"] {
            let found = handed_down.split_whitespace().any(|name| name == controller);
            ensure!(found, "{} hands down {handed_down:?}, not {controller}", node.name());
        }
        // At least the speaker's pod runs on each node.
        let find = ["/sys/fs/cgroup/kubepods", "-name", "cgroup.procs", "-exec", "cat", "{}", "+"];
        let processes = netns::output_of(node.command("find")?.args(find))?;
        ensure!(processes.lines().count() > 0, "no process of {} is in a pod's cgroup", node.name());
        let first = read(&node, "/proc/1/cgroup")?;
        ensure!(first.trim() == "0::/init", "the first process of {} is in {first:?}", node.name());
    }
    Ok(())
}

fn read(node: &Host, file: &str) -> Result<String> {
    netns::output_of(node.command("cat")?.arg(file)).with_context(|| format!("{file} on {}", node.name()))
}
