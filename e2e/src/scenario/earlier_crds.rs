//! The CRDs are those of an earlier build, as where Helm or a GitOps controller updates programs and leaves CRDs alone.
//!
//! The API server then drops the fields it does not know, and refuses a whole object for one unknown value of an
//! enumeration. Addresses are given out and announced all the same, an Event names the fields, and nobody writes in a loop.
//! When the CRDs follow, nothing moves.

use std::time::Duration;

use anyhow::{Result, ensure};
use herald_crds::SpeakerStatus;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;

use super::{Expose, Scene, install};
use crate::at_rest::{AtRest, QUIET, come_to_rest};
use crate::audit_log::AuditLog;
use crate::manifests::deploy;

/// CRDs of the commit that issues of Herald compare with.
const EARLIER: &str = include_str!("earlier_crds/8520e6f.yaml");
/// A speaker that starts has said within a second or two what it says; the rest is for a busy machine.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// So long nothing may be written: longer than the longest pause between writes of one object (30 s,
/// kube-common/src/pacing.rs), so that a contest shows that has come to its slowest.
const RESTS: Duration = Duration::from_secs(35);

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.pool(&scene.namespace, &[scene.range(1, 9)])?;
    let (address, owner) = scene.announced_service(2)?;
    // Whatever is found, the next scenario gets a whole cluster.
    let result = scene.apply(EARLIER).and_then(|()| works_with_earlier(scene));
    install::kubectl(scene.bed.lab(), &["apply", "-k", &deploy().join("crds").display().to_string()])?;
    result?;
    install::restart(scene.bed.lab())?;
    scene.eventually("every speaker to list its links", || {
        let speakers: Vec<SpeakerStatus> = scene.list_cluster()?;
        let lists = |speaker: &SpeakerStatus| speaker.status.as_ref().is_some_and(|status| !status.links.is_empty());
        Ok(speakers.iter().all(lists).then_some(()))
    })?;
    ensure!(
        scene.announcer(address)? == owner,
        "{address} was announced by {owner}, and is by {}",
        scene.announcer(address)?
    );
    Ok(())
}

fn works_with_earlier(scene: &Scene<'_>) -> Result<()> {
    scene.eventually("the earlier CRD to be served", || {
        let crd: Option<CustomResourceDefinition> = scene.get_cluster("speakerstatuses.heraldlb.io")?;
        let text = serde_json::to_string(&crd)?;
        Ok((!text.contains("heldAddresses")).then_some(()))
    })?;
    let mut log = AuditLog::from_now(&scene.bed.lab().audit_log())?;
    install::restart(scene.bed.lab())?;
    scene.expose(&Expose::ours("late"))?;
    let late = scene.external_ip("late")?;
    told(scene)?;
    scene.announcer(late)?;
    scene.reachable(late)?;
    come_to_rest(scene.bed, &mut log, QUIET, REST_WITHIN)?;
    let seen = AtRest::watched(scene.bed, RESTS)?;
    scene.bed.progress.step(format!("earlier-crds: {seen}"));
    let broken = seen.violations();
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// The controller tells which fields the API server has dropped, on the first object of each kind.
fn told(scene: &Scene<'_>) -> Result<()> {
    /// One for each controller that has led since: the one before the restart, and while that rolls out, one or two after it.
    const MOST: usize = 3;
    let expected = [("VirtualIP", "spec.serviceNames"), ("AddressPool", "status.observedGeneration")];
    let told = scene.eventually("the controller to tell which fields are not kept", || {
        let told = fields_not_kept(scene)?;
        Ok(expected.iter().all(|(kind, _)| told.iter().any(|(of, _)| of == kind)).then_some(told))
    })?;
    for (kind, field) in expected {
        let notes: Vec<_> = told.iter().filter(|(of, _)| of == kind).map(|(_, note)| note).collect();
        ensure!(notes.len() <= MOST && notes.iter().all(|note| note.contains(field)), "{kind}: {notes:?}");
    }
    Ok(())
}

/// The kind and the note of each Event `FieldsNotKept`. Events on cluster-scoped objects are in the namespace `default`.
fn fields_not_kept(scene: &Scene<'_>) -> Result<Vec<(String, String)>> {
    let events: Api<Event> = Api::namespaced(scene.bed.client.clone(), "default");
    let mut events = scene.bed.runtime.block_on(async { anyhow::Ok(events.list(&Default::default()).await?.items) })?;
    events.retain(|event| event.reason.as_deref() == Some("FieldsNotKept"));
    let kind = |event: &Event| event.regarding.as_ref().and_then(|regarding| regarding.kind.clone());
    Ok(events.iter().map(|event| (kind(event).unwrap_or_default(), event.note.clone().unwrap_or_default())).collect())
}
