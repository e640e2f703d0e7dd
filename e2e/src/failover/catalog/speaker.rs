//! A speaker fails while its node lives: nobody notices (P1 of the design).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{nothing, phase};
use crate::failover::look::covered;
use crate::failover::{Drill, Place, Play, Promise, Tried};
use crate::scenario::install;

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "speaker-killed",
        about: "SIGKILL to the announcing speaker; the kubelet starts it again",
        places: &[Place::Three, Place::Iptables, Place::TwoSegments, Place::Two, Place::One],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-killed", Promise::NOTHING, |take| {
            take.strike(|play| play.signal_speaker(Signal::SIGKILL))
        })
        .metallb("answers missing 5.7 s; reset every time")],
    },
    Drill {
        name: "speaker-pod-deleted",
        about: "kubectl delete pod; the DaemonSet makes another",
        places: &[Place::Three, Place::Two, Place::One],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-pod-deleted", Promise::NOTHING, |take| {
            take.strike(|play| play.replace_speaker(&play.victim))
        })
        .metallb("0 lost, but the owner moves: reset every time, two owners for 0.2 s")],
    },
    Drill {
        name: "speaker-rollout-restart",
        about: "kubectl rollout restart of all speakers, one after another",
        places: &[Place::Three, Place::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-rollout-restart", Promise::NOTHING, |take| {
            take.strike(|play| {
                let restart = ["rollout", "restart", "-n", install::NAMESPACE, "daemonset/herald-speaker"];
                play.stage.scene.kubectl(&restart).map(drop)
            })?;
            install::wait_for_rollout(take.play.stage.lab())
        })],
    },
    Drill {
        name: "speaker-stopped",
        about: "SIGSTOP to the announcing speaker, and SIGCONT 10 s later (3 s in the scenario)",
        places: &[Place::Three, Place::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speaker-stopped", Promise::NOTHING, |take| {
            take.strike(|play| play.faults().freeze(play.speaker(&play.victim)?))?;
            take.recovered()?;
            until_covered(take.play)?;
            take.lasts(Duration::from_secs(3), Duration::from_secs(10));
            take.play.faults().thaw(take.play.speaker(&take.play.victim)?)
        })],
    },
    Drill {
        name: "speakers-all-killed",
        about: "SIGKILL to every speaker at once",
        places: &[Place::Three, Place::Two],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("speakers-all-killed", Promise::NOTHING, |take| {
            take.strike(|play| play.speakers().try_for_each(|pod| play.faults().signal(pod, Signal::SIGKILL)))
        })],
    },
    Drill {
        name: "session-affinity",
        about: "sessionAffinity ClientIP is kept by a killed speaker",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |play| {
            for service in ["cluster", "local"] {
                play.stage.change_here(
                    &["patch", "service", service, "--type=merge", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#],
                    &["patch", "service", service, "--type=merge", "-p", r#"{"spec":{"sessionAffinity":"None"}}"#],
                )?;
            }
            let mut last = None;
            let waited = play.stage.wait("kube-proxy to send each client to one pod", || {
                let reached = pods(play);
                let one_each = reached.as_ref().is_ok_and(|all| all.iter().all(|pods| pods.len() == 1));
                last = Some(reached);
                Ok(one_each.then_some(()))
            });
            waited.with_context(|| format!("reached last: {last:?}"))
        },
        phases: &[phase("session-affinity", Promise::NOTHING, |take| {
            let before = pods(take.play)?;
            take.strike(|play| play.signal_speaker(Signal::SIGKILL))?;
            take.recovered()?;
            let after = pods(take.play)?;
            ensure!(before == after, "a client was sent to {before:?}, and then to {after:?}");
            Ok(())
        })],
    },
];

/// Waits until others give all answers for the victim.
pub(super) fn until_covered(play: &Play<'_>) -> Result<()> {
    let mac = play.mac(&play.victim)?;
    play.until(&format!("others to answer for {}", play.victim), |now| {
        now.values().all(|seen| covered(seen) == Some(mac))
    })
}

/// The pods that ten connections to each address reach.
fn pods(play: &Play<'_>) -> Result<Vec<std::collections::BTreeSet<String>>> {
    let ten = |address| {
        let one = |_| {
            let answer = play.stage.scene.fetch(address)?;
            answer["pod"].as_str().map(str::to_owned).context("the pod's name")
        };
        (0..10).map(one).collect()
    };
    play.addresses().into_iter().map(ten).collect()
}
