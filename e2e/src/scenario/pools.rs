//! No pool, full pool, malformed pool, two overlapping pools: Service and pool say why; a freed address goes to the
//! one who waits; an address a Service already carries is kept.

use anyhow::{Result, ensure};
use herald_crds::names;

use super::{Expose, Scene};

pub(super) fn run(scene: &Scene<'_>) -> Result<()> {
    // No pool that allows this namespace: said, once, and served when a pool appears.
    scene.expose(&Expose::ours("first"))?;
    let sentence = scene.eventually("a sentence that says why", || {
        Ok(scene.assigned("first")?.filter(|c| c.status == "False").map(|c| c.message))
    })?;
    ensure!(sentence.contains("AddressPool"), "it names what is missing: {sentence}");
    scene.eventually("a Warning event", || {
        Ok(scene.events("first")?.iter().any(|(kind, ..)| kind == "Warning").then_some(()))
    })?;
    scene.pool("pools-small", &[scene.address(1).to_string()])?;
    ensure!(scene.external_ip("first")? == scene.address(1), "served once a pool appears");

    // Full: the next one waits, and says for what; a freed address goes to it.
    scene.expose(&Expose::ours("second"))?;
    let sentence = scene.refusal("second", "PoolFull")?;
    ensure!(sentence.contains("pools-small"), "the full pool is named: {sentence}");
    ensure!(scene.ingress("first")? == [scene.address(1)], "the first keeps its address");
    scene.kubectl_here(&["delete", "service", "first", "--timeout=60s"])?;
    ensure!(scene.external_ip("second")? == scene.address(1), "the freed address goes to the one who waits");
    let condition =
        scene.eventually("the condition to turn", || Ok(scene.assigned("second")?.filter(|c| c.status == "True")))?;
    ensure!(condition.reason == "Assigned", "{condition:?}");

    // A range that ends before it starts passes CEL; the pool says what is wrong, and works once mended.
    let reversed = format!("{}-{}", scene.address(9), scene.address(5));
    scene.pool("pools-typo", std::slice::from_ref(&reversed))?;
    let (_, message) = scene.pool_condition("pools-typo", names::CONDITION_ACCEPTED, "False")?;
    ensure!(message.contains(&reversed) && message.contains("spec.addresses[0]"), "field and value: {message}");
    ensure!(scene.ingress("second")? == [scene.address(1)], "a broken pool harms nobody");
    scene.pool("pools-typo", &[scene.range(5, 9)])?;
    scene.pool_condition("pools-typo", names::CONDITION_ACCEPTED, "True")?;
    scene.expose(&Expose::ours("third"))?;
    ensure!(scene.external_ip("third")? == scene.address(5), "the mended pool serves");

    // Overlap: both pools say so, and no address is given out twice.
    scene.pool("pools-overlap", &[scene.range(5, 6)])?;
    for (pool, other) in [("pools-typo", "pools-overlap"), ("pools-overlap", "pools-typo")] {
        scene.eventually(&format!("{pool} to name {other}"), || {
            let (reason, message) = scene.pool_condition(pool, names::CONDITION_ACCEPTED, "True")?;
            Ok((reason == "Overlaps" && message.contains(other)).then_some(()))
        })?;
    }
    let annotations = format!("{{{}: pools-overlap}}", names::ANNOTATION_POOL);
    scene.expose(&Expose { annotations: &annotations, ..Expose::ours("fourth") })?;
    ensure!(scene.external_ip("fourth")? == scene.address(6), "the address that is free in both");
    scene.expose(&Expose { annotations: &annotations, ..Expose::ours("fifth") })?;
    scene.refusal("fifth", "PoolFull")?;

    // A request for two addresses of one family is refused with a sentence and cleared when mended.
    let two = format!("{{{}: \"{}, {}\"}}", names::ANNOTATION_ADDRESSES, scene.address(8), scene.address(9));
    scene.expose(&Expose { annotations: &two, ..Expose::ours("sixth") })?;
    let sentence = scene.eventually("a sentence about two addresses", || {
        Ok(scene.assigned("sixth")?.filter(|c| c.status == "False").map(|c| c.message))
    })?;
    ensure!(sentence.contains("are both IPv4"), "{sentence}");
    let one = format!("{{{}: \"{}\"}}", names::ANNOTATION_ADDRESSES, scene.address(8));
    scene.expose(&Expose { annotations: &one, ..Expose::ours("sixth") })?;
    ensure!(scene.external_ip("sixth")? == scene.address(8), "the one address asked for");

    // Deleting a pool takes nothing away. Its end and the next Service come to the controller by different watches: by the
    // condition of the one whose address is in no other pool, it has heard of the former.
    scene.kubectl(&["delete", "pool", "pools-typo"])?;
    scene.eventually("a Service of the deleted pool to say that no pool holds its address", || {
        Ok(scene.assigned("sixth")?.filter(|c| c.status == "True" && c.reason == "OutsidePool"))
    })?;
    scene.expose(&Expose::ours("seventh"))?;
    scene.refusal("seventh", "PoolFull")?;
    ensure!(scene.ingress("third")? == [scene.address(5)], "the Service keeps the address of the deleted pool");
    let node = scene.announcer(scene.address(5))?;
    scene.answered_by(scene.address(5), &node)
}

/// A Service that carries an address of a pool, left by another provider, keeps it: it is adopted.
pub(super) fn adoption(scene: &Scene<'_>) -> Result<()> {
    scene.deploy_echo(1)?;
    scene.expose(&Expose::ours("web"))?;
    let address = scene.address(7);
    scene.kubectl_here(&[
        "patch",
        "service",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        &format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#),
    ])?;
    // The pool comes later, and its first free address is another.
    scene.pool("adoption", &[scene.range(1, 9)])?;
    scene.eventually("the address to be adopted", || scene.virtual_ip(address))?;
    ensure!(scene.ingress("web")? == [address], "the address is kept");
    let node = scene.announcer(address)?;
    scene.answered_by(address, &node)?;
    scene.reachable(address)?;
    Ok(())
}
