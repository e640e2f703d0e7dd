//! The time for which this machine keeps an ordinary process of a node from running.
//!
//! A client's witness runs with priority over everything else, as if on a machine of its own, so it does not show how a
//! node's programs fare. These share two processors with all the other nodes and the control plane, and if they do not
//! run for half a second, connections fail that neither kube-proxy nor a speaker has lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Host, Lab, LabId, Paths, Record, own_program};

/// The sleep of a client's witness.
const SLEEP: Duration = Duration::from_millis(5);

/// A process in the cgroups of each node that only sleeps, and reports how late it woke.
#[derive(Debug)]
pub struct Bystanders(Vec<Bystander>);

#[derive(Debug)]
struct Bystander {
    child: Child,
    longest: Option<JoinHandle<Option<Duration>>>,
}

impl Bystanders {
    /// Starts one on each node that has power.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(lab: &Lab) -> Result<Self> {
        let nodes = lab.nodes()?.into_iter().filter(|node| node.init().is_some());
        nodes.map(|node| Bystander::start(lab.id(), &node)).collect::<Result<_>>().map(Self)
    }

    /// Ends the bystanders. Returns the longest time for which one of them was kept from running; for a node that has
    /// lost its power, up to that moment.
    ///
    /// # Errors
    /// If the output of a bystander cannot be read.
    pub fn end(self) -> Result<Duration> {
        let longest = self.0.into_iter().map(Bystander::end).collect::<Result<Vec<_>>>()?;
        Ok(longest.into_iter().max().unwrap_or_default())
    }
}

impl Bystander {
    fn start(lab: &LabId, node: &Host) -> Result<Self> {
        let mut command = node.net_command(own_program()?);
        command.arg("bystander").arg(lab.to_string()).arg(node.name());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting a bystander on {}", node.name()))?;
        let output = child.stdout.take().context("a bystander's output")?;
        let longest = std::thread::spawn(move || {
            let said = BufReader::new(output).lines().map_while(Result::ok);
            let stalls = said.filter_map(|line| line.parse().ok().map(Duration::from_micros));
            stalls.max()
        });
        Ok(Self { child, longest: Some(longest) })
    }

    fn end(mut self) -> Result<Duration> {
        // The bystander ends with its input, and then its output ends too.
        drop(self.child.stdin.take());
        let longest = self.longest.take().context("a bystander's account")?;
        let longest = longest.join().map_err(|_| anyhow::anyhow!("the reader of a bystander panicked"))?;
        // No sleep ends exactly on time, so every bystander reports at least one delay.
        longest.context("a bystander has printed nothing: it did not run")
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // A power-off of its node may have killed it and collected its status already.
        drop(self.child.wait());
    }
}

/// Runs as a bystander in the node's cgroups until the end of the standard input. Each stall that is longer than the
/// earlier ones is printed in microseconds at once, because the node may lose power.
///
/// # Errors
/// If the laboratory does not exist, or its cgroups cannot be entered.
pub fn stand_by(lab: &LabId, node: &str) -> Result<()> {
    let record = Record::read(&Paths::of(lab))?.with_context(|| format!("no lab {lab}"))?;
    record.cgroups.enter(lab, node)?;
    let ended = std::thread::spawn(|| std::io::stdin().lock().read_to_end(&mut Vec::new()).map(drop));
    let mut longest = Duration::ZERO;
    while !ended.is_finished() {
        let before = Instant::now();
        std::thread::sleep(SLEEP);
        let late = before.elapsed().saturating_sub(SLEEP);
        if late > longest {
            longest = late;
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", late.as_micros()).and_then(|()| out.flush()).context("saying how late it woke")?;
        }
    }
    Ok(())
}
