//! The Services of the setup, and how their addresses get to one node.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use herald_crds::{VirtualIP, names};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;

use super::{Policy, Setup, Target};

/// Concurrent requests to the API server when many Services are created.
const AT_ONCE: usize = 16;

/// Upper bound for the announcement of the last of 1,000 addresses, on a busy machine.
const PLACED_WITHIN: Duration = Duration::from_secs(120);

/// Label of the setup's Services.
const LABEL: &str = "setup=failover";

impl Setup<'_> {
    /// Creates the Services again, with all their addresses on one node.
    ///
    /// The Services are new because an address that had to move may not go back for a while
    /// (docs/protocol/ownership.md#hold-down).
    pub(super) fn place(&self, node: &str, more: u16) -> Result<()> {
        self.clear()?;
        self.advertise(Some(node))?;
        let names: Vec<String> = (1..=more).map(|number| format!("more{number}")).collect();
        let probed = Policy::ALL.map(|policy| self.service(policy.service(), policy, node));
        let services = probed.into_iter().chain(names.iter().map(|name| self.service(name, Policy::Cluster, node)));
        let services = services.collect::<Result<Vec<Service>>>()?;
        let count = services.len();
        let api: Api<Service> = Api::namespaced(self.ns.bed.kube(), &self.ns.namespace);
        self.ns.bed.block_on(async move {
            let creations = services.into_iter().map(|service| {
                let api = api.clone();
                async move { api.create(&PostParams::default(), &service).await }
            });
            futures::stream::iter(creations).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
            Ok(())
        })?;
        self.all_vips(count, &format!("all addresses to be announced by {node}"), |vip| {
            vip.announced().is_some_and(|c| c.status == "True")
                && vip.status.as_ref().and_then(|s| s.node.as_deref()) == Some(node)
        })?;
        // From here on any node may announce them.
        self.advertise(None)?;
        self.all_vips(count, "every node to be eligible", |vip| {
            vip.spec.advertisements.iter().all(|rule| rule.node_selectors.is_empty())
        })
    }

    /// Deletes the Services and waits until their addresses are free.
    pub(super) fn clear(&self) -> Result<()> {
        // kubectl deletes and awaits the Services one after the other, under its own rate limit: 1,000 of them took
        // more than a minute.
        self.ns.kubectl_here(&["delete", "service", "-l", LABEL, "--ignore-not-found", "--timeout=300s"])?;
        self.ns
            .bed
            .wait_for("no address of the setup", PLACED_WITHIN, || Ok(self.ns.virtual_ips()?.is_empty().then_some(())))
    }

    /// Returns the probed addresses; none while the Services do not exist or have no addresses.
    pub(super) fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for policy in Policy::ALL {
            if self.ns.get::<Service>(policy.service())?.is_some() {
                let addresses = self.ns.ingress(policy.service())?;
                targets.extend(addresses.into_iter().map(|address| Target { address, policy }));
            }
        }
        Ok(targets)
    }

    /// Returns the addresses of the other Services.
    pub(super) fn bystanders(&self) -> Result<Vec<IpAddr>> {
        let mut bystanders = Vec::new();
        for vip in self.ns.virtual_ips()? {
            if vip.spec.services.iter().all(|s| s.name.starts_with("more")) {
                bystanders
                    .push(vip.spec.address.parse().with_context(|| format!("the address {:?}", vip.spec.address))?);
            }
        }
        Ok(bystanders)
    }

    fn all_vips(&self, services: usize, what: &str, holds: impl Fn(&VirtualIP) -> bool) -> Result<()> {
        self.ns.bed.wait_for(what, PLACED_WITHIN, || {
            let vips = self.ns.virtual_ips()?;
            Ok((vips.len() == 2 * services && vips.iter().all(&holds)).then_some(()))
        })
    }

    /// Applies the advertisement of the setup's pool: every node may announce it, or only one.
    fn advertise(&self, only: Option<&str>) -> Result<()> {
        let selectors = only
            .map(|node| format!(", nodeSelectors: [{{matchLabels: {{kubernetes.io/hostname: {node}}}}}]"))
            .unwrap_or_default();
        let name = &self.ns.namespace;
        self.ns.apply(&format!(
            "{{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, metadata: {{name: {name}, labels: {{scenario: \
             {name}}}}}, spec: {{addressPools: [{name}]{selectors}}}}}"
        ))
    }

    fn service(&self, name: &str, policy: Policy, victim: &str) -> Result<Service> {
        ensure!(!name.is_empty(), "a Service without a name");
        let mut selector = serde_json::json!({"app": "echo"});
        // kube-proxy's treatment of a dead node's endpoints is not measured.
        if policy == Policy::Cluster && self.nodes().len() > 1 {
            selector[super::workload::survives(victim)] = "yes".into();
        }
        Ok(serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "labels": {"setup": "failover"}},
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": names::CLASS,
                "externalTrafficPolicy": policy.to_string(),
                "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
                "selector": selector,
                "ports": [
                    {"name": "http", "port": 80, "targetPort": 8080},
                    {"name": "tcp", "port": 9000, "protocol": "TCP"},
                    {"name": "udp", "port": 9000, "protocol": "UDP"},
                ],
            },
        }))?)
    }
}
