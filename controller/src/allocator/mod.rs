//! The allocator: the address that a Service gets, or the reason why it gets none. It uses neither Kubernetes nor a
//! clock.
//!
//! Guarantees: an address has one occupant, whichever pools hold it, or several that may share it when they join; an
//! occupied address stays so until [`Allocator::free`], whatever happens to the pools; it counts to a pool that holds
//! it, if there is one; the same calls give the same addresses.

mod choice;
mod holdings;
mod mentions;
mod pool;
mod refusal;
mod reserved;
mod sharing;
mod special;
mod subnet;
mod vec_set;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::{
    AddressPoolSpec,
    address::{AddressBlock, AddressSet, IpFamily},
    pool::{FamilyUsage, PoolError},
    virtual_ip::ServiceReference,
};

use holdings::Holdings;
pub use holdings::Occupant;
use mentions::Mentions;
use pool::Pool;
pub use refusal::{ClaimedElsewhere, Obstacle, PoolFault, Refusal};
pub use reserved::Reservation;
pub use sharing::{Port, Sharing, SharingObstacle};
pub use special::SpecialRange;
pub use subnet::reservations as subnet_reservations;
pub use vec_set::VecSet;

/// A Service that asks for an address.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The Service that asks.
    pub service: &'a ServiceReference,
    /// The labels of the Service.
    pub service_labels: &'a BTreeMap<String, String>,
    /// The labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// The requested family.
    pub family: IpFamily,
    /// The requested pools, the first choice first; empty: any pool.
    pub pools: &'a [String],
    /// Addresses that others answer for: the Service joins one only if it asks for it by name.
    pub contested: &'a BTreeSet<IpAddr>,
}

/// Pools and assigned addresses.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    pools: BTreeMap<String, Pool>,
    holdings: Holdings,
    /// `spec.externalIPs` of every Service.
    external: Mentions,
    /// The addresses that the statuses of Herald's Services show.
    shown: Mentions,
    /// The addresses that the statuses of other providers' Services show.
    shown_by_foreign: Mentions,
    reserved: reserved::Reserved,
    /// The quarantined addresses, by pool; each counts in every pool.
    quarantined: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The Services that carry a sharing key.
    sharing: BTreeMap<ServiceReference, Sharing>,
}

impl Allocator {
    /// Adds a pool or replaces its spec. Assigned addresses stay, and count to the pool that holds them now.
    pub fn set_pool(&mut self, name: &str, spec: &AddressPoolSpec) {
        if self.pools.get(name).is_some_and(|p| p.spec() == spec) {
            return;
        }
        let mut pool = self.filled(spec.clone());
        pool.set_deleting(self.pools.get(name).is_some_and(Pool::is_deleting));
        self.pools.insert(name.to_owned(), pool);
        self.count_to_holding_pools();
    }

    /// Sets whether a pool is being deleted: it then gives nothing, and its assigned addresses stay. Returns whether
    /// that is new.
    pub fn set_deleting(&mut self, pool: &str, deleting: bool) -> bool {
        let changed = self.pools.get_mut(pool).filter(|pool| pool.is_deleting() != deleting);
        changed.map(|pool| pool.set_deleting(deleting)).is_some()
    }

    /// Makes each assigned address count to a pool that holds it: its present pool if that holds it, else the first
    /// that does. If none does, the address keeps the name of its present pool.
    fn count_to_holding_pools(&mut self) {
        let pool_of = |(address, occupant): (IpAddr, &Occupant)| {
            let pool = self.pool_now(address, &occupant.pool);
            (pool != occupant.pool).then(|| (address, pool.to_owned()))
        };
        for (address, pool) in self.holdings.iter().filter_map(pool_of).collect::<Vec<_>>() {
            self.holdings.count_to(address, &pool);
        }
    }

    fn pool_now<'a>(&'a self, address: IpAddr, pool: &'a str) -> &'a str {
        if self.pool_contains(pool, address) {
            return pool;
        }
        self.pools_holding(address).next().map_or(pool, |(name, _)| name)
    }

