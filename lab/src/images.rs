//! Container images without a registry: built here, cached by their content, loaded into each node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::binaries::{self, cache_dir, hash_of, lock};
use crate::long_command;
use crate::progress::Progress;

/// Name of the image that every pod's sandbox runs.
pub(crate) const PAUSE_IMAGE: &str = "localhost/herald-lab-pause:lab";
const PAUSE_SOURCE: &str = include_str!("../images/pause/main.go");
const PAUSE_CONTAINERFILE: &str = include_str!("../images/pause/Containerfile");

/// Builds an image from a Containerfile and the files of a context directory, and returns an OCI archive of it named
/// `tag`. For the same content it returns the existing archive.
///
/// Debian's buildah builds it without a daemon and without a network, so the Containerfile must be `FROM scratch`.
///
/// # Errors
/// When a file cannot be read or buildah fails.
pub fn build(containerfile: &Path, context: &Path, tag: &str, progress: &Progress) -> Result<PathBuf> {
    let mut parts = vec![tag.as_bytes().to_vec(), read(containerfile)?];
    for file in files_below(context)? {
        parts.push(file.strip_prefix(context).unwrap_or(&file).as_os_str().as_encoded_bytes().to_vec());
        parts.push(read(&file)?);
    }
    let images = cache_dir()?.join("images");
    fs::create_dir_all(&images).with_context(|| images.display().to_string())?;
    let archive = images.join(format!("{}.tar", hash_of(parts.iter().map(Vec::as_slice))));
    let _lock = lock(&images.join("lock"), progress)?;
    if archive.exists() {
        return Ok(archive);
    }
    let store = images.join("buildah");
    let mut bud = buildah(&store);
    // buildah gets a configuration directory of its own, because it would otherwise leave a lock file in the machine's
    // /etc/cni.
    bud.args(["build", "--isolation", "chroot", "--layers=false", "--cni-config-dir"])
        .arg(store.join("cni"))
        .args(["--tag", tag, "--file"])
        .arg(containerfile)
        .arg(context);
    long_command::run(&mut bud, &format!("building the image {tag}"), progress)?;
    let next = archive.with_extension("next");
    if next.exists() {
        fs::remove_file(&next).with_context(|| next.display().to_string())?;
    }
    let mut push = buildah(&store);
    push.args(["push", tag]).arg(format!("oci-archive:{}:{tag}", next.display()));
    long_command::run(&mut push, &format!("writing the image {tag}"), progress)?;
    let mut remove = buildah(&store);
    remove.args(["rmi", "--force", tag]);
    long_command::run(&mut remove, &format!("emptying the builder of {tag}"), &Progress::quiet())?;
    fs::rename(&next, &archive).with_context(|| archive.display().to_string())?;
    Ok(archive)
}

/// Pushes the image `tagged` of an OCI archive to a registry without TLS. `command` makes a command that reaches the registry.
///
/// # Errors
/// When buildah fails.
pub(crate) fn push(
    command: impl Fn(&str) -> Command,
    archive: &Path,
    tagged: &str,
    to: &str,
    (user, password): (&str, &str),
    progress: &Progress,
) -> Result<()> {
    let store = tempfile::tempdir().context("making a directory for the image")?;
    let mut pull = in_store(command("buildah"), store.path());
    pull.arg("pull").arg(format!("oci-archive:{}:{tagged}", archive.display()));
    long_command::run(&mut pull, &format!("reading the image {tagged}"), progress)?;
    let mut push = in_store(command("buildah"), store.path());
    push.args(["push", "--tls-verify=false", "--creds", &format!("{user}:{password}"), tagged, to]);
    long_command::run(&mut push, &format!("pushing the image {to}"), progress)
}

/// Returns the archive of the image that every pod's sandbox runs.
///
/// # Errors
/// When the image cannot be built.
pub fn pause(progress: &Progress) -> Result<PathBuf> {
    let kept = cache_dir()?
        .join("images")
        .join(format!("pause-{}.tar", hash_of([PAUSE_SOURCE, PAUSE_CONTAINERFILE, PAUSE_IMAGE].map(str::as_bytes))));
    if kept.exists() {
        return Ok(kept);
    }
    let source = tempfile::tempdir().context("making a directory for the build")?;
    let context = tempfile::tempdir().context("making a directory for the build")?;
    fs::write(source.path().join("main.go"), PAUSE_SOURCE).context("main.go")?;
    fs::write(source.path().join("Containerfile"), PAUSE_CONTAINERFILE).context("Containerfile")?;
    let task = "building the program of the sandbox image";
    binaries::build_file(&source.path().join("main.go"), &context.path().join("pause"), task, progress)?;
    let archive = build(&source.path().join("Containerfile"), context.path(), PAUSE_IMAGE, progress)?;
    // Two first runs may reach this point at once.
    let next = kept.with_extension(format!("{}.next", std::process::id()));
    fs::copy(&archive, &next).with_context(|| next.display().to_string())?;
    fs::rename(&next, &kept).with_context(|| kept.display().to_string())?;
    Ok(kept)
}

fn buildah(store: &Path) -> Command {
    in_store(Command::new("buildah"), store)
}

/// Lets buildah keep its images in a directory.
fn in_store(mut command: Command, store: &Path) -> Command {
    command
        .arg("--root")
        .arg(store.join("root"))
        .arg("--runroot")
        .arg(store.join("runroot"))
        .args(["--storage-driver", "vfs"]);
    command
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| file.display().to_string())
}

/// Returns all files below a directory, in a fixed order.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry.with_context(|| directory.display().to_string())?;
        if entry.file_type().with_context(|| directory.display().to_string())?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
