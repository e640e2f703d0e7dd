//! The drills of [`crate::drill`], each done once and compared with its promises.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::drill::{Drill, FaultLength, Setup, Subject, TooBusy, Topology, Tried, drills, perform, violations};
use crate::testbed::TestNamespace;
use herald_lab::cluster::Bystanders;

/// Attempts at a drill: a failure while the machine stalled does not show a fault of Herald.
const ATTEMPTS: u32 = 4;

/// Before the next attempt, no node stalls for longer than this for three seconds, or a minute has passed.
const CALM: Duration = Duration::from_millis(100);
const CALM_FOR: Duration = Duration::from_secs(3);
const CALM_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn speaker(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Speaker)
}

pub(super) fn power(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Power)
}

pub(super) fn wire(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Wire)
}

pub(super) fn api(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Api)
}

pub(super) fn endpoints(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Endpoints)
}

pub(super) fn updates(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Updates)
}

pub(super) fn moves(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Moves)
}

pub(super) fn unheard(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Unheard)
}

pub(super) fn false_witness(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Witness)
}

pub(super) fn flood(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Flood)
}

pub(super) fn small_mtu(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Mtu)
}

pub(super) fn upgrade(ns: &TestNamespace<'_>) -> Result<()> {
    subject(ns, Subject::Upgrade)
}

pub(super) fn one_node(ns: &TestNamespace<'_>) -> Result<()> {
    all_in(ns, Topology::One, drills())
}

pub(super) fn two_nodes(ns: &TestNamespace<'_>) -> Result<()> {
    all_in(ns, Topology::Two, drills())
}

pub(super) fn iptables(ns: &TestNamespace<'_>) -> Result<()> {
    all_in(ns, Topology::Iptables, drills())
}

pub(super) fn segments(ns: &TestNamespace<'_>) -> Result<()> {
    all_in(ns, Topology::TwoSegments, drills())
}

fn subject(ns: &TestNamespace<'_>, subject: Subject) -> Result<()> {
    all_in(ns, Topology::Three, subject.drills().iter())
}

/// Does every drill for this laboratory; a failure does not stop the others.
fn all_in<'a>(ns: &TestNamespace<'_>, place: Topology, drills: impl Iterator<Item = &'a Drill>) -> Result<()> {
    let chosen: Vec<&Drill> =
        drills.filter(|drill| drill.places.contains(&place) && drill.tried == Tried::Always).collect();
    let services = chosen.iter().map(|drill| drill.more_services).max().unwrap_or_default() + 2;
    let setup = Setup::set(ns, place.segment(), services, FaultLength::Short)?;
    let (mut failures, mut reports) = (Vec::new(), Vec::new());
    for drill in chosen {
        ns.bed.progress.step(format!("drill {}: {}", drill.name, drill.about));
        match attempt(&setup, drill) {
            Ok(runs) => {
                for broken in runs {
                    failures.extend(broken.violations);
                    reports.push(broken.reports);
                }
            }
            Err(error) => failures.push(format!("{}: {error:#}", drill.name)),
        }
    }
    // The advertisement is removed regardless of the result, for the next scenario.
    setup.leave()?;
    if !failures.is_empty() {
        // The violations come first: the reports are long, and the suite's last lines repeat only the beginning.
        bail!("{}\n\n{}", failures.join("\n"), reports.join("\n"));
    }
    Ok(())
}

/// A run of a phase that broke its promise.
struct Broken {
    violations: Vec<String>,
    /// The observations of both clients as text.
    reports: String,
}

/// Returns the broken promises of a drill. A drill whose failure coincides with a stall of the machine is repeated.
fn attempt(setup: &Setup<'_>, drill: &Drill) -> Result<Vec<Broken>> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let last = attempts == ATTEMPTS;
        let runs = match perform(setup, drill, attempts) {
            Err(error) if !last && error.is::<TooBusy>() => {
                setup.progress().step(format!("{}: once more, for the machine was too busy: {error:#}", drill.name));
                calm(setup)?;
                continue;
            }
            performed => performed?,
        };
        let mut broken = Vec::new();
        for run in &runs {
            let violations: Vec<String> = run.seen.iter().flat_map(|seen| violations(&run.phase, seen)).collect();
            if !violations.is_empty() {
                broken.push(Broken { violations, reports: run.reports.clone() });
            }
        }
        if broken.is_empty() || last || !runs.iter().any(|run| run.void) {
            return Ok(broken);
        }
        let broke = broken.iter().flat_map(|run| &run.violations).cloned().collect::<Vec<_>>().join("\n");
        setup.progress().step(format!("{}: once more, for the machine was too busy:\n{broke}", drill.name));
        calm(setup)?;
    }
}

/// Waits until the machine has time for the nodes.
fn calm(setup: &Setup<'_>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < CALM_WITHIN {
        let bystanders = Bystanders::start(setup.lab())?;
        // The absence of stalls cannot be waited for.
        std::thread::sleep(CALM_FOR);
        if bystanders.end()? <= CALM {
            break;
        }
    }
    Ok(())
}
