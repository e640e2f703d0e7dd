//! Addresses that another host answers for, and the consequences for their Services.
//!
//! A stranger's address that was never announced goes into the quarantine of its pool, and its Service gets another:
//! the pool's status reports that first, then the Service's, so that a restart between the two forgets nothing. An
//! address stays if it was ever announced, if the Service asks for it, or if the Service carried it before Herald served
//! it: its clients know the Service by that address.

use std::{fmt, net::IpAddr, time::Duration};

use herald_crds::{
    names::{ANNOTATION_RELEASE_QUARANTINE, LABEL_ADOPTED},
    pool::QuarantinedAddress,
    virtual_ip::{AnnouncedReason, ServiceReference, VirtualIPStatus},
};
use k8s_openapi::jiff::Timestamp;

use super::{Index, pool::PoolEntry, virtual_ip::VirtualIpEntry};
use crate::{
    action::Subject,
    quarantine::{self, Contested, Entry, Full, Release, ReleaseError},
    view::ServiceView,
};

/// Reason of a Service's condition where a stranger holds its address.
pub(super) const ADDRESS_CONFLICT: &str = "AddressConflict";
/// Reason of a Service's condition where a node of the cluster answers for its address unasked.
pub(super) const ANSWERED_BY_CLUSTER_NODE: &str = "AnsweredByClusterNode";

/// The host that answers for an address that no node announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder<'a> {
    /// A host outside the cluster, by its link-layer address.
    Stranger { mac: &'a str },
    /// A node of the cluster.
    ClusterNode,
}

/// The consequence for an address of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No other host answers for the address.
    Uncontested,
    /// The address has to go into quarantine, which the pool's status has to say first.
    Awaited,
    /// The address is in quarantine, and another one takes its place; the text names the holder.
    Replaced(String),
    /// The address stays.
    Kept {
        /// The reason for the Service's condition.
        reason: &'static str,
        /// The holder, and the reason why the address stays.
        message: String,
    },
}

/// The reason why an address that a stranger holds is not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhyKept {
    Requested,
    /// A Service that shares the address keeps it.
    Sharer,
    Adopted,
    Outside,
    Released,
    Full(Full),
}

impl fmt::Display for WhyKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("the Service asks for this address"),
            Self::Sharer => {
                f.write_str("a Service that shares this address asks for it, or had it before Herald served it")
            }
            Self::Adopted => f.write_str("the Service had this address before Herald served it"),
            Self::Outside => f.write_str("the address is no longer in its pool"),
            Self::Released => write!(f, "annotation {ANNOTATION_RELEASE_QUARANTINE} keeps it out of quarantine"),
            Self::Full(full) => write!(f, "{full}"),
        }
    }
}

impl VirtualIpEntry {
    /// Returns whether a node has ever announced the address.
    pub(super) fn was_announced(&self) -> bool {
        self.vip.status.as_ref().is_some_and(VirtualIPStatus::was_ever_announced)
    }

    fn holder(&self) -> Option<Holder<'_>> {
        let condition = self.vip.announced().filter(|_| !self.deleting() && self.announcer().is_none())?;
        if condition.reason == AnnouncedReason::Conflict.as_str() && !self.was_announced() {
            return Some(Holder::Stranger { mac: self.conflicting_mac_address() });
        }
        (condition.reason == AnnouncedReason::AnsweredByClusterNode.as_str()).then_some(Holder::ClusterNode)
    }

    /// Returns the link-layer address of the stranger that answers for the address; empty if a speaker of an earlier
    /// version has written the status.
    fn conflicting_mac_address(&self) -> &str {
        self.vip.status.as_ref().and_then(|status| status.conflicting_mac_address.as_deref()).unwrap_or_default()
    }

    /// Returns the speaker's sentence about the holder.
    fn says(&self) -> &str {
        self.vip.announced().map_or("", |c| &c.message)
    }
}

