//! A user-mode Linux that runs one command and ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::progress::Progress;

/// Memory of the machine. Unused memory costs nothing, and two nodes with Herald use 1.5 GiB.
const MEMORY: &str = "mem=5G";

/// Time limit of the test, which should take a quarter of an hour: a longer run hangs.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// Number of console lines that are shown when the kernel ends early: enough for a panic with its stack.
const LINES_SHOWN: usize = 30;

/// The command to run in the machine. It is in the shared directory as `errand.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Directories whose files must outlive the machine, by their name in the shared directory.
    pub kept: BTreeMap<String, PathBuf>,
}

impl Errand {
    pub(super) const FILE: &str = "errand.json";
    /// File with the output of the command.
    pub(super) const OUTPUT: &str = "output.log";
    /// File with the command's exit status, written last.
    pub(super) const STATUS: &str = "status";
    /// File with the output of the kernel.
    const CONSOLE: &str = "console.log";
}

/// Runs an errand in a machine of its own and prints its output; `shared` is an empty directory to which the machine
/// can write. Returns the command's exit status.
///
/// The machine ends with this process, however that ends: it is a process namespace whose first process has a parent
/// that is killed together with this process. Its memory is an unnamed file, so it disappears too.
///
/// # Errors
/// When the machine cannot be started, ends without a status, or the operation is interrupted.
pub fn run(kernel: &Path, init: &Path, shared: &Path, errand: &Errand, progress: &Progress) -> Result<i32> {
    let file = |name| shared.join(name);
    fs::write(file(Errand::FILE), serde_json::to_vec_pretty(errand)?).context(Errand::FILE)?;
    let output = File::create_new(file(Errand::OUTPUT)).context(Errand::OUTPUT)?;
    let console = File::create_new(file(Errand::CONSOLE)).context(Errand::CONSOLE)?;
    let command_line = command_line(kernel, init, shared, last_cpu()?)?;
    let (program, arguments) = command_line.split_first().context("a command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(console.try_clone().context("sharing the console")?)
        .stderr(console)
        // Ctrl-C at a terminal reaches this process alone, which then ends the machine.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let mut shown = 0;
    let ended = progress.wait_for("the end of the test in user-mode Linux", LONGEST, || {
        show_from(&output, &mut shown)?;
        // A kernel that has panicked would run forever.
        let said = fs::read(file(Errand::CONSOLE)).context(Errand::CONSOLE)?;
        ensure!(!has_panicked(&said), "user-mode Linux has panicked: {}", last_words(&file(Errand::CONSOLE)));
        child.try_wait().context("waiting for user-mode Linux")
    });
    if ended.is_err() {
        end(&mut child)?;
    }
    show_from(&output, &mut shown)?;
    status(&file(Errand::STATUS), ended?, &file(Errand::CONSOLE))
}

/// Returns the whole command: user-mode Linux on one processor, which halves the start time of a control plane, in a
/// process namespace that ends with this process.
fn command_line(kernel: &Path, init: &Path, shared: &Path, cpu: usize) -> Result<Vec<OsString>> {
    for path in [init, shared] {
        let fits =
            path.to_str().is_some_and(|path| !path.contains(|letter: char| letter.is_whitespace() || letter == '"'));
        ensure!(fits, "{}: the path stands on a kernel's command line, so it may hold no blank", path.display());
    }
    let mut line: Vec<OsString> =
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL"].map(Into::into).into();
    line.extend(["taskset", "--cpu-list", &cpu.to_string()].map(Into::into));
    line.push(kernel.into());
    line.extend([MEMORY, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"].map(Into::into));
    // The standard output is the only console. Without `console=`, the kernel appends one after the arguments of the
    // first process.
    line.extend(["con=null", "con0=null,fd:1", "ssl=null", "console=tty0", "quiet"].map(Into::into));
    // The directory of the control socket, which outlives a killed kernel.
    line.push(format!("uml_dir={}/", shared.display()).into());
    line.push(format!("init={}", init.display()).into());
    line.extend(["--".into(), "vm-guest".into(), shared.into()]);
    Ok(line)
}

fn last_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking which processors may be used")?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    cpus.next_back().context("this process may use no processor")
}

/// Prints the output that was added since the last call.
#[expect(clippy::print_stdout, reason = "what the command prints is what this is for")]
fn show_from(output: &File, shown: &mut u64) -> Result<()> {
    let length = output.metadata().context(Errand::OUTPUT)?.len();
    let mut bytes = vec![0; usize::try_from(length.saturating_sub(*shown)).context(Errand::OUTPUT)?];
    output.read_exact_at(&mut bytes, *shown).context(Errand::OUTPUT)?;
    // Only whole lines are printed, so that no character is split.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    print!("{}", String::from_utf8_lossy(&bytes[..whole]));
    *shown += u64::try_from(whole).context(Errand::OUTPUT)?;
    Ok(())
}

fn end(child: &mut Child) -> Result<()> {
    // The kernel's process is the first of its namespace, so the processes it started end with it.
    kill(Pid::from_raw(i32::try_from(child.id()).context("its process id")?), Signal::SIGKILL).context("ending it")?;
    child.wait().context("ending user-mode Linux").map(drop)
}

fn status(file: &Path, ended: ExitStatus, console: &Path) -> Result<i32> {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().parse().with_context(|| format!("{} holds {text:?}", file.display())),
        Err(_) => {
            bail!("user-mode Linux ended ({ended}) before the test did: {}", last_words(console))
        }
    }
}

/// Returns whether the console reports a kernel panic (kernel/panic.c).
fn has_panicked(console: &[u8]) -> bool {
    String::from_utf8_lossy(console).contains("Kernel panic - not syncing: ")
}

/// Returns the end of the kernel's output and the path of the whole.
fn last_words(console: &Path) -> String {
    let said = fs::read(console).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    format!("the end of {}:\n{tail}", console.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[OsString]) -> String {
        line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn command_line_ties_the_machine_to_its_parent() {
        let line = command_line(Path::new("/c/linux"), Path::new("/b/herald-lab"), Path::new("/s"), 1).unwrap();
        assert_eq!(
            words(&line),
            "setpriv --pdeathsig KILL unshare --pid --fork --kill-child=KILL taskset --cpu-list 1 /c/linux mem=5G \
             root=/dev/root rootfstype=hostfs rootflags=/ ro con=null con0=null,fd:1 ssl=null console=tty0 quiet \
             uml_dir=/s/ init=/b/herald-lab -- vm-guest /s"
        );
    }

    #[test]
    fn blank_in_a_path_is_refused() {
        let error = command_line(Path::new("/c"), Path::new("/b"), Path::new("/my files"), 0).unwrap_err().to_string();
        assert!(error.starts_with("/my files: "), "{error}");
    }

    #[test]
    fn early_end_is_reported_with_the_console() {
        let directory = tempfile::tempdir().unwrap();
        let console = directory.path().join("console.log");
        fs::write(&console, "Kernel panic - not syncing: VFS: Unable to mount root fs\n").unwrap();
        let ended = Command::new("false").status().unwrap();
        let error = status(&directory.path().join("status"), ended, &console).unwrap_err().to_string();
        assert!(error.contains("exit status: 1") && error.contains("Unable to mount root fs"), "{error}");
        assert!(has_panicked(&fs::read(&console).unwrap()));
        assert!(!has_panicked(b"sysrq: Power Off\nreboot: Power down\n"));
        fs::write(directory.path().join("status"), "3\n").unwrap();
        assert_eq!(status(&directory.path().join("status"), ended, &console).unwrap(), 3);
    }
}
