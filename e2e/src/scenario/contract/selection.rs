//! Which provider a Service belongs to, which address it requests, and which addresses it never gets.

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use herald_crds::names;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PostParams};
use serde_json::{Value, json};

use super::{
    Row, caught_up, change, change_status, create, create_annotated, finalizers, services, told_once, version,
};
use crate::scenario::class_matrix;
use crate::testbed::TestNamespace;

pub(super) const ROWS: &[Row] = &[
    Row { name: "not LoadBalancer", check: not_load_balancer },
    Row { name: "ClusterIP: create and delete 100", check: a_hundred },
    Row { name: "headless LoadBalancer", check: headless_load_balancer },
    Row { name: "loadBalancerClass", check: load_balancer_class },
    Row { name: "loadBalancerIP", check: load_balancer_ip },
    Row { name: "foreign ingress", check: foreign_ingress },
    Row { name: "externalIPs", check: external_ips },
    Row { name: "namespaces and names of 63 characters", check: long_names },
];

/// ClusterIP, NodePort, ExternalName (with a name that looks like an address) and headless Services: Herald writes
/// nothing and posts no event, also when they change.
fn not_load_balancer(ns: &TestNamespace<'_>) -> Result<()> {
    let kinds = [
        ("cluster-ip", json!({"type": "ClusterIP", "loadBalancerClass": null})),
        ("node-port", json!({"type": "NodePort", "loadBalancerClass": null})),
        ("external-name", json!({"type": "ExternalName", "loadBalancerClass": null, "externalName": "192.0.2.9"})),
        ("headless", json!({"type": "ClusterIP", "loadBalancerClass": null, "clusterIP": "None"})),
    ];
    let mut before = Vec::new();
    for (name, spec) in kinds {
        create(ns, name, spec).with_context(|| name.to_owned())?;
        before.push(change(ns, name, json!({"metadata": {"labels": {"changed": "yes"}}}))?);
    }
    caught_up(ns, "not-load-balancer")?;
    before.iter().try_for_each(|service| class_matrix::untouched(ns, service))
}

fn a_hundred(ns: &TestNamespace<'_>) -> Result<()> {
    let api = services(ns);
    let selected = ListParams::default().labels("many=yes");
    let before: Vec<Service> = ns.bed.block_on(async {
        let creations = (1..=100).map(|number| {
            let api = api.clone();
            async move {
                let service: Service = serde_json::from_value(json!({
                    "metadata": {"name": format!("many-{number}"), "labels": {"many": "yes"}},
                    "spec": {"selector": {"app": "echo"}, "ports": [{"port": 80}]},
                }))?;
                Ok::<_, anyhow::Error>(api.create(&PostParams::default(), &service).await?)
            }
        });
        futures::stream::iter(creations).buffer_unordered(16).try_collect().await
    })?;
    caught_up(ns, "many")?;
    let now = ns.bed.block_on(async { Ok(api.list(&selected).await?.items) })?;
    ensure!(now.len() == before.len(), "{} of {} Services are there", now.len(), before.len());
    for service in &before {
        let same = |other: &&Service| other.metadata.resource_version == service.metadata.resource_version;
        ensure!(now.iter().any(|other| same(&other)), "{:?} was written to", service.metadata.name);
    }
    ns.bed.block_on(async { Ok(api.delete_collection(&DeleteParams::default(), &selected).await.map(drop)?) })?;
    let left = ns.bed.block_on(async { Ok(api.list(&selected).await?.items) })?;
    ensure!(left.is_empty(), "held by a finalizer: {left:?}");
    let regards = |event: &Event| event.regarding.as_ref().and_then(|r| r.name.clone()).unwrap_or_default();
    let events = ns.told()?;
    let told: Vec<_> = events.iter().filter(|event| regards(event).starts_with("many-")).collect();
    ensure!(told.is_empty(), "told: {told:?}");
    Ok(())
}

fn headless_load_balancer(ns: &TestNamespace<'_>) -> Result<()> {
    let Err(refused) = create(ns, "headless-lb", json!({"clusterIP": "None"})) else {
        bail!("the API server took a headless Service of type LoadBalancer");
    };
    ensure!(format!("{refused:#}").contains("may not be set to 'None'"), "{refused:#}");
    Ok(())
}

/// Changes our class to another one by way of ClusterIP, the only way the API server allows; Herald releases its
/// Service.
fn load_balancer_class(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "class", json!({}))?;
    let address = ns.external_ip("class")?;
    let other = "example.com/internal-vip";
    let Err(refused) = change(ns, "class", json!({"spec": {"loadBalancerClass": other}})) else {
        bail!("the API server let the class change");
    };
    ensure!(format!("{refused:#}").contains("may not change once set"), "{refused:#}");
    ensure!(ns.ingress("class")? == [address], "a refused change changes nothing");

    change(ns, "class", json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}}))?;
    ns.eventually("the Service to be released", || {
        let free = finalizers(ns, "class")?.is_empty() && ns.assigned("class")?.is_none();
        Ok(free.then_some(()))
    })?;
    ensure!(ns.virtual_ip(address)?.is_none(), "the finalizer goes last");
    let theirs = change(ns, "class", json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": other}}))?;
    caught_up(ns, "class")?;
    ensure!(version(&ns.service("class")?)? == version(&theirs)?, "the Service is no longer Herald's");
    told_once(ns, "class", "DeletedLoadBalancer")
}

