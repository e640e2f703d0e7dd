//! A hundred Services are created at once; afterwards nothing changes, and Herald writes nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt};
use herald_crds::names;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;

use crate::testbed::TestNamespace;
use crate::testbed::at_rest::{AtRest, QUIET, come_to_rest};
use crate::testbed::audit_log::AuditLog;

const SERVICES: u8 = 100;

/// Concurrent requests to the API server.
const AT_ONCE: usize = 16;

/// The writes that a burst leaves take seconds; the rest is a margin for a busy machine.
const REST_WITHIN: Duration = Duration::from_secs(30);

/// Time for which nothing may be written: one and a half times the lifetime of a watch.
const RESTS: Duration = Duration::from_secs(30);

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool(&ns.namespace, &[ns.range(1, 120)])?;
    let mut log = AuditLog::from_now(&ns.bed.lab().audit_log())?;
    let services: Api<Service> = Api::namespaced(ns.bed.kube(), &ns.namespace);
    let objects: Vec<Service> = (1..=SERVICES).map(service).collect::<Result<_>>()?;
    ns.bed.block_on(async move {
        let requests = objects.into_iter().map(|object| {
            let services = services.clone();
            async move { services.create(&PostParams::default(), &object).await.map(drop) }
        });
        Ok(futures::stream::iter(requests).buffer_unordered(AT_ONCE).try_collect::<()>().await?)
    })?;
    ns.eventually("every address to be announced", || {
        let vips = ns.virtual_ips()?;
        let announced = vips.iter().filter(|vip| vip.announced().is_some_and(|c| c.status == "True")).count();
        Ok((announced == usize::from(SERVICES)).then_some(()))
    })?;
    come_to_rest(ns.bed, &mut log, QUIET, REST_WITHIN)?;
    let seen = AtRest::watched(ns.bed, RESTS)?;
    ns.bed.progress.step(format!("at-rest: {seen}"));
    let broken = seen.violations();
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

/// Returns a Service without node ports and without endpoints, so that only Herald makes changes.
fn service(number: u8) -> Result<Service> {
    Ok(serde_json::from_value(serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web{number}")},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": names::CLASS, "allocateLoadBalancerNodePorts": false,
                 "selector": {"app": "echo"}, "ports": [{"port": 80}]},
    }))?)
}
