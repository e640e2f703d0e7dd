//! Named network namespaces.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

const NAMED: &str = "/run/netns";

/// Returns the file that names a namespace.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(NAMED).join(name)
}

/// Returns the names of all namespaces that begin with `prefix`.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(prefix: &str) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(NAMED) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(NAMED),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Some(name) = entry.context(NAMED)?.file_name().to_str().filter(|name| name.starts_with(prefix)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Creates a namespace.
///
/// # Errors
/// When `ip` fails.
pub fn add(name: &str) -> Result<()> {
    run(Command::new("ip").args(["netns", "add", name]))
}

/// Removes a namespace's name; the namespace ends with its last process.
///
/// # Errors
/// When `ip` fails.
pub fn delete(name: &str) -> Result<()> {
    if !path(name).exists() {
        return Ok(());
    }
    run(Command::new("ip").args(["netns", "delete", name]))
}

/// Puts the calling thread in a namespace, together with the threads and processes it starts from now on.
///
/// # Errors
/// When the namespace does not exist or the process may not enter it.
pub fn enter(netns: &Path) -> Result<()> {
    let file = File::open(netns).with_context(|| format!("opening {}", netns.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", netns.display()))
}

/// Runs `work` on a thread of its own inside a namespace. Sockets it opens stay in that namespace.
///
/// # Errors
/// When the namespace cannot be entered, or `work` fails.
pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(netns)?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a command to its end.
///
/// # Errors
/// When the command cannot be started or fails; the message contains its standard error.
pub fn run(command: &mut Command) -> Result<()> {
    output_of(command).map(drop)
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// When the command cannot be started or fails; the message contains its standard error.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed something that is not UTF-8"))
}
