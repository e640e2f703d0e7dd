//! Class matrix: our class, another's, none; Herald the default provider or not. What is not ours is never touched:
//! nothing written, no event, no frame.

use anyhow::{Result, ensure};
use herald_crds::names;
use k8s_openapi::api::core::v1::Service;

use super::install;
use super::{Expose, Scene};
use crate::manifests::Manifest;

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.pool("class-matrix", &[scene.range(1, 9)])?;
    scene.deploy_echo(1)?;
    let theirs = Expose { class: Some("example.com/internal-vip"), ..Expose::ours("theirs") };
    let nobodys = Expose { class: None, ..Expose::ours("nobodys") };
    scene.expose(&theirs)?;
    scene.expose(&nobodys)?;
    // Somebody else's controller publishes an address; it happens to lie in our pool.
    let foreign = scene.address(5);
    scene.kubectl_here(&[
        "patch",
        "service",
        "theirs",
        "--subresource=status",
        "--type=merge",
        "-p",
        &format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{foreign}"}}]}}}}}}"#),
    ])?;
    let (theirs_before, nobodys_before) = (scene.service("theirs")?, scene.service("nobodys")?);

    // Ours is served, after which Herald has seen the other two, created before.
    scene.expose(&Expose::ours("ours"))?;
    let address = scene.external_ip("ours")?;
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    untouched(scene, &theirs_before)?;
    untouched(scene, &nobodys_before)?;
    scene.silent(foreign)?;

    // As the default provider, the one without a class is ours as well, with upstream's finalizer.
    install::apply(scene.bed.lab(), Manifest::DEFAULT_PROVIDER, &scene.bed.progress)?;
    let second = scene.external_ip("nobodys")?;
    ensure!(second != foreign && second != address, "{second} is a third address");
    let finalizers = scene.service("nobodys")?.metadata.finalizers.unwrap_or_default();
    ensure!(finalizers == [names::FINALIZER_SERVICE_DEFAULT], "upstream's finalizer: {finalizers:?}");
    untouched(scene, &theirs_before)?;
    scene.silent(foreign)?;

    // No longer the default provider: what it served as such is given back, and said so.
    install::apply(scene.bed.lab(), Manifest::CLASS, &scene.bed.progress)?;
    scene.eventually("the Service without a class to be released", || {
        let finalizers = scene.service("nobodys")?.metadata.finalizers.unwrap_or_default();
        Ok((finalizers.is_empty() && scene.ingress("nobodys")?.is_empty()).then_some(()))
    })?;
    ensure!(scene.ingress("ours")? == [address], "ours keeps its address");
    untouched(scene, &theirs_before)
}

/// The Service is as it was, to the last write, and no event speaks of it.
pub(super) fn untouched(scene: &Scene<'_>, before: &Service) -> Result<()> {
    let name = before.metadata.name.as_deref().unwrap_or_default();
    let now = scene.service(name)?;
    ensure!(now.metadata.resource_version == before.metadata.resource_version, "{name} was written to: {now:?}");
    let events = scene.events(name)?;
    ensure!(events.is_empty(), "{name} has events: {events:?}");
    Ok(())
}
