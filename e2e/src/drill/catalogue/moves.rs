//! Planned moves: the new node announces before the old one stops (P3). Also conditions under which nothing may move.

use std::time::Duration;

use anyhow::Result;
use herald_crds::advertisement::Failback;
use herald_crds::{VirtualIP, names};
use k8s_openapi::api::core::v1::Node;

use super::{nothing, phase};
use crate::drill::{ActivePhase, Drill, DrillRun, Owner, Promise, Topology, Traffic, Tried};
use crate::testbed::is_ready;
use herald_lab::fault::Fault;

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "drain-taint",
        about: "the announcing node gets the taint heraldlb.io/drain",
        places: &[Topology::Three, Topology::Iptables],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("drain-taint", Promise::HANDED_OVER, drain_taint)],
    },
    Drill {
        name: "exclude-label",
        about: "the announcing node is excluded from external load balancers",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("exclude-label", Promise::HANDED_OVER, |active| {
            let (label, none) = (format!("{}=", names::LABEL_EXCLUDE_NODE), format!("{}-", names::LABEL_EXCLUDE_NODE));
            change(active, "label", &label, &none)
        })],
    },
    Drill {
        name: "cordoned-shutdown",
        about: "the announcing node is cordoned, where nothing moves, and then its speaker ends",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("cordon", Promise::NOTHING, |active| {
                active.strike(|run| run.faults().inject(Fault::Cordoned { node: run.victim.clone() }))?;
                active.lasts(Duration::from_secs(1), Duration::from_secs(5));
                Ok(())
            }),
            phase("cordoned-shutdown", Promise::HANDED_OVER, |active| {
                active.strike(|run| run.faults().delete_pod(run.speaker(&run.victim)?, None))
            }),
        ],
    },
    Drill {
        name: "failback",
        about: "with failback Always a preferred node whose cable is plugged back gets its addresses again",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: |run| {
            let node = format!("{{\"matchLabels\":{{\"kubernetes.io/hostname\":\"{}\"}}}}", run.victim);
            let prefer = format!(
                r#"{{"spec":{{"failback":"Always","preferredNodeSelectors":[{{"weight":100,"preference":{node}}}]}}}}"#
            );
            let any = r#"{"spec":{"failback":null,"preferredNodeSelectors":null}}"#;
            let patch = |what| ["patch", "l2adv", &run.setup.ns.namespace, "--type=merge", "-p", what];
            run.setup.change(&patch(prefer.as_str()), &patch(any))?;
            run.setup.wait("the preference to be known", || {
                let vips = run.setup.ns.virtual_ips()?;
                let known = |vip: &VirtualIP| vip.spec.advertisements.iter().all(|r| r.failback == Failback::Always);
                Ok(vips.iter().all(known).then_some(()))
            })
        },
        phases: &[
            phase("failback-cable-pulled", Promise::SUCCEEDED, |active| {
                active.strike(|run| run.faults().inject(Fault::Cut(run.link())))
            }),
            phase("failback", Promise::HANDED_OVER, |active| {
                active.strike(|run| run.faults().heal(&Fault::Cut(run.link())))
            }),
        ],
    },
    Drill {
        name: "not-ready",
        about: "the announcing node's kubelet hangs until the node is NotReady, and goes on",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("not-ready", Promise::HANDED_OVER, |active| {
                active.strike(|run| run.faults().inject(hung(run)))?;
                active.run.setup.wait(&format!("{} to be NotReady", active.run.victim), || {
                    let node: Option<Node> = active.run.setup.ns.get_cluster(&active.run.victim)?;
                    Ok(node.is_some_and(|node| !is_ready(&node)).then_some(()))
                })
            })
            .metallb("nothing happens"),
            phase("ready-again", Promise::NOTHING, |active| {
                active.strike(|run| run.faults().heal(&hung(run)))?;
                active.run.setup.whole()
            }),
        ],
    },
    Drill {
        name: "network-unavailable",
        about: "the announcing node's pod network is not up, by its condition NetworkUnavailable",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("network-unavailable", Promise::HANDED_OVER, |active| {
            // A cloud's route controller or a CNI plugin sets this condition; in the laboratory no component does.
            let says = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"True","reason":"Drill"}]}}"#;
            let nothing = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","$patch":"delete"}]}}"#;
            active.strike(|run| {
                let patch =
                    |what| ["patch", "node", &run.victim, "--subresource=status", "--type=strategic", "-p", what];
                run.setup.change(&patch(says), &patch(nothing))
            })
        })],
    },
    Drill {
        name: "not-ready-flapping",
        about: "the announcing node is NotReady and Ready again, three times in a row",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("not-ready-flapping", Promise::HANDED_OVER, |active| {
            active.strike(|run| run.faults().inject(hung(run)))?;
            for _ in 0..3 {
                report(active.run, &active.run.victim, false)?;
                active.lasts(Duration::from_secs(1), Duration::from_secs(3));
                report(active.run, &active.run.victim, true)?;
                active.lasts(Duration::from_secs(1), Duration::from_secs(3));
            }
            Ok(())
        })],
    },
    Drill {
        name: "not-ready-all",
        about: "every node is NotReady, as when the API server has lost the kubelets, and Ready again",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        // Kubernetes marks the pods on such nodes as unready, so no endpoint is left that could answer a request.
        // Traffic therefore depends on kube-proxy alone, the announcing node on Herald. No node announces a Local
        // address that no node can serve.
        phases: &[phase("not-ready-all", Promise { owner: Owner::Stays, traffic: Traffic::Resumes }, |active| {
            // The announcing node falls last and rises first: an address leaves a node that is not Ready while another
            // node is.
            let (victim, mut nodes) = (active.run.victim.clone(), active.run.setup.nodes().to_vec());
            nodes.sort_by_key(|node| *node == victim);
            active.strike(|run| {
                nodes.iter().try_for_each(|node| {
                    run.faults().inject(Fault::KubeletStopped { node: node.clone() })?;
                    report(run, node, false)
                })
            })?;
            active.lasts(Duration::from_secs(3), Duration::from_secs(15));
            for node in nodes.iter().rev() {
                active.run.faults().heal(&Fault::KubeletStopped { node: node.clone() })?;
                report(active.run, node, true)?;
            }
            active.run.setup.whole()
        })
        .local(Promise::ONE_IN_THE_END)],
    },
];

