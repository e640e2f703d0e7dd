//! A laboratory: a real Kubernetes cluster on one machine, whose hosts are namespaces on a wire of their own.
//!
//! There is no daemon: a laboratory consists of namespaces, processes and files, and every command finds it by its ID.
//! Nothing appears in the machine's own network namespace, and no route leads into or out of the laboratory.
//!
//! A laboratory is *owned* until [`Lab::detach`] leaves it standing: it is taken down with the [`Lab`] that created it,
//! or with the process, however that ends.

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
pub mod preflight;
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
pub(crate) use node_agents::REGISTRIES;
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
    /// The leash of the process that created the laboratory, until it is detached: the end of the leash takes the
    /// laboratory down.
    leash: Option<warden::Leash>,
    /// The lock that keeps others from changing the laboratory while it is being created.
    making: Option<record::Lock>,
}

impl Lab {
    /// Brings a laboratory up and waits until all its nodes are Ready. Clears abandoned ones first.
    ///
    /// # Errors
    /// When the machine lacks something, a laboratory with this ID is already up, or a part does not come up in time.
    /// Everything that was created is then taken down again.
    pub fn up(spec: &Spec, progress: &Progress) -> Result<Self> {
        bringup::up(spec, progress)
    }

    /// Opens a laboratory that another process created. Dropping the result leaves the laboratory as it is.
    ///
    /// # Errors
    /// When no laboratory has this ID, or it is not up.
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

    /// Leaves the laboratory standing when this process ends.
    ///
    /// # Errors
    /// When the new state cannot be recorded.
    pub fn detach(&mut self) -> Result<()> {
        {
            let _lock = record::Lock::acquire(&self.paths)?;
            let mut record = self.record()?;
            record.phase = Phase::Detached;
            record.write(&self.paths)?;
        }
        // The warden sees the end of the leash, takes the lock, reads that the laboratory is detached, and ends.
        self.leash = None;
        Ok(())
    }

    /// Takes the laboratory down and checks that nothing is left.
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
        // The warden takes the lock before it ends.
        drop(lock);
        self.leash = None;
        result
    }

    /// Returns its ID.
    #[must_use]
    pub fn id(&self) -> &LabId {
        &self.spec.id
    }

    /// Returns its specification.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Returns names and addresses of all hosts.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the paths of its files.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Returns the directory of its binaries.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Returns the host with this name: `switch`, `control`, `node1`..., `client1`... .
    ///
    /// # Errors
    /// When the host does not exist.
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

    /// Returns the worker nodes in order.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn nodes(&self) -> Result<Vec<Host>> {
        let record = self.record()?;
        Ok(self.plan.nodes().map(|plan| self.host_of(&record, plan)).collect())
    }

    /// Returns the hosts outside the cluster in order.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn clients(&self) -> Result<Vec<Host>> {
        let record = self.record()?;
        Ok(self.plan.clients().map(|plan| self.host_of(&record, plan)).collect())
    }

    /// Returns the host of the control plane.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn control(&self) -> Result<Host> {
        self.host(&self.plan.control().name)
    }

    /// Returns a command in the switch's network namespace, which contains the bridges `lan0`... and the ports.
    pub fn switch_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        host::netns_command(&self.switch_netns(), program)
    }

    /// Returns the file that names the switch's network namespace.
    #[must_use]
    pub fn switch_netns(&self) -> PathBuf {
        netns::path(&self.plan.netns_name("switch"))
    }

    /// Sets an interface of a host up and gives it the addresses and routes of the host's first interface in the plan,
    /// which must have lost them before.
    ///
    /// # Errors
    /// When the host has no such interface, or the first one still has the addresses.
    pub fn give_first_addresses(&self, host: &Host, interface: &str) -> Result<()> {
        network::give_first_addresses(&self.plan, &host.plan, interface)
    }

    /// Cuts the power of a node or client: its ports go down at the switch, then all its processes are killed. Returns
    /// when they are gone.
    ///
    /// # Errors
    /// When the host does not exist, it is the control plane or the switch, or a part of it cannot be removed.
    pub fn power_off(&self, host: &str) -> Result<()> {
        power::off(self, host)
    }

    /// Restores the power: the host boots with an empty /run, an empty kernel state and its old disks. Returns when its
    /// first process runs; the caller has to wait for the Node to be Ready.
    ///
    /// # Errors
    /// When the host does not exist, is not powered off, or does not start.
    pub fn power_on(&self, host: &str) -> Result<()> {
        power::on(self, host)
    }

    /// Returns a kubectl command with the rights of the cluster admin, inside the cluster's network.
    pub fn kubectl<I, A>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = A>,
        A: AsRef<std::ffi::OsStr>,
    {
        let mut command =
            api::kubectl(&self.bin_dir, &self.api_netns(), &self.admin_kubeconfig(), &self.kubectl_cache());
        command.args(args);
        command
    }

    /// Returns the directory in which kubectl keeps what it has learnt of the API.
    fn kubectl_cache(&self) -> PathBuf {
        self.paths.run().join("kubectl-cache")
    }

    /// Returns the command of a program that acts as cluster admin, inside the cluster's network.
    pub fn admin_command(&self, program: &Path) -> Command {
        let mut command = host::netns_command(&self.api_netns(), program);
        command.env("KUBECONFIG", self.admin_kubeconfig());
        // What client-go learns of the API belongs to this laboratory: the next one has the same address.
        command.env("KUBECACHEDIR", self.kubectl_cache());
        command
    }

    /// Returns the kubeconfig of the cluster admin, which works inside the laboratory's network only.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.paths.kubeconfig("admin")
    }

    /// Starts a runtime whose threads can reach the API server.
    ///
    /// # Errors
    /// When the runtime cannot be started there.
    pub fn runtime(&self) -> Result<ApiRuntime> {
        ApiRuntime::new(&self.api_netns())
    }

    /// Creates a client with the rights of the cluster admin; it must be created and used on [`Lab::runtime`].
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        api::client(&self.admin_kubeconfig()).await
    }

    fn api_netns(&self) -> PathBuf {
        netns::path(&self.plan.netns_name(&self.plan.control().name))
    }

    /// Returns the directory of the logs of every process of the laboratory, with a directory per host.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.paths.logs()
    }

    /// Returns the API server's audit log: one `audit.k8s.io/v1` Event per line, at level Metadata.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.paths.audit_log()
    }

    /// Returns the recording of a segment since the laboratory came up: its ARP, ICMPv6 and Herald frames.
    #[must_use]
    pub fn capture(&self, segment: u8) -> PathBuf {
        self.paths.capture(segment)
    }

    /// Collects in `dir` what is needed to understand a failure: logs of every component and container, the objects,
    /// the events, the recordings of the segments.
    ///
    /// # Errors
    /// When `dir` cannot be written. A file lists the parts that could not be collected from a broken cluster.
    pub fn collect(&self, dir: &Path) -> Result<()> {
        collect::collect(self, dir)
    }

    /// Loads an image (an OCI or docker archive) into every node that is powered on.
    ///
    /// # Errors
    /// When a node refuses the image.
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
