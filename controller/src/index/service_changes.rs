//! Services as they come, change and go, and the consequences for others.

use std::{collections::BTreeSet, net::IpAddr};

use herald_crds::{
    address::{AddressBlock, IpFamily},
    names::FINALIZER_SERVICE_DEFAULT,
    virtual_ip::ServiceReference,
};

use super::Index;
use crate::{
    action::Subject,
    allocator::Sharing,
    view::{ServiceKey, ServiceView},
};

impl Index {
    pub(super) fn apply_service(&mut self, mut view: ServiceView) {
        let key = view.key();
        let held = self.services.get(&key).map(|s| s.reference.clone());
        if let Some(other) = held.filter(|r| *r != view.reference) {
            self.delete_service(&other);
        }
        if let Some(old) = self.services.get(&key) {
            if self.is_outdated(Some(&view.resource_version), Some(&old.resource_version)) {
                return;
            }
            // A finalizer that was once proved to be ours stays ours: a change of type removes the proof. (The
            // finalizer of our class proves nothing about upstream's on the same Service.)
            if view.finalizer.is_none() && view.default_finalizer {
                view.finalizer = old.finalizer.filter(|ours| *ours == FINALIZER_SERVICE_DEFAULT);
            }
        }
        self.give_up_unproved(&view);
        if self.allocator.set_external(&view.reference, &view.external_ips) {
            self.mark_waiting();
            self.mark_pools();
        }
        self.note_shown(&view.reference, &view.shown(), view.claim.is_some());
        self.look_ups.forget(&view.reference);
        if !view.wants_address() {
            // The API server itself empties the status with a change of type.
            self.last_written.remove(&view.reference);
        }
        self.note_sharing(&view.reference, view.sharing.as_ref());
        let leaving = self.allocator.leaving(&view.reference);
        let held = self.allocator.held(&view.reference);
        self.reconsider_among(&held);
        for address in held.into_iter().chain(leaving) {
            self.mark(Subject::VirtualIp(address));
        }
        self.services.insert(key.clone(), view);
        self.mark(Subject::Service(key));
    }

    /// Gives up addresses that only an earlier version of the status proved, where this version shows another address
    /// in their place, or the address is reserved by now. Otherwise the Service keeps them: another program may have
    /// wiped its status.
    fn give_up_unproved(&mut self, view: &ServiceView) {
        let Some(old) = self.service(&view.reference) else { return };
        let replaces = |address: &IpAddr| view.addresses().any(|a| IpFamily::of(a) == IpFamily::of(*address));
        let lost = old.addresses().filter(|address| !view.shows(*address) && !self.vips.contains_key(address));
        let lost = lost.filter(|address| replaces(address) || self.allocator.reservation(*address).is_some());
        for address in lost.collect::<Vec<_>>() {
            self.give_up(&view.reference, address);
        }
    }

    /// Records the terms on which a Service may share. A change concerns the Services it shares with, and waiting ones.
    fn note_sharing(&mut self, reference: &ServiceReference, sharing: Option<&Sharing>) {
        if !self.allocator.set_sharing(reference, sharing) {
            return;
        }
        let occupants = self.allocator.held(reference).into_iter().filter_map(|a| self.allocator.occupant(a));
        let others: BTreeSet<_> = occupants.flat_map(|o| o.services.iter().cloned()).collect();
        for service in others {
            self.mark_service(&service);
        }
        self.mark_waiting();
    }

    /// Records the addresses that a status shows, which are then kept from every other Service. That concerns others
    /// unless the Service has the address from Herald: then nothing is new to them.
    fn note_shown(&mut self, reference: &ServiceReference, shown: &BTreeSet<IpAddr>, ours: bool) {
        let mut changed = self.allocator.set_shown(reference, shown, ours);
        changed.retain(|address| {
            let occupant = self.allocator.occupant(*address);
            occupant.is_none_or(|o| !o.services.contains(reference) && !o.leaving.contains(reference))
        });
        if changed.is_empty() {
            return;
        }
        self.mark_waiting();
        let blocks: Vec<_> = changed.iter().copied().map(AddressBlock::single).collect();
        for pool in self.allocator.pools_over(&blocks) {
            self.mark(Subject::Pool(pool));
        }
        let holders: Vec<_> = blocks.iter().flat_map(|block| self.allocator.holders_within(block)).cloned().collect();
        for service in holders {
            self.mark_service(&service);
        }
    }

    pub(super) fn delete_service(&mut self, reference: &ServiceReference) {
        let key = ServiceKey { namespace: reference.namespace.clone(), name: reference.name.clone() };
        if self.services.get(&key).is_none_or(|s| s.reference != *reference) {
            return;
        }
        self.services.remove(&key);
        self.waiting.remove(&key);
        self.queue.forget(&Subject::Service(key.clone()));
        if self.allocator.set_external(reference, &BTreeSet::new()) {
            self.mark_pools();
        }
        self.note_shown(reference, &BTreeSet::new(), false);
        self.look_ups.forget(reference);
        self.contents.forget(&key);
        self.last_written.remove(reference);
        self.mark_waiting();
        self.note_sharing(reference, None);
        self.vacate_all(reference);
        for address in self.allocator.leaving(reference) {
            self.mark(Subject::VirtualIp(address));
        }
    }

    /// Takes an address from a Service. The Service may have been the obstacle between the address and those that share
    /// it.
    pub(super) fn give_up(&mut self, reference: &ServiceReference, address: IpAddr) {
        self.allocator.vacate(reference, address);
        self.mark(Subject::VirtualIp(address));
        let stay = self.allocator.occupant(address).into_iter().flat_map(|occupant| occupant.services.iter().cloned());
        for service in stay.collect::<Vec<_>>() {
            self.mark_service(&service);
        }
    }

    pub(super) fn vacate_all(&mut self, reference: &ServiceReference) {
        for address in self.allocator.held(reference) {
            self.give_up(reference, address);
        }
    }
}
