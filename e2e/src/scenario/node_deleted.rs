//! A node whose speaker is silent and whose kernel answers is deleted from the API while every other speaker knows it
//! only from its peers' frames, as after a rolling upgrade with one sick node. The other speakers continue to work.

use anyhow::{Context, Result, ensure};
use herald_crds::SpeakerStatus;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};

use crate::testbed::{Expose, TestNamespace, install};
use herald_lab::fault::{Fault, Faults, PodChoice, PodFound};

/// The namespace in which kubelets renew their nodes' leases.
const LEASES: &str = "kube-node-lease";

/// A booting node is Ready within 10 s; the rest is a margin for a busy machine.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(90);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, sick) = ns.announced_service(3)?;
    let result = try_it(ns, address, &sick);
    // The cluster is restored regardless of the result, for the next scenario. Only a starting kubelet registers its
    // node again, so the node is power-cycled.
    Faults::of(ns.bed.lab()).heal_all()?;
    let lab = ns.bed.lab();
    lab.power_off(&sick)?;
    lab.power_on(&sick)?;
    ns.bed
        .wait_for(&format!("{sick} to be registered again"), LIMIT, || Ok(ns.get_cluster::<Node>(&sick)?.map(drop)))?;
    ns.every_node_ready(LIMIT)?;
    install::wait_for_rollout(lab)?;
    // The DaemonSet's status may date from before the node was registered.
    ns.bed.wait_for(&format!("the speaker on {sick} to report"), LIMIT, || {
        Ok(ns.get_cluster::<SpeakerStatus>(&sick)?.and_then(|speaker| speaker.status).map(drop))
    })?;
    result
}

fn try_it(ns: &TestNamespace<'_>, address: std::net::IpAddr, sick: &str) -> Result<()> {
    let faults = Faults::of(ns.bed.lab());
    // A stopped kubelet restarts neither the silent speaker nor its pod.
    faults.inject(Fault::KubeletStopped { node: sick.to_owned() })?;
    let speakers = speakers(&faults)?;
    let silent = speakers.iter().find(|pod| pod.node == sick).with_context(|| format!("a speaker on {sick}"))?;
    faults.freeze(silent)?;
    ns.answered_by(address, sick).context("others answer for a silent speaker, with its node's address")?;
    for pod in speakers.iter().filter(|pod| pod.node != sick) {
        faults.delete_pod(pod, None)?;
        ns.bed.wait_for(&format!("another speaker on {} to be ready", pod.node), install::ROLLOUT, || {
            renew_lease(ns, sick)?;
            let now = self::speakers(&faults)?.into_iter().find(|now| now.node == pod.node && now.uid != pod.uid);
            let Some(now) = now else { return Ok(None) };
            let ready = "-o=jsonpath={.status.containerStatuses[0].ready}";
            Ok((ns.kubectl(&["get", "pod", "-n", &now.namespace, &now.name, ready])? == "true").then_some(()))
        })?;
    }
    ns.answered_by(address, sick).context("the new speakers answer for it as well")?;

    ns.kubectl(&["delete", "node", sick, "--wait=false"])?;
    ns.eventually("the SpeakerStatus to go with its Node", || {
        Ok(ns.get_cluster::<SpeakerStatus>(sick)?.is_none().then_some(()))
    })?;
    ns.expose(&Expose::ours("after"))?;
    let after = ns.external_ip("after")?;
    let node = ns.announcer(after)?;
    ensure!(node != sick, "{after} is announced by {node}, which is deleted");
    ns.answered_by(after, &node)?;
    for pod in self::speakers(&faults)?.iter().filter(|pod| pod.node != sick) {
        let check = ["exec", "-n", &pod.namespace, &pod.name, "--", "/herald-speaker", "check", "ready"];
        let said = ns.kubectl(&check)?;
        ensure!(said.starts_with("ready"), "{pod} on {}: {said}", pod.node);
    }
    Ok(())
}

/// Renews a node's lease in place of its stopped kubelet: in the laboratory a node without a heartbeat for 20 s is
/// NotReady, and its addresses move.
fn renew_lease(ns: &TestNamespace<'_>, node: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(ns.bed.kube(), LEASES);
    let now = serde_json::json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
    let renewed = async move { Ok(leases.patch(node, &PatchParams::default(), &Patch::Merge(now)).await.map(drop)?) };
    ns.bed.block_on(renewed).with_context(|| format!("renewing the lease of {node}"))
}

fn speakers(faults: &Faults<'_>) -> Result<Vec<PodFound>> {
    faults.pods(&PodChoice {
        namespace: install::NAMESPACE.to_owned(),
        selector: Some("app.kubernetes.io/component=speaker".to_owned()),
        ..PodChoice::default()
    })
}
