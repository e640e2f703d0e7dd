//! Class matrix: Herald's class, another class and no class; Herald as the default provider or not. Herald never
//! touches a Service that is not its own: no write, no event, no frame.

use anyhow::{Result, ensure};
use herald_crds::names;
use k8s_openapi::api::core::v1::Service;

use crate::testbed::install;
use crate::testbed::manifests::Manifest;
use crate::testbed::{Expose, TestNamespace};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("class-matrix", &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    let theirs = Expose { class: Some("example.com/internal-vip"), ..Expose::ours("theirs") };
    let nobodys = Expose { class: None, ..Expose::ours("nobodys") };
    ns.expose(&theirs)?;
    ns.expose(&nobodys)?;
    // Another controller publishes an address that happens to lie in our pool.
    let foreign = ns.address(5);
    ns.kubectl_here(&[
        "patch",
        "service",
        "theirs",
        "--subresource=status",
        "--type=merge",
        "-p",
        &format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{foreign}"}}]}}}}}}"#),
    ])?;
    let (theirs_before, nobodys_before) = (ns.service("theirs")?, ns.service("nobodys")?);

    // When our Service, which was created last, is served, Herald has seen the other two.
    ns.expose(&Expose::ours("ours"))?;
    let address = ns.external_ip("ours")?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    untouched(ns, &theirs_before)?;
    untouched(ns, &nobodys_before)?;
    ns.silent(foreign)?;

    // As the default provider, Herald also serves the Service without a class, with upstream's finalizer.
    install::apply(ns.bed.lab(), Manifest::DEFAULT_PROVIDER, &ns.bed.progress)?;
    let second = ns.external_ip("nobodys")?;
    ensure!(second != foreign && second != address, "{second} is a third address");
    let finalizers = ns.service("nobodys")?.metadata.finalizers.unwrap_or_default();
    ensure!(finalizers == [names::FINALIZER_SERVICE_DEFAULT], "upstream's finalizer: {finalizers:?}");
    untouched(ns, &theirs_before)?;
    ns.silent(foreign)?;

    // When Herald is no longer the default provider, it releases the Service that it served as such.
    install::apply(ns.bed.lab(), Manifest::CLASS, &ns.bed.progress)?;
    ns.eventually("the Service without a class to be released", || {
        let finalizers = ns.service("nobodys")?.metadata.finalizers.unwrap_or_default();
        Ok((finalizers.is_empty() && ns.ingress("nobodys")?.is_empty()).then_some(()))
    })?;
    ensure!(ns.ingress("ours")? == [address], "ours keeps its address");
    untouched(ns, &theirs_before)
}

/// Checks that the resource version of the Service is unchanged and that no event regards it.
pub(super) fn untouched(ns: &TestNamespace<'_>, before: &Service) -> Result<()> {
    let name = before.metadata.name.as_deref().unwrap_or_default();
    let now = ns.service(name)?;
    ensure!(now.metadata.resource_version == before.metadata.resource_version, "{name} was written to: {now:?}");
    let events = ns.events(name)?;
    ensure!(events.is_empty(), "{name} has events: {events:?}");
    Ok(())
}
