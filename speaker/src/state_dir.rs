//! What outlives a restart of the container: files in a directory that lives as long as the pod, in memory.
//!
//! * `claims.json`: per interface what [`Engine::saved_state`](herald_protocol::Engine::saved_state) says. A speaker
//!   that comes back goes on with it, so nobody has to take its addresses.
//! * `view.json`: the cluster as it was last seen, and its keys, as they sign: neither their Secret nor the UID of the
//!   cluster is needed to go on with them. A speaker that starts while the API server is away goes on with the view until
//!   the first listing. It says nothing about what is gone.
//!
//! **Builds.** A file is read by the build that wrote it, or by another that was put into the same pod. It begins with its
//! format (`FORMAT`), and these rules hold: fields that a build does not know it ignores; a field that was added has a
//! default; the format rises when a file would be read and mean something else. What cannot be read, and what is of
//! another format, newer or older, is as good as absent: a warning says which and why, and the speaker starts as in a new
//! pod.
//!
//! Written to another name first and renamed, so a reader finds the old or the
//! new one, never a half; no `fsync`, the file system is memory. They are for the speaker alone (mode 0600): the keys
//! are in them.

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
/// The machine's current boot: random (Linux `Documentation/admin-guide/sysctl/kernel.rst`, `random`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Between two writes of the claims at least: a take-over of 1,000 addresses changes them once per event, 1,000 times.
const CLAIMS_PERIOD: Duration = Duration::from_millis(20);
/// Between two writes of the view at least: it is read after a restart only, and may be of some seconds ago.
const VIEW_PERIOD: Duration = Duration::from_secs(1);

/// What a file held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved<T> {
    /// The content.
    pub content: T,
    /// Has the machine not been booted since it was written? Then its kernel has answered all the while.
    pub same_boot: bool,
}

/// What every file of every format has.
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

/// Why a file is as good as absent.
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
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Claims, Self::View];

    /// Its name in the directory.
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
    /// Empty where it is unknown, which is never the same boot.
    boot: String,
    /// Which files are not as new as they should be, in the order of [`Name`].
    failing: Arc<[AtomicBool; 2]>,
}

impl StateDir {
    /// The directory; `None`, with a line in the log, where there is none, as in a speaker that is run by hand.
    pub fn open(path: &Path) -> Option<Self> {
        if !path.is_dir() {
            tracing::warn!(path = %path.display(), "no such directory: a restart of the speaker will not resume its claims");
            return None;
        }
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_else(|error| {
            tracing::warn!(%error, path = BOOT_ID, "the machine's boot is unknown: it counts as booted anew");
            String::new()
        });
        Some(Self { path: path.to_owned(), boot: boot.trim().to_owned(), failing: Arc::default() })
    }

    /// Returns whether the last write of a file has failed, so that a restart would not know what has changed since.
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

    /// The claims of the run before this one.
    pub fn claims(&self) -> Option<Saved<Claims>> {
        self.read(Name::Claims)
    }

    /// The view of the run before this one.
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
            // The first start.
            Err(StateError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a state file is not used: the speaker starts without it");
                None
            }
        }
    }

    fn write<T: Serialize>(&self, name: Name, content: &T) -> Result<(), StateError> {
        let path = self.path.join(name.file());
        let new = path.with_extension("new");
        // Of a run that was killed here, perhaps with another mode.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let written = self.write_new(&new, content).and_then(|()| Ok(fs::rename(&new, &path)?));
        if written.is_err() {
            // What is there of it would keep the room that the other file needs.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        written
    }

    fn write_new<T: Serialize>(&self, new: &Path, content: &T) -> Result<(), StateError> {
        // Piece by piece: the text of 10,000 addresses is 13 MB.
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
                    tracing::warn!(file = name.file(), error, "the state is not written: a restart would not know it");
                }
                None if complaint.is_over() => tracing::info!(file = name.file(), "the state is written again"),
                _ => {}
            }
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8], boot: &str) -> Result<Saved<T>, StateError> {
    // First of all: of another format nothing else is known.
    let Header { format } = serde_json::from_slice(bytes)?;
    if format != FORMAT {
        return Err(StateError::Format(format));
    }
    let File { boot: written, content, .. } = serde_json::from_slice(bytes)?;
    Ok(Saved { content, same_boot: !written.is_empty() && written == boot })
}

#[cfg(test)]
mod tests;
