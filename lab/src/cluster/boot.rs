//! The start of a host up to its first process.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::init::InitSpec;
use super::paths::Paths;
use super::plan::Plan;
use super::process::ProcessId;
use super::record::{HostProcesses, Record};
use super::spec::LabId;
use crate::progress::Progress;

/// Mounting and starting take well under a second; the rest is a margin for a busy machine.
const INIT_WITHIN: Duration = Duration::from_secs(30);

fn spec_file(paths: &Paths, host: &str) -> PathBuf {
    paths.host_conf(host).join("init.json")
}

fn ready_file(paths: &Paths, host: &str) -> PathBuf {
    paths.host_conf(host).join("ready")
}

/// Writes the instructions for the host's first process.
pub(super) fn prepare(paths: &Paths, spec: &InitSpec) -> Result<()> {
    for directory in [&spec.data, &spec.services_dir, &spec.logs_dir] {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let file = spec_file(paths, &spec.hostname);
    fs::write(&file, serde_json::to_vec_pretty(spec)?).with_context(|| file.display().to_string())
}

/// Starts the first process of a prepared host, without waiting for it. Its network namespace must exist.
pub(super) fn launch(record: &Record, host: &str) -> Result<ProcessId> {
    let paths = Paths::of(&record.spec.id);
    record.cgroups.create(&record.spec.id, host)?;
    let ready = ready_file(&paths, host);
    if ready.exists() {
        fs::remove_file(&ready).with_context(|| ready.display().to_string())?;
    }
    let log_file = paths.host_logs(host).join("init.log");
    let log =
        File::options().create(true).append(true).open(&log_file).with_context(|| log_file.display().to_string())?;
    let child = Command::new(own_program()?)
        .args(["host-start", record.spec.id.as_str(), host])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting host {host}"))?;
    let pid = i32::try_from(child.id()).context("process id")?;
    ProcessId::of(pid).with_context(|| format!("host {host} ended at once: see {}", log_file.display()))
}

/// Waits until the host's first process has set up its files and starts its services.
pub(super) fn await_init(paths: &Paths, host: &str, launcher: ProcessId, progress: &Progress) -> Result<HostProcesses> {
    progress.wait_for(&format!("the first process of {host}"), INIT_WITHIN, || {
        anyhow::ensure!(launcher.is_alive(), "host {host} ended: {}", last_words(paths, host));
        if !ready_file(paths, host).exists() {
            return Ok(None);
        }
        Ok(launcher.child().map(|init| HostProcesses { launcher, init }))
    })
}

fn last_words(paths: &Paths, host: &str) -> String {
    let log = paths.host_logs(host).join("init.log");
    let text = fs::read_to_string(&log).unwrap_or_default();
    text.lines().next_back().map_or_else(|| format!("nothing in {}", log.display()), ToOwned::to_owned)
}

/// Turns the calling process into the launcher of a host: in the host's cgroups and their namespace, in a session of
/// its own (so that a Ctrl-C at a terminal does not reach it), then `unshare` with the host's init as its child.
///
/// # Errors
/// When one of these steps fails; otherwise the function does not return.
pub fn start_host(id: &LabId, host: &str) -> Result<()> {
    let paths = Paths::of(id);
    let record = Record::read(&paths)?.with_context(|| format!("no lab {id}"))?;
    record.cgroups.enter(id, host)?;
    nix::unistd::setsid().context("leaving the session")?;
    let error = Command::new("ip")
        .args(["netns", "exec", &Plan::of(&record.spec).netns_name(host)])
        .args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(own_program()?)
        .arg("host-init")
        .args([spec_file(&paths, host), ready_file(&paths, host)])
        .exec();
    Err(error).context("starting ip")
}

/// Returns the path of the `herald-lab` program: this one, or the one in its directory or in the directory above. (A
/// test program has it as a sibling or one directory up.)
///
/// # Errors
/// When the program is not found.
pub fn own_program() -> Result<PathBuf> {
    const NAME: &str = "herald-lab";
    let own = std::env::current_exe().context("finding the own program")?;
    own.ancestors()
        .take(3)
        .map(
            |place| {
                if place.file_name().is_some_and(|name| name == NAME) { place.to_owned() } else { place.join(NAME) }
            },
        )
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("there is no {NAME} next to {}: build it (cargo build -p herald-e2e)", own.display()))
}

/// Returns the directory of the own program and its siblings.
pub(super) fn own_directory() -> Result<PathBuf> {
    let program = own_program()?;
    program.parent().map(Path::to_owned).context("the own program is in no directory")
}
