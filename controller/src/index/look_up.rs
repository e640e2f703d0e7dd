//! Look-ups of Services at the API server: of those that have an address and in this view do not want it, before one
//! loses the address; and of those whose status is the only proof of an address, before it gets a VirtualIP.
//!
//! Two watches have no common order. A new leader may see a VirtualIP, but not yet its Service, or only an earlier
//! version of it: an unknown Service is not proved to be deleted, and an address in an earlier version of a status may
//! belong to another Service by now.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use herald_crds::virtual_ip::ServiceReference;

use super::Index;
use crate::action::{Action, Outcome, Subject};

/// Time after an answer at which the same Service is looked up again, if the watch has not shown the content of the
/// answer by then. A watch is some milliseconds behind; a watch that is cut off is detected within half a minute.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);

/// The Services that were looked up.
#[derive(Debug, Default)]
pub(super) struct LookUps(BTreeMap<ServiceReference, LookUp>);

#[derive(Clone, Copy, Debug)]
struct LookUp {
    asked: Duration,
    /// Whether the known version is the newest, as far as the answer goes.
    confirmed: bool,
}

impl LookUps {
    /// Forgets the look-up of a Service, because the watch has shown a version of it: an earlier answer is out of date.
    pub(super) fn forget(&mut self, service: &ServiceReference) {
        self.0.remove(service);
    }

    fn is_confirmed(&self, service: &ServiceReference) -> bool {
        self.0.get(service).is_some_and(|look_up| look_up.confirmed)
    }
}

impl Index {
    /// Returns whether a Service does not want an address in this view, without proof: a deleted Service stays deleted,
    /// but one that is unknown, or of another type or class, may be so in an old version only.
    pub(super) fn is_doubtful(&self, service: &ServiceReference) -> bool {
        self.service(service).is_none_or(|view| !view.wants_address() && !view.deleting)
    }

    /// Returns whether only the status says that the Service has the address, because there is no VirtualIP. A newer
    /// version of the status may not show it.
    pub(super) fn is_unproved(&self, service: &ServiceReference, address: IpAddr) -> bool {
        !self.vips.contains_key(&address)
            && !self.look_ups.is_confirmed(service)
            && self.service(service).is_some_and(|view| view.shows(address))
    }

    /// Returns a look-up of the first Service that has the address and needs one.
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

    /// Takes its addresses from a Service that is deleted, or that wants none in the version last seen. An answer that
    /// is ahead of the watch counts as if the watch had brought it.
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
            Outcome::Failed | Outcome::Refused { .. } | Outcome::Unavailable => {
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
