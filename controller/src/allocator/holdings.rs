//! The occupants of addresses: one relation, readable from both sides.

use std::{collections::BTreeMap, net::IpAddr};

use herald_crds::{address::AddressBlock, virtual_ip::ServiceReference};

use super::VecSet;

/// The occupant of an address. An address without Services is being withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupant {
    /// The pool that the address counts to: one that holds it, if there is one.
    pub pool: String,
    /// The Services that use the address.
    pub services: VecSet<ServiceReference>,
    /// The Services that gave the address up and wait for it to fall silent.
    pub leaving: VecSet<ServiceReference>,
}

/// Addresses and their occupants. The index by Service is derived, and only these methods change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    by_address: BTreeMap<IpAddr, Occupant>,
    by_service: BTreeMap<ServiceReference, VecSet<IpAddr>>,
}

impl Holdings {
    pub(super) fn occupy(&mut self, address: IpAddr, pool: &str, service: &ServiceReference) {
        let occupant = self.by_address.entry(address).or_default();
        pool.clone_into(&mut occupant.pool);
        occupant.leaving.remove(service);
        occupant.services.insert(service.clone());
        self.by_service.entry(service.clone()).or_default().insert(address);
    }

    pub(super) fn count_to(&mut self, address: IpAddr, pool: &str) {
        if let Some(occupant) = self.by_address.get_mut(&address) {
            pool.clone_into(&mut occupant.pool);
        }
    }

    pub(super) fn leave(&mut self, service: &ServiceReference, address: IpAddr) {
        if let Some(occupant) = self.by_address.get_mut(&address)
            && let Some(service) = occupant.services.take(service)
        {
            occupant.leaving.insert(service);
        }
    }

    pub(super) fn forget_leaving(&mut self, service: &ServiceReference, address: IpAddr) {
        if let Some(occupant) = self.by_address.get_mut(&address)
            && occupant.leaving.remove(service)
        {
            self.unlink(service, address);
        }
    }

    pub(super) fn remove(&mut self, address: IpAddr) -> Option<Occupant> {
        let occupant = self.by_address.remove(&address)?;
        for service in occupant.services.iter().chain(&occupant.leaving) {
            self.unlink(service, address);
        }
        Some(occupant)
    }

    fn unlink(&mut self, service: &ServiceReference, address: IpAddr) {
        if let Some(addresses) = self.by_service.get_mut(service) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_service.remove(service);
            }
        }
    }

    pub(super) fn occupant(&self, address: IpAddr) -> Option<&Occupant> {
        self.by_address.get(&address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Occupant)> {
        self.by_address.iter().map(|(a, o)| (*a, o))
    }

    pub(super) fn within(&self, block: &AddressBlock) -> impl Iterator<Item = (IpAddr, &Occupant)> {
        // Addresses are ordered by family, then by value: a block is a range of that order.
        self.by_address.range(block.first()..=block.last()).map(|(a, o)| (*a, o))
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }

    fn linked(&self, service: &ServiceReference) -> impl Iterator<Item = (IpAddr, &Occupant)> {
        let addresses = self.by_service.get(service).into_iter().flatten();
        addresses.filter_map(|a| self.by_address.get(a).map(|o| (*a, o)))
    }

    pub(super) fn held(&self, service: &ServiceReference) -> Vec<IpAddr> {
        self.linked(service).filter(|(_, o)| o.services.contains(service)).map(|(a, _)| a).collect()
    }

    pub(super) fn is_leaving(&self, service: &ServiceReference, address: IpAddr) -> bool {
        self.by_address.get(&address).is_some_and(|o| o.leaving.contains(service))
    }

    pub(super) fn leaving(&self, service: &ServiceReference) -> Vec<IpAddr> {
        self.linked(service).filter(|(_, o)| o.leaving.contains(service)).map(|(a, _)| a).collect()
    }
}
