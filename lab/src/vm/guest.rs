//! The first process of a user-mode Linux: it mounts its files, runs the errand and switches the machine off.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, chroot, pivot_root};

use super::machine::Errand;
use crate::cluster::cgroup::hand_down;
use crate::cluster::netns;

/// Directory of the writable layer over the machine's files.
const LAYERS: &str = "/mnt";

/// Size of the layer; most of it is used by the images on two nodes.
const LAYER_SIZE: &str = "size=3G";

/// The cgroup in which the errand runs, marked like a scope of systemd with `Delegate=yes`.
const SCOPE: &str = "/sys/fs/cgroup/errand.scope";

/// Base of the exit status that shells report for a program ended by a signal: 128 plus the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

/// Does the work of a first process. Only for the first process of a user-mode Linux that `herald-lab vm-test` starts.
///
/// # Errors
/// When the caller is another process. Other errors are reported on the console, and the machine is switched off.
pub fn become_first_process(shared: &Path) -> Result<()> {
    anyhow::ensure!(std::process::id() == 1, "vm-guest is the first process of user-mode Linux: `herald-lab vm-test`");
    if let Err(error) = serve(shared) {
        tracing::error!("the machine is switched off: {error:#}");
    }
    // The first process may not end, and nothing of this machine needs to be written back.
    fs::write("/proc/sysrq-trigger", "o").context("switching the machine off")?;
    loop {
        std::thread::park();
    }
}

fn serve(shared: &Path) -> Result<()> {
    mount_files(shared)?;
    let file = shared.join(Errand::FILE);
    let errand: Errand = serde_json::from_slice(&fs::read(&file).with_context(|| file.display().to_string())?)?;
    for (name, directory) in &errand.kept {
        let kept = shared.join(name);
        for directory in [&kept, directory] {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        // A directory of hostfs inside an overlay cannot be bound elsewhere, so hostfs is mounted once more.
        mount_hostfs(&kept, directory)?;
    }
    netns::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    enter_scope()?;
    let status = run(&errand, &shared.join(Errand::OUTPUT))?;
    fs::write(shared.join(Errand::STATUS), format!("{status}\n")).context(Errand::STATUS)
}

/// Sets up a root with the machine's files as the lowest layer and memory as the uppermost one.
fn mount_files(shared: &Path) -> Result<()> {
    mount_kind("tmpfs", Path::new(LAYERS), LAYER_SIZE)?;
    let layer = |name: &str| -> Result<PathBuf> {
        let directory = Path::new(LAYERS).join(name);
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        Ok(directory)
    };
    let (upper, work, root) = (layer("upper")?, layer("work")?, layer("root")?);
    let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount_kind("overlay", &root, &layers)?;
    chdir(&root).context("entering the new root")?;
    // The paths are relative because the new root is not in place yet. The system call `mount` itself does not need
    // /proc.
    for (kind, point, options) in [
        ("proc", "proc", ""),
        ("sysfs", "sys", ""),
        ("devtmpfs", "dev", ""),
        ("devpts", "dev/pts", ""),
        ("tmpfs", "dev/shm", ""),
        ("tmpfs", "run", ""),
        ("tmpfs", "tmp", ""),
        // The layers of the nodes are in this directory, and an overlay cannot use an overlay as its upper layer.
        ("tmpfs", "var/tmp", LAYER_SIZE),
        ("cgroup2", "sys/fs/cgroup", ""),
    ] {
        fs::create_dir_all(point).with_context(|| point.to_owned())?;
        mount_kind(kind, Path::new(point), options)?;
    }
    fs::create_dir_all("run/lock").context("run/lock")?;
    if !Path::new("dev/fd").exists() {
        symlink("/proc/self/fd", "dev/fd").context("dev/fd")?;
    }
    let old = Path::new("mnt/old");
    fs::create_dir_all(old).context("mnt/old")?;
    pivot_root(".", old).context("changing the root")?;
    chroot(".").context("entering the root")?;
    chdir("/").context("entering the root")?;
    mount_hostfs(shared, shared)
}

fn mount_kind(kind: &str, point: &Path, options: &str) -> Result<()> {
    mount(Some(kind), point, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} on {} ({options})", point.display()))
}

/// Mounts a directory of the machine below user-mode Linux, writable.
fn mount_hostfs(directory: &Path, point: &Path) -> Result<()> {
    mount(Some("none"), point, Some("hostfs"), MsFlags::empty(), Some(directory))
        .with_context(|| format!("sharing {} as {}", directory.display(), point.display()))
}

/// Enters a cgroup that looks like one delegated by systemd, so that the laboratory has to move processes in it.
fn enter_scope() -> Result<()> {
    hand_down(Path::new("/sys/fs/cgroup"))?;
    fs::create_dir(SCOPE).context(SCOPE)?;
    rustix::fs::setxattr(SCOPE, "user.delegate", b"1", rustix::fs::XattrFlags::empty())
        .with_context(|| format!("marking {SCOPE} as delegated"))?;
    fs::write(Path::new(SCOPE).join("cgroup.procs"), "0").with_context(|| format!("entering {SCOPE}"))
}

/// Runs the errand and reaps ended processes until it has ended.
fn run(errand: &Errand, output: &Path) -> Result<i32> {
    let (program, arguments) = errand.command.split_first().context("an errand without a command")?;
    let output = File::options().append(true).open(output).with_context(|| output.display().to_string())?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&errand.environment)
        .current_dir("/")
        .stdout(output.try_clone().context("sharing the output")?)
        .stderr(output)
        .spawn()
        .with_context(|| program.clone())?;
    let errand = Pid::from_raw(i32::try_from(child.id()).context("process id")?);
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(WaitStatus::Exited(pid, status)) if pid == errand => return Ok(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == errand => return Ok(ENDED_BY_SIGNAL + signal as i32),
            // An orphan ended, or a signal interrupted the call.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => bail!("waiting for {program}: {errno}"),
        }
    }
}
