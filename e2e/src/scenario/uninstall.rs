//! The documented uninstallation leaves no finalizer, no stuck Service and no namespace, even when the controller is
//! already gone.

use anyhow::{Result, ensure};
use herald_crds::names;

use crate::testbed::install;
use crate::testbed::manifests::Manifest;
use crate::testbed::{Expose, TestNamespace};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    uninstalled(ns, |_| Ok(()))
}

pub(super) fn without_controller(ns: &TestNamespace<'_>) -> Result<()> {
    uninstalled(ns, |ns| {
        let workload = ["deployment/herald-controller", "daemonset/herald-speaker"];
        ns.kubectl(&["delete", "-n", install::NAMESPACE, workload[0], workload[1], "--cascade=foreground"])?;
        Ok(())
    })
}

fn uninstalled(ns: &TestNamespace<'_>, first: impl FnOnce(&TestNamespace<'_>) -> Result<()>) -> Result<()> {
    ns.pool("uninstall", &[ns.range(1, 9)])?;
    ns.deploy_echo(1)?;
    ns.expose(&Expose::ours("web"))?;
    ns.expose(&Expose::ours("leaving"))?;
    let address = ns.external_ip("web")?;
    ns.announcer(ns.external_ip("leaving")?)?;
    ns.announcer(address)?;
    first(ns)?;

    install::uninstall(ns.bed.lab())?;
    ns.eventually("the namespace to go", || Ok((!ns.namespace_exists(install::NAMESPACE)?).then_some(())))?;
    for kind in ["crd", "clusterrole", "clusterrolebinding"] {
        let left = ns.kubectl(&["get", kind, "-o", "name"])?;
        ensure!(!left.contains("herald"), "left behind: {left}");
    }
    for name in ["web", "leaving"] {
        let service = ns.service(name)?;
        let finalizers = service.metadata.finalizers.unwrap_or_default();
        ensure!(finalizers.is_empty(), "{name} keeps {finalizers:?}");
        ensure!(ns.ingress(name)?.is_empty() && ns.assigned(name)?.is_none(), "{name} still has fields of Herald");
    }
    ns.silent(address)?;
    ns.kubectl_here(&["delete", "service", "leaving", "--timeout=10s"])?;

    // After a new installation Herald serves the existing Services.
    install::apply(ns.bed.lab(), Manifest::CLASS, &ns.bed.progress)?;
    ns.pool("uninstall", &[ns.range(1, 9)])?;
    let address = ns.external_ip("web")?;
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    let finalizers = ns.service("web")?.metadata.finalizers.unwrap_or_default();
    ensure!(finalizers == [names::FINALIZER_SERVICE_CLASS], "{finalizers:?}");
    Ok(())
}
