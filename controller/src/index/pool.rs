//! Pools: applying them, and the content of their status.

use std::time::Duration;

use herald_crds::{
    AddressPool,
    address::{AddressSet, IpFamily},
    names::{ANNOTATION_RELEASE_QUARANTINE, CONDITION_ACCEPTED, CONDITION_CONTAINS_ASSIGNED},
};

use super::{Index, Kind, NameAndUid, kstatus};
use crate::{
    action::{Action, ConditionValue, PoolReport, Subject},
    allocator::{PoolFault, Reservation},
};

/// Least time between two writes of a pool's status: 1,000 Services cost a handful of writes, not 1,000.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The sentence in the condition of a pool that gives nothing.
const NOTHING_ASSIGNED: &str = "No address is assigned from this pool; assigned addresses stay";

/// Maximum of addresses, runs or pools that a message lists.
const SHOWN: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct PoolEntry {
    pub(super) pool: AddressPool,
    written: Option<Written>,
}

/// The last status written.
#[derive(Clone, Debug)]
struct Written {
    at: Duration,
    /// The version of the pool that the write made.
    version: Option<String>,
    report: PoolReport,
}

impl PoolEntry {
    /// Returns whether a status adds news to the last one written. Each Service that comes or goes changes its pool's
    /// counts, so frequent writes of a pool do not prove that another program undoes them. They do prove it if another
    /// program changed the pool since, or if the same status has to be written again.
    pub(super) fn follows(&self, version: &str, report: &PoolReport) -> bool {
        self.written.as_ref().is_some_and(|last| last.version.as_deref() == Some(version) && last.report != *report)
    }
}

impl Index {
    pub(super) fn apply_pool(&mut self, pool: AddressPool) {
        let Some(name) = pool.metadata.name.clone() else { return };
        let old = self.pools.get(&name);
        let version = |p: &AddressPool| p.metadata.resource_version.clone();
        if old.is_some_and(|o| self.is_outdated(version(&pool).as_deref(), version(&o.pool).as_deref())) {
            return;
        }
        let same_spec = old.is_some_and(|o| o.pool.spec == pool.spec && o.pool.metadata.labels == pool.metadata.labels);
        let same_annotations = old.is_some_and(|o| o.pool.metadata.annotations == pool.metadata.annotations);
        let written = old.and_then(|o| o.written.clone());
        self.allocator.set_pool(&name, &pool.spec);
        let deletion_began = self.allocator.set_deleting(&name, pool.metadata.deletion_timestamp.is_some());
        let entry = PoolEntry { pool, written };
        let quarantined = entry.quarantine().map(|e| e.address).collect();
        let quarantine_changed = self.allocator.set_quarantined(&name, quarantined);
        self.pools.insert(name.clone(), entry);
        if quarantine_changed {
            self.mark_waiting();
        }
        if quarantine_changed || !same_spec || !same_annotations {
            self.reconsider_contested();
        }
        if same_spec && !deletion_began {
            self.mark(Subject::Pool(name));
        } else {
            self.pool_edited();
        }
    }

    pub(super) fn delete_pool(&mut self, NameAndUid { name, uid }: &NameAndUid) {
        if self.pools.get(name).is_some_and(|entry| entry.pool.metadata.uid == *uid) {
            self.pools.remove(name);
            self.queue.forget(&Subject::Pool(name.clone()));
            self.allocator.remove_pool(name);
            self.pool_edited();
            self.reconsider_contested();
        }
    }

    /// Marks everything that an edit of a pool may affect: it may overlap other pools, cure waiting Services, leave
    /// addresses to another pool or to none, and change their advertisements.
    fn pool_edited(&mut self) {
        self.mark_pools();
        self.mark_advertisements();
        self.mark_waiting();
        self.mark_vips();
        let served = self.allocator.occupants().flat_map(|(_, occupant)| occupant.services.iter().cloned());
        for service in served.collect::<Vec<_>>() {
            self.mark_service(&service);
        }
    }

    pub(super) fn pool_written(&mut self, name: &str, now: Duration, report: &PoolReport, version: Option<String>) {
        if let Some(entry) = self.pools.get_mut(name) {
            entry.written = Some(Written { at: now, version, report: report.clone() });
        }
    }

    pub(super) fn decide_pool(&mut self, name: &str, now: Duration) -> Option<Action> {
        let (quarantined, ends) = self.quarantined(name, now);
        let entry = self.pools.get(name)?;
        let observed = entry.pool.status.clone().unwrap_or_default();
        // A Service waits for its address to be in quarantine; counts can wait.
        let urgent = observed.quarantined != quarantined;
        if let Some(next) =
            entry.written.as_ref().map(|last| last.at + STATUS_INTERVAL).filter(|next| *next > now && !urgent)
        {
            self.queue.mark_at(next, Subject::Pool(name.to_owned()));
            return None;
        }
        if let Some(ends) = ends {
            self.queue.mark_at(ends, Subject::Pool(name.to_owned()));
        }
        let report = PoolReport { quarantined, ..self.report(name, entry) };
        let same = observed.observed_generation == report.generation
            && observed.ipv4 == report.ipv4
            && observed.ipv6 == report.ipv6
            && !urgent
            && kstatus::says(&observed.conditions, &report.conditions);
        if same {
            return None;
        }
        let conditions = kstatus::following(&observed.conditions, report.conditions);
        Some(Action::PatchPoolStatus {
            pool: name.to_owned(),
            resource_version: entry.pool.metadata.resource_version.clone().unwrap_or_default(),
            report: PoolReport { conditions, ..report },
        })
    }

