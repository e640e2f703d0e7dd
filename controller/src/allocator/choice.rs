//! The choice of an address for one Service: the pools that give it one, and the Services that it may share one with.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::{address::IpFamily, condition::shown, virtual_ip::ServiceReference};

use super::{Allocator, Asker, ClaimedElsewhere, Pool, Refusal, SharingObstacle, sharing};

impl Asker<'_> {
    /// Returns whether the Service may have an address of the pool, as far as it names pools.
    fn admits(&self, pool: &str) -> bool {
        self.pools.is_empty() || self.pools.iter().any(|asked| asked == pool)
    }
}

impl Allocator {
    /// Returns the pools that hold an address, first choice first.
    pub(super) fn pools_holding(&self, address: IpAddr) -> impl Iterator<Item = (&String, &Pool)> {
        let mut pools: Vec<_> = self.pools.iter().filter(|(_, p)| p.contains(address)).collect();
        pools.sort_by_key(|(_, p)| p.rank());
        pools.into_iter()
    }

    /// Returns the pool that gives a Service the address it asks for.
    pub(super) fn pool_for(&self, asker: &Asker<'_>, address: IpAddr) -> Result<String, Refusal> {
        self.know(asker.pools)?;
        let pools: Vec<_> = self.pools_holding(address).filter(|(name, _)| asker.admits(name)).collect();
        let Some((first, _)) = pools.first() else {
            return Err(Refusal::AddressNotInPool { address, pools: asker.pools.to_vec() });
        };
        self.may_join(asker.service, address)?;
        if let Some(by) = self.external.by_others(address, asker.service).next() {
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

    /// Checks that each of these pools exists.
    fn know(&self, pools: &[String]) -> Result<(), Refusal> {
        match pools.iter().find(|pool| !self.pools.contains_key(*pool)) {
            Some(pool) => Err(Refusal::UnknownPool { pool: shown(pool) }),
            None => Ok(()),
        }
    }

    /// Returns the pools that the Service may ask for, in order: those it names, else all.
    fn candidates(&self, asker: &Asker<'_>) -> Vec<(&String, &Pool)> {
        let mut pools: Vec<_> = self.pools.iter().filter(|(name, _)| asker.admits(name)).collect();
        pools.sort_by_key(|(name, pool)| (asker.pools.iter().position(|asked| asked == *name), pool.rank()));
        pools
    }

    /// Returns any address of the pools that the Service asks for, else of any pool.
    pub(super) fn any(&self, asker: &Asker<'_>) -> Result<(IpAddr, String), Refusal> {
        self.know(asker.pools)?;
        if self.pools.is_empty() {
            return Err(Refusal::NoPool);
        }
        if let Some(shared) = self.shared(asker)
            && let Some(occupant) = self.holdings.occupant(shared)
        {
            return Ok((shared, occupant.pool.clone()));
        }
        let (mut full, mut obstacles) = (Vec::new(), Vec::new());
        for (name, pool) in self.candidates(asker) {
            match pool.obstacle(asker, !asker.pools.is_empty()) {
                Some(obstacle) => obstacles.push((name.clone(), obstacle)),
                None => match pool.lowest_free(asker.family, |a| self.kept_back(a, asker.service)) {
                    Some(address) => return Ok((address, name.clone())),
                    None => full.push(name.clone()),
                },
            }
        }
        Err(if full.is_empty() {
            Refusal::NoPoolAllows { family: asker.family, pools: obstacles }
        } else {
            self.full(asker, full)
        })
    }

    /// Returns the first address of its sharing key that the Service may join and does not have, from a pool that gives
    /// it one.
    fn shared(&self, asker: &Asker<'_>) -> Option<IpAddr> {
        let key = &self.sharing.get(asker.service)?.key;
        let sharers = self.sharing.iter().filter(|(service, sharing)| *service != asker.service && sharing.key == *key);
        let held: BTreeSet<_> = sharers.flat_map(|(service, _)| self.holdings.held(service)).collect();
        let given = |address: &IpAddr| {
            let pools = self.pools_holding(*address).filter(|(name, _)| asker.admits(name));
            let giving = pools.filter(|(_, pool)| pool.obstacle(asker, !asker.pools.is_empty()).is_none());
            giving.map(|(name, pool)| (pool.rank(), name)).next()
        };
        let listed = |address| self.external.by_others(address, asker.service).next().is_some();
        let mine = self.holdings.held(asker.service);
        let kept_back = |address| {
            mine.contains(&address)
                || self.is_quarantined(address)
                || listed(address)
                || asker.contested.contains(&address)
        };
        let of_family = held.into_iter().filter(|a| IpFamily::of(*a) == asker.family && !kept_back(*a));
        let joinable = of_family.filter(|address| self.may_join(asker.service, *address).is_ok());
        let (_, address) = joinable.filter_map(|address| Some((given(&address)?, address))).min()?;
        Some(address)
    }

    /// Checks that the Service may share the address with the Services that have it, and with those whose status shows
    /// it.
    pub(super) fn may_join(&self, service: &ServiceReference, address: IpAddr) -> Result<(), Refusal> {
        let occupant = self.holdings.occupant(address);
        if occupant.is_some_and(|o| o.services.contains(service)) {
            return Ok(());
        }
        if occupant.is_some_and(|o| o.services.is_empty()) {
            return Err(Refusal::AddressInUse { address, by: None });
        }
        self.may_stand_beside(service, address, self.showing(address))
    }

    /// Checks that the Service may keep the address that its status shows. It may have given the address up, without
    /// another Service having got it. If two Services of Herald show one address and may not share it, the first has
    /// it.
    pub(super) fn may_keep(&self, service: &ServiceReference, address: IpAddr) -> Result<(), Refusal> {
        if self.holdings.occupant(address).is_some_and(|o| o.services.contains(service)) {
            return Ok(());
        }
        self.may_stand_beside(service, address, self.shown_by_foreign.of(address))
    }

    /// Checks that the Service may share the address with the Services that have it or are served there until their
    /// status changes, and with `these`.
    fn may_stand_beside<'a>(
        &'a self,
        service: &ServiceReference,
        address: IpAddr,
        these: impl Iterator<Item = &'a ServiceReference>,
    ) -> Result<(), Refusal> {
        let occupant = self.holdings.occupant(address);
        let (services, leaving) = (occupant.map(|o| &o.services), occupant.map(|o| &o.leaving));
        let having = services.into_iter().flatten();
        let others = having.clone().chain(leaving.into_iter().flatten()).chain(these).filter(|other| *other != service);
        let others: Vec<_> = others.collect();
        let Some(first) = others.first() else { return Ok(()) };
        if !self.sharing.contains_key(service) {
            return Err(Refusal::AddressInUse { address, by: Some((*first).clone()) });
        }
        if having.count() >= sharing::MOST_SHARERS {
            return Err(Refusal::SharingRefused {
                address,
                by: (*first).clone(),
                why: Box::new(SharingObstacle::Full),
            });
        }
        let pool = occupant.map(|o| o.pool.as_str());
        let pool =
            pool.or_else(|| self.pools_holding(address).next().map(|(name, _)| name.as_str())).unwrap_or_default();
        for other in others {
            if let Some(why) = self.obstacle_between(service, other, pool) {
                return Err(Refusal::SharingRefused { address, by: other.clone(), why: Box::new(why) });
            }
        }
        Ok(())
    }

    /// Returns the Services whose status shows the address, whichever provider they belong to.
    pub(super) fn showing(&self, address: IpAddr) -> impl Iterator<Item = &ServiceReference> {
        self.shown.of(address).chain(self.shown_by_foreign.of(address))
    }

    /// Returns whether the Service has the address from Herald, or had it and waits for it to fall silent.
    pub fn is_linked(&self, service: &ServiceReference, address: IpAddr) -> bool {
        let occupant = self.holdings.occupant(address);
        occupant.is_some_and(|o| o.services.contains(service) || o.leaving.contains(service))
    }

    pub(super) fn obstacle_between(
        &self,
        service: &ServiceReference,
        other: &ServiceReference,
        pool: &str,
    ) -> Option<SharingObstacle> {
        let Some(mine) = self.sharing.get(service) else { return Some(SharingObstacle::NoKey) };
        let open = self.pools.get(pool).is_some_and(|p| p.spec().share_across_namespaces);
        sharing::obstacle((service, mine), (other, self.sharing.get(other)), (!open).then_some(pool))
    }

    /// Returns whether the address is kept from a Service that asks for any address.
    fn kept_back(&self, address: IpAddr, service: &ServiceReference) -> bool {
        self.is_quarantined(address)
            || self.external.by_others(address, service).next().is_some()
            || self.showing(address).any(|other| other != service)
    }

    /// Returns whether the address is kept from every Service that asks for any, or from all but one.
    pub(super) fn is_claimed(&self, address: IpAddr) -> bool {
        let listed = self.external.of(address).chain(self.showing(address));
        self.is_quarantined(address) || listed.count() > 0
    }

    /// Returns how many further addresses a pool could give out if they were not claimed.
    pub(super) fn claimed_free(&self, pool: &str, family: IpFamily) -> usize {
        let Some(pool) = self.pools.get(pool) else { return 0 };
        let listed = self.external.iter().chain(self.shown.iter()).chain(self.shown_by_foreign.iter());
        let all: BTreeSet<_> =
            listed.map(|(address, _)| address).chain(self.quarantined.values().flatten().copied()).collect();
        all.into_iter().filter(|a| IpFamily::of(*a) == family && pool.is_free(*a)).count()
    }

    fn full(&self, asker: &Asker<'_>, pools: Vec<String>) -> Refusal {
        Refusal::PoolFull {
            family: asker.family,
            elsewhere: self.claimed_elsewhere(asker, &pools).map(Box::new),
            pools,
        }
    }

    /// Returns the addresses of these pools that only other Services' lists keep from this one.
    fn claimed_elsewhere(&self, asker: &Asker<'_>, pools: &[String]) -> Option<ClaimedElsewhere> {
        let pools: Vec<_> = pools.iter().filter_map(|name| self.pools.get(name)).collect();
        let listed = self.external.iter().chain(self.shown.iter()).chain(self.shown_by_foreign.iter());
        let mut found: BTreeMap<IpAddr, &ServiceReference> = BTreeMap::new();
        for (address, services) in listed.filter(|(address, _)| IpFamily::of(*address) == asker.family) {
            if let Some(by) = services.iter().find(|by| *by != asker.service)
                && pools.iter().any(|pool| pool.is_free(address))
            {
                found.entry(address).or_insert(by);
            }
        }
        let (first, by) = found.first_key_value()?;
        Some(ClaimedElsewhere { count: found.len(), first: *first, by: (*by).clone() })
    }
}
