//! The end of a Service, of a controller and of the last node.

use anyhow::{Context, Result, bail, ensure};
use herald_crds::names;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::{Row, caught_up, change, create, delete, finalizers, told, told_once, version};
use crate::testbed::{TestNamespace, install};

pub(super) const ROWS: &[Row] = &[
    Row { name: "finalizer ownership", check: finalizer_ownership },
    Row { name: "delete and recreate", check: delete_and_recreate },
    Row { name: "deleted while no controller runs", check: without_controller },
    Row { name: "zero nodes, exclude label", check: zero_nodes },
];

/// A Service of our class has our finalizer. Herald ignores an additional finalizer of upstream, as a cloud controller
/// manager sets it, and the address does not wait for it.
fn finalizer_ownership(ns: &TestNamespace<'_>) -> Result<()> {
    let result = beside_another_finalizer(ns);
    // The other finalizer is removed regardless of the result, so that the namespace can be deleted.
    if ns.get::<Service>("two-finalizers")?.is_some() {
        change(ns, "two-finalizers", json!({"metadata": {"finalizers": null}}))?;
    }
    result
}

fn beside_another_finalizer(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "two-finalizers", json!({}))?;
    let address = ns.external_ip("two-finalizers")?;
    let ours = finalizers(ns, "two-finalizers")?;
    ensure!(ours == [names::FINALIZER_SERVICE_CLASS], "{ours:?}");
    let both = [names::FINALIZER_SERVICE_CLASS, names::FINALIZER_SERVICE_DEFAULT];
    change(ns, "two-finalizers", json!({"metadata": {"finalizers": both}}))?;
    delete(ns, "two-finalizers")?;
    ns.eventually("our finalizer to go, and only ours", || {
        Ok((finalizers(ns, "two-finalizers")? == [names::FINALIZER_SERVICE_DEFAULT]).then_some(()))
    })?;
    let released = ns.service("two-finalizers")?;
    ensure!(ns.virtual_ip(address)?.is_none(), "the address is free before the finalizer goes");
    ensure!(ns.ingress("two-finalizers")?.is_empty(), "a released Service shows no address");
    ns.silent(address)?;
    caught_up(ns, "two-finalizers")?;
    ensure!(version(&ns.service("two-finalizers")?)? == version(&released)?, "the Service is no longer written to");
    told_once(ns, "two-finalizers", "DeletedLoadBalancer")
}

/// A Service with the same name and another UID is another Service. It gets the address once the first one has released
/// it, also where the first one's finalizer was removed by force.
fn delete_and_recreate(ns: &TestNamespace<'_>) -> Result<()> {
    let address = ns.address(90);
    let asks = || json!({"loadBalancerIP": address});
    let mut last = create(ns, "again", asks())?;
    let mut born = None;
    for force in [false, true, true, true] {
        ensure!(ns.external_ip("again")? == address, "the Service gets the address that it asks for");
        // Speakers distinguish VirtualIPs by their creation time, which has a resolution of one second.
        let birth = ns.virtual_ip(address)?.and_then(|vip| vip.metadata.creation_timestamp);
        ensure!(birth > born, "its VirtualIP was created at {birth:?}, the one before at {born:?}");
        born = birth;
        let node = ns.announcer(address)?;
        ns.answered_by(address, &node)?;
        if force {
            delete(ns, "again")?;
            // Herald may have removed the Service already.
            if let Err(error) = change(ns, "again", json!({"metadata": {"finalizers": null}})) {
                ensure!(format!("{error:#}").contains("NotFound"), "{error:#}");
            }
        } else {
            ns.kubectl_here(&["delete", "service", "again", "--timeout=60s"])?;
        }
        let next = create(ns, "again", asks())?;
        ensure!(next.metadata.uid != last.metadata.uid, "another Service");
        last = next;
        ns.eventually(&format!("{address} to be that of the new Service"), || {
            let owners = ns.virtual_ip(address)?.map(|vip| vip.spec.services).unwrap_or_default();
            let uids: Vec<_> = owners.into_iter().map(|service| Some(service.uid)).collect();
            Ok((uids == [last.metadata.uid.clone()] && ns.ingress("again")? == [address]).then_some(()))
        })?;
    }
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    ns.reachable(address)?;
    Ok(())
}

