//! Keeps a host's services running and reaps ended processes, as a first process must.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::{InitSpec, Ready, Service};

/// Interval at which a service that does not run yet is checked: whether the service it waits for is ready, and whether
/// it is still held.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time between the end of a service and its next start: a service that cannot start must not consume the machine.
const RESTART_AFTER: Duration = Duration::from_secs(1);

enum State {
    /// The service will start, but not before this moment.
    Down {
        not_before: Instant,
    },
    Running {
        pid: i32,
    },
}

struct Supervised<'a> {
    service: &'a Service,
    state: State,
    pid_file: PathBuf,
    hold_file: PathBuf,
    log: PathBuf,
}

pub(super) fn run(spec: &InitSpec, ready: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(supervise(spec, ready))
}

async fn supervise(spec: &InitSpec, ready: &Path) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut children = signal(SignalKind::child()).context("listening for SIGCHLD")?;
    let mut services =
        spec.services.iter().map(|service| Supervised::new(spec, service)).collect::<Result<Vec<_>>>()?;
    fs::write(ready, "").with_context(|| ready.display().to_string())?;
    loop {
        for service in &mut services {
            service.start_if_due()?;
        }
        let all_run = services.iter().all(|service| matches!(service.state, State::Running { .. }));
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = children.recv() => collect_the_dead(&mut services)?,
            () = tokio::time::sleep(LOOK_EVERY), if !all_run => {}
        }
    }
}

fn collect_the_dead(services: &mut [Supervised<'_>]) -> Result<()> {
    loop {
        let pid = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
            Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))) => {
                if let Some(service) = services.iter_mut().find(|service| service.runs_as(pid)) {
                    tracing::info!("{} ended: {status:?}", service.service.name);
                    service.ended()?;
                }
                continue;
            }
            Ok(other) => other.pid(),
            Err(errno) => return Err(errno).context("waiting for children"),
        };
        tracing::debug!("child {pid:?} changed its state");
    }
}

impl<'a> Supervised<'a> {
    fn new(spec: &InitSpec, service: &'a Service) -> Result<Self> {
        let file = |kind: &str| spec.services_dir.join(format!("{}.{kind}", service.name));
        let supervised = Self {
            service,
            state: State::Down { not_before: Instant::now() },
            pid_file: file("pid"),
            hold_file: file("hold"),
            log: spec.logs_dir.join(format!("{}.log", service.name)),
        };
        supervised.write_pid("")?;
        Ok(supervised)
    }

    fn runs_as(&self, pid: Pid) -> bool {
        matches!(self.state, State::Running { pid: own } if own == pid.as_raw())
    }

    fn ended(&mut self) -> Result<()> {
        self.state = State::Down { not_before: Instant::now() + RESTART_AFTER };
        self.write_pid("")
    }

    /// Replaces the file in one step, so that a reader sees either the old number or the new one.
    fn write_pid(&self, text: &str) -> Result<()> {
        let next = self.pid_file.with_extension("pid.next");
        fs::write(&next, text).with_context(|| next.display().to_string())?;
        fs::rename(&next, &self.pid_file).with_context(|| self.pid_file.display().to_string())
    }

    fn start_if_due(&mut self) -> Result<()> {
        let State::Down { not_before } = self.state else { return Ok(()) };
        let due = Instant::now() >= not_before
            && !self.hold_file.exists()
            && self.service.after.as_ref().is_none_or(Ready::answers);
        if !due {
            return Ok(());
        }
        match self.start() {
            Ok(pid) => {
                self.state = State::Running { pid };
                self.write_pid(&pid.to_string())
            }
            Err(error) => {
                tracing::error!("starting {}: {error:#}", self.service.name);
                self.ended()
            }
        }
    }

    fn start(&self) -> Result<i32> {
        let log = open_log(&self.log)?;
        let (program, arguments) = self.service.command.split_first().context("a service without a program")?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .envs(&self.service.env)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| program.clone())?;
        // The handle is not waited on: all children are reaped in one place.
        i32::try_from(child.id()).context("process id")
    }
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| path.display().to_string())
}