impl Index {
    /// Records, after a change of a VirtualIP, whether another host holds its address.
    pub(super) fn note_holder(&mut self, address: IpAddr) {
        let contested = self.vips.get(&address).is_some_and(|entry| entry.holder().is_some());
        let changed = if contested { self.contested.insert(address) } else { self.contested.remove(&address) };
        if contested || changed || self.allocator.is_quarantined(address) {
            self.reconsider(address);
        }
        if changed {
            // A contested address is not shared: a waiting Service may have been refused for that.
            self.mark_waiting();
        }
    }

    /// Decides the contested addresses again after a change of a quarantine, or of its bounds.
    pub(super) fn reconsider_contested(&mut self) {
        for address in self.contested.clone() {
            self.reconsider(address);
        }
    }

    /// Decides the contested ones of a Service's addresses again: a request of one Service for such an address affects
    /// all that share it.
    pub(super) fn reconsider_among(&mut self, addresses: &[IpAddr]) {
        for address in addresses.iter().filter(|address| self.contested.contains(address)).copied().collect::<Vec<_>>()
        {
            self.reconsider(address);
        }
    }

    fn reconsider(&mut self, address: IpAddr) {
        let Some(occupant) = self.allocator.occupant(address) else { return };
        let (pool, services) = (occupant.pool.clone(), occupant.services.clone());
        for service in &services {
            self.mark_service(service);
        }
        self.mark(Subject::Pool(pool));
    }

    /// Returns the consequence for an address that a Service has.
    pub(super) fn standing(&self, address: IpAddr, view: &ServiceView) -> Standing {
        let Some(entry) = self.vips.get(&address) else { return Standing::Uncontested };
        let says = || format!("{address} is not announced: {}", entry.says());
        let mac = match entry.holder() {
            None => return Standing::Uncontested,
            Some(Holder::ClusterNode) => {
                return Standing::Kept { reason: ANSWERED_BY_CLUSTER_NODE, message: says() };
            }
            Some(Holder::Stranger { mac }) => mac,
        };
        let Some(occupant) = self.allocator.occupant(address) else { return Standing::Uncontested };
        let sharers = occupant.services.iter().filter(|s| **s != view.reference).filter_map(|s| self.service(s));
        let mut for_others = sharers.filter(|other| self.why_kept(address, entry, other).is_some());
        let why = self.why_kept(address, entry, view).or_else(|| for_others.next().map(|_| WhyKept::Sharer));
        let why = match why {
            Some(why) => Some(why),
            None => {
                let held = self.quarantine(&occupant.pool);
                if held.iter().any(|e| e.address == address) {
                    return Standing::Replaced(says());
                }
                // The check equals that of the pool; otherwise the Service would wait for a step that the pool does not
                // take.
                let first = occupant.services.iter().find(|service| self.service(service).is_some());
                let service = first.unwrap_or(&view.reference).clone();
                let contested = Contested { address, mac: mac.to_owned(), service };
                self.room(&occupant.pool, &held, &contested).err().map(WhyKept::Full)
            }
        };
        match why {
            None => Standing::Awaited,
            Some(why) => {
                Standing::Kept { reason: ADDRESS_CONFLICT, message: format!("{}. The Service keeps it: {why}", says()) }
            }
        }
    }

