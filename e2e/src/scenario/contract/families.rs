//! One address per family of the Service, in its order, and never one of another.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use herald_crds::names;
use serde_json::{Value, json};

use super::{Row, caught_up, change, create, create_annotated, finalizers, told_once, v6_range};
use crate::scenario::Scene;

pub(super) const ROWS: &[Row] = &[
    Row { name: "upgrade and downgrade", check: upgrade_and_downgrade },
    Row { name: "order of ipFamilies", check: order },
    Row { name: "a family the Service does not have", check: not_its_family },
    Row { name: "one family free", check: one_family_free },
    Row { name: "LB->ExternalName and back", check: external_name_and_back },
];

/// Waits until the Service has so many addresses.
fn addresses(scene: &Scene<'_>, name: &str, count: usize) -> Result<Vec<IpAddr>> {
    scene.eventually(&format!("{name} to have {count} addresses"), || {
        Ok(Some(scene.ingress(name)?).filter(|addresses| addresses.len() == count))
    })
}

fn uid(scene: &Scene<'_>, address: IpAddr) -> Result<Option<String>> {
    Ok(scene.virtual_ip(address)?.with_context(|| format!("the VirtualIP of {address}"))?.metadata.uid)
}

/// A second family comes and goes; the first address stays what and where it is.
fn upgrade_and_downgrade(scene: &Scene<'_>) -> Result<()> {
    create(scene, "dual", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}))?;
    let first = scene.external_ip("dual")?;
    let node = scene.announcer(first)?;
    let before = uid(scene, first)?;
    for _ in 0..2 {
        let families = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]}});
        change(scene, "dual", families)?;
        let both = addresses(scene, "dual", 2)?;
        ensure!(both[0] == first && both[1].is_ipv6(), "{first}, then one of IPv6: {both:?}");
        let second = both[1];
        scene.announcer(second)?;
        both.iter().try_for_each(|address| scene.reachable(*address).map(drop))?;

        // The API server takes the second family away by itself.
        change(scene, "dual", json!({"spec": {"ipFamilyPolicy": "SingleStack"}}))?;
        ensure!(addresses(scene, "dual", 1)? == [first], "the first stays");
        scene.eventually(&format!("{second} to be free"), || Ok(scene.virtual_ip(second)?.is_none().then_some(())))?;
        scene.silent(second)?;
    }
    ensure!(uid(scene, first)? == before && scene.announcer(first)? == node, "{first} stays where it is");
    scene.reachable(first)?;
    Ok(())
}

fn order(scene: &Scene<'_>) -> Result<()> {
    create(scene, "six-four", json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}))?;
    let both = addresses(scene, "six-four", 2)?;
    ensure!(both[0].is_ipv6() && both[1].is_ipv4(), "as in spec.ipFamilies: {both:?}");
    let status = scene.service("six-four")?.status.and_then(|status| status.load_balancer);
    let shown = serde_json::to_value(status.and_then(|status| status.ingress))?;
    // IpAddr writes an address in its canonical form (RFC 5952).
    let expected: Vec<Value> = both.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
    ensure!(shown == json!(expected), "{shown}");
    told_once(scene, "six-four", "EnsuredLoadBalancer")
}

/// The pool has both families, the Service one.
fn not_its_family(scene: &Scene<'_>) -> Result<()> {
    let six = || json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]});
    create(scene, "six", six())?;
    let mut asks = six();
    asks["loadBalancerIP"] = json!(scene.address(30));
    create(scene, "six-asks-for-four", asks)?;
    let sentence = scene.refusal("six-asks-for-four", "FamilyNotServed")?;
    ensure!(sentence.contains("spec.ipFamilies has no IPv4"), "{sentence}");
    caught_up(scene, "six")?;
    let addresses = scene.ingress("six")?;
    ensure!(addresses.len() == 1 && addresses[0].is_ipv6(), "{addresses:?}");
    ensure!(scene.ingress("six-asks-for-four")?.is_empty(), "no address of another family instead");
    Ok(())
}

/// RequireDualStack: both addresses or none, and a sentence. PreferDualStack: one now, the other when there is one.
fn one_family_free(scene: &Scene<'_>) -> Result<()> {
    let (pool, v6) = (format!("{}-half", scene.namespace), v6_range(scene));
    // Known: what is refused is told once, and not that there is no such pool before.
    scene.known_pool(&pool, &[scene.range(50, 59)])?;
    for (name, policy) in [("prefers", "PreferDualStack"), ("requires", "RequireDualStack")] {
        let families = json!({"ipFamilyPolicy": policy, "ipFamilies": ["IPv4", "IPv6"]});
        create_annotated(scene, name, json!({names::ANNOTATION_POOL: pool}), families)?;
    }
    let sentence = scene.refusal("requires", "NoPoolAllows")?;
    ensure!(sentence.contains("IPv6") && sentence.contains(&pool), "family and pool: {sentence}");
    let one = addresses(scene, "prefers", 1)?;
    let condition = scene.assigned("prefers")?.context("a condition")?;
    ensure!(condition.status == "True" && condition.message.contains("IPv6"), "{condition:?}");
    caught_up(scene, "one-family")?;
    ensure!(scene.ingress("requires")?.is_empty(), "both or none");
    told_once(scene, "requires", "SyncLoadBalancerFailed")?;

    scene.pool(&pool, &[scene.range(50, 59), format!("{}-{}", v6(50), v6(59))])?;
    for name in ["prefers", "requires"] {
        let both = addresses(scene, name, 2)?;
        ensure!(both[0].is_ipv4() && both[1].is_ipv6(), "{name}: {both:?}");
    }
    ensure!(scene.ingress("prefers")?[0] == one[0], "the first stays");
    Ok(())
}

/// Over ExternalName, which has no families, the only way to another primary family.
fn external_name_and_back(scene: &Scene<'_>) -> Result<()> {
    create(scene, "turns", json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}))?;
    let four = scene.external_ip("turns")?;
    scene.announcer(four)?;
    let away = json!({"type": "ExternalName", "externalName": "example.com", "loadBalancerClass": null,
        "clusterIP": "", "clusterIPs": null});
    change(scene, "turns", json!({"spec": away}))?;
    scene.eventually("the Service to be released", || {
        Ok((finalizers(scene, "turns")?.is_empty() && scene.virtual_ip(four)?.is_none()).then_some(()))
    })?;
    scene.silent(four)?;
    ensure!(scene.assigned("turns")?.is_none() && scene.ingress("turns")?.is_empty(), "nothing speaks of Herald");
    let back = json!({"type": "LoadBalancer", "loadBalancerClass": names::CLASS, "externalName": null,
        "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]});
    change(scene, "turns", json!({"spec": back}))?;
    let six = addresses(scene, "turns", 1)?[0];
    ensure!(six.is_ipv6(), "{six} is of the new family");
    let node = scene.announcer(six)?;
    scene.answered_by(six, &node)?;
    scene.reachable(six)?;
    Ok(())
}
