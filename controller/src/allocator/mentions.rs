//! Addresses that Services list in a field, and the Services that list them: one relation, readable from both sides.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::virtual_ip::ServiceReference;

use super::VecSet;

/// The addresses of one field, over all Services. Only [`Mentions::set`] changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mentions {
    by_address: BTreeMap<IpAddr, VecSet<ServiceReference>>,
    by_service: BTreeMap<ServiceReference, VecSet<IpAddr>>,
}

impl Mentions {
    /// Replaces the list of a Service. Returns the addresses that it now lists and did not list before, or the reverse.
    pub(super) fn set(&mut self, service: &ServiceReference, addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let before = self.by_service.remove(service).unwrap_or_default();
        let mut changed: BTreeSet<IpAddr> =
            before.iter().filter(|address| !addresses.contains(address)).copied().collect();
        for address in &changed {
            if let Some(services) = self.by_address.get_mut(address) {
                services.remove(service);
                if services.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        for address in addresses.iter().filter(|address| !before.contains(address)) {
            self.by_address.entry(*address).or_default().insert(service.clone());
            changed.insert(*address);
        }
        if !addresses.is_empty() {
            self.by_service.insert(service.clone(), addresses.iter().copied().collect());
        }
        changed
    }

    /// Returns the Services that list the address.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = &ServiceReference> {
        self.by_address.get(&address).into_iter().flatten()
    }

    /// Returns the Services other than `service` that list the address.
    pub(super) fn by_others(
        &self,
        address: IpAddr,
        service: &ServiceReference,
    ) -> impl Iterator<Item = &ServiceReference> {
        self.of(address).filter(move |other| *other != service)
    }

    /// Returns every listed address, with the Services that list it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &VecSet<ServiceReference>)> {
        self.by_address.iter().map(|(address, services)| (*address, services))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_removed_entries_leave_nothing() {
        let service = |name: &str| ServiceReference { namespace: "ns".into(), name: name.into(), uid: name.into() };
        let set = |all: &[u8]| -> BTreeSet<IpAddr> { all.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect() };
        let (a, b) = (service("a"), service("b"));
        let mut mentions = Mentions::default();
        assert_eq!(mentions.set(&a, &set(&[1, 2])), set(&[1, 2]));
        assert_eq!(mentions.set(&b, &set(&[2])), set(&[2]));
        assert_eq!(mentions.set(&a, &set(&[2, 3])), set(&[1, 3]));
        let two = IpAddr::from([192, 0, 2, 2]);
        assert_eq!(mentions.by_others(two, &a).collect::<Vec<_>>(), [&b]);
        mentions.set(&a, &set(&[]));
        mentions.set(&b, &set(&[]));
        assert_eq!(mentions, Mentions::default());
    }
}
