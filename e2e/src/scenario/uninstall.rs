//! The documented way out leaves no finalizer, no stuck Service and no namespace, also when the controller is already
//! gone.

use anyhow::{Result, ensure};
use herald_crds::names;

use super::install;
use super::{Expose, Scene};
use crate::manifests::Manifest;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    uninstalled(scene, |_| Ok(()))
}

pub(super) fn without_controller(scene: &Scene<'_>) -> Result<()> {
    uninstalled(scene, |scene| {
        let workload = ["deployment/herald-controller", "daemonset/herald-speaker"];
        scene.kubectl(&["delete", "-n", install::NAMESPACE, workload[0], workload[1], "--cascade=foreground"])?;
        Ok(())
    })
}

fn uninstalled(scene: &Scene<'_>, first: impl FnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    scene.pool("uninstall", &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    scene.expose(&Expose::ours("web"))?;
    scene.expose(&Expose::ours("leaving"))?;
    let address = scene.external_ip("web")?;
    scene.announcer(scene.external_ip("leaving")?)?;
    scene.announcer(address)?;
    first(scene)?;

    install::uninstall(scene.bed.lab())?;
    scene.eventually("the namespace to go", || Ok((!scene.namespace_exists(install::NAMESPACE)?).then_some(())))?;
    for kind in ["crd", "clusterrole", "clusterrolebinding"] {
        let left = scene.kubectl(&["get", kind, "-o", "name"])?;
        ensure!(!left.contains("herald"), "left behind: {left}");
    }
    for name in ["web", "leaving"] {
        let service = scene.service(name)?;
        let finalizers = service.metadata.finalizers.unwrap_or_default();
        ensure!(finalizers.is_empty(), "{name} keeps {finalizers:?}");
        ensure!(scene.ingress(name)?.is_empty() && scene.assigned(name)?.is_none(), "{name} still speaks of Herald");
    }
    scene.silent(address)?;
    scene.kubectl_here(&["delete", "service", "leaving", "--timeout=10s"])?;

    // Installed again, Herald serves what is there.
    install::apply(scene.bed.lab(), Manifest::CLASS, &scene.bed.progress)?;
    scene.pool("uninstall", &[scene.range(1, 9)])?;
    let address = scene.external_ip("web")?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    let finalizers = scene.service("web")?.metadata.finalizers.unwrap_or_default();
    ensure!(finalizers == [names::FINALIZER_SERVICE_CLASS], "{finalizers:?}");
    Ok(())
}
