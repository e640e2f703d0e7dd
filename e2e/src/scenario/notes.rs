//! Herald reports problems and remarks once, where a user looks, and removes the report when the cause is gone.

use anyhow::{Context, Result, ensure};
use herald_crds::{L2Advertisement, VirtualIP, names, virtual_ip::AnnouncedReason};

use crate::testbed::{Expose, TestNamespace};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    ns.pool("notes", &[ns.range(1, 7)])?;
    source_ranges_by_annotation(ns)?;
    pools_over_the_cluster(ns)?;
    an_unreadable_selector(ns)?;
    a_virtual_ip_by_hand(ns)
}

fn source_ranges_by_annotation(ns: &TestNamespace<'_>) -> Result<()> {
    let annotations = format!("{{{}: 10.0.0.0/8}}", names::ANNOTATION_SOURCE_RANGES);
    ns.expose(&Expose { annotations: &annotations, ..Expose::ours("web") })?;
    let address = ns.external_ip("web")?;
    let notes = || Ok::<_, anyhow::Error>(ns.assigned("web")?.map(|c| c.message).unwrap_or_default());
    ensure!(notes()?.contains("spec.loadBalancerSourceRanges"), "field to write: {}", notes()?);
    ns.eventually("a Warning", || {
        Ok(ns.events("web")?.iter().any(|(_, reason, _)| reason == "SourceRangesNotEnforced").then_some(()))
    })?;
    ns.expose(&Expose::ours("web"))?;
    ns.eventually("the note to go", || Ok((!notes()?.contains("note:")).then_some(())))?;
    let told = ns.events("web")?.iter().filter(|(_, reason, _)| reason == "SourceRangesNotEnforced").count();
    ensure!(told == 1, "reported once, not {told} times");
    ensure!(ns.ingress("web")? == [address], "no note costs an address");
    Ok(())
}

/// A pool that equals the Service network assigns nothing; a pool that holds a node's address skips it.
fn pools_over_the_cluster(ns: &TestNamespace<'_>) -> Result<()> {
    let cidr = ns.kubectl(&["get", "servicecidr", "kubernetes", "-o", "jsonpath={.spec.cidrs[0]}"])?;
    let path = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    let node = ns.kubectl(&["get", "nodes", "-o", path])?;
    let node = node.split_whitespace().next().context("a node's address")?.to_owned();
    for (pool, block, sentence) in
        [("notes-services", cidr, "ServiceCIDR kubernetes"), ("notes-node", node, "status.addresses of Node")]
    {
        ns.pool(pool, std::slice::from_ref(&block))?;
        let (reason, message) = ns.pool_condition(pool, names::CONDITION_ACCEPTED, "True")?;
        ensure!(reason == "Overlaps" && message.contains(sentence), "{pool}: {reason}: {message}");
        let annotations = format!("{{{}: {pool}}}", names::ANNOTATION_POOL);
        ns.expose(&Expose { annotations: &annotations, ..Expose::ours(pool) })?;
        ns.refusal(pool, "PoolFull")?;
        ns.kubectl_here(&["delete", "service", pool, "--timeout=60s"])?;
        ns.kubectl(&["delete", "pool", pool])?;
    }
    Ok(())
}

fn an_unreadable_selector(ns: &TestNamespace<'_>) -> Result<()> {
    ns.apply(
        "{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, metadata: {name: notes, labels: {scenario: notes}}, \
         spec: {addressPools: [notes], nodeSelectors: [{matchExpressions: [{key: rack, operator: Is}]}]}}",
    )?;
    let sentence = ns.eventually("the advertisement to report what cannot be read", || {
        let object: L2Advertisement = ns.get_cluster("notes")?.context("the advertisement")?;
        let conditions = object.status.map(|s| s.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|c| c.reason == "InvalidSelector").map(|c| c.message))
    })?;
    ensure!(sentence.contains("spec.nodeSelectors[0]") && sentence.contains("rack"), "field and key: {sentence}");
    ns.kubectl(&["delete", "l2adv", "notes"])?;
    Ok(())
}

fn a_virtual_ip_by_hand(ns: &TestNamespace<'_>) -> Result<()> {
    let (name, address) = (ns.address(8).to_string(), ns.address(9));
    ns.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: VirtualIP, metadata: {{name: {name}}}, spec: {{address: {address}, \
         pool: notes, services: [{{namespace: notes, name: web, uid: by-hand}}], \
         advertisements: [{{cover: true, failback: Never}}]}}}}"
    ))?;
    let sentence = ns.eventually("the VirtualIP to report that its name is not its address", || {
        let vip: VirtualIP = ns.get_cluster(&name)?.context("the VirtualIP")?;
        let condition = vip.announced().filter(|c| c.reason == AnnouncedReason::NameMismatch.as_str());
        Ok(condition.map(|c| c.message.clone()))
    })?;
    ensure!(sentence.contains(&format!("kubectl delete vip {name}")), "the remedy: {sentence}");
    ns.silent(address)?;
    ns.kubectl(&["delete", "vip", &name, "--timeout=60s"])?;
    Ok(())
}
