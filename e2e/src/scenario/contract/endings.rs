//! How a Service, a controller and the last node end.

use anyhow::{Context, Result, bail, ensure};
use herald_crds::names;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::{Row, caught_up, change, create, delete, finalizers, told, told_once, version};
use crate::scenario::{Scene, install};

pub(super) const ROWS: &[Row] = &[
    Row { name: "finalizer ownership", check: finalizer_ownership },
    Row { name: "delete and recreate", check: delete_and_recreate },
    Row { name: "deleted while no controller runs", check: without_controller },
    Row { name: "zero nodes, exclude label", check: zero_nodes },
];

/// A Service of our class has our finalizer. Upstream's beside it, as of a cloud controller manager, is left alone, and
/// does not hold the address.
fn finalizer_ownership(scene: &Scene<'_>) -> Result<()> {
    let result = beside_another_finalizer(scene);
    // Whatever was found, the namespace can go.
    if scene.get::<Service>("two-finalizers")?.is_some() {
        change(scene, "two-finalizers", json!({"metadata": {"finalizers": null}}))?;
    }
    result
}

fn beside_another_finalizer(scene: &Scene<'_>) -> Result<()> {
    create(scene, "two-finalizers", json!({}))?;
    let address = scene.external_ip("two-finalizers")?;
    let ours = finalizers(scene, "two-finalizers")?;
    ensure!(ours == [names::FINALIZER_SERVICE_CLASS], "{ours:?}");
    let both = [names::FINALIZER_SERVICE_CLASS, names::FINALIZER_SERVICE_DEFAULT];
    change(scene, "two-finalizers", json!({"metadata": {"finalizers": both}}))?;
    delete(scene, "two-finalizers")?;
    scene.eventually("our finalizer to go, and only ours", || {
        Ok((finalizers(scene, "two-finalizers")? == [names::FINALIZER_SERVICE_DEFAULT]).then_some(()))
    })?;
    let released = scene.service("two-finalizers")?;
    ensure!(scene.virtual_ip(address)?.is_none(), "the address is free before the finalizer goes");
    ensure!(scene.ingress("two-finalizers")?.is_empty(), "a released Service shows no address");
    scene.silent(address)?;
    caught_up(scene, "two-finalizers")?;
    ensure!(version(&scene.service("two-finalizers")?)? == version(&released)?, "it is written to no more");
    told_once(scene, "two-finalizers", "DeletedLoadBalancer")
}

/// One name, another UID: another Service. It gets the address once the first has given it up, also where the first's
/// finalizer was taken away by force.
fn delete_and_recreate(scene: &Scene<'_>) -> Result<()> {
    let address = scene.address(90);
    let asks = || json!({"loadBalancerIP": address});
    let mut last = create(scene, "again", asks())?;
    let mut born = None;
    for force in [false, true, true, true] {
        ensure!(scene.external_ip("again")? == address, "what it asks for");
        // Within a second of the one before, which is what speakers tell them apart by.
        let birth = scene.virtual_ip(address)?.and_then(|vip| vip.metadata.creation_timestamp);
        ensure!(birth > born, "its VirtualIP was created at {birth:?}, the one before at {born:?}");
        born = birth;
        let node = scene.announcer(address)?;
        scene.answered_by(address, &node)?;
        if force {
            delete(scene, "again")?;
            // Herald may have been faster.
            if let Err(error) = change(scene, "again", json!({"metadata": {"finalizers": null}})) {
                ensure!(format!("{error:#}").contains("NotFound"), "{error:#}");
            }
        } else {
            scene.kubectl_here(&["delete", "service", "again", "--timeout=60s"])?;
        }
        let next = create(scene, "again", asks())?;
        ensure!(next.metadata.uid != last.metadata.uid, "another Service");
        last = next;
        scene.eventually(&format!("{address} to be that of the new Service"), || {
            let owners = scene.virtual_ip(address)?.map(|vip| vip.spec.services).unwrap_or_default();
            let uids: Vec<_> = owners.into_iter().map(|service| Some(service.uid)).collect();
            Ok((uids == [last.metadata.uid.clone()] && scene.ingress("again")? == [address]).then_some(()))
        })?;
    }
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    scene.reachable(address)?;
    Ok(())
}

