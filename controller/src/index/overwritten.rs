//! Detection of another program that keeps changing the status of a Service.

use std::{collections::BTreeMap, time::Duration};

use herald_crds::virtual_ip::ServiceReference;

use super::Index;
use crate::action::{Action, EventValue, Regarding, ServicePatch};

/// Reason of the Warning.
const STATUS_OVERWRITTEN: &str = "StatusOverwritten";

/// The last write of each Service whose next write has to pause, since the Service was written often recently.
pub(super) type LastWritten = BTreeMap<ServiceReference, ServicePatch>;

impl Index {
    /// Records a write of a Service's status; `pauses` says whether the next one waits, because there were many
    /// recently.
    pub(super) fn note_written(&mut self, service: &ServiceReference, patch: &ServicePatch, pauses: bool) {
        if pauses {
            self.last_written.insert(service.clone(), patch.clone());
        } else {
            self.last_written.remove(service);
        }
    }

    /// Reports to the owner of a Service, while a write waits, that another program undoes the last write: that is so
    /// if the waiting write equals it.
    pub(super) fn tell_overwritten(&mut self, now: Duration, action: &Action) {
        let Action::PatchServiceStatus { service, patch, .. } = action else { return };
        if self.last_written.get(service) != Some(patch) {
            return;
        }
        let ServiceReference { namespace, name, .. } = service;
        let note = format!(
            "another program changes what Herald writes into the status of this Service: Herald writes it again after pauses \
             of up to 30 s. See who it is: kubectl get service -n {namespace} {name} -o yaml --show-managed-fields"
        );
        let event = EventValue {
            regarding: Regarding::Service(service.clone()),
            warning: true,
            reason: STATUS_OVERWRITTEN,
            action: "Assign",
            note,
        };
        if self.told.tell(now, &event) {
            self.events.push_back(event);
        }
    }
}
