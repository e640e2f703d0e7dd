//! The first process of a host: makes its view of the files, then starts its services and keeps them running.

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

/// Everything a host's first process must know; it reads it from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitSpec {
    /// The host's name.
    pub hostname: String,
    /// Directory for its private files on disk: what it sees as /var/lib and /var/log.
    pub data: PathBuf,
    /// Directories to see at the same path as on the machine, also below its own /tmp and /run.
    pub visible: Vec<PathBuf>,
    /// Files below its own /etc, by their path there, and their text.
    pub etc: BTreeMap<PathBuf, String>,
    /// The machine's cgroups, the host's own of which are mounted on /sys/fs/cgroup.
    pub cgroups: Hierarchies,
    /// Directory of the `.pid` and `.hold` files of its services.
    pub services_dir: PathBuf,
    /// Directory of their logs.
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
    /// Environment beside PATH, HOME and TMPDIR.
    pub env: BTreeMap<String, String>,
    /// What must answer before it is started.
    pub after: Option<Ready>,
}

/// A sign that another service is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// Something accepts TCP connections here.
    Tcp(SocketAddr),
    /// Something accepts connections on this local socket.
    Unix(PathBuf),
}

impl Ready {
    /// Whether it does.
    pub(super) fn answers(&self) -> bool {
        match self {
            // Everything here is at most a bridge away, so a second means that nobody is there.
            Self::Tcp(address) => TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok(),
            Self::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }
}

/// Runs as the first process of a host until SIGTERM. `ready` is written when the files are in place and the
/// services are being started.
///
/// # Errors
/// When a mount or a file cannot be made.
pub fn run(spec: &Path, ready: &Path) -> Result<()> {
    let text = std::fs::read(spec).with_context(|| spec.display().to_string())?;
    let spec: InitSpec = serde_json::from_slice(&text).with_context(|| spec.display().to_string())?;
    mounts::make(&spec)?;
    nix::unistd::sethostname(&spec.hostname).context("setting the host name")?;
    supervisor::run(&spec, ready)
}