/// A Service that is deleted while no controller runs waits, and is served while it waits; one that starts completes
/// the deletion, and serves who has come meanwhile.
fn without_controller(scene: &Scene<'_>) -> Result<()> {
    create(scene, "leaves", json!({}))?;
    let address = scene.external_ip("leaves")?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    let path = "-o=jsonpath={.spec.replicas}";
    let replicas = scene.kubectl(&["get", "-n", install::NAMESPACE, "deployment/herald-controller", path])?;
    let left = scale(scene, "0").and_then(|()| {
        scene.bed.wait_for("the controllers to end", install::ROLLOUT, || {
            let pods = "app.kubernetes.io/component=controller";
            let left = scene.kubectl(&["get", "pods", "-n", install::NAMESPACE, "-l", pods, "-o", "name"])?;
            Ok(left.trim().is_empty().then_some(()))
        })?;
        delete(scene, "leaves")?;
        create(scene, "comes", json!({}))?;
        scene.answered_by(address, &node)?;
        let waits = scene.service("leaves")?;
        ensure!(waits.metadata.deletion_timestamp.is_some(), "it is being deleted");
        ensure!(finalizers(scene, "leaves")? == [names::FINALIZER_SERVICE_CLASS], "and waits for its finalizer");
        ensure!(scene.ingress("leaves")? == [address], "and has its address");
        ensure!(scene.ingress("comes")?.is_empty(), "nobody gives addresses");
        Ok(())
    });
    // Whatever was found, the next row has a controller.
    scale(scene, replicas.trim())?;
    install::wait_for_rollout(scene.bed.lab())?;
    left?;
    scene.eventually("the deletion to be completed", || {
        Ok((scene.get::<Service>("leaves")?.is_none() && scene.virtual_ip(address)?.is_none()).then_some(()))
    })?;
    scene.external_ip("comes")?;
    scene.silent(address)
}

fn scale(scene: &Scene<'_>, replicas: &str) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    scene.kubectl(&["scale", "-n", install::NAMESPACE, "deployment/herald-controller", &replicas]).map(drop)
}

/// Every node is excluded (an empty value excludes): the address stays and is silent, and one Warning says so. A node
/// whose label says "false" takes part.
fn zero_nodes(scene: &Scene<'_>) -> Result<()> {
    let label = |nodes: &str, change: &str| {
        let change = format!("{}{change}", names::LABEL_EXCLUDE_NODE);
        scene.kubectl(&["label", "nodes", nodes, &change, "--overwrite"]).map(drop)
    };
    create(scene, "nowhere", json!({}))?;
    let address = scene.external_ip("nowhere")?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    let tried = label("--all", "=").and_then(|()| {
        scene.eventually("nobody to answer", || Ok(scene.who_has(address)?.is_empty().then_some(())))?;
        scene.eventually("a Warning that no node is left", || {
            Ok((told(scene, "nowhere", "UnAvailableLoadBalancer")? > 0).then_some(()))
        })?;
        ensure!(scene.ingress("nowhere")? == [address], "the Service keeps its address");
        let events = scene.events("nowhere")?;
        let (kind, _, note) = events.iter().find(|(_, reason, _)| reason == "UnAvailableLoadBalancer").context("it")?;
        if kind != "Warning" || !note.contains(&address.to_string()) || !note.contains("exclude label") {
            bail!("{kind}: {note}");
        }
        label(&node, "=false")?;
        ensure!(scene.announcer(address)? == node, "the one node that may");
        scene.answered_by(address, &node)
    });
    // Whatever was found, the next scenario has every node.
    label("--all", "-")?;
    tried?;
    told_once(scene, "nowhere", "UnAvailableLoadBalancer")?;
    scene.reachable(address)?;
    Ok(())
}
