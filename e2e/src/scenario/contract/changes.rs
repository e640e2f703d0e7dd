//! Changes of a Service and its status that do not change its address.

use anyhow::{Context, Result, ensure};
use herald_crds::virtual_ip::TrafficPolicy;
use kube::api::Patch;
use serde_json::{Value, json};

use super::{Row, answers, caught_up, change, change_status, create, endpoint, told, told_once, version};
use crate::testbed::{TestNamespace, namespace::get};

pub(super) const ROWS: &[Row] = &[
    Row { name: "needsUpdate triggers", check: triggers },
    Row { name: "externalTrafficPolicy", check: external_traffic_policy },
    Row { name: "internalTrafficPolicy", check: internal_traffic_policy },
    Row { name: "status", check: status },
];

/// Changes for which upstream's controller calls the provider, and others for which it does not, each as a JSON merge
/// patch.
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

/// Applies each change to a Service of its own. None of them gets another address, even for a moment: a new address
/// would show as a new VirtualIP and an event.
fn triggers(ns: &TestNamespace<'_>) -> Result<()> {
    let names = TRIGGERS.iter().map(|(name, _)| *name).chain(["same-ip"]);
    for name in names.clone() {
        create(ns, name, json!({}))?;
    }
    let mut before = Vec::new();
    for name in names {
        let address = ns.external_ip(name)?;
        before.push((name, address, ns.virtual_ip(address)?.context("its VirtualIP")?.metadata.uid));
    }
    for (name, patch) in TRIGGERS {
        change(ns, name, serde_json::from_str(patch)?)?;
    }
    let same = before.iter().find(|(name, ..)| *name == "same-ip").map(|(_, address, _)| *address);
    change(ns, "same-ip", json!({"spec": {"loadBalancerIP": same.context("its address")?}}))?;
    caught_up(ns, "triggers")?;
    let mut changed = Vec::new();
    for (name, address, uid) in before {
        let now = ns.virtual_ip(address)?.and_then(|vip| vip.metadata.uid);
        let warnings = ns.events(name)?.into_iter().filter(|(kind, ..)| kind == "Warning").collect::<Vec<_>>();
        let (shown, assigned) = (ns.ingress(name)?, told(ns, name, "EnsuredLoadBalancer")?);
        if now != uid || shown != [address] || assigned > 1 || !warnings.is_empty() {
            changed.push(format!("{name}: {address} became {shown:?}, assigned {assigned} times, {warnings:?}"));
        }
    }
    ensure!(changed.is_empty(), "{}", changed.join("\n"));
    Ok(())
}

/// Changes the policy from Cluster to Local and back; the Service keeps its address. With Local, the node with the
/// endpoint announces and the client's own address arrives. kube-proxy serves the health check port, which disappears
/// with the policy.
fn external_traffic_policy(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "policy", json!({}))?;
    let address = ns.external_ip("policy")?;
    let (_, node) = endpoint(ns)?;
    ns.announcer(address)?;
    ns.reachable(address)?;

    let port = change(ns, "policy", json!({"spec": {"externalTrafficPolicy": "Local"}}))?;
    let port = port.spec.and_then(|spec| spec.health_check_node_port);
    ensure!(port.is_some_and(|port| port != 0), "the API server allocates a health check port: {port:?}");
    ns.eventually(&format!("{node}, which has the endpoint, to announce {address}"), || {
        let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
        let local = vip.spec.external_traffic_policy == TrafficPolicy::Local && vip.spec.health_check_node_port == port;
        Ok((local && vip.status.and_then(|s| s.node).as_ref() == Some(&node)).then_some(()))
    })?;
    ns.answered_by(address, &node)?;
    let client = ns.client()?.addresses(0)[0].to_string();
    ns.eventually("the client's own address to arrive", || {
        Ok((ns.reachable(address)?["client"] == client.as_str()).then_some(()))
    })?;

    change(ns, "policy", json!({"spec": {"externalTrafficPolicy": "Cluster"}}))?;
    let vip = ns.eventually("the VirtualIP to follow", || {
        let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
        Ok((vip.spec.external_traffic_policy == TrafficPolicy::Cluster).then_some(vip))
    })?;
    ensure!(vip.spec.health_check_node_port.is_none(), "{:?} is left", vip.spec.health_check_node_port);
    ensure!(ns.announcer(address)? == node, "any node may announce it, so it stays");
    ensure!(ns.ingress("policy")? == [address], "one address all the time");
    ns.reachable(address)?;
    ensure!(told(ns, "policy", "FailedToStartServiceHealthcheck")? == 0, "the port is kube-proxy's");
    told_once(ns, "policy", "EnsuredLoadBalancer")
}

