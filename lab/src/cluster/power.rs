//! Power-off and power-on of hosts.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::plan::{HostPlan, Role};
use super::record::Lock;
use super::{Lab, boot, netns, network, process};
use crate::progress::Progress;

/// Upper bound as for a teardown: a second is usual.
const GONE_WITHIN: Duration = Duration::from_secs(60);

fn machine<'a>(lab: &'a Lab, name: &str) -> Result<&'a HostPlan> {
    let host = lab.plan.host(name).with_context(|| format!("lab {} has no host {name}", lab.id()))?;
    match host.role {
        Role::Node(_) | Role::Client(_) => Ok(host),
        Role::Switch | Role::Control => bail!("{name} cannot be powered off: only nodes and clients can"),
    }
}

pub(super) fn off(lab: &Lab, name: &str) -> Result<()> {
    let host = machine(lab, name)?;
    let _lock = Lock::acquire(&lab.paths)?;
    let mut record = lab.record()?;
    // The network namespace outlives its processes, and its kernel would go on answering ARP.
    network::set_ports(&lab.plan, host, false)?;
    let processes = record.hosts.get(name).copied();
    if let Some(processes) = processes {
        processes.init.signal(Signal::SIGKILL)?;
    }
    let namespace = netns::path(&lab.plan.netns_name(name));
    Progress::quiet().wait_for(&format!("the processes of {name} to end"), GONE_WITHIN, || {
        let mut alive = process::in_netns(&namespace)?;
        alive.extend(
            processes.iter().flat_map(|processes| [processes.init, processes.launcher]).filter(|p| p.is_alive()),
        );
        for process in &alive {
            process.signal(Signal::SIGKILL)?;
            process.reap();
        }
        Ok(alive.is_empty().then_some(()))
    })?;
    if let Some(processes) = processes {
        processes.launcher.reap();
    }
    Progress::quiet().wait_for(&format!("the cgroups of {name} to be empty"), GONE_WITHIN, || {
        Ok(record.cgroups.remove_host(&record.spec.id, name).is_ok().then_some(()))
    })?;
    record.hosts.remove(name);
    record.write(&lab.paths)
}

pub(super) fn on(lab: &Lab, name: &str) -> Result<()> {
    let host = machine(lab, name)?;
    let _lock = Lock::acquire(&lab.paths)?;
    let mut record = lab.record()?;
    if record.hosts.get(name).is_some_and(|processes| processes.init.is_alive()) {
        bail!("{name} is not powered off");
    }
    // A rebooted kernel has no bridges, rules or connections.
    network::remove_host(&lab.plan, host)?;
    network::create_host(&lab.plan, host)?;
    let launcher = boot::launch(&record, name)?;
    let processes = boot::await_init(&lab.paths, name, launcher, &Progress::quiet())?;
    record.hosts.insert(name.to_owned(), processes);
    record.write(&lab.paths)
}
