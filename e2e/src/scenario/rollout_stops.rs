//! The cluster key is replaced by an invalid value, and the speakers are rolled out: the rollout stops at the first
//! node, which reports why; no address is silent; and the rollout continues when the key is corrected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use herald_crds::SpeakerStatus;
use herald_crds::names::{FIRST_CLUSTER_KEY, SECRET_CLUSTER_KEY};
use herald_crds::speaker_status::WarningKind;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::unnoticed::Unnoticed;
use crate::testbed::waits::REPORTED_WITHIN;
use crate::testbed::{Expose, TestNamespace, install};

/// Timeout of `kubectl rollout status`: a rollout that does not stop ends within this time.
const STOPPED_FOR: &str = "--timeout=15s";

/// Maximum number of Services until each node announces one: objects that other scenarios have just deleted may still
/// count for some nodes.
const SERVICES: u8 = 40;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, SERVICES)])?;
    ns.deploy_echo(1)?;
    let nodes = ns.bed.lab().nodes()?.len();
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    for number in 1..=SERVICES {
        if owners.values().collect::<BTreeSet<_>>().len() == nodes {
            break;
        }
        let name = format!("web{number}");
        ns.expose(&Expose::ours(&name))?;
        let address = ns.external_ip(&name)?;
        owners.insert(address, ns.announcer(address)?);
    }
    ensure!(owners.values().collect::<BTreeSet<_>>().len() == nodes, "every node announces an address: {owners:?}");
    let key = secret(ns, &["-o", &format!("jsonpath={{.data['{}']}}", FIRST_CLUSTER_KEY.replace('.', "\\."))])?;
    ensure!(!key.is_empty(), "the cluster's key");

    let unnoticed = Unnoticed::from_here(ns, owners.clone())?;
    let result = stops(ns);
    // The key is restored regardless of the result, for the next scenario.
    set_key(ns, &key)?;
    install::wait_for_rollout(ns.bed.lab())?;
    result?;
    unnoticed.until_here(ns)?;
    for (address, owner) in &owners {
        same_owner(ns, *address, owner)?;
    }
    Ok(())
}

fn same_owner(ns: &TestNamespace<'_>, address: IpAddr, owner: &str) -> Result<()> {
    let now = ns.announcer(address)?;
    ensure!(now == owner, "{address} was {owner}'s, and is {now}'s");
    Ok(())
}

/// Replaces the key by one that is too short, starts a rollout, and checks where it stops.
fn stops(ns: &TestNamespace<'_>) -> Result<()> {
    let before = uids(&speakers(ns)?);
    // The word "short" in base64.
    set_key(ns, "c2hvcnQ=")?;
    ns.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, "daemonset/herald-speaker"])?;
    let status = ["rollout", "status", "-n", install::NAMESPACE, "daemonset/herald-speaker", STOPPED_FOR];
    ensure!(ns.kubectl(&status).is_err(), "the roll-out went through with a key that is none");

    // On a busy machine the first speaker may still be terminating by then.
    let now = ns.bed.wait_for("the first speaker to be replaced", install::ROLLOUT, || {
        let now = speakers(ns)?;
        let is_replaced = now.len() == before.len() && now.iter().any(|pod| !before.contains(&uid(pod)));
        Ok(is_replaced.then_some(now))
    })?;
    let fresh: Vec<&Pod> = now.iter().filter(|pod| !before.contains(&uid(pod))).collect();
    let [sick] = fresh.as_slice() else { anyhow::bail!("{} speakers were replaced, not one", fresh.len()) };
    ensure!(now.iter().filter(|pod| !is_ready(pod)).count() == 1, "one speaker is not ready, the others are");
    let name = sick.metadata.name.clone().context("a pod's name")?;
    let node = sick.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a pod's node")?;
    // The kubelet's Event contains the output of the probe `herald-speaker check ready`.
    let reason = format!("Secret {SECRET_CLUSTER_KEY}");
    ns.bed.wait_for("an Event that gives the reason why it is not ready", install::ROLLOUT, || {
        let path = "-o=jsonpath={.items[*].message}";
        let about = format!("involvedObject.name={name},reason=Unhealthy");
        let said = ns.kubectl(&["get", "events", "-n", install::NAMESPACE, "--field-selector", &about, path])?;
        Ok((said.contains("not ready") && said.contains(&reason)).then_some(()))
    })?;
    ns.bed.wait_for(&format!("the SpeakerStatus of {node} to give the reason"), REPORTED_WITHIN, || {
        let warnings = ns.get_cluster::<SpeakerStatus>(&node)?.and_then(|speaker| speaker.status);
        let warnings = warnings.map(|status| status.warnings).unwrap_or_default();
        let says = |kind, message: &str| kind == WarningKind::ClusterKey && message.contains(&reason);
        Ok(warnings.iter().any(|warning| says(warning.kind, &warning.message)).then_some(()))
    })
}

fn set_key(ns: &TestNamespace<'_>, base64: &str) -> Result<()> {
    let patch = serde_json::json!({"data": {FIRST_CLUSTER_KEY: base64}}).to_string();
    let namespace = install::NAMESPACE;
    ns.kubectl(&["patch", "secret", "-n", namespace, SECRET_CLUSTER_KEY, "--type=merge", "-p", &patch]).map(drop)
}

fn secret(ns: &TestNamespace<'_>, how: &[&str]) -> Result<String> {
    ns.kubectl(&[&["get", "secret", "-n", install::NAMESPACE, SECRET_CLUSTER_KEY], how].concat())
}

fn speakers(ns: &TestNamespace<'_>) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(ns.bed.kube(), install::NAMESPACE);
    let chosen = ListParams::default().labels("app.kubernetes.io/component=speaker");
    let mut pods = ns.bed.block_on(async move { Ok(pods.list(&chosen).await?.items) })?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().map(uid).collect()
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