    /// Makes an address count to the pool that its Service names, if that pool holds it. Returns whether that is new.
    pub fn count_to(&mut self, address: IpAddr, pool: &str) -> bool {
        let is_new = self.holdings.occupant(address).is_some_and(|occupant| occupant.pool != pool);
        let counts = is_new && self.pool_contains(pool, address);
        if counts {
            self.holdings.count_to(address, pool);
        }
        counts
    }

    /// Returns the pools that hold an address now, first choice first.
    pub fn pools_of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.pools_holding(address).map(|(name, _)| name.as_str())
    }

    /// Returns the first pool other than `than` that has addresses of a family and is not being deleted.
    pub fn first_other_pool_with(&self, family: IpFamily, than: &str) -> Option<&str> {
        let has = |pool: &Pool| !pool.is_deleting() && pool.usable().first(family).is_some();
        let mut pools = self.pools.iter().filter(|(name, pool)| *name != than && has(pool));
        pools.next().map(|(name, _)| name.as_str())
    }

    /// Returns a pool without the assigned and the reserved addresses.
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

    /// Sets the addresses that one cause reserves: no Service gets them, whatever the pools say. Assigned addresses
    /// stay. Returns the blocks that are newly reserved, or no longer reserved, by this cause.
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

    /// Returns the pools that hold an address of one of these blocks.
    pub fn pools_over(&self, blocks: &[AddressBlock]) -> Vec<String> {
        let blocks: AddressSet = blocks.iter().collect();
        let over = self.pools.iter().filter(|(_, pool)| !pool.usable().intersection(&blocks).is_empty());
        over.map(|(name, _)| name.clone()).collect()
    }

    /// Returns the Services that have an address of this block.
    pub fn holders_within(&self, block: &AddressBlock) -> impl Iterator<Item = &ServiceReference> {
        self.holdings.within(block).flat_map(|(_, occupant)| &occupant.services)
    }

    /// Returns the reservation of an address, if there is one.
    pub fn reservation(&self, address: IpAddr) -> Option<&Reservation> {
        self.reserved.of(address)
    }

    /// Forgets a pool. Its assigned addresses stay, and count to the pool that holds them now.
    pub fn remove_pool(&mut self, name: &str) {
        self.pools.remove(name);
        self.quarantined.remove(name);
        self.count_to_holding_pools();
    }

    /// Sets the quarantine of a pool: only a Service that asks for such an address by name gets it. Assigned addresses
    /// stay. Returns whether the quarantine has changed.
    pub fn set_quarantined(&mut self, pool: &str, addresses: BTreeSet<IpAddr>) -> bool {
        let before = self.quarantined.insert(pool.to_owned(), addresses.clone());
        before.unwrap_or_default() != addresses
    }

    /// Sets the addresses that a Service lists in `spec.externalIPs`. Returns whether they have changed.
    pub fn set_external(&mut self, service: &ServiceReference, addresses: &BTreeSet<IpAddr>) -> bool {
        !self.external.set(service, addresses).is_empty()
    }

    /// Sets the addresses that the status of a Service shows, whichever program wrote it; `ours` says whether the
    /// Service is Herald's. An address that one Service shows is not given to another. Returns the addresses that the
    /// Service now shows and did not show before, or the reverse.
    pub fn set_shown(
        &mut self,
        service: &ServiceReference,
        addresses: &BTreeSet<IpAddr>,
        ours: bool,
    ) -> BTreeSet<IpAddr> {
        let none = BTreeSet::new();
        let (by_ours, by_foreign) = if ours { (addresses, &none) } else { (&none, addresses) };
        let mut changed = self.shown.set(service, by_ours);
        changed.extend(self.shown_by_foreign.set(service, by_foreign));
        changed
    }

    /// Returns a Service that shows an address which another has and may not share with it, although the address was
    /// taken from neither.
    pub fn also_shown_by(&self, address: IpAddr, service: &ServiceReference) -> Option<&ServiceReference> {
        let pool = self.holdings.occupant(address).map(|o| o.pool.as_str()).unwrap_or_default();
        let mut others = self.showing(address).filter(|other| *other != service && !self.is_linked(other, address));
        others.find(|other| self.obstacle_between(service, other, pool).is_some())
    }

    /// Sets the terms on which a Service may share an address; `None` allows no sharing. Assigned addresses stay.
    /// Returns whether the terms have changed.
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

    /// Assigns an address: the requested one; else one that Services of its sharing key have and that it may join; else
    /// the lowest free one of the first pool that may give one.
    ///
    /// # Errors
    /// If no address can be assigned; nothing has changed then.
    pub fn assign(&mut self, asker: &Asker<'_>, address: Option<IpAddr>) -> Result<IpAddr, Refusal> {
        let (address, pool) = match address {
            Some(address) => (address, self.pool_for(asker, address)?),
            None => self.any(asker)?,
        };
        // A Service that joins an address takes it from the pool that it was assigned from.
        let pool = self.holdings.occupant(address).map_or(pool, |occupant| occupant.pool.clone());
        self.occupy(address, &pool, asker.service);
        Ok(address)
    }

    /// Lets a Service keep an address that its status shows, without checking whether its pool would give it today.
    pub fn adopt(&mut self, service: &ServiceReference, address: IpAddr) -> Result<(), Refusal> {
        self.may_keep(service, address)?;
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

    /// Takes over the content of a VirtualIP, which proves ownership, whatever was planned. Returns the Services that
    /// had the address planned and do not have it; a Service that may share it with its owners keeps its plan.
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

    /// Makes the Service give the address up; the address stays occupied until [`Self::free`].
    pub fn vacate(&mut self, service: &ServiceReference, address: IpAddr) {
        self.holdings.leave(service, address);
    }

    /// Drops a plan that has not been published.
    pub fn retract(&mut self, service: &ServiceReference, address: IpAddr) {
        self.holdings.leave(service, address);
        self.forget_leaving(service, address);
        if self.holdings.occupant(address).is_some_and(|o| o.services.is_empty() && o.leaving.is_empty()) {
            self.free(address);
        }
    }

    /// Removes a Service from an address that it gave up and others keep, once the Service is no longer served there.
    pub fn forget_leaving(&mut self, service: &ServiceReference, address: IpAddr) {
        self.holdings.forget_leaving(service, address);
    }

    /// Frees an address once no node answers for it: it may be given out again.
    pub fn free(&mut self, address: IpAddr) {
        if self.holdings.remove(address).is_some() {
            for pool in self.pools.values_mut().filter(|_| !self.reserved.contains(address)) {
                pool.give_back(address);
            }
        }
    }

    /// Returns the addresses that a Service holds.
    pub fn held(&self, service: &ServiceReference) -> Vec<IpAddr> {
        self.holdings.held(service)
    }

    /// Returns the addresses that a Service gave up and that are not free yet.
    pub fn leaving(&self, service: &ServiceReference) -> Vec<IpAddr> {
        self.holdings.leaving(service)
    }

    /// Returns the occupant of the address.
    pub fn occupant(&self, address: IpAddr) -> Option<&Occupant> {
        self.holdings.occupant(address)
    }

    /// Returns every occupied address, with its occupant.
    pub fn occupants(&self) -> impl Iterator<Item = (IpAddr, &Occupant)> {
        self.holdings.iter()
    }

    /// Returns whether the address is (still) in the pool.
    pub fn pool_contains(&self, pool: &str, address: IpAddr) -> bool {
        self.pools.get(pool).is_some_and(|p| p.contains(address))
    }

    /// Returns whether the pool of an assigned address has no other address of its family to give.
    pub fn was_last(&self, address: IpAddr) -> bool {
        let pool = self.holdings.occupant(address).and_then(|o| self.pools.get(&o.pool));
        pool.is_some_and(|pool| pool.lowest_free(IpFamily::of(address), |a| self.is_claimed(a)).is_none())
    }

    /// Returns a Service on the same address with which this one may no longer share it, and the reason: an edit came
    /// between them.
    pub fn clash(&self, service: &ServiceReference, address: IpAddr) -> Option<(&ServiceReference, SharingObstacle)> {
        let occupant = self.holdings.occupant(address)?;
        let others = occupant.services.iter().filter(|other| *other != service);
        others.filter_map(|other| Some((other, self.obstacle_between(service, other, &occupant.pool)?))).next()
    }

    /// Returns whether the address is in the quarantine of any pool.
    pub fn is_quarantined(&self, address: IpAddr) -> bool {
        self.quarantined.values().any(|pool| pool.contains(&address))
    }

    /// Returns why a pool's spec cannot be used.
    pub fn fault(&self, pool: &str) -> Option<&PoolFault> {
        self.pools.get(pool).and_then(Pool::fault)
    }

    /// Returns the CIDRs of a pool that are read as their networks.
    pub fn masked(&self, pool: &str) -> &[PoolError] {
        self.pools.get(pool).map(Pool::masked).unwrap_or_default()
    }

    /// Returns the pools that overlap a pool: their names and the common addresses.
    pub fn overlaps(&self, pool: &str) -> Vec<(String, AddressSet)> {
        let Some(this) = self.pools.get(pool) else { return Vec::new() };
        let others = self.pools.iter().filter(|(name, _)| *name != pool);
        let shared = others.map(|(name, other)| (name.clone(), this.usable().intersection(other.usable())));
        shared.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// Returns the reserved addresses of a pool, by reservation.
    pub fn reserved(&self, pool: &str) -> Vec<(Reservation, AddressSet)> {
        self.pools.get(pool).map(|pool| self.reserved.within(pool.usable())).unwrap_or_default()
    }

    /// Returns the addresses of a pool that Services list in `spec.externalIPs`, each with the first of those Services.
    pub fn external(&self, pool: &str) -> Vec<(IpAddr, &ServiceReference)> {
        let all = self.external.iter().filter_map(|(address, by)| Some((address, by.first()?)));
        all.filter(|(address, _)| self.pool_contains(pool, *address)).collect()
    }

    /// Returns the addresses of a pool that the statuses of Services show which do not have them from Herald, each with
    /// the first of those Services.
    pub fn shown_elsewhere(&self, pool: &str) -> BTreeMap<IpAddr, &ServiceReference> {
        let all = self.shown_by_foreign.iter().chain(self.shown.iter());
        let all = all.filter(|(address, _)| self.pool_contains(pool, *address));
        let mut found = BTreeMap::new();
        for (address, services) in all {
            if let Some(by) = services.iter().find(|service| !self.is_linked(service, address)) {
                found.entry(address).or_insert(by);
            }
        }
        found
    }

    /// Returns the addresses that were in this pool when they last were in any.
    pub fn orphans(&self, pool: &str) -> Vec<IpAddr> {
        let of_pool = self.holdings.iter().filter(|(_, o)| o.pool == pool);
        of_pool.map(|(address, _)| address).filter(|a| !self.pool_contains(pool, *a)).collect()
    }

    /// Returns how many addresses of a family a pool can give out in all.
    pub fn capacity(&self, pool: &str, family: IpFamily) -> u128 {
        self.pools.get(pool).map_or(0, |pool| pool.sizes(family).0)
    }

    /// Returns the counts of a pool and family; `None` where it has no address of the family, now or assigned earlier.
    pub fn usage(&self, pool: &str, family: IpFamily) -> Option<FamilyUsage> {
        let (capacity, free) = self.pools.get(pool)?.sizes(family);
        let available = free.saturating_sub(self.claimed_free(pool, family) as u128);
        let from_pool = self.holdings.iter().filter(|(a, o)| o.pool == pool && IpFamily::of(*a) == family);
        let assigned = from_pool.count();
        (capacity > 0 || assigned > 0).then(|| FamilyUsage {
            capacity: capacity.to_string(),
            assigned: assigned.to_string(),
            available: available.to_string(),
        })
    }

    fn occupy(&mut self, address: IpAddr, pool: &str, service: &ServiceReference) {
        let pool = self.pool_now(address, pool).to_owned();
        self.holdings.occupy(address, &pool, service);
        for pool in self.pools.values_mut() {
            pool.take(address);
        }
    }
}
