//! The drills of [`crate::failover`], each once, held against what they promise.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Scene;
use crate::failover::{Drill, Pace, Place, Stage, Subject, TooBusy, Tried, drills, perform, violations};
use crate::lab::Bystanders;

/// Attempts at a drill during which the machine stood still: that says nothing about who was to blame.
const ATTEMPTS: u32 = 4;

/// Before it is tried again, no node stalls for longer than this for three seconds, or a minute has passed.
const CALM: Duration = Duration::from_millis(100);
const CALM_FOR: Duration = Duration::from_secs(3);
const CALM_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn speaker(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Speaker)
}

pub(super) fn power(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Power)
}

pub(super) fn wire(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Wire)
}

pub(super) fn api(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Api)
}

pub(super) fn endpoints(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Endpoints)
}

pub(super) fn updates(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Updates)
}

pub(super) fn moves(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Moves)
}

pub(super) fn unheard(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Unheard)
}

pub(super) fn false_witness(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Witness)
}

pub(super) fn flood(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Flood)
}

pub(super) fn small_mtu(scene: &Scene<'_>) -> Result<()> {
    subject(scene, Subject::Mtu)
}

pub(super) fn one_node(scene: &Scene<'_>) -> Result<()> {
    all_in(scene, Place::One, drills())
}

pub(super) fn two_nodes(scene: &Scene<'_>) -> Result<()> {
    all_in(scene, Place::Two, drills())
}

pub(super) fn iptables(scene: &Scene<'_>) -> Result<()> {
    all_in(scene, Place::Iptables, drills())
}

pub(super) fn segments(scene: &Scene<'_>) -> Result<()> {
    all_in(scene, Place::TwoSegments, drills())
}

fn subject(scene: &Scene<'_>, subject: Subject) -> Result<()> {
    all_in(scene, Place::Three, subject.drills().iter())
}

/// Does every drill for this laboratory; one that fails does not keep the others from being tried.
fn all_in<'a>(scene: &Scene<'_>, place: Place, drills: impl Iterator<Item = &'a Drill>) -> Result<()> {
    let chosen: Vec<&Drill> =
        drills.filter(|drill| drill.places.contains(&place) && drill.tried == Tried::Always).collect();
    let services = chosen.iter().map(|drill| drill.more_services).max().unwrap_or_default() + 2;
    let stage = Stage::set(scene, place.segment(), services, Pace::Short)?;
    let (mut failures, mut reports) = (Vec::new(), Vec::new());
    for drill in chosen {
        scene.bed.progress.step(format!("drill {}: {}", drill.name, drill.about));
        match attempt(&stage, drill) {
            Ok(runs) => {
                for broken in runs {
                    failures.extend(broken.violations);
                    reports.push(broken.reports);
                }
            }
            Err(error) => failures.push(format!("{}: {error:#}", drill.name)),
        }
    }
    // Whatever was found, the next scenario has no advertisement.
    stage.leave()?;
    if !failures.is_empty() {
        // What was broken comes first: the reports are long, and the suite's last lines repeat the beginning only.
        bail!("{}\n\n{}", failures.join("\n"), reports.join("\n"));
    }
    Ok(())
}

/// A run of a phase that did not keep what is promised.
struct Broken {
    violations: Vec<String>,
    /// What both clients saw, to read.
    reports: String,
}

/// What a drill broke. Where the machine stood still it is done again.
fn attempt(stage: &Stage<'_>, drill: &Drill) -> Result<Vec<Broken>> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let last = attempts == ATTEMPTS;
        let runs = match perform(stage, drill, attempts) {
            Err(error) if !last && error.is::<TooBusy>() => {
                stage.progress().step(format!("{}: once more, for the machine was too busy: {error:#}", drill.name));
                calm(stage)?;
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
        stage.progress().step(format!("{}: once more, for the machine was too busy:\n{broke}", drill.name));
        calm(stage)?;
    }
}

/// Waits until the machine has time for the nodes.
fn calm(stage: &Stage<'_>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < CALM_WITHIN {
        let bystanders = Bystanders::start(stage.lab())?;
        // What is looked at is that nothing stalls meanwhile.
        std::thread::sleep(CALM_FOR);
        if bystanders.end()? <= CALM {
            break;
        }
    }
    Ok(())
}
