//! A rolling update replaces the serving pods one by one: no request fails meanwhile (P3).

use anyhow::Result;
use serde_json::json;

use super::phase;
use crate::drill::workload::Updated;
use crate::drill::workload::survives;
use crate::drill::{ActivePhase, Drill, DrillRun, Owner, Phase, Policy, Promise, Topology, Traffic, Tried};

/// A Local address follows the pods. When all pods are replaced, no other node may be better.
const FOLLOWS: Promise = Promise { owner: Owner::OneInTheEnd, traffic: Traffic::NoNewConnectionLost };

/// Pods end, and the connections to them end with them.
const STAYS: Promise = Promise { owner: Owner::Stays, traffic: Traffic::NoNewConnectionLost };

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "rolling-update-daemonset",
        about: "rolling update of a DaemonSet: on each node one pod ends, and then the next one starts",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| stand_in(run, Updated::DaemonSet),
        phases: &[update("rolling-update-daemonset", |active| replace(active, Updated::DaemonSet))
            .metallb("13 to 23 errors a round (Local)")],
    },
    Drill {
        name: "rolling-update-deployment",
        about: "rolling update of a Deployment of three pods: one ends when another is ready",
        places: &[Topology::Three, Topology::Iptables],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| stand_in(run, Updated::Deployment),
        phases: &[update("rolling-update-deployment", |active| replace(active, Updated::Deployment))
            .metallb("13 to 23 errors a round (Local)")],
    },
];

const fn update(name: &'static str, act: fn(&mut ActivePhase<'_>) -> Result<()>) -> Phase {
    phase(name, STAYS, act).local(FOLLOWS)
}

/// Puts a workload behind both Services, in place of the endpoints of the setup.
fn stand_in(run: &DrillRun<'_>, what: Updated) -> Result<()> {
    let setup = run.setup;
    setup.add_here(
        &what.object(setup.nodes().len()).to_string(),
        &["delete", what.reference(), "--ignore-not-found", "--timeout=60s"],
    )?;
    rolled_out(run, what)?;
    for policy in Policy::ALL {
        let survives = survives(&run.victim);
        let only = (policy == Policy::Cluster).then_some("yes");
        let select = |app, survives_is| json!({"spec": {"selector": {"app": app, &survives: survives_is}}}).to_string();
        let (updated, echo) = (select(Updated::APP, None), select("echo", only));
        let patch = |what| ["patch", "service", policy.service(), "--type=merge", "-p", what];
        setup.change_here(&patch(updated.as_str()), &patch(echo.as_str()))?;
    }
    setup.calm(&run.addresses())
}

fn replace(active: &mut ActivePhase<'_>, what: Updated) -> Result<()> {
    active.strike(|run| run.setup.ns.kubectl_here(&["rollout", "restart", what.reference()]).map(drop))?;
    rolled_out(active.run, what)
}

/// Waits until no pod of another version is left; `rollout status` does not wait for old pods that still serve.
fn rolled_out(run: &DrillRun<'_>, what: Updated) -> Result<()> {
    run.setup.ns.kubectl_here(&["rollout", "status", what.reference(), "--timeout=90s"])?;
    run.setup.all_serve(Updated::APP)
}
