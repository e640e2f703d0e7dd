//! A laboratory: a real Kubernetes cluster on one machine, whose hosts are namespaces on a wire of their own.
//!
//! There is no daemon: a laboratory is namespaces, processes and files, and every verb finds it by its id.
//! Nothing appears in the machine's own network namespace, and no route leads into it or out of the laboratory.
//!
//! A laboratory is *owned* (it goes with the [`Lab`] that made it, or with the process, however it ends) until
//! [`Lab::detach`] leaves it standing.

mod api;
mod boot;
mod bringup;
mod bystander;
pub mod cgroup;
mod collect;
mod control_plane;
mod host;
pub mod init;
pub mod netns;
mod network;
mod node_agents;
mod paths;
mod pki;
pub mod plan;
mod power;
mod process;
mod record;
mod spec;
mod teardown;
mod warden;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

pub use api::ApiRuntime;
pub use boot::{own_program, start_host};
pub use bystander::{Bystanders, stand_by};
pub use host::Host;
pub(crate) use node_agents::CNI_PLUGINS;
pub use paths::Paths;
pub use plan::{HostPlan, Plan, Port, Role};
pub use process::ProcessId;
pub use record::{Phase, Record};
pub use spec::{InvalidLabId, InvalidSpec, LabId, ProxyMode, Spec};
pub use teardown::{Leftovers, clear_abandoned, tear_down};
pub use warden::guard;

use crate::progress::Progress;

/// A running laboratory.
#[derive(Debug)]
pub struct Lab {
    paths: Paths,
    plan: Plan,
    spec: Spec,
    bin_dir: PathBuf,
    /// Of the process that made it, until it is detached: what takes the laboratory down with it.
    leash: Option<warden::Leash>,
    /// While it is being made: keeps others from changing it.
    making: Option<record::Lock>,
}

impl Lab {
    /// Brings a laboratory up and waits until all its nodes are Ready. Clears abandoned ones first.
    ///
    /// # Errors
    /// When something is missing on the machine, one of this id is already up, or a part does not come up in time;
    /// what was made is taken down again.
    pub fn up(spec: &Spec, progress: &Progress) -> Result<Self> {
        bringup::up(spec, progress)
    }

    /// Opens the laboratory that someone else made. Dropping this leaves it as it is.
    ///
    /// # Errors
    /// When there is none of this id, or it is not up.
    pub fn open(id: &LabId) -> Result<Self> {
        let paths = Paths::of(id);
        let record = Record::read(&paths)?.with_context(|| format!("no lab {id} is up: `herald-lab up --id {id}`"))?;
        anyhow::ensure!(record.phase != Phase::Starting, "lab {id} is still coming up");
        anyhow::ensure!(!record.is_abandoned(), "lab {id} lost its owner: `herald-lab down --id {id}`");
        Ok(Self::of(&record))
    }

    fn of(record: &Record) -> Self {
        Self {
            paths: Paths::of(&record.spec.id),
            plan: Plan::of(&record.spec),
            spec: record.spec.clone(),
            bin_dir: record.bin_dir.clone(),
            leash: None,
            making: None,
        }
    }

    /// Leaves it standing when this process ends.
    ///
    /// # Errors
    /// When that cannot be recorded.
    pub fn detach(&mut self) -> Result<()> {
        {
            let _lock = record::Lock::acquire(&self.paths)?;
            let mut record = self.record()?;
            record.phase = Phase::Detached;
            record.write(&self.paths)?;
        }
        // Its warden sees the end of the leash, takes the lock, reads that the laboratory is detached, and goes.
        self.leash = None;
        Ok(())
    }

