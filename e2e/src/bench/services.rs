//! Many Services at once.

use std::ops::RangeInclusive;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;

use crate::testbed::TestNamespace;

/// Concurrent requests while the Services are created, so that the API server, not the client, is the limit.
const CREATORS: usize = 16;

/// Creates the Services with these numbers, of Herald's class.
///
/// # Errors
/// When the API server refuses one.
pub(super) fn create(ns: &TestNamespace<'_>, numbers: RangeInclusive<u16>, dual_stack: bool) -> Result<()> {
    let services: Api<Service> = Api::namespaced(ns.bed.kube(), &ns.namespace);
    let objects: Vec<Service> = numbers.map(|n| service(n, dual_stack)).collect::<Result<_>>()?;
    ns.bed.block_on(async move {
        let requests = objects.into_iter().map(|object| {
            let services = services.clone();
            async move { services.create(&PostParams::default(), &object).await.map(drop) }
        });
        Ok(stream::iter(requests).buffer_unordered(CREATORS).try_collect::<()>().await?)
    })
}

/// Returns a Service without node ports: the default range has only 2,768 of them.
fn service(number: u16, dual_stack: bool) -> Result<Service> {
    let families = if dual_stack { &["IPv4", "IPv6"][..] } else { &["IPv4"] };
    let policy = if dual_stack { "RequireDualStack" } else { "SingleStack" };
    Ok(serde_json::from_value(serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web{number}")},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": herald_crds::names::CLASS,
                 "allocateLoadBalancerNodePorts": false, "ipFamilies": families, "ipFamilyPolicy": policy,
                 "selector": {"app": "echo"}, "ports": [{"port": 80}]},
    }))?)
}
