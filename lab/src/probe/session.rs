//! The start of an agent on a client, and the collection of its report.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::agent::Line;
use super::analysis::Report;
use super::sample::Samples;
use super::spec::ProbeSpec;
use crate::cluster::{Lab, own_program};
use crate::wait_factor;

/// Time after which a silent agent counts as failed: it opens a few sockets, waits 0.5 s at most for its last
/// connections, and writes its samples; the rest is a margin for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The starter of probe runs.
#[derive(Debug)]
pub struct Probe;

/// A run under way. Dropping it ends the run without a report.
#[derive(Debug)]
pub struct Running {
    client: String,
    child: Child,
    /// The agent stops when its input is closed.
    input: Option<ChildStdin>,
    lines: Receiver<std::result::Result<Line, serde_json::Error>>,
    errors: Option<JoinHandle<String>>,
}

impl Probe {
    /// Starts the probers on a client; returns once they probe.
    ///
    /// # Errors
    /// If the host does not exist or is off, or the agent refuses, for instance because an address is not on a link of
    /// the client.
    pub fn start(lab: &Lab, client: &str, spec: &ProbeSpec) -> Result<Running> {
        let program = own_program()?;
        let mut command = lab.host(client)?.command(program)?;
        command.args(["probe-agent", "--spec"]).arg(serde_json::to_string(spec)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start the probes on {client}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the agent has no output")?;
        let mut error_output = child.stderr.take().context("the agent has no error output")?;

        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                // An error of the pipe counts as its end; the receiver then learns that no line follows.
                let Ok(line) = line else { return };
                if sender.send(serde_json::from_str(&line)).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut said = Vec::new();
            match error_output.read_to_end(&mut said) {
                Ok(_) => String::from_utf8_lossy(&said).trim().to_owned(),
                Err(error) => format!("its error output cannot be read: {error}"),
            }
        });
        let mut running = Running { client: client.to_owned(), child, input, lines, errors: Some(errors) };
        match running.next(PATIENCE)? {
            Line::Started => Ok(running),
            Line::Steady | Line::Samples(_) => bail!("the probes on {client} ended before they began"),
        }
    }
}

impl Running {
    /// Waits until every prober has received an answer: afterwards every unanswered probe counts as lost.
    ///
    /// # Errors
    /// If a prober has received no answer within `limit`, or the agent ended.
    pub fn steady(&mut self, limit: Duration) -> Result<()> {
        match self.next(limit) {
            Ok(Line::Steady) => Ok(()),
            Ok(Line::Started | Line::Samples(_)) => bail!("the probes on {} ended early", self.client),
            Err(error) => Err(error.context("not every prober has been answered")),
        }
    }

    /// Waits until every prober has received another answer from now on, so that interrupted traffic works again.
    ///
    /// # Errors
    /// If a prober has received no answer within `limit`, or the agent ended.
    pub fn steady_again(&mut self, limit: Duration) -> Result<()> {
        let input = self.input.as_mut().context("the agent is being ended")?;
        input.write_all(b"\n").and_then(|()| input.flush()).with_context(|| format!("asking {}", self.client))?;
        self.steady(limit)
    }

    /// Ends the run and returns its report.
    ///
    /// # Errors
    /// If the agent failed or was killed.
    pub fn stop(self) -> Result<Report> {
        Ok(Report::of(&self.samples()?))
    }

    /// Ends the run and returns the raw samples.
    ///
    /// # Errors
    /// If the agent failed or was killed.
    pub fn samples(mut self) -> Result<Samples> {
        drop(self.input.take());
        loop {
            if let Line::Samples(samples) = self.next(PATIENCE)? {
                return Ok(*samples);
            }
        }
    }

    fn next(&mut self, limit: Duration) -> Result<Line> {
        let limit = wait_factor::scaled(limit)?;
        match self.lines.recv_timeout(limit) {
            Ok(line) => line.with_context(|| format!("cannot read what the agent on {} prints", self.client)),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the probes on {} have printed nothing for {:.1} s", self.client, limit.as_secs_f64())
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.failure()),
        }
    }

    /// Returns the reason why the agent ended.
    fn failure(&mut self) -> anyhow::Error {
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => format!("its exit status is unknown: {error}"),
        };
        let said = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        anyhow!("the probes on {} failed ({status}): {said}", self.client)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.input.take());
        let begun = Instant::now();
        // The agent ends by itself; one that cannot, because its host is stopped, ends with its host.
        while begun.elapsed() < PATIENCE {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }
}