    /// Takes it down, and checks that nothing is left.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn down(mut self) -> Result<()> {
        self.tear_down()
    }

    fn tear_down(&mut self) -> Result<()> {
        let lock = match self.making.take() {
            Some(lock) => lock,
            None => record::Lock::acquire(&self.paths)?,
        };
        let result = teardown::tear_down_locked(&self.spec.id);
        // The warden takes the lock before it goes.
        drop(lock);
        self.leash = None;
        result
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &LabId {
        &self.spec.id
    }

    /// What it is made of.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Names and addresses of all hosts.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where its files are.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Where its binaries are.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// The host of this name: `switch`, `control`, `node1`..., `client1`... .
    ///
    /// # Errors
    /// When there is no such host.
    pub fn host(&self, name: &str) -> Result<Host> {
        let plan = self.plan.host(name).with_context(|| {
            let names: Vec<&str> = self.plan.hosts.iter().map(|host| host.name.as_str()).collect();
            format!("lab {} has no host {name}; it has {}", self.id(), names.join(", "))
        })?;
        Ok(self.host_of(&self.record()?, plan))
    }

    fn host_of(&self, record: &Record, plan: &HostPlan) -> Host {
        Host {
            plan: plan.clone(),
            netns: netns::path(&self.plan.netns_name(&plan.name)),
            init: record.hosts.get(&plan.name).map(|processes| processes.init),
            paths: self.paths.clone(),
        }
    }

    /// The worker nodes, in order.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn nodes(&self) -> Result<Vec<Host>> {
        let record = self.record()?;
        Ok(self.plan.nodes().map(|plan| self.host_of(&record, plan)).collect())
    }

    /// The hosts outside the cluster, in order.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn clients(&self) -> Result<Vec<Host>> {
        let record = self.record()?;
        Ok(self.plan.clients().map(|plan| self.host_of(&record, plan)).collect())
    }

    /// The host of the control plane.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn control(&self) -> Result<Host> {
        self.host(&self.plan.control().name)
    }

    /// A command in the switch's network namespace, where the bridges `lan0`... and the ports are.
    pub fn switch_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        host::netns_command(&self.switch_netns(), program)
    }

    /// File that names the switch's network namespace.
    #[must_use]
    pub fn switch_netns(&self) -> PathBuf {
        netns::path(&self.plan.netns_name("switch"))
    }

    /// Sets an interface of a host up and gives it the addresses and routes that the plan gives the host's first one, which
    /// must not have them any more.
    ///
    /// # Errors
    /// When the host has no such interface, or the first one still has them.
    pub fn give_first_addresses(&self, host: &Host, interface: &str) -> Result<()> {
        network::give_first_addresses(&self.plan, &host.plan, interface)
    }

    /// Takes power from a node or client: its ports go down at the switch, then all its processes are killed.
    /// Returns when they are gone.
    ///
    /// # Errors
    /// When there is no such host, it is the control plane or the switch, or something of it does not go.
    pub fn power_off(&self, host: &str) -> Result<()> {
        power::off(self, host)
    }

    /// Gives power back: the host boots with an empty /run, an empty kernel state and its old disks. Returns when
    /// its first process runs; wait for the Node to be Ready yourself.
    ///
    /// # Errors
    /// When there is no such host, it is not powered off, or it does not start.
    pub fn power_on(&self, host: &str) -> Result<()> {
        power::on(self, host)
    }

    /// kubectl as cluster admin, from inside the cluster's network.
    pub fn kubectl<I, A>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = A>,
        A: AsRef<std::ffi::OsStr>,
    {
        let mut command = api::kubectl(
            &self.bin_dir,
            &self.api_netns(),
            &self.admin_kubeconfig(),
            &self.paths.run().join("kubectl-cache"),
        );
        command.args(args);
        command
    }

    /// A program as cluster admin, from inside the cluster's network.
    pub fn admin_command(&self, program: &Path) -> Command {
        let mut command = host::netns_command(&self.api_netns(), program);
        command.env("KUBECONFIG", self.admin_kubeconfig());
        command
    }

    /// Kubeconfig of the cluster admin; works inside the laboratory's network only.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.paths.kubeconfig("admin")
    }

    /// A runtime whose threads are where the API server can be reached.
    ///
    /// # Errors
    /// When it cannot be started there.
    pub fn runtime(&self) -> Result<ApiRuntime> {
        ApiRuntime::new(&self.api_netns())
    }

    /// A client with the rights of the cluster admin; to be made and used on [`Lab::runtime`].
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        api::client(&self.admin_kubeconfig()).await
    }

    fn api_netns(&self) -> PathBuf {
        netns::path(&self.plan.netns_name(&self.plan.control().name))
    }

    /// Logs of every process of the laboratory, a directory per host.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.paths.logs()
    }

    /// The API server's audit log: one `audit.k8s.io/v1` Event a line, at level Metadata.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.paths.audit_log()
    }

    /// The recording of a segment since the laboratory came up: its ARP, ICMPv6 and Herald frames.
    #[must_use]
    pub fn capture(&self, segment: u8) -> PathBuf {
        self.paths.capture(segment)
    }

    /// Gathers what a person needs to understand a failure in `dir`: logs of every component and container, the
    /// objects, the events, the recordings of the segments.
    ///
    /// # Errors
    /// When `dir` cannot be written. What cannot be had from a broken cluster is noted there instead.
    pub fn collect(&self, dir: &Path) -> Result<()> {
        collect::collect(self, dir)
    }

    /// Makes an image (an OCI or docker archive) known to every node that is powered on.
    ///
    /// # Errors
    /// When a node refuses it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        node_agents::import_everywhere(&self.nodes()?, &self.bin_dir, archive)
    }

    fn record(&self) -> Result<Record> {
        Record::read(&self.paths)?.with_context(|| format!("lab {} is gone", self.id()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if (self.leash.is_some() || self.making.is_some())
            && let Err(error) = self.tear_down()
        {
            tracing::error!("taking lab {} down: {error:#}", self.spec.id);
        }
    }
}
