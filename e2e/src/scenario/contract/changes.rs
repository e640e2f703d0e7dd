//! What may change about a Service and its status without its address changing.

use anyhow::{Context, Result, ensure};
use herald_crds::virtual_ip::TrafficPolicy;
use kube::api::Patch;
use serde_json::{Value, json};

use super::{Row, answers, caught_up, change, change_status, create, endpoint, told, told_once, version};
use crate::scenario::{Scene, scene::get};

pub(super) const ROWS: &[Row] = &[
    Row { name: "needsUpdate triggers", check: triggers },
    Row { name: "externalTrafficPolicy", check: external_traffic_policy },
    Row { name: "internalTrafficPolicy", check: internal_traffic_policy },
    Row { name: "status", check: status },
];

/// What upstream's controller calls the provider for, and what it does not, each as a JSON merge patch.
const TRIGGERS: &[(&str, &str)] = &[
    ("source-ranges", r#"{"spec": {"loadBalancerSourceRanges": ["10.20.0.0/16"]}}"#),
    ("port-name", r#"{"spec": {"ports": [{"name": "www", "port": 80, "targetPort": 8080}]}}"#),
    ("port", r#"{"spec": {"ports": [{"name": "http", "port": 81, "targetPort": 8080}]}}"#),
    ("protocol", r#"{"spec": {"ports": [{"name": "http", "protocol": "UDP", "port": 80, "targetPort": 9000}]}}"#),
    ("target-port", r#"{"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 9000}]}}"#),
    ("node-port", r#"{"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30007}]}}"#),
    (
        "app-protocol",
        r#"{"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}]}}"#,
    ),
    ("session-affinity", r#"{"spec": {"sessionAffinity": "ClientIP"}}"#),
    (
        "session-affinity-config",
        r#"{"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}}"#,
    ),
    ("external-ips", r#"{"spec": {"externalIPs": ["198.51.100.32"]}}"#),
    ("annotation", r#"{"metadata": {"annotations": {"example.com/any": "value"}}}"#),
    ("external-policy", r#"{"spec": {"externalTrafficPolicy": "Local"}}"#),
    ("internal-policy", r#"{"spec": {"internalTrafficPolicy": "Local"}}"#),
    ("distribution", r#"{"spec": {"trafficDistribution": "PreferClose"}}"#),
    ("label", r#"{"metadata": {"labels": {"any": "value"}}}"#),
    ("selector", r#"{"spec": {"selector": {"app": "nobody"}}}"#),
];

/// A Service for each, all changed, and none has another address, even for a moment: a new one is a new VirtualIP and
/// an event.
fn triggers(scene: &Scene<'_>) -> Result<()> {
    let names = TRIGGERS.iter().map(|(name, _)| *name).chain(["same-ip"]);
    for name in names.clone() {
        create(scene, name, json!({}))?;
    }
    let mut before = Vec::new();
    for name in names {
        let address = scene.external_ip(name)?;
        before.push((name, address, scene.virtual_ip(address)?.context("its VirtualIP")?.metadata.uid));
    }
    for (name, patch) in TRIGGERS {
        change(scene, name, serde_json::from_str(patch)?)?;
    }
    let same = before.iter().find(|(name, ..)| *name == "same-ip").map(|(_, address, _)| *address);
    change(scene, "same-ip", json!({"spec": {"loadBalancerIP": same.context("its address")?}}))?;
    caught_up(scene, "triggers")?;
    let mut changed = Vec::new();
    for (name, address, uid) in before {
        let now = scene.virtual_ip(address)?.and_then(|vip| vip.metadata.uid);
        let warnings = scene.events(name)?.into_iter().filter(|(kind, ..)| kind == "Warning").collect::<Vec<_>>();
        let (shown, assigned) = (scene.ingress(name)?, told(scene, name, "EnsuredLoadBalancer")?);
        if now != uid || shown != [address] || assigned > 1 || !warnings.is_empty() {
            changed.push(format!("{name}: {address} became {shown:?}, assigned {assigned} times, {warnings:?}"));
        }
    }
    ensure!(changed.is_empty(), "{}", changed.join("\n"));
    Ok(())
}

/// Cluster to Local and back: one address; with Local where the endpoint is, and the client's own address arrives; the
/// health check port is kube-proxy's, and is forgotten with the policy.
fn external_traffic_policy(scene: &Scene<'_>) -> Result<()> {
    create(scene, "policy", json!({}))?;
    let address = scene.external_ip("policy")?;
    let (_, node) = endpoint(scene)?;
    scene.announcer(address)?;
    scene.reachable(address)?;

    let port = change(scene, "policy", json!({"spec": {"externalTrafficPolicy": "Local"}}))?;
    let port = port.spec.and_then(|spec| spec.health_check_node_port);
    ensure!(port.is_some_and(|port| port != 0), "the API server allocates a health check port: {port:?}");
    scene.eventually(&format!("{node}, which has the endpoint, to announce {address}"), || {
        let vip = scene.virtual_ip(address)?.context("the VirtualIP")?;
        let local = vip.spec.external_traffic_policy == TrafficPolicy::Local && vip.spec.health_check_node_port == port;
        Ok((local && vip.status.and_then(|s| s.node).as_ref() == Some(&node)).then_some(()))
    })?;
    scene.answered_by(address, &node)?;
    let client = scene.client()?.addresses(0)[0].to_string();
    scene.eventually("the client's own address to arrive", || {
        Ok((scene.reachable(address)?["client"] == client.as_str()).then_some(()))
    })?;

    change(scene, "policy", json!({"spec": {"externalTrafficPolicy": "Cluster"}}))?;
    let vip = scene.eventually("the VirtualIP to follow", || {
        let vip = scene.virtual_ip(address)?.context("the VirtualIP")?;
        Ok((vip.spec.external_traffic_policy == TrafficPolicy::Cluster).then_some(vip))
    })?;
    ensure!(vip.spec.health_check_node_port.is_none(), "{:?} is left", vip.spec.health_check_node_port);
    ensure!(scene.announcer(address)? == node, "any node may announce it, so it stays");
    ensure!(scene.ingress("policy")? == [address], "one address all the time");
    scene.reachable(address)?;
    ensure!(told(scene, "policy", "FailedToStartServiceHealthcheck")? == 0, "the port is kube-proxy's");
    told_once(scene, "policy", "EnsuredLoadBalancer")
}

/// It governs the cluster IP alone: with Local, a node without an endpoint does not reach that, and announces and
/// forwards the Service's address as before.
fn internal_traffic_policy(scene: &Scene<'_>) -> Result<()> {
    let (_, with_endpoint) = endpoint(scene)?;
    let mut elsewhere = None;
    // Addresses are spread over the nodes, so one of a few is on a node without the endpoint.
    for number in 1..=6 {
        let name = format!("internal-{number}");
        create(scene, &name, json!({}))?;
        let address = scene.external_ip(&name)?;
        let node = scene.announcer(address)?;
        if node != with_endpoint {
            elsewhere = Some((name, address, node));
            break;
        }
    }
    let (name, address, node) = elsewhere.context("one that is announced by a node without the endpoint")?;
    scene.reachable(address)?;
    let internal = scene.service(&name)?.spec.and_then(|spec| spec.cluster_ip).context("a cluster IP")?;
    let internal = std::net::SocketAddr::new(internal.parse()?, 80);
    let host = scene.bed.lab().host(&node)?;
    answers(scene, &host, internal)?;
    change(scene, &name, json!({"spec": {"internalTrafficPolicy": "Local"}}))?;
    scene.eventually(&format!("kube-proxy on {node} to drop {internal}"), || {
        Ok(host.inside(|| get(internal)).is_err().then_some(()))
    })?;
    scene.reachable(address)?;
    ensure!(scene.announcer(address)? == node && scene.ingress(&name)? == [address], "{address} stays on {node}");
    Ok(())
}

/// One entry, canonical, `ipMode: VIP` and nothing else. What others write beside it stays, and is not answered by a
/// write; nor is an entry without `ipMode`, which means the same.
fn status(scene: &Scene<'_>) -> Result<()> {
    create(scene, "status", json!({}))?;
    let address = scene.external_ip("status")?;
    let shown = |scene: &Scene<'_>| -> Result<Value> {
        let status = scene.service("status")?.status.and_then(|status| status.load_balancer);
        Ok(serde_json::to_value(status.and_then(|status| status.ingress))?)
    };
    let expected = json!([{"ip": address, "ipMode": "VIP"}]);
    ensure!(shown(scene)? == expected, "{} instead of {expected}", shown(scene)?);

    change(scene, "status", json!({"metadata": {"labels": {"example.com/any": "value"}}}))?;
    let theirs = json!({"type": "example.com/Checked", "status": "True", "reason": "Checked", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    change_status(scene, "status", Patch::Strategic(json!({"status": {"conditions": [theirs]}})))?;
    let without_mode = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    let last = change_status(scene, "status", Patch::Merge(without_mode))?;
    caught_up(scene, "status")?;
    let now = scene.service("status")?;
    ensure!(version(&now)? == version(&last)?, "Herald answered with a write: {now:?}");
    ensure!(shown(scene)? == expected, "{} instead of {expected}", shown(scene)?);
    let conditions = now.status.and_then(|status| status.conditions).unwrap_or_default();
    ensure!(conditions.len() == 2, "ours and theirs: {conditions:?}");
    told_once(scene, "status", "EnsuredLoadBalancer")
}
