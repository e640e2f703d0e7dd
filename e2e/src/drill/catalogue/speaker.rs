//! A speaker fails while its node lives: clients do not notice (P1 of the design).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{nothing, phase};
use crate::drill::answerers::covered;
use crate::drill::{Drill, DrillRun, Promise, Topology, Tried};
use crate::testbed::install;

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "speaker-killed",
        about: "SIGKILL to the announcing speaker; the kubelet starts it again",
        places: &[Topology::Three, Topology::Iptables, Topology::TwoSegments, Topology::Two, Topology::One],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-killed", Promise::NOTHING, |active| {
            active.strike(|run| run.signal_speaker(Signal::SIGKILL))
        })
        .metallb("answers missing 5.7 s; reset every time")],
    },
    Drill {
        name: "speaker-pod-deleted",
        about: "kubectl delete pod; the DaemonSet makes another",
        places: &[Topology::Three, Topology::Two, Topology::One],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-pod-deleted", Promise::NOTHING, |active| {
            active.strike(|run| run.replace_speaker(&run.victim))
        })
        .metallb("0 lost, but the owner moves: reset every time, two owners for 0.2 s")],
    },
    Drill {
        name: "speaker-rollout-restart",
        about: "kubectl rollout restart of all speakers, one after another",
        places: &[Topology::Three, Topology::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-rollout-restart", Promise::NOTHING, |active| {
            active.strike(|run| {
                let restart = ["rollout", "restart", "-n", install::NAMESPACE, "daemonset/herald-speaker"];
                run.setup.ns.kubectl(&restart).map(drop)
            })?;
            install::wait_for_rollout(active.run.setup.lab())
        })],
    },
    Drill {
        name: "speaker-stopped",
        about: "SIGSTOP to the announcing speaker, and SIGCONT 10 s later (3 s in the scenario)",
        places: &[Topology::Three, Topology::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-stopped", Promise::NOTHING, |active| {
            active.strike(|run| run.faults().freeze(run.speaker(&run.victim)?))?;
            active.recovered()?;
            until_covered(active.run)?;
            active.lasts(Duration::from_secs(3), Duration::from_secs(10));
            active.run.faults().thaw(active.run.speaker(&active.run.victim)?)
        })],
    },
    Drill {
        name: "speakers-all-killed",
        about: "SIGKILL to every speaker at once",
        places: &[Topology::Three, Topology::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speakers-all-killed", Promise::NOTHING, |active| {
            active.strike(|run| run.speakers().try_for_each(|pod| run.faults().signal(pod, Signal::SIGKILL)))
        })],
    },
    Drill {
        name: "session-affinity",
        about: "sessionAffinity ClientIP is kept by a killed speaker",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| {
            for service in ["cluster", "local"] {
                run.setup.change_here(
                    &["patch", "service", service, "--type=merge", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#],
                    &["patch", "service", service, "--type=merge", "-p", r#"{"spec":{"sessionAffinity":"None"}}"#],
                )?;
            }
            let mut last = None;
            let waited = run.setup.wait("kube-proxy to send each client to one pod", || {
                let reached = pods(run);
                let one_each = reached.as_ref().is_ok_and(|all| all.iter().all(|pods| pods.len() == 1));
                last = Some(reached);
                Ok(one_each.then_some(()))
            });
            waited.with_context(|| format!("reached last: {last:?}"))
        },
        phases: &[phase("session-affinity", Promise::NOTHING, |active| {
            let before = pods(active.run)?;
            active.strike(|run| run.signal_speaker(Signal::SIGKILL))?;
            active.recovered()?;
            let after = pods(active.run)?;
            ensure!(before == after, "a client was sent to {before:?}, and then to {after:?}");
            Ok(())
        })],
    },
];

/// Waits until other nodes give all answers for the victim.
pub(super) fn until_covered(run: &DrillRun<'_>) -> Result<()> {
    let mac = run.mac(&run.victim)?;
    run.until(&format!("others to answer for {}", run.victim), |now| {
        now.values().all(|seen| covered(seen) == Some(mac))
    })
}

/// Returns the pods that ten connections to each address reach.
fn pods(run: &DrillRun<'_>) -> Result<Vec<std::collections::BTreeSet<String>>> {
    let ten = |address| {
        let one = |_| {
            let answer = run.setup.ns.fetch(address)?;
            answer["pod"].as_str().map(str::to_owned).context("the pod's name")
        };
        (0..10).map(one).collect()
    };
    run.addresses().into_iter().map(ten).collect()
}
