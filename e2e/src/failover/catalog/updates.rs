//! What answers is replaced by its next version, pod by pod: no request fails meanwhile (P3).

use anyhow::Result;
use serde_json::json;

use super::phase;
use crate::failover::stage::survives;
use crate::failover::workload::Updated;
use crate::failover::{Drill, Owner, Phase, Place, Play, Policy, Promise, Take, Traffic, Tried};

/// A Local address follows the pods, and where all of a node's are replaced there may be no better place for it.
const FOLLOWS: Promise = Promise { owner: Owner::OneInTheEnd, traffic: Traffic::NoNewConnectionLost };

/// Pods end, and connections to them with them.
const STAYS: Promise = Promise { owner: Owner::Stays, traffic: Traffic::NoNewConnectionLost };

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "rolling-update-daemonset",
        about: "rolling update of a DaemonSet: on each node one pod ends, and then the next one starts",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |play| stand_in(play, Updated::DaemonSet),
        phases: &[update("rolling-update-daemonset", |take| replace(take, Updated::DaemonSet))
            .metallb("13 to 23 errors a round (Local)")],
    },
    Drill {
        name: "rolling-update-deployment",
        about: "rolling update of a Deployment of three pods: one ends when another is ready",
        places: &[Place::Three, Place::Iptables],
        more_services: 0,
        tried: Tried::Always,
        prepare: |play| stand_in(play, Updated::Deployment),
        phases: &[update("rolling-update-deployment", |take| replace(take, Updated::Deployment))
            .metallb("13 to 23 errors a round (Local)")],
    },
];

const fn update(name: &'static str, act: fn(&mut Take<'_>) -> Result<()>) -> Phase {
    phase(name, STAYS, act).local(FOLLOWS)
}

/// Puts a workload behind both Services, in place of the stage's endpoints.
fn stand_in(play: &Play<'_>, what: Updated) -> Result<()> {
    let stage = play.stage;
    stage.add_here(
        &what.object(stage.nodes().len()).to_string(),
        &["delete", what.reference(), "--ignore-not-found", "--timeout=60s"],
    )?;
    rolled_out(play, what)?;
    for policy in Policy::ALL {
        let survives = survives(&play.victim);
        let only = (policy == Policy::Cluster).then_some("yes");
        let select = |app, survives_is| json!({"spec": {"selector": {"app": app, &survives: survives_is}}}).to_string();
        let (updated, echo) = (select(Updated::APP, None), select("echo", only));
        let patch = |what| ["patch", "service", policy.service(), "--type=merge", "-p", what];
        stage.change_here(&patch(updated.as_str()), &patch(echo.as_str()))?;
    }
    stage.calm(&play.addresses())
}

fn replace(take: &mut Take<'_>, what: Updated) -> Result<()> {
    take.strike(|play| play.stage.scene.kubectl_here(&["rollout", "restart", what.reference()]).map(drop))?;
    rolled_out(take.play, what)
}

/// Waits until no pod of another version is left; `rollout status` does not wait for those that still serve.
fn rolled_out(play: &Play<'_>, what: Updated) -> Result<()> {
    play.stage.scene.kubectl_here(&["rollout", "status", what.reference(), "--timeout=90s"])?;
    play.stage.all_serve(Updated::APP)
}