    /// Returns the parts of the pool that are used elsewhere too, in a sentence each.
    fn overlaps(&self, name: &str) -> Option<String> {
        let mut sentences = Vec::new();
        let pools = self.allocator.overlaps(name);
        if !pools.is_empty() {
            let parts: Vec<_> =
                pools.iter().map(|(other, set)| format!("{} also in AddressPool {other}", runs(set))).collect();
            let parts = list(parts.into_iter());
            sentences.push(format!("{parts}. Each address is given out once; give every block to one pool."));
        }
        let is_stray = |by: &Reservation| matches!(by, Reservation::StrayVirtualIp(_));
        let (strays, reserved): (Vec<_>, Vec<_>) =
            self.allocator.reserved(name).into_iter().partition(|(by, _)| is_stray(by));
        if !strays.is_empty() {
            let parts: Vec<_> = strays.iter().map(|(by, set)| format!("{} {by}", subject(set))).collect();
            let parts = list(parts.into_iter());
            sentences.push(format!("{parts}. None of these is given out; delete those VirtualIPs."));
        }
        let reserved = reserved.into_iter().map(|(by, set)| format!("{} {by}", subject(&set)));
        let external = self.allocator.external(name).into_iter();
        let external = external.map(|(address, by)| format!("{address} is in spec.externalIPs of Service {by}"));
        let shown = self.allocator.shown_elsewhere(name).into_iter();
        let shown = shown.map(|(address, by)| format!("{address} is in status.loadBalancer.ingress of Service {by}"));
        let elsewhere: Vec<_> = reserved.chain(external).chain(shown).collect();
        if !elsewhere.is_empty() {
            let parts = list(elsewhere.into_iter());
            sentences.push(format!("{parts}. None of these is given out; take them out of the pool (spec.exclude)."));
        }
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }

    fn report(&self, name: &str, entry: &PoolEntry) -> PoolReport {
        let condition = |type_, status, reason: &str, message| ConditionValue {
            type_,
            status,
            reason: reason.to_owned(),
            message,
            generation: entry.pool.metadata.generation,
            since: None,
        };
        let accepted = match (self.allocator.fault(name), entry.release(), self.overlaps(name)) {
            _ if entry.pool.metadata.deletion_timestamp.is_some() => {
                let finalizers = entry.pool.metadata.finalizers.as_deref().unwrap_or_default().join(", ");
                let message = format!(
                    "metadata.deletionTimestamp is set, and metadata.finalizers holds {finalizers}. {NOTHING_ASSIGNED}."
                );
                condition(CONDITION_ACCEPTED, "False", "Deleting", message)
            }
            (Some(fault), _, _) => {
                let reason = match fault {
                    PoolFault::Addresses(_) => "InvalidAddresses",
                    PoolFault::Selector { .. } => "InvalidSelector",
                    PoolFault::NoAddresses => "NoAddresses",
                };
                let gives_none = IpFamily::ALL.iter().all(|family| self.allocator.capacity(name, *family) == 0);
                let follows = if fault.stops_assignment() || gives_none {
                    NOTHING_ASSIGNED
                } else {
                    "The other entries are used"
                };
                let message = format!("{fault}. {follows}.");
                condition(CONDITION_ACCEPTED, "False", reason, message)
            }
            (None, Err(error), _) => {
                let message =
                    format!("metadata.annotations {ANNOTATION_RELEASE_QUARANTINE}: {error}. No address is released.");
                condition(CONDITION_ACCEPTED, "True", "InvalidAnnotation", message)
            }
            // The pool is usable as written, so the status is True: no address is given out twice, and no reserved one
            // is given out.
            (None, Ok(_), Some(message)) => condition(CONDITION_ACCEPTED, "True", "Overlaps", message),
            (None, Ok(_), None) => match self.allocator.masked(name) {
                [] => condition(CONDITION_ACCEPTED, "True", "Valid", "every entry is usable".to_owned()),
                masked => {
                    let parts = list(masked.iter().map(ToString::to_string));
                    condition(CONDITION_ACCEPTED, "True", "HostBits", format!("{parts}. Read as the whole network."))
                }
            },
        };
        let orphans = self.allocator.orphans(name);
        let contains = if orphans.is_empty() {
            let message = "every address assigned from this pool lies in a pool".to_owned();
            condition(CONDITION_CONTAINS_ASSIGNED, "True", "Contained", message)
        } else {
            let message = format!(
                "{} assigned from this pool and no longer in any pool. Each is served, by the advertisements that it \
                 has, until its Service is deleted or asks for another address. Put them back into spec.addresses to \
                 keep them for good.",
                list(orphans.iter().map(ToString::to_string)),
            );
            condition(CONDITION_CONTAINS_ASSIGNED, "False", "Orphaned", message)
        };
        PoolReport {
            generation: self.generation_to_observe(Kind::Pool, &entry.pool.metadata),
            ipv4: self.allocator.usage(name, IpFamily::V4),
            ipv6: self.allocator.usage(name, IpFamily::V6),
            quarantined: Vec::new(),
            conditions: kstatus::with_stalled(vec![accepted, contains]),
        }
    }
}

fn runs(set: &AddressSet) -> String {
    let run = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    let all: Vec<String> = IpFamily::ALL.iter().flat_map(|f| set.blocks(*f)).map(run).collect();
    list(all.into_iter())
}

/// Returns the runs with the verb that follows them.
fn subject(set: &AddressSet) -> String {
    let count: u128 = IpFamily::ALL.iter().map(|family| set.len(*family)).fold(0, u128::saturating_add);
    format!("{} {}", runs(set), if count == 1 { "is" } else { "are" })
}

fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
