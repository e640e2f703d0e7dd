//! The cluster's key is made once: applying the manifests again keeps it, and one that was deleted is made anew.

use anyhow::{Context, Result, ensure};
use herald_crds::names::{FIRST_CLUSTER_KEY, SECRET_CLUSTER_KEY};

use super::Scene;
use super::install::{self, Overlay};

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

    // A controller that starts looks at once; one that runs, every minute.
    scene.kubectl(&["delete", "secret", "-n", install::NAMESPACE, SECRET_CLUSTER_KEY])?;
    scene.kubectl(&["apply", "-k", &directory])?;
    scene.kubectl(&["rollout", "restart", "-n", install::NAMESPACE, "deployment/herald-controller"])?;
    install::wait_for_rollout(scene.bed.lab())?;
    ensure!(filled(scene)? != made, "a new key");
    Ok(())
}

fn filled(scene: &Scene<'_>) -> Result<serde_json::Value> {
    scene.eventually("the cluster's key", || Ok(Some(values(scene)?).filter(|values| !values.is_null())))
}

fn values(scene: &Scene<'_>) -> Result<serde_json::Value> {
    let secret = scene.kubectl(&["get", "secret", "-n", install::NAMESPACE, SECRET_CLUSTER_KEY, "-o", "json"])?;
    let secret: serde_json::Value = serde_json::from_str(&secret).context("the Secret")?;
    Ok(secret["data"].clone())
}
