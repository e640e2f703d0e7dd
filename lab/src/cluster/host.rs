//! A host of a running laboratory: its properties, and commands that run on it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use pnet::util::MacAddr;

use super::netns;
use super::paths::Paths;
use super::plan::{HostPlan, Port, Role};
use super::process::ProcessId;

/// A host of a running laboratory.
#[derive(Clone, Debug)]
pub struct Host {
    pub(super) plan: HostPlan,
    pub(super) netns: PathBuf,
    pub(super) init: Option<ProcessId>,
    pub(super) paths: Paths,
}

impl Host {
    /// Returns its name; for a node, also the name of its Node object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Returns its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.plan.role
    }

    /// Returns the file that names its network namespace, for [`netns::inside`] and similar functions.
    #[must_use]
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Returns its first process in the machine's process namespace; `None` while it is powered off.
    #[must_use]
    pub fn init(&self) -> Option<ProcessId> {
        self.init.filter(|init| init.is_alive())
    }

    /// Returns the process ID of its first process in the machine's process namespace.
    ///
    /// # Errors
    /// When the host is powered off.
    pub fn pid(&self) -> Result<i32> {
        let init = self.init().with_context(|| format!("{} is powered off", self.name()))?;
        Ok(init.pid)
    }

    /// Returns its port in a segment.
    ///
    /// # Errors
    /// When the host is not on that segment.
    pub fn port(&self, segment: u8) -> Result<&Port> {
        self.plan.port(segment).with_context(|| format!("{} is not on segment lan{segment}", self.name()))
    }

    /// Returns its IPv4 and IPv6 address on a segment; none if it is not on the segment.
    #[must_use]
    pub fn addresses(&self, segment: u8) -> Vec<IpAddr> {
        self.plan.addresses(segment)
    }

    /// Returns the MAC of its interface on a segment.
    ///
    /// # Errors
    /// When the host is not on that segment.
    pub fn mac(&self, segment: u8) -> Result<MacAddr> {
        self.port(segment).map(|port| port.mac)
    }

    /// Returns the name of its interface on a segment.
    ///
    /// # Errors
    /// When the host is not on that segment.
    pub fn interface(&self, segment: u8) -> Result<&str> {
        self.port(segment).map(|port| port.interface.as_str())
    }

    /// Returns the name of its switch port on a segment, in the switch's namespace.
    ///
    /// # Errors
    /// When the host is not on that segment.
    pub fn switch_port(&self, segment: u8) -> Result<&str> {
        self.port(segment).map(|port| port.switch_port.as_str())
    }

    /// Returns a command that runs inside *all* namespaces of the host, and ends when the host is powered off.
    ///
    /// `program` is looked up in the host's view of the files: the machine's files, except for /run, /tmp, /etc,
    /// /var/lib and /var/log, which are the host's own. (The directories of the laboratory, of its binaries and of the
    /// program that started it are visible everywhere.) The started process is `nsenter` with the program as its child:
    /// a SIGKILL to it does not reach the program.
    ///
    /// # Errors
    /// When the host is powered off.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.pid()?))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"])
            .arg(program);
        Ok(command)
    }

    /// Returns a command that runs in the host's network namespace only, with the machine's files and processes. The
    /// program replaces `nsenter` in the same process, so signals reach it. Powering the host off does not end it, but
    /// taking the laboratory down does.
    pub fn net_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        netns_command(&self.netns, program)
    }

    /// Runs `work` on a thread of its own inside the host's network namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `work` fails.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        netns::inside(&self.netns, work)
    }

    /// Sends a signal (with its name for `kill -s`: `STOP`, `CONT`, `KILL`, `TERM`) to the process of one of the host's
    /// services: `etcd`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `containerd`, `kubelet`,
    /// `kube-proxy`. A service that ends is restarted, unless it is held ([`Host::hold_service`]).
    ///
    /// # Errors
    /// When the service does not exist or does not run, or the host is powered off.
    pub fn signal_service(&self, service: &str, signal: &str) -> Result<()> {
        let pid = self.service_pid(service)?.with_context(|| format!("{service} does not run on {}", self.name()))?;
        netns::run(self.command("kill")?.args(["-s", signal, &pid.to_string()]))
    }

    /// Returns the process ID of a service *within the host*; `None` while it does not run.
    ///
    /// # Errors
    /// When the host has no such service.
    pub fn service_pid(&self, service: &str) -> Result<Option<i32>> {
        let file = self.service_file(service, "pid");
        match std::fs::read_to_string(&file) {
            Ok(text) if text.is_empty() => Ok(None),
            Ok(text) => text.trim().parse().map(Some).with_context(|| format!("{} holds {text:?}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{} has no service {service}", self.name())
            }
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    /// Stops a service and keeps it stopped until [`Host::release_service`].
    ///
    /// # Errors
    /// When the service does not exist, or the host is powered off.
    pub fn hold_service(&self, service: &str) -> Result<()> {
        let running = self.service_pid(service)?;
        let file = self.service_file(service, "hold");
        std::fs::write(&file, "").with_context(|| file.display().to_string())?;
        if running.is_some() {
            self.signal_service(service, "KILL")?;
        }
        Ok(())
    }

    /// Lets a held service run again; it starts within 100 ms.
    ///
    /// # Errors
    /// When the hold cannot be removed.
    pub fn release_service(&self, service: &str) -> Result<()> {
        let file = self.service_file(service, "hold");
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| file.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Returns the log file of one of its services.
    #[must_use]
    pub fn service_log(&self, service: &str) -> PathBuf {
        self.paths.host_logs(self.name()).join(format!("{service}.log"))
    }

    fn service_file(&self, service: &str, kind: &str) -> PathBuf {
        self.paths.host_conf(self.name()).join("services").join(format!("{service}.{kind}"))
    }
}

/// Returns a command in a network namespace, and in no other namespace of the laboratory.
pub(super) fn netns_command(netns: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg("--").arg(program);
    command
}
