//! A person deletes the SpeakerStatus of a running speaker, empties it, or deletes the kind itself, also during a roll-out:
//! no client notices, no address moves, and the speakers write their statuses again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use herald_crds::SpeakerStatus;
use kube::{Resource, ResourceExt};

use super::unnoticed::Unnoticed;
use crate::testbed::TestNamespace;
use crate::testbed::install;
use crate::testbed::manifests::deploy;
use crate::testbed::waits::REPORTED_WITHIN;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    let unnoticed = Unnoticed::from_here(ns, BTreeMap::from([(address, node.clone())]))?;

    ns.bed.progress.step(format!("speaker-status-deleted: kubectl delete speaker {node}"));
    let before = ns.get_cluster::<SpeakerStatus>(&node)?.context("the announcer's SpeakerStatus")?;
    ns.kubectl(&["delete", "speaker", &node])?;
    written_again(ns, &node, before.uid())?;
    ns.bed.progress.step(format!("speaker-status-deleted: the SpeakerStatus of {node} has no segments"));
    let empty = r#"{"status": {"segments": []}}"#;
    ns.kubectl(&["patch", "speaker", &node, "--subresource", "status", "--type", "merge", "--patch", empty])?;
    written_again(ns, &node, None)?;

    ns.bed.progress.step("speaker-status-deleted: the CustomResourceDefinition is deleted and applied again");
    let definition = deploy().join("crds/speakerstatuses.yaml").to_string_lossy().into_owned();
    ns.kubectl(&["delete", "-f", &definition])?;
    ns.kubectl(&["apply", "-f", &definition])?;
    ns.kubectl(&["wait", "--for", "condition=Established", "--timeout=30s", "-f", &definition])?;
    for node in ns.bed.lab().nodes()? {
        written_again(ns, node.name(), None)?;
    }

    let speakers = "daemonset/herald-speaker";
    ns.bed.progress.step("speaker-status-deleted: a roll-out begins while the CustomResourceDefinition is missing");
    ns.kubectl(&["delete", "-f", &definition])?;
    ns.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, speakers])?;
    let new = "-o=jsonpath={.status.updatedNumberScheduled}";
    let begun = || Ok((ns.kubectl(&["get", "-n", install::NAMESPACE, speakers, new])? == "1").then_some(()));
    ns.bed.wait_for("the first speaker to be replaced", install::ROLLOUT, begun)?;
    ns.kubectl(&["apply", "-f", &definition])?;
    install::wait_for_rollout(ns.bed.lab())?;
    for node in ns.bed.lab().nodes()? {
        written_again(ns, node.name(), None)?;
    }
    unnoticed.until_here(ns)?;

    let vip = ns.virtual_ip(address)?.context("the VirtualIP")?;
    let status = vip.status.context("its status")?;
    ensure!(
        (status.node.as_deref(), status.transitions) == (Some(&*node), 0),
        "{node} announced {address} all the time, but: {status:?}"
    );
    let warnings: Vec<_> = ns.events("web")?.into_iter().filter(|(kind, ..)| kind == "Warning").collect();
    ensure!(warnings.is_empty(), "nothing was wrong with the Service: {warnings:?}");
    Ok(())
}

/// Waits until the SpeakerStatus of a node lists segments, and is another object than this one.
fn written_again(ns: &TestNamespace<'_>, node: &str, former: Option<String>) -> Result<()> {
    let what = format!("the speaker of {node} to write its {} again", SpeakerStatus::kind(&()));
    ns.bed.wait_for(&what, REPORTED_WITHIN, || {
        let Some(speaker) = ns.get_cluster::<SpeakerStatus>(node)? else { return Ok(None) };
        let is_new = former.is_none() || speaker.uid() != former;
        let is_written = speaker.status.is_some_and(|status| !status.segments.is_empty());
        Ok((is_new && is_written).then_some(()))
    })
}
