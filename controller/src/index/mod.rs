//! The controller's memory and decisions: observed objects in, writes out. Synchronous; the time is an argument.
//!
//! Guarantees: nothing is decided before every kind has been listed once; at most one write per object is under way;
//! every write differs from the observed state; an address is written to a Service only once its VirtualIP is observed
//! to name that Service; an address is free only once its VirtualIP is gone.
//!
//! Assumptions: [`Index::replace`] gets complete lists; each action from [`Index::poll_action`] comes back once through
//! [`Index::handle_outcome`].

mod advertisement;
mod conflict;
mod content;
mod correction;
mod counts;
mod creation_dates;
mod gateways;
mod held_vip;
mod kstatus;
mod look_up;
mod misnamed_vip;
mod object;
mod on_link;
mod outcome;
mod overwritten;
mod plan;
mod pool;
mod queue;
mod refused_writes;
mod reservations;
mod service;
mod service_changes;
mod speakers;
mod told;
mod unkept;
mod virtual_ip;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use herald_crds::{
    L2Advertisement, VirtualIP,
    address::{AddressBlock, address_of_name},
    virtual_ip::ServiceReference,
};
use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;

use crate::{
    action::{Action, EventValue, Subject},
    allocator::{Allocator, Reservation},
    view::{NodeView, ServiceKey, ServiceView, is_older},
};
use content::Contents;
pub use counts::{PoolTally, Tally};
use creation_dates::CreationDates;
use gateways::Gateways;
use look_up::LookUps;
pub use object::{Identity, Kind, NameAndUid, Object};
use on_link::OnLinkPrefixes;
use overwritten::LastWritten;
use pool::PoolEntry;
use queue::Queue;
use refused_writes::RefusedWrites;
use speakers::{SpeakerEntry, SpeakerPods};
use told::Told;
pub(crate) use unkept::FIELDS_NOT_KEPT;
pub(crate) use virtual_ip::MISDATED;
use virtual_ip::{FormerAdvertisements, VirtualIpEntry};

/// Default time that a node may be without a speaker's pod before its SpeakerStatus is deleted. A node that is drained,
/// rebooted or waits for an image keeps it; a node that the DaemonSet has left for good must not stay a candidate.
pub const FORGET_SPEAKERS_AFTER: Duration = Duration::from_secs(3600);

/// The controller's state; the module describes its guarantees.
#[derive(Debug, Default)]
pub struct Index {
    listed: BTreeSet<Kind>,
    leading: bool,
    /// Whether the observed objects may be old.
    blind: bool,
    /// Whether a complete list is being applied.
    relisting: bool,
    services: BTreeMap<ServiceKey, ServiceView>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pools: BTreeMap<String, PoolEntry>,
    advertisements: BTreeMap<String, L2Advertisement>,
    vips: BTreeMap<IpAddr, VirtualIpEntry>,
    /// VirtualIPs whose names are not those of their addresses, by name.
    strays: BTreeMap<String, VirtualIP>,
    /// The addresses of VirtualIPs that another host answers for.
    contested: BTreeSet<IpAddr>,
    nodes: BTreeMap<String, NodeView>,
    speakers: BTreeMap<String, SpeakerEntry>,
    speaker_pods: SpeakerPods,
    on_link: OnLinkPrefixes,
    creation_dates: CreationDates,
    service_networks: BTreeMap<String, Vec<IpNet>>,
    gateways: Gateways,
    allocator: Allocator,
    /// Services that lack an address which a change of another object may give them: any event that may do so wakes them.
    waiting: BTreeSet<ServiceKey>,
    look_ups: LookUps,
    contents: Contents,
    /// The rules of VirtualIPs that are gone, until the next one of the address is observed or the address is free.
    former_advertisements: BTreeMap<IpAddr, FormerAdvertisements>,
    last_written: LastWritten,
    refused_writes: RefusedWrites,
    /// Homes of the VirtualIPs being created: they count before they are observed.
    homes_under_way: BTreeMap<IpAddr, String>,
    queue: Queue,
    events: VecDeque<EventValue>,
    told: Told,
    /// The kinds of which the API server does not keep every field, and for which that has been reported.
    unkept_kinds: BTreeSet<Kind>,
    /// The time of day at time zero: for times that outlive a process.
    clock: Timestamp,
    /// The time without a speaker's pod after which the SpeakerStatus of a node is deleted.
    forget_speakers_after: Duration,
}

