//! Services about which the API server is asked: those that have an address and are not seen to want it, before one loses
//! it; and those whose status is the only proof of an address, before it gets a VirtualIP.
//!
//! Two watches have no order. A new leader may see a VirtualIP, but not yet its Service, or only an earlier version of it:
//! not to know a Service does not prove that it is gone, and what an earlier version shows may be another's by now.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use herald_crds::virtual_ip::ServiceReference;

use super::Index;
use crate::action::{Action, Outcome, Subject};

/// How long after an answer the same Service is looked up again, if the watch has not shown by then what the answer said.
/// A watch is some milliseconds behind; one that is cut off is found out within half a minute.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);

/// The Services that were looked up.
#[derive(Debug, Default)]
pub(super) struct LookUps(BTreeMap<ServiceReference, LookUp>);

#[derive(Clone, Copy, Debug)]
struct LookUp {
    asked: Duration,
    /// The version that is held is the newest, as far as the answer goes.
    confirmed: bool,
}

impl LookUps {
    /// The watch has shown something of the Service: what was asked before is out of date.
    pub(super) fn forget(&mut self, service: &ServiceReference) {
        self.0.remove(service);
    }

    fn is_confirmed(&self, service: &ServiceReference) -> bool {
        self.0.get(service).is_some_and(|look_up| look_up.confirmed)
    }
}

impl Index {
    /// Returns whether a Service is not seen to want an address, without proof that it does not: a deleted Service stays
    /// deleted, but one that is unknown, or of another type or class, may be so in an old version only.
    pub(super) fn is_doubtful(&self, service: &ServiceReference) -> bool {
        self.service(service).is_none_or(|view| !view.wants_address() && !view.deleting)
    }

    /// Returns whether only its status says that the Service has the address: there is no VirtualIP. In a newer version it
    /// may not show it.
    pub(super) fn is_unproved(&self, service: &ServiceReference, address: IpAddr) -> bool {
        !self.vips.contains_key(&address)
            && !self.look_ups.is_confirmed(service)
            && self.service(service).is_some_and(|view| view.shows(address))
    }

    /// The first Service that has the address and is to be looked up.
    pub(super) fn look_up(&mut self, address: IpAddr, now: Duration) -> Option<Action> {
        let occupant = self.allocator.occupant(address)?;
        let asked_about = |service: &&ServiceReference| self.is_doubtful(service) || self.is_unproved(service, address);
        for service in occupant.services.iter().filter(asked_about).cloned().collect::<Vec<_>>() {
            let again = self.look_ups.0.get(&service).map(|look_up| look_up.asked + LOOK_UP_AGAIN);
            match again.filter(|again| now < *again) {
                Some(again) => self.queue.mark_at(again, Subject::VirtualIp(address)),
                None => {
                    self.look_ups.0.insert(service.clone(), LookUp { asked: now, confirmed: false });
                    return Some(Action::LookUpService { address, service });
                }
            }
        }
        None
    }

    /// Takes its addresses from a Service that is gone, or that wants none in the version last seen. An answer that is ahead
    /// of the watch counts as if that had brought it.
    pub(super) fn looked_up(&mut self, service: &ServiceReference, outcome: &Outcome) {
        if let Outcome::Service(found) = outcome
            && let Some(seen) = self.service(service).filter(|_| found.reference == *service)
        {
            let asked = self.look_ups.0.get(service).copied();
            if seen.resource_version != found.resource_version {
                self.apply_service((**found).clone());
            }
            if let Some(asked) = asked
                .filter(|_| self.service(service).is_some_and(|seen| seen.resource_version == found.resource_version))
            {
                self.look_ups.0.insert(service.clone(), LookUp { confirmed: true, ..asked });
            }
        }
        let proved = match outcome {
            Outcome::Gone => true,
            Outcome::Service(found) if found.reference != *service => true,
            Outcome::Service(found) => self
                .service(service)
                .is_some_and(|seen| seen.resource_version == found.resource_version && self.is_doubtful(service)),
            Outcome::Failed | Outcome::Refused(_) | Outcome::Unavailable => {
                self.look_ups.forget(service);
                false
            }
            _ => false,
        };
        if proved {
            self.vacate_all(service);
            self.mark_service(service);
        }
    }
}
