//! Which address a Service gets, and why it gets none. No Kubernetes, no clock.
//!
//! Guarantees: an address has one occupant, whichever pools hold it; what is occupied stays so until [`Allocator::free`],
//! whatever becomes of the pools; the same calls give the same addresses.

mod holdings;
mod pool;
mod refusal;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::{
    AddressPoolSpec,
    address::{AddressSet, IpFamily},
    pool::FamilyUsage,
    virtual_ip::ServiceReference,
};

use holdings::Holdings;
pub use holdings::Occupant;
use pool::Pool;
pub use refusal::{Obstacle, PoolFault, Refusal};

/// A Service that asks for an address.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The Service.
    pub service: &'a ServiceReference,
    /// Its labels.
    pub service_labels: &'a BTreeMap<String, String>,
    /// The labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The family asked for.
    pub family: IpFamily,
    /// The pool asked for.
    pub pool: Option<&'a str>,
}

/// Pools and what is assigned.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    pools: BTreeMap<String, Pool>,
    holdings: Holdings,
    external: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl Allocator {
    /// Adds a pool or replaces its spec. What is assigned stays.
    pub fn set_pool(&mut self, name: &str, spec: &AddressPoolSpec) {
        if self.pools.get(name).is_some_and(|p| p.spec() == spec) {
            return;
        }
        let mut pool = Pool::new(spec.clone());
        for address in self.holdings.addresses() {
            pool.take(address);
        }
        self.pools.insert(name.to_owned(), pool);
    }

    /// Forgets a pool. What is assigned stays.
    pub fn remove_pool(&mut self, name: &str) {
        self.pools.remove(name);
    }

    /// What a Service lists in `spec.externalIPs`; `service` is its namespace and name.
    pub fn set_external(&mut self, service: &str, addresses: &BTreeSet<IpAddr>) {
        self.external.retain(|address, by| {
            if !addresses.contains(address) {
                by.remove(service);
            }
            !by.is_empty()
        });
        for address in addresses {
            self.external.entry(*address).or_default().insert(service.to_owned());
        }
    }

    /// Gives an address: the one asked for, else the lowest free one of the first pool that may.
    ///
    /// # Errors
    /// Why there is none; nothing has changed then.
    pub fn assign(&mut self, asker: &Asker<'_>, address: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        let (address, pool) = match (address, asker.pool) {
            (Some(address), _) => (address, self.pool_for(asker, address)?),
            (None, Some(pool)) => (self.any_of(asker, pool)?, pool.to_owned()),
            (None, None) => self.any(asker)?,
        };
        self.occupy(address, &pool, asker.service);
        Ok(address)
    }

    /// Lets a Service keep an address it already carries, without asking whether its pool would give it today.
    ///
    /// # Errors
    /// The address is another Service's, or in no pool; nothing has changed then.
    pub fn adopt(&mut self, service: &ServiceReference, address: IpAddr) -> Result<(), Refusal> {
        match self.holdings.occupant(address) {
            Some(occupant) if occupant.services.contains(service) => return Ok(()),
            Some(occupant) => {
                return Err(Refusal::AddressInUse { address, by: occupant.services.first().cloned() });
            }
            None => {}
        }
        let pool = self.pools_holding(address).next().map(|(name, _)| name.clone());
        let pool = pool.ok_or(Refusal::ForeignIngress { value: address.to_string() })?;
        self.occupy(address, &pool, service);
        Ok(())
    }

    /// Takes over what a VirtualIP says: it proves ownership, whatever was planned. Returns the Services that had the
    /// address planned and do not have it.
    pub fn seize(&mut self, address: IpAddr, pool: &str, services: &[ServiceReference]) -> Vec<ServiceReference> {
        let displaced = match self.holdings.occupant(address) {
            Some(o) => o.services.iter().filter(|s| !services.contains(s)).cloned().collect(),
            None => Vec::new(),
        };
        for service in &displaced {
            self.holdings.leave(service, address);
            self.holdings.forget_leaving(service, address);
        }
        for service in services {
            if !self.holdings.is_leaving(service, address) {
                self.occupy(address, pool, service);
            }
        }
        displaced
    }

    /// The Service gives the address up; it stays occupied until [`Self::free`].
    pub fn vacate(&mut self, service: &ServiceReference, address: IpAddr) {
        self.holdings.leave(service, address);
    }

    /// Nothing answers for the address any more: it may be given out again.
    pub fn free(&mut self, address: IpAddr) {
        if self.holdings.remove(address).is_some() {
            for pool in self.pools.values_mut() {
                pool.give_back(address);
            }
        }
    }

    /// The addresses a Service holds.
    pub fn held(&self, service: &ServiceReference) -> Vec<IpAddr> {
        self.holdings.held(service)
    }

    /// The addresses a Service gave up that are not free yet.
    pub fn leaving(&self, service: &ServiceReference) -> Vec<IpAddr> {
        self.holdings.leaving(service)
    }

    /// Who occupies the address.
    pub fn occupant(&self, address: IpAddr) -> Option<&Occupant> {
        self.holdings.occupant(address)
    }

    /// Everything occupied.
    pub fn occupants(&self) -> impl Iterator<Item = (IpAddr, &Occupant)> {
        self.holdings.iter()
    }

    /// Is the address (still) in the pool?
    pub fn pool_contains(&self, pool: &str, address: IpAddr) -> bool {
        self.pools.get(pool).is_some_and(|p| p.contains(address))
    }

    /// Why a pool's spec cannot be used.
    pub fn fault(&self, pool: &str) -> Option<&PoolFault> {
        self.pools.get(pool).and_then(Pool::fault)
    }

    /// What a pool shares with others: their names and the shared addresses.
    pub fn overlaps(&self, pool: &str) -> Vec<(String, AddressSet)> {
        let Some(this) = self.pools.get(pool) else { return Vec::new() };
        let others = self.pools.iter().filter(|(name, _)| *name != pool);
        let shared = others.map(|(name, other)| (name.clone(), this.usable().intersection(other.usable())));
        shared.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// Addresses assigned from a pool that are no longer in it.
    pub fn orphans(&self, pool: &str) -> Vec<IpAddr> {
        let of_pool = self.holdings.iter().filter(|(_, o)| o.pool == pool);
        of_pool.map(|(address, _)| address).filter(|a| !self.pool_contains(pool, *a)).collect()
    }

    /// The counts of a pool and family; `None` where it has no address of the family, now or assigned earlier.
    pub fn usage(&self, pool: &str, family: IpFamily) -> Option<FamilyUsage> {
        let (capacity, available) = self.pools.get(pool)?.sizes(family);
        let from_pool = self.holdings.iter().filter(|(a, o)| o.pool == pool && IpFamily::of(*a) == family);
        let assigned = from_pool.count();
        (capacity > 0 || assigned > 0).then(|| FamilyUsage {
            capacity: capacity.to_string(),
            assigned: assigned.to_string(),
            available: available.to_string(),
        })
    }

    fn occupy(&mut self, address: IpAddr, pool: &str, service: &ServiceReference) {
        self.holdings.occupy(address, pool, service);
        for pool in self.pools.values_mut() {
            pool.take(address);
        }
    }

    /// Pools that hold an address, first choice first.
    fn pools_holding(&self, address: IpAddr) -> impl Iterator<Item = (&String, &Pool)> {
        let mut pools: Vec<_> = self.pools.iter().filter(|(_, p)| p.contains(address)).collect();
        pools.sort_by_key(|(_, p)| p.priority());
        pools.into_iter()
    }

    /// The pool that gives a Service the address it asks for.
    fn pool_for(&self, asker: &Asker<'_>, address: IpAddr) -> Result<String, Refusal> {
        if let Some(pool) = asker.pool
            && !self.pools.contains_key(pool)
        {
            return Err(Refusal::UnknownPool { pool: pool.to_owned() });
        }
        let pools: Vec<_> =
            self.pools_holding(address).filter(|(name, _)| asker.pool.is_none_or(|p| p == name.as_str())).collect();
        let Some((first, _)) = pools.first() else {
            return Err(Refusal::AddressNotInPool { address, pool: asker.pool.map(str::to_owned) });
        };
        if let Some(occupant) = self.holdings.occupant(address)
            && !occupant.services.contains(asker.service)
        {
            return Err(Refusal::AddressInUse { address, by: occupant.services.first().cloned() });
        }
        if let Some(by) = self.external.get(&address).and_then(BTreeSet::first) {
            return Err(Refusal::AddressInExternalIps { address, by: by.clone() });
        }
        if pools.iter().all(|(_, p)| p.avoids(address)) {
            return Err(Refusal::AddressAvoided { address, pool: (*first).clone() });
        }
        let mut obstacles = Vec::new();
        for (name, pool) in pools.iter().filter(|(_, p)| !p.avoids(address)) {
            match pool.obstacle(asker, true) {
                None => return Ok((*name).clone()),
                Some(obstacle) => obstacles.push(((*name).clone(), obstacle)),
            }
        }
        Err(Refusal::NoPoolAllows { family: asker.family, pools: obstacles })
    }

    /// Any address of the pool a Service asks for.
    fn any_of(&self, asker: &Asker<'_>, name: &str) -> Result<IpAddr, Refusal> {
        let pool = self.pools.get(name).ok_or_else(|| Refusal::UnknownPool { pool: name.to_owned() })?;
        if let Some(obstacle) = pool.obstacle(asker, true) {
            return Err(Refusal::NoPoolAllows { family: asker.family, pools: vec![(name.to_owned(), obstacle)] });
        }
        let free = pool.lowest_free(asker.family, |a| self.external.contains_key(&a));
        free.ok_or_else(|| Refusal::PoolFull { family: asker.family, pools: vec![name.to_owned()] })
    }

    /// Any address of any pool.
    fn any(&self, asker: &Asker<'_>) -> Result<(IpAddr, String), Refusal> {
        if self.pools.is_empty() {
            return Err(Refusal::NoPool);
        }
        let mut pools: Vec<_> = self.pools.iter().collect();
        pools.sort_by_key(|(_, pool)| pool.priority());
        let (mut full, mut obstacles) = (Vec::new(), Vec::new());
        for (name, pool) in pools {
            match pool.obstacle(asker, false) {
                Some(obstacle) => obstacles.push((name.clone(), obstacle)),
                None => match pool.lowest_free(asker.family, |a| self.external.contains_key(&a)) {
                    Some(address) => return Ok((address, name.clone())),
                    None => full.push(name.clone()),
                },
            }
        }
        Err(if full.is_empty() {
            Refusal::NoPoolAllows { family: asker.family, pools: obstacles }
        } else {
            Refusal::PoolFull { family: asker.family, pools: full }
        })
    }
}