fn load_balancer_ip(ns: &TestNamespace<'_>) -> Result<()> {
    let [asked, next, last] = [50, 51, 52].map(|last| ns.address(last));
    create(ns, "asks", json!({"loadBalancerIP": asked}))?;
    ensure!(ns.external_ip("asks")? == asked, "the Service gets the address that it asks for");

    // A requested address that another Service has: no other address instead, and a single event.
    create(ns, "waits", json!({"loadBalancerIP": asked}))?;
    let sentence = ns.refusal("waits", "AddressInUse")?;
    ensure!(
        sentence.contains(&format!("{}/asks", ns.namespace)),
        "the sentence names the Service that has the address: {sentence}"
    );
    for round in ["1", "2"] {
        change(ns, "waits", json!({"metadata": {"labels": {"round": round}}}))?;
    }
    caught_up(ns, "refused")?;
    ensure!(ns.ingress("waits")?.is_empty(), "no other address instead");
    told_once(ns, "waits", "SyncLoadBalancerFailed")?;

    // An unavailable address takes nothing away; an available one is assigned before the old one is released.
    change(ns, "asks", json!({"spec": {"loadBalancerIP": "203.0.113.9"}}))?;
    let sentence = ns.refusal("asks", "AddressNotInPool")?;
    ensure!(sentence.contains("203.0.113.9") && sentence.contains(&format!("keeps {asked}")), "{sentence}");
    ensure!(ns.ingress("asks")? == [asked], "it keeps what it has");
    change(ns, "asks", json!({"spec": {"loadBalancerIP": next}}))?;
    has(ns, "asks", next)?;
    has(ns, "waits", asked)?;

    // The annotation overrides the field, and an event reports it.
    change(ns, "asks", json!({"metadata": {"annotations": {names::ANNOTATION_ADDRESSES: last}}}))?;
    has(ns, "asks", last)?;
    told_once(ns, "asks", "LoadBalancerIPOverruled")
}

fn has(ns: &TestNamespace<'_>, name: &str, address: std::net::IpAddr) -> Result<()> {
    ns.eventually(&format!("{name} to have {address}"), || Ok((ns.ingress(name)? == [address]).then_some(())))
}

/// Another provider writes into the status of our Service: Herald reports it, does not overwrite it, and writes its own
/// entry once the status is emptied.
fn foreign_ingress(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "contested", json!({}))?;
    let address = ns.external_ip("contested")?;
    let ingress = |ingress: Value| Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    change_status(ns, "contested", ingress(json!([{"hostname": "lb.example.com"}])))?;
    let sentence = ns.refusal("contested", "ForeignIngress")?;
    ensure!(sentence.contains("lb.example.com"), "the sentence names the address that was found: {sentence}");
    caught_up(ns, "contested")?;
    let status = ns.service("contested")?.status.and_then(|s| s.load_balancer).context("a status")?;
    let shown: Vec<_> = status.ingress.into_iter().flatten().filter_map(|entry| entry.hostname).collect();
    ensure!(shown == ["lb.example.com"], "it is not overwritten: {shown:?}");
    told_once(ns, "contested", "SyncLoadBalancerFailed")?;
    change_status(ns, "contested", ingress(Value::Null))?;
    has(ns, "contested", address)
}

/// An address in `spec.externalIPs` is assigned to no Service, and no node answers for it.
fn external_ips(ns: &TestNamespace<'_>) -> Result<()> {
    let (listed, free) = (ns.address(120), ns.address(121));
    let pool = format!("{}-externalips", ns.namespace);
    let lists = json!({"type": "ClusterIP", "loadBalancerClass": null, "externalIPs": [listed, "80.11.12.10"]});
    create(ns, "lists", lists)?;
    ns.pool(&pool, &[ns.range(120, 121)])?;
    create_annotated(ns, "takes", json!({names::ANNOTATION_POOL: pool}), json!({}))?;
    ensure!(ns.external_ip("takes")? == free, "the address that no Service lists");
    create(ns, "asks-for-it", json!({"loadBalancerIP": listed}))?;
    let sentence = ns.refusal("asks-for-it", "AddressInExternalIPs")?;
    ensure!(
        sentence.contains(&format!("{}/lists", ns.namespace)),
        "the sentence names the Service that lists the address: {sentence}"
    );
    ns.announcer(free)?;
    ns.silent(listed)
}

/// Services of the same name in two namespaces get two addresses. Both names have the maximum length.
fn long_names(ns: &TestNamespace<'_>) -> Result<()> {
    let (namespace, name, pool) = ("n".repeat(63), "s".repeat(63), format!("{}-namespaces", ns.namespace));
    let other = TestNamespace::named(ns.bed, &namespace, ns.block())?;
    ns.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: AddressPool, metadata: {{name: {pool}, labels: {{scenario: {here}}}}}, \
         spec: {{addresses: [{range}], autoAssign: false, serviceAllocation: {{namespaces: [{here}, {namespace}]}}}}}}",
        here = ns.namespace,
        range = ns.range(130, 131),
    ))?;
    for ns in [ns, &other] {
        create_annotated(ns, &name, json!({names::ANNOTATION_POOL: pool}), json!({}))?;
    }
    let (first, second) = (ns.external_ip(&name)?, other.external_ip(&name)?);
    ensure!(first != second, "two Services of one name share {first}");
    let labels = ns.virtual_ip(second)?.and_then(|vip| vip.metadata.labels).unwrap_or_default();
    for (label, value) in [(names::LABEL_SERVICE_NAMESPACE, &namespace), (names::LABEL_SERVICE_NAME, &name)] {
        ensure!(labels.get(label) == Some(value), "{label} is not {value}: {labels:?}");
    }
    ns.announcer(second)?;
    told_once(&other, &name, "EnsuredLoadBalancer")?;
    other.kubectl_here(&["delete", "service", &name, "--timeout=60s"])?;
    ns.kubectl(&["delete", "namespace", &namespace, "--wait=false"]).map(drop)
}
