//! Endpoints of a Local Service come and go: its address is where one is, and no new connection is lost (P3).

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{nothing, phase};
use crate::failover::{Drill, Owner, Place, Play, Policy, Promise, Take, Traffic, Tried};
use crate::fault::PodChoice;

/// Pods end: connections to them end with them.
pub(super) const WITH_PODS: Promise = Promise { owner: Owner::Stays, traffic: Traffic::NoNewConnectionLost };

pub(super) const DRILLS: &[Drill] = &[
    Drill {
        name: "endpoint-unready",
        about: "the endpoint on the announcing node fails its readiness probe, and passes it again",
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[
            phase("endpoint-unready", Promise::NOTHING, |take| {
                take.strike(|play| play.stage.set_ready(&play.victim, false))
            })
            .local(Promise::RACED)
            .metallb("0.02 to 0.17 s"),
            phase("endpoint-ready-again", Promise::NOTHING, |take| {
                take.strike(|play| play.stage.set_ready(&play.victim, true))?;
                readiness_seen(take.play, &take.play.victim, true)
            }),
        ],
    },
    Drill {
        name: "endpoint-moves",
        about: "the only endpoint is on the announcing node; one comes up elsewhere, and it goes",
        places: &[Place::Three, Place::Iptables],
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
        places: &[Place::Three],
        more_services: 0,
        tried: Tried::Always,
        prepare: nothing,
        phases: &[phase("endpoint-terminating", Promise::NOTHING, |take| {
            take.strike(|play| {
                let pods = play.faults().pods(&PodChoice {
                    namespace: play.stage.scene.namespace.clone(),
                    selector: Some("app=echo".to_owned()),
                    node: Some(play.victim.clone()),
                    ..PodChoice::default()
                })?;
                play.faults().delete_pod(pods.first().context("an endpoint")?, None)
            })
        })
        .local(Promise::HANDED_OVER)],
    },
];

/// Leaves one endpoint, on the announcing node.
pub(super) fn one_endpoint(play: &Play<'_>) -> Result<()> {
    // Any endpoint will do for the Service with the policy Cluster: there is only one at a time.
    let survives = crate::failover::stage::survives(&play.victim);
    let any = format!(r#"{{"spec":{{"selector":{{"{survives}":null}}}}}}"#);
    let survivors = format!(r#"{{"spec":{{"selector":{{"{survives}":"yes"}}}}}}"#);
    play.stage.change_here(
        &["patch", "service", "cluster", "--type=merge", "-p", &any],
        &["patch", "service", "cluster", "--type=merge", "-p", &survivors],
    )?;
    others(play).try_for_each(|node| play.stage.set_ready(node, false))?;
    others(play).try_for_each(|node| readiness_seen(play, node, false))
}

/// The only endpoint goes from the announcing node to another, with overlap.
pub(super) fn endpoint_moves(take: &mut Take<'_>) -> Result<()> {
    let play = take.play;
    let next = others(play).next().context("another node")?;
    take.strike(|play| play.stage.set_ready(next, true))?;
    readiness_seen(play, next, true)?;
    rules_written(play, next)?;
    play.stage.set_ready(&play.victim, false)
}

fn others<'a>(play: &'a Play<'_>) -> impl Iterator<Item = &'a String> {
    play.stage.nodes().iter().filter(|node| **node != play.victim)
}

/// Waits until kube-proxy on a node has rules for its endpoint, in both families: until then nobody could serve the Local
/// address, whoever announces it.
fn rules_written(play: &Play<'_>, node: &str) -> Result<()> {
    let port = "-o=jsonpath={.spec.healthCheckNodePort}";
    let port: u16 = play.stage.scene.kubectl_here(&["get", "service", Policy::Local.service(), port])?.parse()?;
    let addresses = play.stage.lab().host(node)?.addresses(0);
    let mut last = None;
    let waited = play.stage.wait(&format!("kube-proxy on {node} to have rules for its endpoint"), || {
        for &address in &addresses {
            // No answer either: kube-proxy begins to listen on the port when it hears of the Service.
            let answer = play.stage.http(node, SocketAddr::new(address, port), "GET /");
            if !answer.as_ref().is_ok_and(|answer| answer.contains("\"localEndpoints\": 1,")) {
                last = Some(answer);
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    waited.with_context(|| format!("its last answer: {last:?}"))
}

/// Waits until the API has a node's endpoint as ready or not.
pub(super) fn readiness_seen(play: &Play<'_>, node: &str, ready: bool) -> Result<()> {
    let replicas = if ready { "1" } else { "" };
    let name = format!("deployment/echo-{node}");
    play.stage.wait(&format!("the endpoint on {node} to be {}", if ready { "ready" } else { "unready" }), || {
        let said = play.stage.scene.kubectl_here(&["get", &name, "-o=jsonpath={.status.readyReplicas}"])?;
        Ok((said == replicas).then_some(()))
    })
}
