//! The state that outlives a restart of the container: files in a directory that lives as long as the pod, in memory.
//!
//! * `claims.json`: the [`Engine::saved_state`](herald_protocol::Engine::saved_state) of each interface. A speaker that
//!   comes back goes on with it, so no other node has to take its addresses.
//! * `view.json`: the cluster as the speaker last saw it, and the keys with which it signs: the speaker needs neither
//!   their Secret nor the UID of the cluster to go on with them. A speaker that starts while the API server is away
//!   goes on with the view until the first listing. The view does not tell which objects are gone.
//!
//! **Builds.** A file is read by the build that wrote it, or by another that was put into the same pod. The file begins
//! with its format (`FORMAT`), and these rules hold: a build ignores fields that it does not know; a field that was
//! added has a default; the format rises when an older build would read a file and understand it differently. A file
//! that cannot be read, or is of another format, newer or older, counts as absent: a warning names the file and the
//! reason, and the speaker starts as in a new pod.
//!
//! A file is written under another name first and then renamed, so a reader finds the old or the new one, never a half;
//! there is no `fsync`, because the file system is memory. Only the speaker may read the files (mode 0600), because
//! they hold the keys.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use herald_telemetry::log_once::LogOnce;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::saved_state::{Claims, View};

/// The version of the files' format.
const FORMAT: u32 = 1;
/// The node's current boot: random (Linux `Documentation/admin-guide/sysctl/kernel.rst`, `random`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Least time between two writes of the claims: a take-over of 1,000 addresses changes them once per event, 1,000
/// times.
const CLAIMS_PERIOD: Duration = Duration::from_millis(20);
/// Least time between two writes of the view: it is read after a restart only, and may be some seconds old.
const VIEW_PERIOD: Duration = Duration::from_secs(1);

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved<T> {
    /// The content.
    pub content: T,
    /// Whether the node has not been booted since the file was written. If so, the node's kernel has answered all the
    /// while.
    pub same_boot: bool,
}

/// The part that every file of every format has.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

/// A file as it is written.
#[derive(Serialize, Deserialize)]
struct File<T> {
    format: u32,
    boot: String,
    content: T,
}

/// The reason why a file counts as absent.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is of format {0}, and this build reads {FORMAT}: another build wrote it")]
    Format(u32),
    #[error("its content: {0}")]
    Content(#[from] serde_json::Error),
}

/// The files of one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The claims.
    Claims,
    /// The view.
    View,
}

impl Name {
    /// Both files.
    pub const ALL: [Self; 2] = [Self::Claims, Self::View];

    /// Returns the file's name in the directory.
    pub fn file(self) -> &'static str {
        match self {
            Self::Claims => "claims.json",
            Self::View => "view.json",
        }
    }
}

/// A directory for the state.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The present boot; empty where it is unknown, which never counts as the same boot.
    boot: String,
    /// Whether each file is older than it should be, in the order of [`Name`].
    failing: Arc<[AtomicBool; 2]>,
}

impl StateDir {
    /// Opens the directory. Returns `None`, and logs a warning, where it does not exist, as for a speaker that is run
    /// by hand.
    pub fn open(path: &Path) -> Option<Self> {
        if !path.is_dir() {
            tracing::warn!(path = %path.display(), "no such directory: a restart of the speaker will not resume its claims");
            return None;
        }
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_else(|error| {
            tracing::warn!(%error, path = BOOT_ID, "the boot id is unknown: it counts as a new boot");
            String::new()
        });
        Some(Self { path: path.to_owned(), boot: boot.trim().to_owned(), failing: Arc::default() })
    }

    /// Returns whether the last write of a file has failed, so that a restart would not know the changes since.
    pub fn is_failing(&self, name: Name) -> bool {
        let [claims, view] = self.failing.as_ref();
        match name {
            Name::Claims => claims,
            Name::View => view,
        }
        .load(Ordering::Relaxed)
    }

    fn set_failing(&self, name: Name, failing: bool) {
        let [claims, view] = self.failing.as_ref();
        match name {
            Name::Claims => claims,
            Name::View => view,
        }
        .store(failing, Ordering::Relaxed);
    }

    /// Returns the claims of the run before this one.
    pub fn claims(&self) -> Option<Saved<Claims>> {
        self.read(Name::Claims)
    }

    /// Returns the view of the run before this one.
    pub fn view(&self) -> Option<Saved<View>> {
        self.read(Name::View)
    }

    /// Writes the claims each time they change, until the sender is gone and the last are written.
    pub async fn keep_claims(self, claims: watch::Receiver<Arc<Claims>>) {
        self.keep(Name::Claims, claims, CLAIMS_PERIOD).await;
    }

    /// Writes the view when it changes, until the sender is gone and the last is written.
    pub async fn keep_view(self, view: watch::Receiver<Arc<View>>) {
        self.keep(Name::View, view, VIEW_PERIOD).await;
    }

    fn read<T: DeserializeOwned>(&self, name: Name) -> Option<Saved<T>> {
        let path = self.path.join(name.file());
        let read = fs::read(&path).map_err(StateError::Io).and_then(|bytes| decode(&bytes, &self.boot));
        match read {
            Ok(saved) => Some(saved),
            // The file is missing on the first start.
            Err(StateError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignored a state file: the speaker starts without it");
                None
            }
        }
    }

    fn write<T: Serialize>(&self, name: Name, content: &T) -> Result<(), StateError> {
        let path = self.path.join(name.file());
        let new = path.with_extension("new");
        // A run that was killed at this point left it, perhaps with another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let written = self.write_new(&new, content).and_then(|()| Ok(fs::rename(&new, &path)?));
        if written.is_err() {
            // The part that was written would keep the room that the other file needs.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        written
    }

    fn write_new<T: Serialize>(&self, new: &Path, content: &T) -> Result<(), StateError> {
        // The text is written piece by piece: for 10,000 addresses it is 13 MB.
        let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?);
        serde_json::to_writer(&mut file, &File { format: FORMAT, boot: self.boot.clone(), content })?;
        Ok(file.flush()?)
    }

    /// Writes at once, and then at most once in `period`: the newest value, and always the last.
    async fn keep<T>(self, name: Name, mut values: watch::Receiver<Arc<T>>, period: Duration)
    where
        T: Serialize + Send + Sync + 'static,
    {
        let mut next = Instant::now();
        let mut complaint = LogOnce::default();
        while values.changed().await.is_ok() {
            sleep_until(next).await;
            next = Instant::now() + period;
            let value = Arc::clone(&values.borrow_and_update());
            let dir = self.clone();
            // A view is a megabyte of JSON: the thread that answers ARP has no 10 ms for that.
            let written = tokio::task::spawn_blocking(move || dir.write(name, value.as_ref())).await;
            let error = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            self.set_failing(name, error.is_some());
            match error {
                Some(error) if complaint.is_new(&error) => {
                    tracing::warn!(file = name.file(), error, "cannot write the state: a restart would not know it");
                }
                None if complaint.is_over() => tracing::info!(file = name.file(), "wrote the state again"),
                _ => {}
            }
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8], boot: &str) -> Result<Saved<T>, StateError> {
    // The format is read first: a file of another format may differ in everything else.
    let Header { format } = serde_json::from_slice(bytes)?;
    if format != FORMAT {
        return Err(StateError::Format(format));
    }
    let File { boot: written, content, .. } = serde_json::from_slice(bytes)?;
    Ok(Saved { content, same_boot: !written.is_empty() && written == boot })
}

#[cfg(test)]
mod tests;
