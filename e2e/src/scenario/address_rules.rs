//! The CEL rules on the real API server: the refused values and the wording of the refusals.

use anyhow::{Result, ensure};
use herald_crds::names;

use crate::testbed::TestNamespace;

pub(super) fn run(ns: &TestNamespace<'_>) -> Result<()> {
    for bad in ["192.0.2.0/33", "192.0.2.300", "192.0.2.1-2001:db8::1", "web"] {
        let said = ns.refused(&ns.pool_yaml("address-rules", &[bad.to_owned()]))?;
        for word in ["address-rules", "spec.addresses[0]", bad, "is not an address block"] {
            ensure!(said.contains(word), "the refusal of {bad:?} does not say {word:?}: {said}");
        }
    }
    let said = ns.refused(
        "{apiVersion: heraldlb.io/v1alpha1, kind: AddressPool, metadata: {name: address-rules}, spec: {addresses: []}}",
    )?;
    ensure!(said.contains("spec.addresses"), "an empty pool: {said}");
    let said = ns.refused(
        "{apiVersion: heraldlb.io/v1alpha1, kind: AddressPool, metadata: {name: address-rules}, \
         spec: {addresses: [192.0.2.0/24], adresses: []}}",
    )?;
    ensure!(said.contains("adresses"), "a misspelt field: {said}");
    let said = ns.refused(
        "{apiVersion: heraldlb.io/v1alpha1, kind: L2Advertisement, metadata: {name: address-rules}, \
         spec: {interfaces: ['eth 0']}}",
    )?;
    ensure!(said.contains("spec.interfaces[0]") && said.contains("is not an interface pattern"), "{said}");
    for good in ["192.0.2.0/24", "192.0.2.1", "192.0.2.1 - 192.0.2.9", "2001:db8::/64", "2001:db8::1-2001:db8::ff"] {
        ns.pool("address-rules", &[good.to_owned()])?;
    }
    // The value is accepted as in MetalLB, but the condition mentions it.
    ns.pool("address-rules", &["192.0.2.5/24".to_owned()])?;
    let said = ns.eventually("the pool to report that host bits do not count", || {
        let (reason, said) = ns.pool_condition("address-rules", names::CONDITION_ACCEPTED, "True")?;
        Ok((reason == "HostBits").then_some(said))
    })?;
    ensure!(said.contains("192.0.2.5/24") && said.contains("192.0.2.0/24"), "the network that is read: {said}");
    Ok(())
}