    /// Returns the reason not to replace the address, apart from a full quarantine.
    fn why_kept(&self, address: IpAddr, entry: &VirtualIpEntry, view: &ServiceView) -> Option<WhyKept> {
        let asked_for = self.asks_for(view, address);
        let adopted = entry.vip.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_ADOPTED));
        let pool = self.allocator.occupant(address).map(|o| o.pool.as_str()).unwrap_or_default();
        let released = || self.pools.get(pool).is_some_and(|p| p.release().unwrap_or_default().covers(address));
        if asked_for {
            Some(WhyKept::Requested)
        } else if adopted {
            Some(WhyKept::Adopted)
        } else if !self.allocator.pool_contains(pool, address) {
            Some(WhyKept::Outside)
        } else {
            released().then_some(WhyKept::Released)
        }
    }

    fn room(&self, pool: &str, held: &[Entry], contested: &Contested) -> Result<(), Full> {
        let family = herald_crds::address::IpFamily::of(contested.address);
        let limit = quarantine::limit(self.allocator.capacity(pool, family));
        quarantine::room(held, contested, limit, self.elsewhere(pool, &contested.service))
    }

    /// Returns how many addresses of a Service are in the quarantine of other pools.
    fn elsewhere(&self, pool: &str, service: &ServiceReference) -> usize {
        let others = self.pools.iter().filter(|(name, _)| *name != pool);
        others.flat_map(|(_, entry)| entry.quarantine()).filter(|e| e.service == *service).count()
    }

    fn quarantine(&self, pool: &str) -> Vec<Entry> {
        self.pools.get(pool).map(|p| p.quarantine().collect()).unwrap_or_default()
    }

    /// Returns the quarantine for a pool's status, and the time when it changes by itself.
    pub(super) fn quarantined(&self, name: &str, now: Duration) -> (Vec<QuarantinedAddress>, Option<Duration>) {
        let Some(pool) = self.pools.get(name) else { return Default::default() };
        let released = pool.release().unwrap_or_default();
        let stays = |entry: &Entry| {
            let announced = self.vips.get(&entry.address).is_some_and(VirtualIpEntry::was_announced);
            !announced && !released.covers(entry.address) && self.allocator.pool_contains(name, entry.address)
        };
        let contested: Vec<_> = self.contested.iter().filter_map(|a| self.to_quarantine(name, *a)).collect();
        let limit = |family| quarantine::limit(self.allocator.capacity(name, family));
        let elsewhere = |service: &ServiceReference| self.elsewhere(name, service);
        let time = self.clock.checked_add(now).unwrap_or(self.clock);
        let next = quarantine::next(&self.quarantine(name), stays, &contested, limit, elsewhere, time);
        let first_end = next.iter().filter_map(Entry::ends).min();
        (next.iter().map(Entry::written).collect(), first_end.and_then(|end| self.instant(end)))
    }

    /// Returns the address if it belongs to the pool and has to be replaced.
    fn to_quarantine(&self, pool: &str, address: IpAddr) -> Option<Contested> {
        if self.blind {
            return None; // a node may announce it by now; the end of blindness asks again
        }
        let occupant = self.allocator.occupant(address).filter(|o| o.pool == pool)?;
        let entry = self.vips.get(&address)?;
        let Some(Holder::Stranger { mac }) = entry.holder() else { return None };
        let views: Vec<_> = occupant.services.iter().filter_map(|s| self.service(s)).collect();
        if views.iter().any(|view| self.why_kept(address, entry, view).is_some()) {
            return None;
        }
        Some(Contested { address, mac: mac.to_owned(), service: views.first()?.reference.clone() })
    }

    /// Returns a time of day on the index's own scale; a past time becomes zero.
    fn instant(&self, time: Timestamp) -> Option<Duration> {
        Some(Duration::try_from(time.duration_since(self.clock)).unwrap_or(Duration::ZERO))
    }
}

impl PoolEntry {
    /// Returns the quarantine as observed.
    pub(super) fn quarantine(&self) -> impl Iterator<Item = Entry> {
        self.pool.status.iter().flat_map(|s| &s.quarantined).filter_map(Entry::read)
    }

    /// Returns the addresses that the pool's annotation keeps out of quarantine.
    pub(super) fn release(&self) -> Result<Release, ReleaseError> {
        let annotations = self.pool.metadata.annotations.as_ref();
        Release::read(annotations.and_then(|a| a.get(ANNOTATION_RELEASE_QUARANTINE)).map(String::as_str))
    }
}