/// Checks that this policy governs the cluster IP alone: with Local, a node without an endpoint does not reach the
/// cluster IP, and announces and forwards the Service's address as before.
fn internal_traffic_policy(ns: &TestNamespace<'_>) -> Result<()> {
    let (_, with_endpoint) = endpoint(ns)?;
    let mut elsewhere = None;
    // Addresses are spread over the nodes, so one of a few is on a node without the endpoint.
    for number in 1..=6 {
        let name = format!("internal-{number}");
        create(ns, &name, json!({}))?;
        let address = ns.external_ip(&name)?;
        let node = ns.announcer(address)?;
        if node != with_endpoint {
            elsewhere = Some((name, address, node));
            break;
        }
    }
    let (name, address, node) = elsewhere.context("one that is announced by a node without the endpoint")?;
    ns.reachable(address)?;
    let internal = ns.service(&name)?.spec.and_then(|spec| spec.cluster_ip).context("a cluster IP")?;
    let internal = std::net::SocketAddr::new(internal.parse()?, 80);
    let host = ns.bed.lab().host(&node)?;
    answers(ns, &host, internal)?;
    change(ns, &name, json!({"spec": {"internalTrafficPolicy": "Local"}}))?;
    ns.eventually(&format!("kube-proxy on {node} to drop {internal}"), || {
        Ok(host.inside(|| get(internal)).is_err().then_some(()))
    })?;
    ns.reachable(address)?;
    ensure!(ns.announcer(address)? == node && ns.ingress(&name)? == [address], "{address} stays on {node}");
    Ok(())
}

/// Checks for one canonical entry with `ipMode: VIP` and nothing else. Conditions of other controllers stay, and Herald
/// does not answer them with a write; nor does it answer an entry without `ipMode`, which means the same.
fn status(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "status", json!({}))?;
    let address = ns.external_ip("status")?;
    let shown = |ns: &TestNamespace<'_>| -> Result<Value> {
        let status = ns.service("status")?.status.and_then(|status| status.load_balancer);
        Ok(serde_json::to_value(status.and_then(|status| status.ingress))?)
    };
    let expected = json!([{"ip": address, "ipMode": "VIP"}]);
    ensure!(shown(ns)? == expected, "{} instead of {expected}", shown(ns)?);

    change(ns, "status", json!({"metadata": {"labels": {"example.com/any": "value"}}}))?;
    let theirs = json!({"type": "example.com/Checked", "status": "True", "reason": "Checked", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    change_status(ns, "status", Patch::Strategic(json!({"status": {"conditions": [theirs]}})))?;
    let without_mode = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    let last = change_status(ns, "status", Patch::Merge(without_mode))?;
    caught_up(ns, "status")?;
    let now = ns.service("status")?;
    ensure!(version(&now)? == version(&last)?, "Herald answered with a write: {now:?}");
    ensure!(shown(ns)? == expected, "{} instead of {expected}", shown(ns)?);
    let conditions = now.status.and_then(|status| status.conditions).unwrap_or_default();
    ensure!(conditions.len() == 2, "ours and theirs: {conditions:?}");
    told_once(ns, "status", "EnsuredLoadBalancer")
}
