//! Paths of a laboratory's files.

use std::path::{Path, PathBuf};

use super::spec::LabId;

/// Small state: records, certificates, configuration, logs. It is in memory because it is worthless after a reboot.
const RUN: &str = "/run/herald-lab";
/// Bulky data: container images and layers, etcd, captures.
const DATA: &str = "/var/tmp/herald-lab";

/// The directories and files of one laboratory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    run: PathBuf,
    data: PathBuf,
    lock: PathBuf,
}

impl Paths {
    /// Returns the paths of the laboratory with this ID.
    #[must_use]
    pub fn of(id: &LabId) -> Self {
        Self {
            run: Path::new(RUN).join(id.as_str()),
            data: Path::new(DATA).join(id.as_str()),
            lock: Path::new(RUN).join(format!("{id}.lock")),
        }
    }

    /// Returns the IDs of all laboratories that left files here.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn known_ids() -> std::io::Result<Vec<LabId>> {
        let mut ids = std::collections::BTreeSet::new();
        for root in [RUN, DATA] {
            let entries = match std::fs::read_dir(root) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir()
                    && let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                {
                    ids.insert(id);
                }
            }
        }
        Ok(ids.into_iter().collect())
    }

    /// Returns the parent of all run directories.
    #[must_use]
    pub fn root() -> &'static Path {
        Path::new(RUN)
    }

    /// Returns the directory of this laboratory's small state.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Returns the directory of this laboratory's bulky data.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the lock file, which a process locks while it changes the laboratory.
    #[must_use]
    pub fn lock(&self) -> &Path {
        &self.lock
    }

    /// Returns the file of the record.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.run.join("lab.json")
    }

    /// Returns the directory of certificates and keys.
    #[must_use]
    pub fn pki(&self) -> PathBuf {
        self.run.join("pki")
    }

    /// Returns the directory of the logs of every process of the laboratory, with a directory per host.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// Returns the directory of the logs of a host's processes.
    #[must_use]
    pub fn host_logs(&self, host: &str) -> PathBuf {
        self.logs().join(host)
    }

    /// Returns the directory of the configuration of a host and its processes.
    #[must_use]
    pub fn host_conf(&self, host: &str) -> PathBuf {
        self.run.join("hosts").join(host)
    }

    /// Returns the directory of a host's bulky data.
    #[must_use]
    pub fn host_data(&self, host: &str) -> PathBuf {
        self.data.join(host)
    }

    /// Returns the kubeconfig of a user.
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.run.join("kubeconfigs").join(user)
    }

    /// Returns the API server's audit log: one JSON object per line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.host_data("control").join("audit.log")
    }

    /// Returns the recording of a segment.
    #[must_use]
    pub fn capture(&self, segment: u8) -> PathBuf {
        self.host_data("switch").join(format!("lan{segment}.pcap"))
    }
}