/// A Service that is deleted while no controller runs waits and is still served. A controller that starts completes the
/// deletion and serves Services that were created meanwhile.
fn without_controller(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "leaves", json!({}))?;
    let address = ns.external_ip("leaves")?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    let path = "-o=jsonpath={.spec.replicas}";
    let replicas = ns.kubectl(&["get", "-n", install::NAMESPACE, "deployment/herald-controller", path])?;
    let left = scale(ns, "0").and_then(|()| {
        ns.bed.wait_for("the controllers to end", install::ROLLOUT, || {
            let pods = "app.kubernetes.io/component=controller";
            let left = ns.kubectl(&["get", "pods", "-n", install::NAMESPACE, "-l", pods, "-o", "name"])?;
            Ok(left.trim().is_empty().then_some(()))
        })?;
        delete(ns, "leaves")?;
        create(ns, "comes", json!({}))?;
        ns.answered_by(address, &node)?;
        let waits = ns.service("leaves")?;
        ensure!(waits.metadata.deletion_timestamp.is_some(), "it is being deleted");
        ensure!(finalizers(ns, "leaves")? == [names::FINALIZER_SERVICE_CLASS], "and waits for its finalizer");
        ensure!(ns.ingress("leaves")? == [address], "and has its address");
        ensure!(ns.ingress("comes")?.is_empty(), "no controller gives out addresses");
        Ok(())
    });
    // The controllers are scaled up regardless of the result, for the next row.
    scale(ns, replicas.trim())?;
    install::wait_for_rollout(ns.bed.lab())?;
    left?;
    ns.eventually("the deletion to be completed", || {
        Ok((ns.get::<Service>("leaves")?.is_none() && ns.virtual_ip(address)?.is_none()).then_some(()))
    })?;
    ns.external_ip("comes")?;
    ns.silent(address)
}

fn scale(ns: &TestNamespace<'_>, replicas: &str) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    ns.kubectl(&["scale", "-n", install::NAMESPACE, "deployment/herald-controller", &replicas]).map(drop)
}

/// Every node is excluded (an empty value excludes): the address stays and is silent, and one Warning reports it. A
/// node whose label has the value "false" takes part.
fn zero_nodes(ns: &TestNamespace<'_>) -> Result<()> {
    let label = |nodes: &str, change: &str| {
        let change = format!("{}{change}", names::LABEL_EXCLUDE_NODE);
        ns.kubectl(&["label", "nodes", nodes, &change, "--overwrite"]).map(drop)
    };
    create(ns, "nowhere", json!({}))?;
    let address = ns.external_ip("nowhere")?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    let tried = label("--all", "=").and_then(|()| {
        ns.eventually("no node to answer", || Ok(ns.who_has(address)?.is_empty().then_some(())))?;
        ns.eventually("a Warning that no node is left", || {
            Ok((told(ns, "nowhere", "UnAvailableLoadBalancer")? > 0).then_some(()))
        })?;
        ensure!(ns.ingress("nowhere")? == [address], "the Service keeps its address");
        let events = ns.events("nowhere")?;
        let (kind, _, note) = events.iter().find(|(_, reason, _)| reason == "UnAvailableLoadBalancer").context("it")?;
        if kind != "Warning" || !note.contains(&address.to_string()) || !note.contains("exclude label") {
            bail!("{kind}: {note}");
        }
        label(&node, "=false")?;
        ensure!(ns.announcer(address)? == node, "the one node that may");
        ns.answered_by(address, &node)
    });
    // The labels are removed regardless of the result, for the next scenario.
    label("--all", "-")?;
    tried?;
    told_once(ns, "nowhere", "UnAvailableLoadBalancer")?;
    ns.reachable(address)?;
    Ok(())
}
