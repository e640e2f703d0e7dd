//! Pools: applying them, and what their status says.

use std::time::Duration;

use herald_crds::{
    AddressPool,
    address::{AddressSet, IpFamily},
    names::{CONDITION_ACCEPTED, CONDITION_CONTAINS_ASSIGNED},
};

use super::Index;
use crate::{
    action::{Action, ConditionValue, PoolReport, Subject},
    allocator::PoolFault,
    view::is_older,
};

/// A pool's status is written at most this often: 1,000 Services cost a handful of writes, not 1,000.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How many addresses, runs or pools a message lists.
const SHOWN: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct PoolEntry {
    pub(super) pool: AddressPool,
    written: Option<Duration>,
}

impl Index {
    pub(super) fn apply_pool(&mut self, pool: AddressPool) {
        let Some(name) = pool.metadata.name.clone() else { return };
        let old = self.pools.get(&name);
        let version = |p: &AddressPool| p.metadata.resource_version.clone();
        if old.is_some_and(|o| is_older(version(&pool).as_deref(), version(&o.pool).as_deref())) {
            return;
        }
        let same_spec = old.is_some_and(|o| o.pool.spec == pool.spec && o.pool.metadata.labels == pool.metadata.labels);
        let written = old.and_then(|o| o.written);
        self.allocator.set_pool(&name, &pool.spec);
        self.pools.insert(name.clone(), PoolEntry { pool, written });
        if same_spec {
            self.mark(Subject::Pool(name));
        } else {
            self.pool_edited(&name);
        }
    }

    pub(super) fn delete_pool(&mut self, pool: &AddressPool) {
        if let Some(name) = &pool.metadata.name
            && self.pools.get(name).is_some_and(|o| o.pool.metadata.uid == pool.metadata.uid)
        {
            self.pools.remove(name);
            self.allocator.remove_pool(name);
            self.pool_edited(name);
        }
    }

    /// An edit may overlap other pools, cure who waits, orphan who has an address, and change who advertises.
    fn pool_edited(&mut self, name: &str) {
        self.mark_pools();
        self.mark_waiting();
        let of_pool = self.allocator.occupants().filter(|(_, o)| o.pool == name);
        let (mut addresses, mut services) = (Vec::new(), Vec::new());
        for (address, occupant) in of_pool {
            addresses.push(address);
            services.extend(occupant.services.iter().cloned());
        }
        for address in addresses {
            self.mark(Subject::VirtualIp(address));
        }
        for service in services {
            self.mark_service(&service);
        }
    }

    pub(super) fn pool_written(&mut self, name: &str, now: Duration) {
        if let Some(entry) = self.pools.get_mut(name) {
            entry.written = Some(now);
        }
    }

    pub(super) fn decide_pool(&mut self, name: &str, now: Duration) -> Option<Action> {
        let entry = self.pools.get(name)?;
        if let Some(next) = entry.written.map(|at| at + STATUS_INTERVAL).filter(|next| *next > now) {
            self.queue.mark_at(next, Subject::Pool(name.to_owned()));
            return None;
        }
        let report = self.report(name, &entry.pool);
        let observed = entry.pool.status.clone().unwrap_or_default();
        let condition = |type_: &str| observed.conditions.iter().find(|c| c.type_ == type_);
        let same = observed.ipv4 == report.ipv4
            && observed.ipv6 == report.ipv6
            && report.conditions.iter().all(|c| c.is(condition(c.type_)));
        if same {
            return None;
        }
        let following = |c: ConditionValue| {
            let observed = condition(c.type_);
            c.following(observed)
        };
        let conditions = report.conditions.into_iter().map(following).collect();
        Some(Action::PatchPoolStatus {
            pool: name.to_owned(),
            resource_version: entry.pool.metadata.resource_version.clone().unwrap_or_default(),
            report: PoolReport { conditions, ..report },
        })
    }

    fn report(&self, name: &str, pool: &AddressPool) -> PoolReport {
        let condition = |type_, status, reason: &str, message| ConditionValue {
            type_,
            status,
            reason: reason.to_owned(),
            message,
            generation: pool.metadata.generation,
            since: None,
        };
        let accepted = match (self.allocator.fault(name), self.allocator.overlaps(name)) {
            (Some(fault), _) => {
                let reason = match fault {
                    PoolFault::Addresses(_) => "InvalidAddresses",
                    PoolFault::Selector { .. } => "InvalidSelector",
                };
                let message = format!("{fault}. Nothing is assigned from this pool; what is assigned stays.");
                condition(CONDITION_ACCEPTED, "False", reason, message)
            }
            (None, overlaps) if !overlaps.is_empty() => {
                // Usable as written, so True: each address is given out once, whichever pool it comes from.
                condition(CONDITION_ACCEPTED, "True", "Overlaps", overlap_message(&overlaps))
            }
            (None, _) => condition(CONDITION_ACCEPTED, "True", "Valid", "every entry is usable".to_owned()),
        };
        let orphans = self.allocator.orphans(name);
        let contains = if orphans.is_empty() {
            let message = "every address assigned from this pool lies in it".to_owned();
            condition(CONDITION_CONTAINS_ASSIGNED, "True", "Contained", message)
        } else {
            let message = format!(
                "{} assigned from this pool and no longer in it: served until their Services are deleted or ask for \
                 another. Put them back into spec.addresses to keep them for good.",
                list(orphans.iter().map(ToString::to_string)),
            );
            condition(CONDITION_CONTAINS_ASSIGNED, "False", "Orphaned", message)
        };
        PoolReport {
            ipv4: self.allocator.usage(name, IpFamily::V4),
            ipv6: self.allocator.usage(name, IpFamily::V6),
            conditions: vec![accepted, contains],
        }
    }
}

fn overlap_message(overlaps: &[(String, AddressSet)]) -> String {
    let run = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    let runs = |set: &AddressSet| {
        let all: Vec<String> = IpFamily::ALL.iter().flat_map(|f| set.blocks(*f)).map(run).collect();
        list(all.into_iter())
    };
    let parts = overlaps.iter().map(|(other, set)| format!("{} also in AddressPool {other}", runs(set)));
    format!("{}. Each address is given out once; give every block to one pool.", list(parts))
}

fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
