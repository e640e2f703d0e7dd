//! What is wrong, or only worth knowing, is a sentence where a user looks, once, and goes when it is mended.

use anyhow::{Context, Result, ensure};
use herald_crds::{L2Advertisement, VirtualIP, names, virtual_ip::AnnouncedReason};

use super::{Expose, Scene};

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    scene.pool("notes", &[scene.range(1, 7)])?;
    source_ranges_by_annotation(scene)?;
    pools_over_the_cluster(scene)?;
    an_unreadable_selector(scene)?;
    a_virtual_ip_by_hand(scene)
}

fn source_ranges_by_annotation(scene: &Scene<'_>) -> Result<()> {
    let annotations = format!("{{{}: 10.0.0.0/8}}", names::ANNOTATION_SOURCE_RANGES);
    scene.expose(&Expose { annotations: &annotations, ..Expose::ours("web") })?;
    let address = scene.external_ip("web")?;
    let notes = || Ok::<_, anyhow::Error>(scene.assigned("web")?.map(|c| c.message).unwrap_or_default());
    ensure!(notes()?.contains("spec.loadBalancerSourceRanges"), "field to write: {}", notes()?);
    scene.eventually("a Warning", || {
        Ok(scene.events("web")?.iter().any(|(_, reason, _)| reason == "SourceRangesNotEnforced").then_some(()))
    })?;
    scene.expose(&Expose::ours("web"))?;
    scene.eventually("the note to go", || Ok((!notes()?.contains("note:")).then_some(())))?;
    let told = scene.events("web")?.iter().filter(|(_, reason, _)| reason == "SourceRangesNotEnforced").count();
    ensure!(told == 1, "told once, not {told} times");
    ensure!(scene.ingress("web")? == [address], "no note costs an address");
    Ok(())
}

/// A pool that is the network of Services gives nothing out; one that holds a node's address passes it over.
fn pools_over_the_cluster(scene: &Scene<'_>) -> Result<()> {
    let cidr = scene.kubectl(&["get", "servicecidr", "kubernetes", "-o", "jsonpath={.spec.cidrs[0]}"])?;
    let path = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
    let node = scene.kubectl(&["get", "nodes", "-o", path])?;
    let node = node.split_whitespace().next().context("a node's address")?.to_owned();
    for (pool, block, sentence) in
        [("notes-services", cidr, "ServiceCIDR kubernetes"), ("notes-node", node, "status.addresses of Node")]
    {
        scene.pool(pool, std::slice::from_ref(&block))?;
        let (reason, message) = scene.pool_condition(pool, names::CONDITION_ACCEPTED, "True")?;
        ensure!(reason == "Overlaps" && message.contains(sentence), "{pool}: {reason}: {message}");
        let annotations = format!("{{{}: {pool}}}", names::ANNOTATION_POOL);
        scene.expose(&Expose { annotations: &annotations, ..Expose::ours(pool) })?;
        scene.refusal(pool, "PoolFull")?;
        scene.kubectl_here(&["delete", "service", pool, "--timeout=60s"])?;
        scene.kubectl(&["delete", "pool", pool])?;
    }
    Ok(())
}

fn an_unreadable_selector(scene: &Scene<'_>) -> Result<()> {
    scene.apply(
        "{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, metadata: {name: notes, labels: {scenario: notes}}, \
         spec: {addressPools: [notes], nodeSelectors: [{matchExpressions: [{key: rack, operator: Is}]}]}}",
    )?;
    let sentence = scene.eventually("the advertisement to say what cannot be read", || {
        let object: L2Advertisement = scene.get_cluster("notes")?.context("the advertisement")?;
        let conditions = object.status.map(|s| s.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|c| c.reason == "InvalidSelector").map(|c| c.message))
    })?;
    ensure!(sentence.contains("spec.nodeSelectors[0]") && sentence.contains("rack"), "field and key: {sentence}");
    scene.kubectl(&["delete", "l2adv", "notes"])?;
    Ok(())
}

fn a_virtual_ip_by_hand(scene: &Scene<'_>) -> Result<()> {
    let (name, address) = (scene.address(8).to_string(), scene.address(9));
    scene.apply(&format!(
        "{{apiVersion: heraldlb.io/v1alpha1, kind: VirtualIP, metadata: {{name: {name}}}, spec: {{address: {address}, \
         pool: notes, services: [{{namespace: notes, name: web, uid: by-hand}}], \
         advertisements: [{{cover: true, failback: Never}}]}}}}"
    ))?;
    let sentence = scene.eventually("the VirtualIP to say that its name is not its address", || {
        let vip: VirtualIP = scene.get_cluster(&name)?.context("the VirtualIP")?;
        let condition = vip.announced().filter(|c| c.reason == AnnouncedReason::NameMismatch.as_str());
        Ok(condition.map(|c| c.message.clone()))
    })?;
    ensure!(sentence.contains(&format!("kubectl delete vip {name}")), "the remedy: {sentence}");
    scene.silent(address)?;
    scene.kubectl(&["delete", "vip", &name, "--timeout=60s"])?;
    Ok(())
}
