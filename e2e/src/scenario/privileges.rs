//! Least privilege, judged by the audit log of the whole suite: no request of Herald was denied, and every permission
//! of the shipped roles was used.

use anyhow::{Context, Result, ensure};

use super::Cluster;
use super::audit::{Requests, granted_by, requests_of};
use crate::testbed::TestNamespace;
use crate::testbed::install;
use crate::testbed::manifests::Manifest;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let requests = nothing_denied(ns)?;

    // Unused permissions can only be judged after every other scenario that shares this cluster.
    let passed = ns.bed.passed();
    let missing: Vec<_> = super::all()
        .into_iter()
        .filter(|s| s.cluster == Cluster::Shared && s.name != ns.namespace && !passed.contains(s.name))
        .map(|s| s.name)
        .collect();
    if !missing.is_empty() {
        ns.bed.progress.step(format!(
            "unused permissions are not judged, because these scenarios did not run here or failed: {missing:?}"
        ));
        return Ok(());
    }
    let mut granted = std::collections::BTreeSet::new();
    // deploy/default-provider grants what deploy/herald does.
    for manifest in [Manifest::CLASS, Manifest::UNINSTALL, Manifest::GATEWAY_ADDRESSES] {
        granted.extend(granted_by(&ns.kubectl(&["kustomize", &manifest.directory().to_string_lossy()])?)?);
    }
    let unused: Vec<_> = granted.difference(&requests.used).map(ToString::to_string).collect();
    ensure!(unused.is_empty(), "granted and never used: {unused:#?}");
    Ok(())
}

/// Checks that no request of Herald was denied since the cluster came up, and returns its requests.
pub(super) fn nothing_denied(ns: &TestNamespace<'_>) -> Result<Requests> {
    let path = ns.bed.lab().audit_log();
    let log = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    // The last line may be incomplete.
    let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let requests = requests_of(install::NAMESPACE, complete)?;
    ensure!(!requests.used.is_empty(), "the log mentions Herald");
    ensure!(requests.denied.is_empty(), "denied: {:#?}", requests.denied);
    Ok(requests)
}
