//! One pool in the form that the allocator uses.

use std::{collections::BTreeMap, net::IpAddr};

use herald_crds::{
    AddressPoolSpec,
    address::{AddressBlock, AddressSet, IpFamily},
    pool::{PoolAddresses, PoolError},
    selector,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Asker, Obstacle, PoolFault};

/// A pool: the addresses that it may give out, and the free ones among them.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    spec: AddressPoolSpec,
    fault: Option<PoolFault>,
    /// Whether the pool is being deleted, and waits for a finalizer.
    deleting: bool,
    /// CIDRs that are read as their networks.
    masked: Vec<PoolError>,
    usable: AddressSet,
    free: AddressSet,
}

impl Pool {
    /// Reads a spec, as far as it can be read.
    pub(super) fn new(spec: AddressPoolSpec) -> Self {
        let PoolAddresses { usable, unreadable, masked } = spec.read_addresses();
        // An unreadable exclusion is worse than an unreadable address, so it comes first.
        let unreadable = || unreadable.iter().max_by_key(|error| error.field == "exclude").cloned();
        let fault = selector_fault(&spec).or_else(|| unreadable().map(PoolFault::Addresses));
        let mut pool = Self { fault, deleting: false, masked, free: usable.clone(), usable, spec };
        if IpFamily::ALL.iter().all(|family| pool.sizes(*family).0 == 0) {
            pool.fault.get_or_insert(PoolFault::NoAddresses);
        }
        pool
    }

    pub(super) fn spec(&self) -> &AddressPoolSpec {
        &self.spec
    }

    pub(super) fn fault(&self) -> Option<&PoolFault> {
        self.fault.as_ref()
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.deleting
    }

    pub(super) fn set_deleting(&mut self, deleting: bool) {
        self.deleting = deleting;
    }

    pub(super) fn masked(&self) -> &[PoolError] {
        &self.masked
    }

    pub(super) fn usable(&self) -> &AddressSet {
        &self.usable
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.usable.contains(address)
    }

    pub(super) fn avoids(&self, address: IpAddr) -> bool {
        self.spec.avoids(address)
    }

    pub(super) fn take(&mut self, address: IpAddr) {
        self.free.remove(&AddressBlock::single(address));
    }

    pub(super) fn reserve(&mut self, block: &AddressBlock) {
        self.free.remove(block);
    }

    pub(super) fn give_back(&mut self, address: IpAddr) {
        if self.usable.contains(address) {
            self.free.insert(&AddressBlock::single(address));
        }
    }

    pub(super) fn give_back_all(&mut self, addresses: &AddressSet) {
        self.free.unite(&self.usable.intersection(addresses));
    }

    pub(super) fn is_free(&self, address: IpAddr) -> bool {
        self.free.contains(address) && !self.avoids(address)
    }

    /// Returns the order in which pools are tried, as in MetalLB (`internal/allocator`): pools for some Services come
    /// before those for all; among each of these, a smaller number comes first, and pools without a number, or with 0,
    /// last; then the name decides, which is the order of the map.
    pub(super) fn rank(&self) -> (bool, i32) {
        let allocation = self.spec.service_allocation.as_ref();
        let priority = allocation.and_then(|a| a.priority).filter(|priority| *priority != 0);
        (allocation.is_none(), priority.unwrap_or(i32::MAX))
    }

    /// Returns what keeps the Service from an address of this pool. `by_name` says whether the Service asked for the
    /// pool or the address.
    pub(super) fn obstacle(&self, asker: &Asker<'_>, by_name: bool) -> Option<Obstacle> {
        if self.deleting {
            return Some(Obstacle::Deleting);
        }
        if let Some(fault) = self.fault.as_ref().filter(|fault| fault.stops_assignment()) {
            return Some(Obstacle::Unusable(fault.to_string()));
        }
        // A mended fault would not help a Service that the pool does not select.
        if !self.selects(asker) {
            return Some(Obstacle::NotSelected);
        }
        if self.spec.drain {
            return Some(Obstacle::Draining);
        }
        if !by_name && !self.spec.auto_assign {
            return Some(Obstacle::NotAutomatic);
        }
        self.usable.first(asker.family).is_none().then_some(Obstacle::NoSuchFamily(asker.family))
    }

    fn selects(&self, asker: &Asker<'_>) -> bool {
        let Some(allocation) = &self.spec.service_allocation else { return true };
        let any = |selectors: &[LabelSelector], labels: &BTreeMap<String, String>| {
            // A selector that cannot be read is a fault of the pool, and the fault is reported.
            selectors.iter().any(|s| selector::matches(s, labels).unwrap_or(false))
        };
        let namespace = (allocation.namespaces.is_empty() && allocation.namespace_selectors.is_empty())
            || allocation.namespaces.contains(&asker.service.namespace)
            || any(&allocation.namespace_selectors, asker.namespace_labels);
        namespace
            && (allocation.service_selectors.is_empty() || any(&allocation.service_selectors, asker.service_labels))
    }

    /// Returns the lowest free address that is neither avoided nor blocked.
    pub(super) fn lowest_free(&self, family: IpFamily, blocked: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let mut candidate = self.free.first(family)?;
        loop {
            if !self.avoids(candidate) && !blocked(candidate) {
                return Some(candidate);
            }
            // `first_from` returns to the lowest address after the highest: every address has been seen then.
            let next = self.free.first_from(family, successor(candidate)?)?;
            if next <= candidate {
                return None;
            }
            candidate = next;
        }
    }

    /// Returns the number of addresses that the pool can give out in all, and of those that it still can.
    pub(super) fn sizes(&self, family: IpFamily) -> (u128, u128) {
        let size = |set: &AddressSet| {
            let avoided = if self.spec.avoid_buggy_ips { buggy(set, family) } else { 0 };
            set.len(family).saturating_sub(avoided)
        };
        (size(&self.usable), size(&self.free))
    }
}

fn selector_fault(spec: &AddressPoolSpec) -> Option<PoolFault> {
    let allocation = spec.service_allocation.as_ref()?;
    let empty = BTreeMap::new();
    let fault = |field: &'static str, selectors: &[LabelSelector]| {
        selectors.iter().enumerate().find_map(|(index, s)| {
            selector::matches(s, &empty).err().map(|e| PoolFault::Selector { field, index, message: e.to_string() })
        })
    };
    fault("namespaceSelectors", &allocation.namespace_selectors)
        .or_else(|| fault("serviceSelectors", &allocation.service_selectors))
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => a.to_bits().checked_add(1).map(|b| IpAddr::V4(b.into())),
        IpAddr::V6(a) => a.to_bits().checked_add(1).map(|b| IpAddr::V6(b.into())),
    }
}

/// Returns how many addresses of a set end in .0 or .255.
fn buggy(set: &AddressSet, family: IpFamily) -> u128 {
    let below = |end: u64| end.div_ceil(256) + end / 256; // under `end`: .0 at 0, 256, ...; .255 at 255, 511, ...
    let run = |(first, last)| match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            u128::from(below(u64::from(last.to_bits()) + 1) - below(u64::from(first.to_bits())))
        }
        _ => 0,
    };
    set.blocks(family).map(run).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn buggy_addresses_are_counted(first in 0u32..2000, length in 0u32..1500) {
            let address = |bits: u32| IpAddr::V4(bits.into());
            let block: AddressBlock = format!("{}-{}", address(first), address(first + length)).parse().unwrap();
            let expected = (first..=first + length).filter(|a| matches!(a % 256, 0 | 255)).count() as u128;
            prop_assert_eq!(buggy(&[block].iter().collect(), IpFamily::V4), expected);
        }
    }
}
