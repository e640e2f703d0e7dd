//! A private registry: the chart's values name another repository and a Secret with the password for it. Without the Secret the nodes
//! are refused the image, and the speaker that waits for it is covered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::unnoticed::Unnoticed;
use crate::testbed::chart::{Helm, RELEASE};
use crate::testbed::install::HERALD_IMAGE;
use crate::testbed::manifests::{self, Manifest};
use crate::testbed::{Images, TestNamespace, install};
use herald_lab::registry::Registry;

/// The Secret with the password.
const SECRET: &str = "registry";

/// What the kubelet reports while it cannot pull an image (kubernetes, pkg/kubelet/images/types.go).
const CANNOT_PULL: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    let progress = &ns.bed.progress;
    let helm = Helm::new(progress)?;
    let registry = Registry::start(ns.bed.lab(), progress)?;
    let repository = registry.repository("team/herald");
    registry.push(&Images::build(progress)?.herald, HERALD_IMAGE, &repository, progress)?;
    let result = pulled(ns, &helm, &registry, &repository);
    // Whatever was found, the next scenario gets Herald as kubectl installs it.
    let helm = |args: &[&str]| helm.run(ns.bed.lab().admin_command(helm.program()), args);
    if helm(&["status", RELEASE, "-n", install::NAMESPACE]).is_ok() {
        helm(&["uninstall", RELEASE, "-n", install::NAMESPACE, "--wait"])?;
    }
    ns.kubectl(&["delete", "secret", "-n", install::NAMESPACE, SECRET, "--ignore-not-found"])?;
    install::apply(ns.bed.lab(), Manifest::CLASS, progress)?;
    result
}

fn pulled(ns: &TestNamespace<'_>, helm: &Helm, registry: &Registry, repository: &str) -> Result<()> {
    let (address, node) = ns.announced_service(1)?;
    let unnoticed = Unnoticed::from_here(ns, BTreeMap::<IpAddr, String>::from([(address, node)]))?;
    let chart = manifests::chart();
    let (repository_value, secret_value) =
        (format!("image.repository={repository}"), format!("imagePullSecrets[0].name={SECRET}"));
    let mut args = vec!["install", RELEASE, chart.to_str().context("the chart's path")?, "-n", install::NAMESPACE];
    args.extend(["--take-ownership", "--server-side=false", "--set", &repository_value, "--set", &secret_value]);
    helm.run(ns.bed.lab().admin_command(helm.program()), &args)?;
    ns.eventually("a speaker and a controller that may not pull the image", || {
        let waiting: Vec<String> = pods(ns)?.iter().filter(|pod| cannot_pull(pod)).map(ResourceExt::name_any).collect();
        let both = ["speaker", "controller"].iter().all(|part| waiting.iter().any(|name| name.contains(part)));
        Ok(both.then_some(()))
    })?;
    let secret = registry.secret(SECRET);
    let create = ["create", "secret", "-n", install::NAMESPACE].into_iter().chain(secret.iter().map(String::as_str));
    ns.kubectl(&create.collect::<Vec<_>>())?;
    install::wait_for_rollout(ns.bed.lab())?;
    for pod in pods(ns)? {
        let images: Vec<String> =
            pod.spec.iter().flat_map(|spec| &spec.containers).filter_map(|container| container.image.clone()).collect();
        ensure!(images.iter().all(|image| image.starts_with(repository)), "{} runs {images:?}", pod.name_any());
    }
    unnoticed.until_here(ns)
}

fn cannot_pull(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let reason = |container: &ContainerStatus| container.state.as_ref()?.waiting.as_ref()?.reason.clone();
    containers.filter_map(reason).any(|reason| CANNOT_PULL.contains(&reason.as_str()))
}

/// Herald's pods that are not about to end.
fn pods(ns: &TestNamespace<'_>) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(ns.bed.kube(), install::NAMESPACE);
    let pods = ns.bed.block_on(async move { Ok(api.list(&ListParams::default()).await?.items) })?;
    Ok(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}
