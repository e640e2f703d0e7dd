//! Which address a Service gets, and why it gets none. No Kubernetes, no clock.
//!
//! Guarantees: an address has one occupant, whichever pools hold it, or several that may share it when they join; what
//! is occupied stays so until [`Allocator::free`], whatever becomes of the pools; the same calls give the same addresses.

mod holdings;
mod pool;
mod refusal;
mod reserved;
mod sharing;
mod special;
mod subnet;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::{
    AddressPoolSpec,
    address::{AddressBlock, AddressSet, IpFamily},
    pool::FamilyUsage,
    virtual_ip::ServiceReference,
};

use holdings::Holdings;
pub use holdings::Occupant;
use pool::Pool;
pub use refusal::{Obstacle, PoolFault, Refusal};
pub use reserved::Reservation;
pub use sharing::{Port, Sharing, SharingObstacle};
pub use special::SpecialRange;
pub use subnet::reservations as subnet_reservations;

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
    /// Addresses that others answer for: not joined unless asked for by name.
    pub contested: &'a BTreeSet<IpAddr>,
}

/// Pools and what is assigned.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    pools: BTreeMap<String, Pool>,
    holdings: Holdings,
    external: BTreeMap<IpAddr, BTreeSet<String>>,
    reserved: reserved::Reserved,
    /// By pool; it counts in every pool.
    quarantined: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The Services that carry a sharing key.
    sharing: BTreeMap<ServiceReference, Sharing>,
}

impl Allocator {
    /// Adds a pool or replaces its spec. What is assigned stays.
    pub fn set_pool(&mut self, name: &str, spec: &AddressPoolSpec) {
        if self.pools.get(name).is_some_and(|p| p.spec() == spec) {
            return;
        }
        let pool = self.filled(spec.clone());
        self.pools.insert(name.to_owned(), pool);
    }

    /// A pool less what is assigned and what is reserved.
    fn filled(&self, spec: AddressPoolSpec) -> Pool {
        let mut pool = Pool::new(spec);
        for block in self.reserved.blocks() {
            pool.reserve(block);
        }
        for address in self.holdings.addresses() {
            pool.take(address);
        }
        pool
    }

    /// Sets what addresses are already, by one cause: they are given to nobody, whatever the pools say. What is assigned
    /// stays. Returns the blocks for which that is new, or no longer so.
    pub fn set_reserved(&mut self, by: Reservation, blocks: Vec<AddressBlock>) -> Vec<AddressBlock> {
        let Some(reserved::Changed { added, removed, mut freed }) = self.reserved.set(by, blocks) else {
            return Vec::new();
        };
        for (address, _) in removed.iter().flat_map(|block| self.holdings.within(block)) {
            freed.remove(&AddressBlock::single(address));
        }
        for pool in self.pools.values_mut() {
            pool.give_back_all(&freed);
            added.iter().for_each(|block| pool.reserve(block));
        }
        added.into_iter().chain(removed).collect()
    }

    /// The pools that hold an address of one of these blocks.
    pub fn pools_over(&self, blocks: &[AddressBlock]) -> Vec<String> {
        let blocks: AddressSet = blocks.iter().collect();
        let over = self.pools.iter().filter(|(_, pool)| !pool.usable().intersection(&blocks).is_empty());
        over.map(|(name, _)| name.clone()).collect()
    }

    /// The Services that have an address of this block.
    pub fn holders_within(&self, block: &AddressBlock) -> impl Iterator<Item = &ServiceReference> {
        self.holdings.within(block).flat_map(|(_, occupant)| &occupant.services)
    }

    /// What an address is already, beside a Service's.
    pub fn reservation(&self, address: IpAddr) -> Option<&Reservation> {
        self.reserved.of(address)
    }

    /// Forgets a pool. What is assigned stays.
    pub fn remove_pool(&mut self, name: &str) {
        self.pools.remove(name);
        self.quarantined.remove(name);
    }

    /// What is in a pool's quarantine: given to nobody who does not ask for it by name. What is assigned stays. Has it
    /// changed?
    pub fn set_quarantined(&mut self, pool: &str, addresses: BTreeSet<IpAddr>) -> bool {
        let before = self.quarantined.insert(pool.to_owned(), addresses.clone());
        before.unwrap_or_default() != addresses
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

    /// With whom a Service may share an address; `None`: with nobody. What is assigned stays. Has it changed?
    pub fn set_sharing(&mut self, service: &ServiceReference, sharing: Option<&Sharing>) -> bool {
        if self.sharing.get(service) == sharing {
            return false;
        }
        match sharing {
            Some(sharing) => self.sharing.insert(service.clone(), sharing.clone()),
            None => self.sharing.remove(service),
        };
        true
    }

    /// Gives an address: the one asked for; else one that Services of its sharing key have and that it may join; else
    /// the lowest free one of the first pool that may.
    ///
    /// # Errors
    /// Why there is none; nothing has changed then.
    pub fn assign(&mut self, asker: &Asker<'_>, address: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        let (address, pool) = match (address, asker.pool) {
            (Some(address), _) => (address, self.pool_for(asker, address)?),
            (None, Some(pool)) => (self.any_of(asker, pool)?, pool.to_owned()),
            (None, None) => self.any(asker)?,
        };
        // Who joins an address takes it from the pool it was assigned from.
        let pool = self.holdings.occupant(address).map_or(pool, |occupant| occupant.pool.clone());
        self.occupy(address, &pool, asker.service);
        Ok(address)
    }

