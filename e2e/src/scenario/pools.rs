//! No pool, a full pool, a malformed pool, two overlapping pools: Service and pool report why. A freed address goes to
//! the waiting Service. An address that a Service already shows is kept.

use anyhow::{Result, ensure};
use herald_crds::names;

use crate::testbed::{Expose, TestNamespace};

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    // No pool allows this namespace: the Service reports it once, and is served when a pool appears.
    ns.expose(&Expose::ours("first"))?;
    let sentence = ns.eventually("a sentence that says why", || {
        Ok(ns.assigned("first")?.filter(|c| c.status == "False").map(|c| c.message))
    })?;
    ensure!(sentence.contains("AddressPool"), "the sentence names what is missing: {sentence}");
    ns.eventually("a Warning event", || {
        Ok(ns.events("first")?.iter().any(|(kind, ..)| kind == "Warning").then_some(()))
    })?;
    ns.pool("pools-small", &[ns.address(1).to_string()])?;
    ensure!(ns.external_ip("first")? == ns.address(1), "served once a pool appears");

    // The pool is full: the next Service waits and names the pool; a freed address goes to it.
    ns.expose(&Expose::ours("second"))?;
    let sentence = ns.refusal("second", "PoolFull")?;
    ensure!(sentence.contains("pools-small"), "the full pool is named: {sentence}");
    ensure!(ns.ingress("first")? == [ns.address(1)], "the first keeps its address");
    ns.kubectl_here(&["delete", "service", "first", "--timeout=60s"])?;
    ensure!(ns.external_ip("second")? == ns.address(1), "the freed address goes to the waiting Service");
    let condition =
        ns.eventually("the condition to turn", || Ok(ns.assigned("second")?.filter(|c| c.status == "True")))?;
    ensure!(condition.reason == "Assigned", "{condition:?}");

    // A range that ends before it starts passes CEL; the pool reports the error and works once it is corrected.
    let reversed = format!("{}-{}", ns.address(9), ns.address(5));
    ns.pool("pools-typo", std::slice::from_ref(&reversed))?;
    let (_, message) = ns.pool_condition("pools-typo", names::CONDITION_ACCEPTED, "False")?;
    ensure!(message.contains(&reversed) && message.contains("spec.addresses[0]"), "field and value: {message}");
    ensure!(ns.ingress("second")? == [ns.address(1)], "a broken pool harms no other pool");
    ns.pool("pools-typo", &[ns.range(5, 9)])?;
    ns.pool_condition("pools-typo", names::CONDITION_ACCEPTED, "True")?;
    ns.expose(&Expose::ours("third"))?;
    ensure!(ns.external_ip("third")? == ns.address(5), "the corrected pool serves");

    // Overlapping pools: both report it, and no address is assigned twice.
    ns.pool("pools-overlap", &[ns.range(5, 6)])?;
    for (pool, other) in [("pools-typo", "pools-overlap"), ("pools-overlap", "pools-typo")] {
        ns.eventually(&format!("{pool} to name {other}"), || {
            let (reason, message) = ns.pool_condition(pool, names::CONDITION_ACCEPTED, "True")?;
            Ok((reason == "Overlaps" && message.contains(other)).then_some(()))
        })?;
    }
    let annotations = format!("{{{}: pools-overlap}}", names::ANNOTATION_POOL);
    ns.expose(&Expose { annotations: &annotations, ..Expose::ours("fourth") })?;
    ensure!(ns.external_ip("fourth")? == ns.address(6), "the address that is free in both");
    ns.expose(&Expose { annotations: &annotations, ..Expose::ours("fifth") })?;
    ns.refusal("fifth", "PoolFull")?;

    // A request for two addresses of one family is refused with a message, which disappears once the request is
    // corrected.
    let two = format!("{{{}: \"{}, {}\"}}", names::ANNOTATION_ADDRESSES, ns.address(8), ns.address(9));
    ns.expose(&Expose { annotations: &two, ..Expose::ours("sixth") })?;
    let sentence = ns.eventually("a sentence about two addresses", || {
        Ok(ns.assigned("sixth")?.filter(|c| c.status == "False").map(|c| c.message))
    })?;
    ensure!(sentence.contains("are both IPv4"), "{sentence}");
    let one = format!("{{{}: \"{}\"}}", names::ANNOTATION_ADDRESSES, ns.address(8));
    ns.expose(&Expose { annotations: &one, ..Expose::ours("sixth") })?;
    ensure!(ns.external_ip("sixth")? == ns.address(8), "the one address asked for");

    // Deleting a pool takes no address away. The controller receives the deletion and the next Service by different
    // watches; the condition of the Service whose address is in no other pool shows that it has processed the deletion.
    ns.kubectl(&["delete", "pool", "pools-typo"])?;
    ns.eventually("a Service of the deleted pool to report that no pool holds its address", || {
        Ok(ns.assigned("sixth")?.filter(|c| c.status == "True" && c.reason == "OutsidePool"))
    })?;
    ns.expose(&Expose::ours("seventh"))?;
    ns.refusal("seventh", "PoolFull")?;
    ensure!(ns.ingress("third")? == [ns.address(5)], "the Service keeps the address of the deleted pool");
    let node = ns.announcer(ns.address(5))?;
    ns.answered_by(ns.address(5), &node)
}

/// A Service that shows an address of a pool, left by another provider, keeps it: Herald adopts it.
pub(super) fn adoption(ns: &TestNamespace<'_>) -> Result<()> {
    ns.deploy_echo(1)?;
    ns.expose(&Expose::ours("web"))?;
    let address = ns.address(7);
    ns.kubectl_here(&[
        "patch",
        "service",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        &format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{address}"}}]}}}}}}"#),
    ])?;
    // The pool is created later, and another address is its first free one.
    ns.pool("adoption", &[ns.range(1, 9)])?;
    ns.eventually("the address to be adopted", || ns.virtual_ip(address))?;
    ensure!(ns.ingress("web")? == [address], "the address is kept");
    let node = ns.announcer(address)?;
    ns.answered_by(address, &node)?;
    ns.reachable(address)?;
    Ok(())
}
