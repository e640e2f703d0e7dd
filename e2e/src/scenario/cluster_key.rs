//! The cluster key is created once: applying the manifests again keeps it. When its Secret is deleted, even while the
//! speakers are replaced one by one, the controller creates another one, and no address falls silent or moves.

use anyhow::{Context, Result, ensure};
use herald_crds::names::{FIRST_CLUSTER_KEY, SECRET_CLUSTER_KEY};

use super::unnoticed::Unnoticed;
use crate::testbed::TestNamespace;
use crate::testbed::install;
use crate::testbed::manifests::Manifest;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let made = filled(ns)?;
    // A key of 32 bytes has 44 characters in base64.
    let length = made[FIRST_CLUSTER_KEY].as_str().context("the first key")?.len();
    ensure!(length == 44, "a key of {length} characters");

    let directory = Manifest::CLASS.directory();
    let directory = directory.to_string_lossy();
    // Both kinds of apply, one after the other. The server-side apply has to take over fields that the client-side
    // apply owns.
    for how in [&["apply", "-k"][..], &["apply", "--server-side", "--force-conflicts", "-k"], &["apply", "-k"]] {
        ns.kubectl(&[how, &[&*directory]].concat())?;
        ensure!(values(ns)? == made, "kubectl {how:?} changed the key");
    }

    deleted(ns, &made)
}

/// Deletes the Secret (as a prune or a restore does) and replaces every speaker by one that has never seen a key.
fn deleted(ns: &TestNamespace<'_>, made: &serde_json::Value) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    let moved = || ns.virtual_ip(address).map(|vip| vip.and_then(|vip| vip.status).map(|s| (s.node, s.transitions)));
    let before = moved()?;
    let unnoticed = Unnoticed::from_here(ns, [(address, node)].into())?;

    ns.kubectl(&["delete", "secret", "-n", install::NAMESPACE, SECRET_CLUSTER_KEY])?;
    ns.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, "daemonset/herald-speaker"])?;
    install::wait_for_rollout(ns.bed.lab())?;
    ensure!(filled(ns)? != *made, "a new key");
    unnoticed.until_here(ns)?;
    let after = moved()?;
    ensure!(after == before, "the status was {before:?}, and is {after:?}");
    Ok(())
}

fn filled(ns: &TestNamespace<'_>) -> Result<serde_json::Value> {
    ns.eventually("the cluster's key", || Ok(Some(values(ns)?).filter(|values| !values.is_null())))
}

/// Returns the values of the Secret; null if it does not exist.
fn values(ns: &TestNamespace<'_>) -> Result<serde_json::Value> {
    let get = ["get", "secret", "-n", install::NAMESPACE, SECRET_CLUSTER_KEY, "--ignore-not-found", "-o", "json"];
    let secret = ns.kubectl(&get)?;
    if secret.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    let secret: serde_json::Value = serde_json::from_str(&secret).context("the Secret")?;
    Ok(secret["data"].clone())
}
