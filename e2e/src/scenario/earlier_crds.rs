//! The CRDs are those of an earlier build, as where Helm or a GitOps controller updates programs and leaves CRDs alone.
//!
//! The API server then drops the fields it does not know, and refuses a whole object for one unknown value of an
//! enumeration. Addresses are nevertheless assigned and announced, an Event names the dropped fields, and no program
//! writes in a loop. When the CRDs are updated, nothing moves.

use std::time::Duration;

use anyhow::{Result, ensure};
use herald_crds::SpeakerStatus;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;

use crate::testbed::at_rest::{AtRest, QUIET, come_to_rest};
use crate::testbed::audit_log::AuditLog;
use crate::testbed::manifests::deploy;
use crate::testbed::{Expose, TestNamespace, install};

/// The CRDs of the commit that Herald's issues refer to.
const EARLIER: &str = include_str!("earlier_crds/8520e6f.yaml");
/// A starting speaker has written its reports within a second or two; the rest is a margin for a busy machine.
const REST_WITHIN: Duration = Duration::from_secs(30);
/// Time for which nothing may be written: longer than the longest pause between writes of one object (30 s,
/// kube-common/src/pacing.rs), so that a write loop at its slowest pace is detected.
const RESTS: Duration = Duration::from_secs(35);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, 9)])?;
    let (address, owner) = ns.announced_service(2)?;
    // The CRDs are restored regardless of the result, for the next scenario.
    let result = ns.apply(EARLIER).and_then(|()| works_with_earlier(ns));
    install::kubectl(ns.bed.lab(), &["apply", "-k", &deploy().join("crds").display().to_string()])?;
    result?;
    install::restart(ns.bed.lab())?;
    ns.eventually("every speaker to list its links", || {
        let speakers: Vec<SpeakerStatus> = ns.list_cluster()?;
        let lists = |speaker: &SpeakerStatus| speaker.status.as_ref().is_some_and(|status| !status.links.is_empty());
        Ok(speakers.iter().all(lists).then_some(()))
    })?;
    ensure!(
        ns.announcer(address)? == owner,
        "{address} was announced by {owner}, and is by {}",
        ns.announcer(address)?
    );
    Ok(())
}

fn works_with_earlier(ns: &TestNamespace<'_>) -> Result<()> {
    ns.eventually("the earlier CRD to be served", || {
        let crd: Option<CustomResourceDefinition> = ns.get_cluster("speakerstatuses.heraldlb.io")?;
        let text = serde_json::to_string(&crd)?;
        Ok((!text.contains("heldAddresses")).then_some(()))
    })?;
    let mut log = AuditLog::from_now(&ns.bed.lab().audit_log())?;
    install::restart(ns.bed.lab())?;
    ns.expose(&Expose::ours("late"))?;
    let late = ns.external_ip("late")?;
    told(ns)?;
    ns.announcer(late)?;
    ns.reachable(late)?;
    come_to_rest(ns.bed, &mut log, QUIET, REST_WITHIN)?;
    let seen = AtRest::watched(ns.bed, RESTS)?;
    ns.bed.progress.step(format!("earlier-crds: {seen}"));
    let broken = seen.violations();
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// Checks that the controller reports the fields that the API server has dropped, on the first object of each kind.
fn told(ns: &TestNamespace<'_>) -> Result<()> {
    /// One event for each controller that has led since: the one before the restart, and during the rollout one or two
    /// more.
    const MOST: usize = 3;
    let expected = [("VirtualIP", "spec.serviceNames"), ("AddressPool", "status.observedGeneration")];
    let told = ns.eventually("the controller to report which fields are not kept", || {
        let told = fields_not_kept(ns)?;
        Ok(expected.iter().all(|(kind, _)| told.iter().any(|(of, _)| of == kind)).then_some(told))
    })?;
    for (kind, field) in expected {
        let notes: Vec<_> = told.iter().filter(|(of, _)| of == kind).map(|(_, note)| note).collect();
        ensure!(notes.len() <= MOST && notes.iter().all(|note| note.contains(field)), "{kind}: {notes:?}");
    }
    Ok(())
}

/// Returns the kind and the note of each Event `FieldsNotKept`. Events on cluster-scoped objects are in the namespace
/// `default`.
fn fields_not_kept(ns: &TestNamespace<'_>) -> Result<Vec<(String, String)>> {
    let events: Api<Event> = Api::namespaced(ns.bed.client.clone(), "default");
    let mut events = ns.bed.runtime.block_on(async { anyhow::Ok(events.list(&Default::default()).await?.items) })?;
    events.retain(|event| event.reason.as_deref() == Some("FieldsNotKept"));
    let kind = |event: &Event| event.regarding.as_ref().and_then(|regarding| regarding.kind.clone());
    Ok(events.iter().map(|event| (kind(event).unwrap_or_default(), event.note.clone().unwrap_or_default())).collect())
}
