//! The first process of a host: it sets up the host's view of the files, then starts its services and keeps them
//! running.

mod mounts;
mod supervisor;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cgroup::Hierarchies;

/// The instructions for a host's first process, which reads them from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitSpec {
    /// The host's name.
    pub hostname: String,
    /// Directory for its private files on disk, which the host sees as /var/lib and /var/log.
    pub data: PathBuf,
    /// Directories that are visible at the same path as on the machine, even below the host's own /tmp and /run.
    pub visible: Vec<PathBuf>,
    /// Files below its own /etc, by their path there, with their content.
    pub etc: BTreeMap<PathBuf, String>,
    /// The machine's cgroups; those of the host are mounted on /sys/fs/cgroup.
    pub cgroups: Hierarchies,
    /// Directory of the `.pid` and `.hold` files of its services.
    pub services_dir: PathBuf,
    /// Directory of the services' logs.
    pub logs_dir: PathBuf,
    /// Its services, started in this order.
    pub services: Vec<Service>,
}

/// A process that a host keeps running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment in addition to PATH, HOME and TMPDIR.
    pub env: BTreeMap<String, String>,
    /// The other service that must answer before the start.
    pub after: Option<Ready>,
}

/// A check whether another service is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// A server accepts TCP connections at this address.
    Tcp(SocketAddr),
    /// A server accepts connections on this local socket.
    Unix(PathBuf),
}

impl Ready {
    /// Returns whether the check succeeds.
    pub(super) fn answers(&self) -> bool {
        match self {
            // Every address is at most a bridge away, so a timeout of a second means that no server listens.
            Self::Tcp(address) => TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok(),
            Self::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }
}

/// Runs as the first process of a host until SIGTERM. Writes `ready` when the files are in place and the services
/// start.
///
/// # Errors
/// When a mount or a file cannot be created.
pub fn run(spec: &Path, ready: &Path) -> Result<()> {
    let text = std::fs::read(spec).with_context(|| spec.display().to_string())?;
    let spec: InitSpec = serde_json::from_slice(&text).with_context(|| spec.display().to_string())?;
    mounts::make(&spec)?;
    nix::unistd::sethostname(&spec.hostname).context("setting the host name")?;
    supervisor::run(&spec, ready)
}