/// Taints the announcing node.
pub(super) fn drain_taint(active: &mut ActivePhase<'_>) -> Result<()> {
    let (taint, none) = (format!("{}=:NoSchedule", names::TAINT_DRAIN), format!("{}-", names::TAINT_DRAIN));
    change(active, "taint", &taint, &none)
}

pub(super) fn hung(run: &DrillRun<'_>) -> Fault {
    Fault::KubeletStopped { node: run.victim.clone() }
}

/// Sets in a kubelet's place whether its node is Ready: the node controller would take 20 s.
pub(super) fn report(run: &DrillRun<'_>, node: &str, ready: bool) -> Result<()> {
    let status = if ready { "True" } else { "False" };
    let patch = format!(r#"{{"status":{{"conditions":[{{"type":"Ready","status":"{status}","reason":"Drill"}}]}}}}"#);
    run.setup.ns.kubectl(&["patch", "node", node, "--subresource=status", "--type=strategic", "-p", &patch]).map(drop)
}

/// Runs `kubectl taint` or `kubectl label` on the victim, undone when the drill is over.
fn change(active: &mut ActivePhase<'_>, verb: &str, what: &str, undo: &str) -> Result<()> {
    active.strike(|run| {
        let node = run.victim.as_str();
        run.setup.change(&[verb, "node", node, what], &[verb, "node", node, undo])
    })
}
