//! Planned moves: the new node announces before the old one stops (P3); and what must not move.

use std::time::Duration;

use anyhow::Result;
use herald_crds::advertisement::Failback;
use herald_crds::{VirtualIP, names};
use k8s_openapi::api::core::v1::Node;

use super::{nothing, phase};
use crate::failover::{Drill, Owner, Place, Play, Promise, Take, Traffic, Tried};
use crate::fault::Fault;
use crate::scenario::is_ready;

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "drain-taint",
        about: "the announcing node gets the taint heraldlb.io/drain",
        places: &[Place::Three, Place::Iptables],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("drain-taint", Promise::HANDED_OVER, drain_taint)],
    },
    Drill {
        name: "exclude-label",
        about: "the announcing node is excluded from external load balancers",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("exclude-label", Promise::HANDED_OVER, |take| {
            let (label, none) = (format!("{}=", names::LABEL_EXCLUDE_NODE), format!("{}-", names::LABEL_EXCLUDE_NODE));
            change(take, "label", &label, &none)
        })],
    },
    Drill {
        name: "cordoned-shutdown",
        about: "the announcing node is cordoned, where nothing moves, and then its speaker ends",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("cordon", Promise::NOTHING, |take| {
                take.strike(|play| play.faults().inject(Fault::Cordoned { node: play.victim.clone() }))?;
                take.lasts(Duration::from_secs(1), Duration::from_secs(5));
                Ok(())
            }),
            phase("cordoned-shutdown", Promise::HANDED_OVER, |take| {
                take.strike(|play| play.faults().delete_pod(play.speaker(&play.victim)?, None))
            }),
        ],
    },
    Drill {
        name: "failback",
        about: "with failback Always a preferred node whose cable is plugged back gets its addresses again",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |play| {
            let node = format!("{{\"matchLabels\":{{\"kubernetes.io/hostname\":\"{}\"}}}}", play.victim);
            let prefer = format!(
                r#"{{"spec":{{"failback":"Always","preferredNodeSelectors":[{{"weight":100,"preference":{node}}}]}}}}"#
            );
            let any = r#"{"spec":{"failback":null,"preferredNodeSelectors":null}}"#;
            let patch = |what| ["patch", "l2adv", &play.stage.scene.namespace, "--type=merge", "-p", what];
            play.stage.change(&patch(prefer.as_str()), &patch(any))?;
            play.stage.wait("the preference to be known", || {
                let vips = play.stage.scene.virtual_ips()?;
                let known = |vip: &VirtualIP| vip.spec.advertisements.iter().all(|r| r.failback == Failback::Always);
                Ok(vips.iter().all(known).then_some(()))
            })
        },
        phases: &[
            phase("failback-cable-pulled", Promise::SUCCEEDED, |take| {
                take.strike(|play| play.faults().inject(Fault::Cut(play.link())))
            }),
            phase("failback", Promise::HANDED_OVER, |take| {
                take.strike(|play| play.faults().heal(&Fault::Cut(play.link())))
            }),
        ],
    },
    Drill {
        name: "not-ready",
        about: "the announcing node's kubelet hangs until the node is NotReady, and goes on",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("not-ready", Promise::HANDED_OVER, |take| {
                take.strike(|play| play.faults().inject(hung(play)))?;
                take.play.stage.wait(&format!("{} to be NotReady", take.play.victim), || {
                    let node: Option<Node> = take.play.stage.scene.get_cluster(&take.play.victim)?;
                    Ok(node.is_some_and(|node| !is_ready(&node)).then_some(()))
                })
            })
            .metallb("nothing happens"),
            phase("ready-again", Promise::NOTHING, |take| {
                take.strike(|play| play.faults().heal(&hung(play)))?;
                take.play.stage.whole()
            }),
        ],
    },
    Drill {
        name: "network-unavailable",
        about: "the announcing node's pod network is not up, by its condition NetworkUnavailable",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("network-unavailable", Promise::HANDED_OVER, |take| {
            // As a cloud's route controller says it, or a CNI plugin; in the laboratory nobody does.
            let says = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"True","reason":"Drill"}]}}"#;
            let nothing = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","$patch":"delete"}]}}"#;
            take.strike(|play| {
                let patch =
                    |what| ["patch", "node", &play.victim, "--subresource=status", "--type=strategic", "-p", what];
                play.stage.change(&patch(says), &patch(nothing))
            })
        })],
    },
    Drill {
        name: "not-ready-flapping",
        about: "the announcing node is NotReady and Ready again, three times in a row",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("not-ready-flapping", Promise::HANDED_OVER, |take| {
            take.strike(|play| play.faults().inject(hung(play)))?;
            for _ in 0..3 {
                report(take.play, &take.play.victim, false)?;
                take.lasts(Duration::from_secs(1), Duration::from_secs(3));
                report(take.play, &take.play.victim, true)?;
                take.lasts(Duration::from_secs(1), Duration::from_secs(3));
            }
            Ok(())
        })],
    },
    Drill {
        name: "not-ready-all",
        about: "every node is NotReady, as when the API server has lost the kubelets, and Ready again",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        // Kubernetes calls the pods on such nodes unready, so that nothing is left that could answer a request: whether
        // traffic flows is kube-proxy's, who announces is ours. A Local address nobody can serve, nobody announces.
        phases: &[phase("not-ready-all", Promise { owner: Owner::Stays, traffic: Traffic::Resumes }, |take| {
            // The announcing node falls last and rises first: while another is Ready and it is not, it is to be left.
            let (victim, mut nodes) = (take.play.victim.clone(), take.play.stage.nodes().to_vec());
            nodes.sort_by_key(|node| *node == victim);
            take.strike(|play| {
                nodes.iter().try_for_each(|node| {
                    play.faults().inject(Fault::KubeletStopped { node: node.clone() })?;
                    report(play, node, false)
                })
            })?;
            take.lasts(Duration::from_secs(3), Duration::from_secs(15));
            for node in nodes.iter().rev() {
                take.play.faults().heal(&Fault::KubeletStopped { node: node.clone() })?;
                report(take.play, node, true)?;
            }
            take.play.stage.whole()
        })
        .local(Promise::ONE_IN_THE_END)],
    },
];

/// The announcing node gets the taint.
pub(super) fn drain_taint(take: &mut Take<'_>) -> Result<()> {
    let (taint, none) = (format!("{}=:NoSchedule", names::TAINT_DRAIN), format!("{}-", names::TAINT_DRAIN));
    change(take, "taint", &taint, &none)
}

pub(super) fn hung(play: &Play<'_>) -> Fault {
    Fault::KubeletStopped { node: play.victim.clone() }
}

/// Says in a kubelet's place whether its node is Ready: the node's controller would wait for 20 s until it says so.
pub(super) fn report(play: &Play<'_>, node: &str, ready: bool) -> Result<()> {
    let status = if ready { "True" } else { "False" };
    let patch = format!(r#"{{"status":{{"conditions":[{{"type":"Ready","status":"{status}","reason":"Drill"}}]}}}}"#);
    play.stage
        .scene
        .kubectl(&["patch", "node", node, "--subresource=status", "--type=strategic", "-p", &patch])
        .map(drop)
}

/// `kubectl taint` or `kubectl label` on the victim, undone when the drill is over.
fn change(take: &mut Take<'_>, verb: &str, what: &str, undo: &str) -> Result<()> {
    take.strike(|play| {
        let node = play.victim.as_str();
        play.stage.change(&[verb, "node", node, what], &[verb, "node", node, undo])
    })
}