impl Index {
    /// Returns an empty index; `clock` is the time of day at time zero.
    pub fn new(clock: Timestamp) -> Self {
        Self { clock, forget_speakers_after: FORGET_SPEAKERS_AFTER, ..Self::default() }
    }

    /// Sets the time without a speaker's pod after which the SpeakerStatus of a node is deleted, in place of
    /// [`FORGET_SPEAKERS_AFTER`].
    #[must_use]
    pub fn forget_speakers_after(self, forget_speakers_after: Duration) -> Self {
        Self { forget_speakers_after, ..self }
    }

    /// Returns whether every awaited kind has been listed.
    pub fn is_synced(&self) -> bool {
        self.unlisted().next().is_none()
    }

    /// Returns the awaited kinds that have not been listed yet.
    pub fn unlisted(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| kind.is_awaited() && !self.listed.contains(kind))
    }

    /// Records that the lease was won or lost. A new leader starts from the observed state, not from its former plans.
    pub fn set_leading(&mut self, leading: bool) {
        if leading != self.leading {
            self.leading = leading;
            self.queue = Queue::default();
            self.waiting.clear();
            self.events.clear();
            self.rebuild();
        }
    }

    /// Records whether the watch of some kind is broken for long. A blind index gives out addresses and releases those
    /// of deleted Services. It takes no step that a newer version of an object could contradict: it corrects no status
    /// of a lost node or speaker, deletes no SpeakerStatus and replaces no address that a stranger holds. (Before any
    /// other Service loses an address, it is looked up.)
    pub fn set_blind(&mut self, blind: bool) {
        if std::mem::replace(&mut self.blind, blind) && !blind {
            self.mark_vips();
            self.reconsider_contested();
            for name in self.speakers.keys().cloned().collect::<Vec<_>>() {
                self.mark(Subject::SpeakerStatus(name));
            }
        }
    }

    /// Applies a complete list of a kind: objects that are not in it are gone.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Object>) {
        let listed: Vec<_> = objects.iter().map(Object::identity).collect();
        let listed: BTreeSet<_> = listed.iter().map(Identity::key).collect();
        for identity in self.identities(kind) {
            if !listed.contains(&identity.key()) {
                self.delete(&identity);
            }
        }
        // The list of the API server is true, even where its versions have gone back: a store that was restored from a
        // backup counts from there.
        self.relisting = true;
        for object in objects {
            self.apply(object);
        }
        self.relisting = false;
        if kind == Kind::VirtualIp {
            self.retry_refused_writes();
        }
        let first = self.listed.insert(kind);
        if kind == Kind::Gateway && first {
            self.mark_waiting();
        }
        if first && kind.is_awaited() && self.is_synced() {
            self.rebuild();
        }
    }

    /// Applies an object that was added or has changed.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::Service(view) => self.apply_service(*view),
            Object::Namespace(name, labels) => {
                if self.namespaces.get(&name) != Some(&labels) {
                    self.namespaces.insert(name, labels);
                    self.mark_waiting();
                }
            }
            Object::Pool(pool) => self.apply_pool(*pool),
            Object::Advertisement(advertisement) => self.apply_advertisement(*advertisement),
            Object::VirtualIp(vip) => self.apply_vip(*vip),
            Object::Node(name, node) => {
                let old = self.nodes.get(&name);
                if old != Some(&node) {
                    if old.map(|old| &old.labels) != Some(&node.labels) {
                        self.mark_advertisements();
                    }
                    self.nodes.insert(name.clone(), node);
                    self.reserve_for_node(&name);
                    self.mark_vips();
                }
            }
            Object::Speaker(name, view) => self.apply_speaker(name, view),
            Object::SpeakerPod(name, pod) => self.speaker_pods.apply(name, pod),
            Object::ServiceNetwork(name, cidrs) => {
                self.reserve(Reservation::Services(name.clone()), cidrs.iter().copied().map(AddressBlock::from));
                self.service_networks.insert(name, cidrs);
            }
            Object::Gateway(key, gateway) => self.apply_gateway(key, gateway),
        }
    }

    /// Returns the identities of the known objects of a kind.
    fn identities(&self, kind: Kind) -> Vec<Identity> {
        match kind {
            Kind::Service => self.services.values().map(|view| Identity::Service(view.reference.clone())).collect(),
            Kind::Namespace => self.namespaces.keys().cloned().map(Identity::Namespace).collect(),
            Kind::Pool => {
                let pools = self.pools.values();
                pools.map(|entry| Identity::Pool(NameAndUid::of(&entry.pool.metadata))).collect()
            }
            Kind::Advertisement => self.advertisements.keys().cloned().map(Identity::Advertisement).collect(),
            Kind::VirtualIp => {
                let vips = self.vips.values().map(|entry| &entry.vip).chain(self.strays.values());
                vips.map(|vip| Identity::VirtualIp(NameAndUid::of(&vip.metadata))).collect()
            }
            Kind::Node => self.nodes.keys().cloned().map(Identity::Node).collect(),
            Kind::Speaker => self.speakers.keys().cloned().map(Identity::Speaker).collect(),
            Kind::SpeakerPod => self.speaker_pods.pods().keys().cloned().map(Identity::SpeakerPod).collect(),
            Kind::ServiceNetwork => self.service_networks.keys().cloned().map(Identity::ServiceNetwork).collect(),
            Kind::Gateway => self.gateways.keys().cloned().map(Identity::Gateway).collect(),
        }
    }

    /// Removes an object that is gone. A later object of the same name stays.
    pub fn delete(&mut self, identity: &Identity) {
        match identity {
            Identity::Service(service) => self.delete_service(service),
            Identity::Namespace(name) => {
                self.namespaces.remove(name);
            }
            Identity::Pool(pool) => self.delete_pool(pool),
            Identity::Advertisement(name) => self.delete_advertisement(name),
            Identity::VirtualIp(vip) => self.delete_vip(vip),
            Identity::Node(name) => {
                self.nodes.remove(name);
                self.speaker_pods.forget(name);
                self.forget_deleted_speaker(name);
                self.reserve_for_node(name);
                self.mark_vips();
                self.mark_advertisements();
            }
            Identity::Speaker(name) => self.delete_speaker(name),
            Identity::SpeakerPod(name) => self.speaker_pods.delete(name),
            Identity::ServiceNetwork(name) => {
                self.service_networks.remove(name);
                self.reserve(Reservation::Services(name.clone()), []);
            }
            Identity::Gateway(key) => self.delete_gateway(key),
        }
    }

    /// Returns the next write; `None` until an input comes, or until [`Self::poll_timeout`].
    pub fn poll_action(&mut self, now: Duration) -> Option<Action> {
        self.observe_speaker_pods(now);
        if !self.leading || !self.is_synced() {
            return None;
        }
        for subject in self.queue.due(now) {
            self.mark(subject);
        }
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(Action::Event(event));
            }
            let subject = self.queue.pop(now)?;
            let action = match &subject {
                Subject::VirtualIp(address) => self.decide_vip(*address, now),
                Subject::Service(key) => self.decide_service(key),
                Subject::Pool(name) => self.decide_pool(name, now),
                Subject::Advertisement(name) => self.decide_advertisement(name),
                Subject::StrayVirtualIp(name) => self.decide_stray(name),
                Subject::SpeakerStatus(name) => self.decide_speaker(name, now),
            };
            match action {
                Some(action) if self.is_unprompted(&action) || self.queue.admits(&subject, now) => {
                    self.queue.started(subject);
                    return Some(action);
                }
                Some(action) => self.tell_overwritten(now, &action), // the write waits for its time
                None => self.queue.settled(&subject),
            }
        }
    }

    /// Returns the time at which [`Self::poll_action`] may return a write without any input.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.leading && self.is_synced() { self.queue.next_timer() } else { None }
    }

    /// Returns whether a version of an object is earlier than the known one.
    fn is_outdated(&self, new: Option<&str>, held: Option<&str>) -> bool {
        !self.relisting && is_older(new, held)
    }

    /// Starts from the observed state: VirtualIPs prove ownership; then Services keep the addresses that they carry,
    /// those with a finalizer of ours first, then the oldest; only then is anything decided.
    fn rebuild(&mut self) {
        if !self.leading || !self.is_synced() {
            return;
        }
        self.queue.forget_in_flight();
        self.homes_under_way.clear();
        self.look_ups = LookUps::default();
        self.former_advertisements.clear();
        self.last_written.clear();
        let occupied: Vec<IpAddr> = self.allocator.occupants().map(|(a, _)| a).collect();
        for address in occupied {
            self.allocator.free(address);
        }
        for (address, entry) in &self.vips {
            self.allocator.seize(*address, &entry.vip.spec.pool, &entry.vip.spec.services);
            // A deleted VirtualIP is made again for a Service whose status shows the address. A known Service that does
            // not show the address does not get it again; the API server is asked first about an unknown one.
            for service in entry.vip.spec.services.iter().filter(|_| entry.deleting()) {
                let view = self.services.get(&service_key(service)).filter(|view| view.reference == *service);
                if view.is_some_and(|view| !view.shows(*address)) {
                    self.allocator.vacate(service, *address);
                }
            }
        }
        let mut carriers: Vec<&ServiceView> = self.services.values().filter(|s| s.wants_address()).collect();
        // Herald has served these Services before: the finalizer comes with the first address.
        carriers.sort_by_key(|s| (s.finalizer.is_none(), s.created));
        for service in carriers {
            for address in service.addresses() {
                // The decision about the Service reports addresses that cannot be adopted.
                drop(self.allocator.adopt(&service.reference, address));
            }
        }
        // An address that a deleted Service still shows is not given to another, even where its VirtualIP has gone
        // before it.
        for service in self.services.values().filter(|s| s.deleting && s.claim.is_some() && s.finalizer.is_some()) {
            for address in service.addresses() {
                if self.allocator.adopt(&service.reference, address).is_ok() {
                    self.allocator.vacate(&service.reference, address);
                }
            }
        }
        let addresses: Vec<IpAddr> = self.allocator.occupants().map(|(a, _)| a).collect();
        for address in addresses {
            self.mark(Subject::VirtualIp(address));
        }
        let services: Vec<ServiceKey> = self.services.keys().cloned().collect();
        for key in services {
            self.mark(Subject::Service(key));
        }
        self.mark_vips();
        self.mark_pools();
        self.mark_advertisements();
        for name in self.strays.keys().cloned().collect::<Vec<_>>() {
            self.mark(Subject::StrayVirtualIp(name));
        }
        for name in self.speakers.keys().cloned().collect::<Vec<_>>() {
            self.mark(Subject::SpeakerStatus(name));
        }
    }

    /// Requests a decision. A standby decides nothing, and a new leader, which remembers nothing, decides everything.
    fn mark(&mut self, subject: Subject) {
        if !self.leading {
            return;
        }
        let created = match &subject {
            Subject::Service(key) => self.services.get(key).map_or(i64::MAX, |s| s.created),
            _ => 0,
        };
        self.queue.mark(subject, created);
    }

    fn mark_service(&mut self, service: &ServiceReference) {
        self.mark(Subject::Service(service_key(service)));
    }

    fn mark_waiting(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            self.mark(Subject::Service(key));
        }
    }

    fn mark_vips(&mut self) {
        for address in self.vips.keys().copied().collect::<Vec<_>>() {
            self.mark(Subject::VirtualIp(address));
        }
    }

    fn mark_pools(&mut self) {
        for name in self.pools.keys().cloned().collect::<Vec<_>>() {
            self.mark(Subject::Pool(name));
        }
    }

    fn mark_advertisements(&mut self) {
        for name in self.advertisements.keys().cloned().collect::<Vec<_>>() {
            self.mark(Subject::Advertisement(name));
        }
    }
}

impl ServiceView {
    /// Returns whether the Service should have an address from us.
    pub(crate) fn wants_address(&self) -> bool {
        self.claim.is_some() && !self.deleting
    }

    /// Returns whether kube-proxy serves the address under the Service's name.
    fn shows(&self, address: IpAddr) -> bool {
        self.addresses().any(|shown| shown == address)
    }
}

/// Returns the address of a VirtualIP whose name and spec agree, in the spelling that Herald writes. Any other
/// VirtualIP is not ours, and cannot be corrected, because the address is immutable.
fn address_of(vip: &VirtualIP) -> Option<IpAddr> {
    let address = address_of_name(vip.metadata.name.as_deref()?)?;
    (vip.spec.address == address.to_string()).then_some(address)
}

fn service_key(service: &ServiceReference) -> ServiceKey {
    ServiceKey { namespace: service.namespace.clone(), name: service.name.clone() }
}

fn uid(vip: &VirtualIP) -> &str {
    vip.metadata.uid.as_deref().unwrap_or_default()
}
