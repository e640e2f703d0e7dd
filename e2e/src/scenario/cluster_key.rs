//! The cluster's key is made once: applying the manifests again keeps it. When its Secret is deleted, even while the
//! speakers are replaced one by one, the controller makes another, no address falls silent, and none moves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::names::{FIRST_CLUSTER_KEY, SECRET_CLUSTER_KEY};

use super::Scene;
use super::install::{self, Overlay};
use crate::probe::{Probe, ProbeSpec, Probers};

/// A roll-out of three speakers takes seconds; the rest is for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A speaker that ends is covered within 0.2 s. This is no measurement: it tells silence from a busy machine.
const LONGEST_GAP_MS: f64 = 2000.0;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    let made = filled(scene)?;
    // A key of 32 bytes is 44 characters of base64.
    let length = made[FIRST_CLUSTER_KEY].as_str().context("the first key")?.len();
    ensure!(length == 44, "a key of {length} characters");

    let directory = Overlay::Class.directory();
    let directory = directory.to_string_lossy();
    // Both ways to merge, and one after the other. The server's has to take fields over that kubectl's own owns.
    for how in [&["apply", "-k"][..], &["apply", "--server-side", "--force-conflicts", "-k"], &["apply", "-k"]] {
        scene.kubectl(&[how, &[&*directory]].concat())?;
        ensure!(values(scene)? == made, "kubectl {how:?} changed the key");
    }

    deleted(scene, &made)
}

/// The Secret is deleted (a prune, a restore), and every speaker is replaced by one that has never seen a key.
fn deleted(scene: &Scene<'_>, made: &serde_json::Value) -> Result<()> {
    let (address, node) = scene.announced_service(1)?;
    let mac = scene.bed.lab().host(&node)?.mac(0)?.into();
    let moved = || scene.virtual_ip(address).map(|vip| vip.and_then(|vip| vip.status).map(|s| (s.node, s.transitions)));
    let before = moved()?;
    let spec = ProbeSpec::all([address]).with(Probers { announcements: false, ..Probers::NEIGHBOUR });
    let mut watch = Probe::start(scene.bed.lab(), scene.client()?.name(), &spec)?;
    watch.steady(LIMIT)?;

    scene.kubectl(&["delete", "secret", "-n", install::NAMESPACE, SECRET_CLUSTER_KEY])?;
    scene.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, "daemonset/herald-speaker"])?;
    install::wait_for_rollout(scene.bed.lab())?;
    ensure!(filled(scene)? != *made, "a new key");
    watch.steady_again(LIMIT)?;
    let report = watch.stop()?;
    let seen = report.target(address).and_then(|target| target.neighbour.as_ref()).context("what the client saw")?;
    let macs: Vec<_> = seen.macs.iter().map(|seen| seen.mac).collect();
    ensure!(macs == [mac], "{address} was answered by {macs:?}, and is {node}'s ({mac})");
    let gap = seen.answers.gaps.max_ms;
    ensure!(gap <= LONGEST_GAP_MS, "{address} was unanswered for {gap} ms:\n{report}");
    let after = moved()?;
    ensure!(after == before, "the status was {before:?}, and is {after:?}");
    Ok(())
}

fn filled(scene: &Scene<'_>) -> Result<serde_json::Value> {
    scene.eventually("the cluster's key", || Ok(Some(values(scene)?).filter(|values| !values.is_null())))
}

/// The values of the Secret; null while there is none.
fn values(scene: &Scene<'_>) -> Result<serde_json::Value> {
    let get = ["get", "secret", "-n", install::NAMESPACE, SECRET_CLUSTER_KEY, "--ignore-not-found", "-o", "json"];
    let secret = scene.kubectl(&get)?;
    if secret.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    let secret: serde_json::Value = serde_json::from_str(&secret).context("the Secret")?;
    Ok(secret["data"].clone())
}
