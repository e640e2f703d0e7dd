//! Endpoints of a Local Service come and go: its address is on a node that has one, and no new connection is lost (P3).

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{nothing, phase};
use crate::drill::{ActivePhase, Drill, DrillRun, Owner, Policy, Promise, Topology, Traffic, Tried};
use herald_lab::fault::PodChoice;

/// Pods end, and the connections to them end with them.
pub(super) const WITH_PODS: Promise = Promise { owner: Owner::Stays, traffic: Traffic::NoNewConnectionLost };

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "endpoint-unready",
        about: "the endpoint on the announcing node fails its readiness probe, and passes it again",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("endpoint-unready", Promise::NOTHING, |active| {
                active.strike(|run| run.setup.set_ready(&run.victim, false))
            })
            .local(Promise::RACED)
            .metallb("0.02 to 0.17 s"),
            phase("endpoint-ready-again", Promise::NOTHING, |active| {
                active.strike(|run| run.setup.set_ready(&run.victim, true))?;
                readiness_seen(active.run, &active.run.victim, true)
            }),
        ],
    },
    Drill {
        name: "endpoint-moves",
        about: "the only endpoint is on the announcing node; one comes up elsewhere, and the first ends",
        places: &[Topology::Three, Topology::Iptables],
        more_services: 0,
        tried: Tried::Always,
        prepare: one_endpoint,
        phases: &[phase("endpoint-moves", WITH_PODS, endpoint_moves)
            .local(Promise::HANDED_OVER)
            .metallb("moves before kube-proxy is ready: 3 to 38 connections time out")],
    },
    Drill {
        name: "endpoint-terminating",
        about: "the pod on the announcing node is deleted; it serves on for 3 s",
        places: &[Topology::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("endpoint-terminating", Promise::NOTHING, |active| {
            active.strike(|run| {
                let pods = run.faults().pods(&PodChoice {
                    namespace: run.setup.ns.namespace.clone(),
                    selector: Some("app=echo".to_owned()),
                    node: Some(run.victim.clone()),
                    ..PodChoice::default()
                })?;
                run.faults().delete_pod(pods.first().context("an endpoint")?, None)
            })
        })
        .local(Promise::HANDED_OVER)],
    },
];

/// Leaves a single endpoint, on the announcing node.
pub(super) fn one_endpoint(run: &DrillRun<'_>) -> Result<()> {
    // The Service with the policy Cluster selects any endpoint: only one exists at a time.
    let survives = crate::drill::workload::survives(&run.victim);
    let any = format!(r#"{{"spec":{{"selector":{{"{survives}":null}}}}}}"#);
    let survivors = format!(r#"{{"spec":{{"selector":{{"{survives}":"yes"}}}}}}"#);
    run.setup.change_here(
        &["patch", "service", "cluster", "--type=merge", "-p", &any],
        &["patch", "service", "cluster", "--type=merge", "-p", &survivors],
    )?;
    others(run).try_for_each(|node| run.setup.set_ready(node, false))?;
    others(run).try_for_each(|node| readiness_seen(run, node, false))
}

/// Moves the only endpoint from the announcing node to another one, with overlap.
pub(super) fn endpoint_moves(active: &mut ActivePhase<'_>) -> Result<()> {
    let run = active.run;
    let next = others(run).next().context("another node")?;
    active.strike(|run| run.setup.set_ready(next, true))?;
    readiness_seen(run, next, true)?;
    rules_written(run, next)?;
    run.setup.set_ready(&run.victim, false)
}

fn others<'a>(run: &'a DrillRun<'_>) -> impl Iterator<Item = &'a String> {
    run.setup.nodes().iter().filter(|node| **node != run.victim)
}

/// Waits until kube-proxy on a node has rules for its endpoint, in both families. Before that no announcing node could
/// serve the Local address.
fn rules_written(run: &DrillRun<'_>, node: &str) -> Result<()> {
    let port = "-o=jsonpath={.spec.healthCheckNodePort}";
    let port: u16 = run.setup.ns.kubectl_here(&["get", "service", Policy::Local.service(), port])?.parse()?;
    let addresses = run.setup.lab().host(node)?.addresses(0);
    let mut last = None;
    let waited = run.setup.wait(&format!("kube-proxy on {node} to have rules for its endpoint"), || {
        for &address in &addresses {
            // The connection may fail too: kube-proxy listens on the port only after it has received the Service.
            let answer = run.setup.http(node, SocketAddr::new(address, port), "GET /");
            if !answer.as_ref().is_ok_and(|answer| answer.contains("\"localEndpoints\": 1,")) {
                last = Some(answer);
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    waited.with_context(|| format!("its last answer: {last:?}"))
}

/// Waits until the API shows a node's endpoint as ready, or as not ready.
pub(super) fn readiness_seen(run: &DrillRun<'_>, node: &str, ready: bool) -> Result<()> {
    let replicas = if ready { "1" } else { "" };
    let name = format!("deployment/echo-{node}");
    run.setup.wait(&format!("the endpoint on {node} to be {}", if ready { "ready" } else { "unready" }), || {
        let said = run.setup.ns.kubectl_here(&["get", &name, "-o=jsonpath={.status.readyReplicas}"])?;
        Ok((said == replicas).then_some(()))
    })
}
