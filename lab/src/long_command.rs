//! Commands that take minutes: they report their progress, end when interrupted, and show their last lines when they
//! fail.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::progress::Progress;

/// Interval between two lines about one command, short enough that it does not seem dead.
const REPORT_INTERVAL: Duration = Duration::from_secs(15);

/// Time limit of a command: all builds together take 12 minutes on two cores, so a command that takes an hour hangs.
const LONGEST: Duration = Duration::from_secs(3600);

/// Number of lines of a failed command's output that are shown.
const LINES_SHOWN: usize = 30;

/// Runs a command; while it runs, reports every 15 s that it does.
///
/// # Errors
/// When the command cannot be started, fails (the message ends with its last lines), or the operation is interrupted.
pub(crate) fn run(command: &mut Command, task: &str, progress: &Progress) -> Result<()> {
    run_measured(command, task, |_| None, progress)
}

/// Works like [`run`]; the command's standard output goes to `stdout`.
///
/// # Errors
/// When [`run`] would fail.
pub(crate) fn run_into(command: &mut Command, stdout: Stdio, task: &str, progress: &Progress) -> Result<()> {
    execute(command, stdout, task, |_| None, progress)
}

/// Works like [`run`]; `measure` derives the progress from the output so far: "812 of 2,846 packages".
///
/// # Errors
/// When [`run`] would fail.
pub(crate) fn run_measured(
    command: &mut Command,
    task: &str,
    measure: impl Fn(&str) -> Option<String>,
    progress: &Progress,
) -> Result<()> {
    execute(command, Stdio::null(), task, measure, progress)
}

fn execute(
    command: &mut Command,
    stdout: Stdio,
    task: &str,
    measure: impl Fn(&str) -> Option<String>,
    progress: &Progress,
) -> Result<()> {
    progress.step(task);
    let output = tempfile::tempfile().context("making a file for the output")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        // A process group of its own: processes that the command has started end with it.
        .process_group(0)
        .stderr(output.try_clone().context("sharing the output")?)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let mut reported = Instant::now();
    let finished = progress.wait_for(task, LONGEST, || {
        if reported.elapsed() > REPORT_INTERVAL {
            reported = Instant::now();
            let done = measure(&text_of(&output)?).unwrap_or_else(|| "still at work".to_owned());
            progress.step(format!("{task}: {done}"));
        }
        child.try_wait().context("waiting for it")
    });
    let status = match finished {
        Ok(status) => status,
        Err(error) => {
            let group = Pid::from_raw(i32::try_from(child.id()).context("its process id")?);
            killpg(group, Signal::SIGKILL).context("ending it")?;
            child.wait().context("ending it")?;
            return Err(error);
        }
    };
    if !status.success() {
        let text = text_of(&output)?;
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
        bail!("{task} failed ({status}); its last lines:\n{}", tail.join("\n"));
    }
    Ok(())
}

/// Reads the output of a command so far. The command's own position in the file must not move: the command writes where
/// its last write ended, and both descriptors share one offset.
fn text_of(output: &File) -> Result<String> {
    let length = usize::try_from(output.metadata().context("reading the output")?.len()).context("its length")?;
    let mut bytes = vec![0; length];
    output.read_exact_at(&mut bytes, 0).context("reading the output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn failed_command_shows_its_last_lines() {
        let script = "for line in $(seq 100); do echo line $line >&2; done; exit 3";
        let error = run(&mut shell(script), "counting", &Progress::quiet()).unwrap_err().to_string();
        assert!(error.starts_with("counting failed (exit status: 3); its last lines:\nline 71\n"), "{error}");
        assert!(error.ends_with("line 100"), "{error}");
    }

    #[test]
    fn interrupted_command_ends_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let started = directory.path().join("started");
        let script = format!("sleep 600 & echo $! > {}; wait", started.display());
        let progress = Progress::quiet();
        let running = std::thread::spawn({
            let progress = progress.clone();
            move || run(&mut shell(&script), "sleeping", &progress)
        });
        let pid: i32 = Progress::quiet()
            .wait_for("the command to start another", Duration::from_secs(30), || {
                Ok(std::fs::read_to_string(&started).ok().and_then(|text| text.trim().parse().ok()))
            })
            .unwrap();
        progress.interrupt();
        assert_eq!(running.join().unwrap().unwrap_err().to_string(), "interrupted");
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        // No process may reap the orphan here, so a zombie counts as ended too.
        let ended = || Ok(state().is_none_or(|stat| stat.contains(") Z ")).then_some(()));
        Progress::quiet().wait_for("the other to end", Duration::from_secs(30), ended).unwrap();
    }

    #[test]
    fn reading_the_output_does_not_move_the_write_position() {
        let output = tempfile::tempfile().unwrap();
        let write = |text: &str| {
            let mut echo = shell(&format!("printf {text} >&2"));
            assert!(echo.stderr(output.try_clone().unwrap()).status().unwrap().success());
        };
        write("one");
        assert_eq!(text_of(&output).unwrap(), "one");
        write("two");
        assert_eq!(text_of(&output).unwrap(), "onetwo");
    }
}
