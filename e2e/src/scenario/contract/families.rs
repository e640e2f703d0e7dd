//! One address per family of the Service, in its order, and never one of another family.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use serde_json::{Value, json};

use super::{Row, caught_up, change, create, create_annotated, finalizers, told_once, v6_range};
use crate::testbed::TestNamespace;

pub(super) const ROWS: &[Row] = &[
    Row { name: "upgrade and downgrade", check: upgrade_and_downgrade },
    Row { name: "order of ipFamilies", check: order },
    Row { name: "a family the Service does not have", check: not_its_family },
    Row { name: "one family free", check: one_family_free },
    Row { name: "LB->ExternalName and back", check: external_name_and_back },
];

/// Waits until the Service has this number of addresses.
fn addresses(ns: &TestNamespace<'_>, name: &str, count: usize) -> Result<Vec<IpAddr>> {
    ns.eventually(&format!("{name} to have {count} addresses"), || {
        Ok(Some(ns.ingress(name)?).filter(|addresses| addresses.len() == count))
    })
}

fn uid(ns: &TestNamespace<'_>, address: IpAddr) -> Result<Option<String>> {
    Ok(ns.virtual_ip(address)?.with_context(|| format!("the VirtualIP of {address}"))?.metadata.uid)
}

/// A second family is added and removed; the first address stays the same and on its node.
fn upgrade_and_downgrade(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "dual", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}))?;
    let first = ns.external_ip("dual")?;
    let node = ns.announcer(first)?;
    let before = uid(ns, first)?;
    for _ in 0..2 {
        let families = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]}});
        change(ns, "dual", families)?;
        let both = addresses(ns, "dual", 2)?;
        ensure!(both[0] == first && both[1].is_ipv6(), "{first}, then one of IPv6: {both:?}");
        let second = both[1];
        ns.announcer(second)?;
        both.iter().try_for_each(|address| ns.reachable(*address).map(drop))?;

        // The API server removes the second family by itself.
        change(ns, "dual", json!({"spec": {"ipFamilyPolicy": "SingleStack"}}))?;
        ensure!(addresses(ns, "dual", 1)? == [first], "the first stays");
        ns.eventually(&format!("{second} to be free"), || Ok(ns.virtual_ip(second)?.is_none().then_some(())))?;
        ns.silent(second)?;
    }
    ensure!(uid(ns, first)? == before && ns.announcer(first)? == node, "{first} stays where it is");
    ns.reachable(first)?;
    Ok(())
}

fn order(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "six-four", json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}))?;
    let both = addresses(ns, "six-four", 2)?;
    ensure!(both[0].is_ipv6() && both[1].is_ipv4(), "as in spec.ipFamilies: {both:?}");
    let status = ns.service("six-four")?.status.and_then(|status| status.load_balancer);
    let shown = serde_json::to_value(status.and_then(|status| status.ingress))?;
    // IpAddr formats an address in its canonical form (RFC 5952).
    let expected: Vec<Value> = both.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
    ensure!(shown == json!(expected), "{shown}");
    told_once(ns, "six-four", "EnsuredLoadBalancer")
}

/// The pool has both families, the Service has one.
fn not_its_family(ns: &TestNamespace<'_>) -> Result<()> {
    let six = || json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]});
    create(ns, "six", six())?;
    let mut asks = six();
    asks["loadBalancerIP"] = json!(ns.address(30));
    create(ns, "six-asks-for-four", asks)?;
    let sentence = ns.refusal("six-asks-for-four", "FamilyNotServed")?;
    ensure!(sentence.contains("spec.ipFamilies has no IPv4"), "{sentence}");
    caught_up(ns, "six")?;
    let addresses = ns.ingress("six")?;
    ensure!(addresses.len() == 1 && addresses[0].is_ipv6(), "{addresses:?}");
    ensure!(ns.ingress("six-asks-for-four")?.is_empty(), "no address of another family instead");
    Ok(())
}

/// RequireDualStack: the Service gets both addresses or none, and a condition. PreferDualStack: the Service gets one
/// address now and the other one when it is available.
fn one_family_free(ns: &TestNamespace<'_>) -> Result<()> {
    let (pool, v6) = (format!("{}-half", ns.namespace), v6_range(ns));
    // The controller must know the pool first: otherwise the one event of the refusal would report that there is no
    // such pool.
    ns.known_pool(&pool, &[ns.range(50, 59)])?;
    for (name, policy) in [("prefers", "PreferDualStack"), ("requires", "RequireDualStack")] {
        let families = json!({"ipFamilyPolicy": policy, "ipFamilies": ["IPv4", "IPv6"]});
        create_annotated(ns, name, json!({names::ANNOTATION_POOL: pool}), families)?;
    }
    let sentence = ns.refusal("requires", "NoPoolAllows")?;
    ensure!(sentence.contains("IPv6") && sentence.contains(&pool), "family and pool: {sentence}");
    let one = addresses(ns, "prefers", 1)?;
    let condition = ns.assigned("prefers")?.context("a condition")?;
    ensure!(condition.status == "True" && condition.message.contains("IPv6"), "{condition:?}");
    caught_up(ns, "one-family")?;
    ensure!(ns.ingress("requires")?.is_empty(), "both or none");
    told_once(ns, "requires", "SyncLoadBalancerFailed")?;

    ns.pool(&pool, &[ns.range(50, 59), format!("{}-{}", v6(50), v6(59))])?;
    for name in ["prefers", "requires"] {
        let both = addresses(ns, name, 2)?;
        ensure!(both[0].is_ipv4() && both[1].is_ipv6(), "{name}: {both:?}");
    }
    ensure!(ns.ingress("prefers")?[0] == one[0], "the first stays");
    Ok(())
}

/// A change of the type to ExternalName, which has no families, and back is the only way to another primary family.
fn external_name_and_back(ns: &TestNamespace<'_>) -> Result<()> {
    create(ns, "turns", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}))?;
    let four = ns.external_ip("turns")?;
    ns.announcer(four)?;
    let away = json!({"type": "ExternalName", "externalName": "example.com", "loadBalancerClass": null,
        "clusterIP": "", "clusterIPs": null});
    change(ns, "turns", json!({"spec": away}))?;
    ns.eventually("the Service to be released", || {
        Ok((finalizers(ns, "turns")?.is_empty() && ns.virtual_ip(four)?.is_none()).then_some(()))
    })?;
    ns.silent(four)?;
    ensure!(
        ns.assigned("turns")?.is_none() && ns.ingress("turns")?.is_empty(),
        "the Service has nothing of Herald left"
    );
    let back = json!({"type": "LoadBalancer", "loadBalancerClass": names::CLASS, "externalName": null,
        "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]});
    change(ns, "turns", json!({"spec": back}))?;
    let six = addresses(ns, "turns", 1)?[0];
    ensure!(six.is_ipv6(), "{six} is of the new family");
    let node = ns.announcer(six)?;
    ns.answered_by(six, &node)?;
    ns.reachable(six)?;
    Ok(())
}
