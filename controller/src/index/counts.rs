//! The index, counted for metrics.

use std::collections::BTreeMap;

use herald_crds::{address::IpFamily, pool::FamilyUsage};

use super::Index;

/// One family of one pool, in addresses. The counts are floating point: a /64 has 2^64, and a metric is a float in any
/// case.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolTally {
    /// The name of the pool.
    pub pool: String,
    /// The counted family.
    pub family: IpFamily,
    /// The number of addresses that the pool can give out in all.
    pub capacity: f64,
    /// The number of addresses assigned from the pool.
    pub assigned: f64,
    /// The number of addresses that the pool can still give out.
    pub available: f64,
    /// The number of addresses in the pool's quarantine.
    pub quarantined: f64,
}

/// Counts at a moment. Only a leader counts pools and Services: a standby counts none, so that the sum over the
/// replicas is right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// The pools that have, or have given, an address of the family.
    pub pools: Vec<PoolTally>,
    /// Services that lack an address, by the reason of their condition.
    pub waiting: BTreeMap<String, usize>,
    /// The number of objects that wait for a decision.
    pub queued: usize,
}

impl Index {
    /// Counts the present state.
    pub fn tally(&self) -> Tally {
        if !self.leading || !self.is_synced() {
            return Tally::default();
        }
        let pools = self.pools.keys().flat_map(|pool| {
            let families = IpFamily::ALL.iter();
            families.filter_map(|family| Some(self.pool_tally(pool, *family, &self.allocator.usage(pool, *family)?)))
        });
        let mut waiting = BTreeMap::new();
        for service in self.services.values().filter(|service| service.wants_address()) {
            // The condition of a Service that has just been refused is not written yet.
            if let Some(condition) = service.condition.as_ref().filter(|c| c.status == "False") {
                *waiting.entry(condition.reason.clone()).or_insert(0) += 1;
            }
        }
        Tally { pools: pools.collect(), waiting, queued: self.queue.depth() }
    }

    fn pool_tally(&self, pool: &str, family: IpFamily, usage: &FamilyUsage) -> PoolTally {
        // The text was written by us from integers.
        let number = |text: &str| text.parse().unwrap_or(f64::NAN);
        let entries = self.pools.get(pool).into_iter().flat_map(|entry| entry.quarantine());
        PoolTally {
            pool: pool.to_owned(),
            family,
            capacity: number(&usage.capacity),
            assigned: number(&usage.assigned),
            available: number(&usage.available),
            quarantined: entries.filter(|entry| IpFamily::of(entry.address) == family).count() as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::index::tests::fake_cluster::World;

    fn of(world: &World, pool: &str, family: IpFamily) -> PoolTally {
        world.index.tally().pools.into_iter().find(|p| p.pool == pool && p.family == family).unwrap()
    }

    #[test]
    fn pools_are_counted_by_family() {
        let mut world = World::new();
        world.pool("six", json!({"addresses": ["2001:db8::/64"]}));
        world.create("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}}));
        world.live();
        world.stranger("192.0.2.2");
        world.create("other", json!({}));
        world.live();
        let four = of(&world, "lan", IpFamily::V4);
        assert_eq!((four.capacity, four.assigned, four.available, four.quarantined), (3.0, 2.0, 0.0, 1.0));
        let six = of(&world, "six", IpFamily::V6);
        assert_eq!((six.capacity, six.assigned, six.available), (2f64.powi(64), 1.0, 2f64.powi(64) - 1.0));
        assert_eq!(world.index.tally().pools.len(), 2, "no family that a pool has not");
    }

    #[test]
    fn waiting_services_are_counted_by_reason() {
        let mut world = World::new();
        for name in ["a", "b", "c", "d", "e"] {
            world.create(name, json!({}));
        }
        world.create("f", json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "dmz"}}}));
        world.live();
        world.create("g", json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.l"}}}));
        world.live();
        let expected = [("PoolFull".to_owned(), 2), ("UnknownPool".to_owned(), 1), ("BadRequest".to_owned(), 1)].into();
        assert_eq!(world.index.tally(), Tally { waiting: expected, queued: 0, ..world.index.tally() });
        world.delete("a");
        world.live();
        assert_eq!(world.index.tally().waiting.get("PoolFull"), Some(&1));
    }

    #[test]
    fn standby_counts_nothing() {
        let mut world = World::new();
        world.create("web", json!({}));
        assert!(world.index.tally().queued > 0);
        world.index.set_leading(false);
        assert_eq!(world.index.tally(), Tally::default());
    }
}
