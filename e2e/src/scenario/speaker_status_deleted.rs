//! Somebody deletes the SpeakerStatus of a speaker that runs, empties it, or deletes the kind itself: no client notices, no
//! address moves, and the speaker writes its status again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use herald_crds::SpeakerStatus;
use kube::{Resource, ResourceExt};

use super::Scene;
use super::unnoticed::Unnoticed;
use super::waits::REPORTED_WITHIN;
use crate::manifests::deploy;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let (address, node) = scene.announced_service(1)?;
    let unnoticed = Unnoticed::from_here(scene, BTreeMap::from([(address, node.clone())]))?;

    scene.bed.progress.step(format!("speaker-status-deleted: kubectl delete speaker {node}"));
    let before = scene.get_cluster::<SpeakerStatus>(&node)?.context("the announcer's SpeakerStatus")?;
    scene.kubectl(&["delete", "speaker", &node])?;
    written_again(scene, &node, before.uid())?;
    scene.bed.progress.step(format!("speaker-status-deleted: the SpeakerStatus of {node} has no segments"));
    let empty = r#"{"status": {"segments": []}}"#;
    scene.kubectl(&["patch", "speaker", &node, "--subresource", "status", "--type", "merge", "--patch", empty])?;
    written_again(scene, &node, None)?;

    scene.bed.progress.step("speaker-status-deleted: the CustomResourceDefinition is deleted and applied again");
    let definition = deploy().join("crds/speakerstatuses.yaml").to_string_lossy().into_owned();
    scene.kubectl(&["delete", "-f", &definition])?;
    scene.kubectl(&["apply", "-f", &definition])?;
    scene.kubectl(&["wait", "--for", "condition=Established", "--timeout=30s", "-f", &definition])?;
    for node in scene.bed.lab().nodes()? {
        written_again(scene, node.name(), None)?;
    }
    unnoticed.until_here(scene)?;

    let vip = scene.virtual_ip(address)?.context("the VirtualIP")?;
    let status = vip.status.context("its status")?;
    ensure!(
        (status.node.as_deref(), status.transitions) == (Some(&*node), 0),
        "{node} announced {address} all the time, but: {status:?}"
    );
    let warnings: Vec<_> = scene.events("web")?.into_iter().filter(|(kind, ..)| kind == "Warning").collect();
    ensure!(warnings.is_empty(), "nothing was wrong with the Service: {warnings:?}");
    Ok(())
}

/// Waits until the SpeakerStatus of a node lists segments, and is another object than this one.
fn written_again(scene: &Scene<'_>, node: &str, former: Option<String>) -> Result<()> {
    let what = format!("the speaker of {node} to write its {} again", SpeakerStatus::kind(&()));
    scene.bed.wait_for(&what, REPORTED_WITHIN, || {
        let Some(speaker) = scene.get_cluster::<SpeakerStatus>(node)? else { return Ok(None) };
        let is_new = former.is_none() || speaker.uid() != former;
        let is_written = speaker.status.is_some_and(|status| !status.segments.is_empty());
        Ok((is_new && is_written).then_some(()))
    })
}