    /// Lets a Service keep an address it already carries, without asking whether its pool would give it today.
    ///
    /// # Errors
    /// If the address is another Service's, in no pool, a Node's, or one that no host has; nothing has changed then.
    pub fn adopt(&mut self, service: &ServiceReference, address: IpAddr) -> Result<(), Refusal> {
        self.may_join(service, address)?;
        let pool = match self.holdings.occupant(address) {
            Some(occupant) => Some(occupant.pool.clone()),
            None => self.pools_holding(address).next().map(|(name, _)| name.clone()),
        };
        let pool = pool.ok_or(Refusal::ForeignIngress { value: address.to_string() })?;
        let held = self.holdings.occupant(address).is_some();
        if let Some(by) = self.reserved.outweighing_a_status(address).filter(|_| !held) {
            return Err(Refusal::AddressNotAdopted { address, by: by.clone() });
        }
        self.occupy(address, &pool, service);
        Ok(())
    }

    /// Takes over what a VirtualIP says: it proves ownership, whatever was planned. Returns the Services that had the
    /// address planned and do not have it; who may share it with its owners keeps its plan.
    pub fn seize(&mut self, address: IpAddr, pool: &str, services: &[ServiceReference]) -> Vec<ServiceReference> {
        let joins = |s: &ServiceReference| services.iter().all(|owner| self.obstacle_between(s, owner, pool).is_none());
        let displaced: Vec<_> = match self.holdings.occupant(address) {
            Some(o) => o.services.iter().filter(|s| !services.contains(s) && !joins(s)).cloned().collect(),
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

    /// A plan that nobody has seen is dropped.
    pub fn retract(&mut self, service: &ServiceReference, address: IpAddr) {
        self.holdings.leave(service, address);
        self.forget_leaving(service, address);
        if self.holdings.occupant(address).is_some_and(|o| o.services.is_empty() && o.leaving.is_empty()) {
            self.free(address);
        }
    }

    /// The Service gave up an address that others keep, and nothing serves it there any more.
    pub fn forget_leaving(&mut self, service: &ServiceReference, address: IpAddr) {
        self.holdings.forget_leaving(service, address);
    }

    /// Nothing answers for the address any more: it may be given out again.
    pub fn free(&mut self, address: IpAddr) {
        if self.holdings.remove(address).is_some() {
            for pool in self.pools.values_mut().filter(|_| !self.reserved.contains(address)) {
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

    /// Has the pool of an assigned address no other of its family to give?
    pub fn was_last(&self, address: IpAddr) -> bool {
        let pool = self.holdings.occupant(address).and_then(|o| self.pools.get(&o.pool));
        pool.is_some_and(|pool| pool.lowest_free(IpFamily::of(address), |a| self.kept_back(a)).is_none())
    }

    /// A Service on the same address with which this one may no longer share it, and why: an edit came between them.
    pub fn clash(&self, service: &ServiceReference, address: IpAddr) -> Option<(&ServiceReference, SharingObstacle)> {
        let occupant = self.holdings.occupant(address)?;
        let others = occupant.services.iter().filter(|other| *other != service);
        others.filter_map(|other| Some((other, self.obstacle_between(service, other, &occupant.pool)?))).next()
    }

    /// Is the address in the quarantine of any pool?
    pub fn is_quarantined(&self, address: IpAddr) -> bool {
        self.quarantined.values().any(|pool| pool.contains(&address))
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

    /// What of a pool is something else already.
    pub fn reserved(&self, pool: &str) -> Vec<(Reservation, AddressSet)> {
        self.pools.get(pool).map(|pool| self.reserved.within(pool.usable())).unwrap_or_default()
    }

    /// The addresses of a pool that Services list in `spec.externalIPs`, each with the first of those Services.
    pub fn external(&self, pool: &str) -> Vec<(IpAddr, &str)> {
        let all = self.external.iter().filter_map(|(address, by)| Some((*address, by.first()?.as_str())));
        all.filter(|(address, _)| self.pool_contains(pool, *address)).collect()
    }

    /// Addresses assigned from a pool that are no longer in it.
    pub fn orphans(&self, pool: &str) -> Vec<IpAddr> {
        let of_pool = self.holdings.iter().filter(|(_, o)| o.pool == pool);
        of_pool.map(|(address, _)| address).filter(|a| !self.pool_contains(pool, *a)).collect()
    }

    /// How many addresses of a family a pool can give out in all.
    pub fn capacity(&self, pool: &str, family: IpFamily) -> u128 {
        self.pools.get(pool).map_or(0, |pool| pool.sizes(family).0)
    }

    /// The counts of a pool and family; `None` where it has no address of the family, now or assigned earlier.
    pub fn usage(&self, pool: &str, family: IpFamily) -> Option<FamilyUsage> {
        let (capacity, free) = self.pools.get(pool)?.sizes(family);
        let available = free.saturating_sub(self.quarantined_free(pool, family) as u128);
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
        self.may_join(asker.service, address)?;
        if let Some(by) = self.external.get(&address).and_then(BTreeSet::first) {
            return Err(Refusal::AddressInExternalIps { address, by: by.clone() });
        }
        let held = self.holdings.occupant(address).is_some();
        if let Some(by) = self.reserved.of(address).filter(|_| !held) {
            return Err(Refusal::AddressReserved { address, by: by.clone() });
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
        if let Some(shared) = self.shared(asker) {
            return Ok(shared);
        }
        let free = pool.lowest_free(asker.family, |a| self.kept_back(a));
        free.ok_or_else(|| Refusal::PoolFull { family: asker.family, pools: vec![name.to_owned()] })
    }

    /// Any address of any pool.
    fn any(&self, asker: &Asker<'_>) -> Result<(IpAddr, String), Refusal> {
        if self.pools.is_empty() {
            return Err(Refusal::NoPool);
        }
        if let Some(shared) = self.shared(asker)
            && let Some(occupant) = self.holdings.occupant(shared)
        {
            return Ok((shared, occupant.pool.clone()));
        }
        let mut pools: Vec<_> = self.pools.iter().collect();
        pools.sort_by_key(|(_, pool)| pool.priority());
        let (mut full, mut obstacles) = (Vec::new(), Vec::new());
        for (name, pool) in pools {
            match pool.obstacle(asker, false) {
                Some(obstacle) => obstacles.push((name.clone(), obstacle)),
                None => match pool.lowest_free(asker.family, |a| self.kept_back(a)) {
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

    /// The first address of its sharing key that the Service may join, from a pool that gives it one.
    fn shared(&self, asker: &Asker<'_>) -> Option<IpAddr> {
        let key = &self.sharing.get(asker.service)?.key;
        let sharers = self.sharing.iter().filter(|(service, sharing)| *service != asker.service && sharing.key == *key);
        let held: BTreeSet<_> = sharers.flat_map(|(service, _)| self.holdings.held(service)).collect();
        let given = |address: &IpAddr| {
            let pools = self.pools_holding(*address).filter(|(name, _)| asker.pool.is_none_or(|p| p == name.as_str()));
            let giving = pools.filter(|(_, pool)| pool.obstacle(asker, asker.pool.is_some()).is_none());
            giving.map(|(name, pool)| (pool.priority(), name)).next()
        };
        let kept_back = |address| self.kept_back(address) || asker.contested.contains(&address);
        let of_family = held.into_iter().filter(|a| IpFamily::of(*a) == asker.family && !kept_back(*a));
        let joinable = of_family.filter(|address| self.may_join(asker.service, *address).is_ok());
        let (_, address) = joinable.filter_map(|address| Some((given(&address)?, address))).min()?;
        Some(address)
    }

    /// May the Service have the address beside those that have it?
    fn may_join(&self, service: &ServiceReference, address: IpAddr) -> Result<(), Refusal> {
        let Some(occupant) = self.holdings.occupant(address) else { return Ok(()) };
        if occupant.services.contains(service) {
            return Ok(());
        }
        let Some(by) = occupant.services.first().filter(|_| self.sharing.contains_key(service)) else {
            return Err(Refusal::AddressInUse { address, by: occupant.services.first().cloned() });
        };
        if occupant.services.len() >= sharing::MOST_SHARERS {
            return Err(Refusal::SharingRefused { address, by: by.clone(), why: Box::new(SharingObstacle::Full) });
        }
        // Who is leaving is served there until its status says otherwise.
        for other in occupant.services.iter().chain(&occupant.leaving).filter(|other| *other != service) {
            if let Some(why) = self.obstacle_between(service, other, &occupant.pool) {
                return Err(Refusal::SharingRefused { address, by: other.clone(), why: Box::new(why) });
            }
        }
        Ok(())
    }

    fn obstacle_between(
        &self,
        service: &ServiceReference,
        other: &ServiceReference,
        pool: &str,
    ) -> Option<SharingObstacle> {
        let Some(mine) = self.sharing.get(service) else { return Some(SharingObstacle::NoKey) };
        let open = self.pools.get(pool).is_some_and(|p| p.spec().share_across_namespaces);
        sharing::obstacle((service, mine), (other, self.sharing.get(other)), (!open).then_some(pool))
    }

    /// Not to be given to who asks for any address.
    fn kept_back(&self, address: IpAddr) -> bool {
        self.external.contains_key(&address) || self.is_quarantined(address)
    }

    /// How many addresses a pool could give out, were they not in quarantine.
    fn quarantined_free(&self, pool: &str, family: IpFamily) -> usize {
        let Some(pool) = self.pools.get(pool) else { return 0 };
        let all: BTreeSet<_> = self.quarantined.values().flatten().filter(|a| IpFamily::of(**a) == family).collect();
        all.into_iter().filter(|a| pool.is_free(**a)).count()
    }
}
