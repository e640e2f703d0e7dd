//! The drills of [`crate::failover`], each once, held against what they promise.

use anyhow::{Result, bail};

use super::Scene;
use crate::failover::{Drill, Pace, Place, Stage, Subject, Tried, drills, perform, violations};

/// Attempts at a drill whose witness stalled: a machine that stood still says nothing about who was to blame.
const ATTEMPTS: u32 = 3;

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
    let mut failures = Vec::new();
    for drill in chosen {
        scene.bed.progress.step(format!("drill {}: {}", drill.name, drill.about));
        match attempt(&stage, drill) {
            Ok(broken) => failures.extend(broken),
            Err(error) => failures.push(format!("{}: {error:#}", drill.name)),
        }
    }
    // Whatever was found, the next scenario has no advertisement.
    stage.leave()?;
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// What a drill broke. Where the machine stood still it is done again.
fn attempt(stage: &Stage<'_>, drill: &Drill) -> Result<Vec<String>> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let runs = perform(stage, drill)?;
        let mut broken = Vec::new();
        for run in &runs {
            let found: Vec<String> = run.seen.iter().flat_map(|seen| violations(&run.phase, seen)).collect();
            if !found.is_empty() {
                broken.push(format!("{}\n{}", found.join("\n"), run.reports));
            }
        }
        if broken.is_empty() || attempts == ATTEMPTS || !runs.iter().any(|run| run.void) {
            return Ok(broken);
        }
    }
}
