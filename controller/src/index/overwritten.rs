//! Detection of another program that keeps changing the status of a Service.

use std::{collections::BTreeMap, time::Duration};

use herald_crds::virtual_ip::ServiceReference;

use super::Index;
use crate::action::{Action, Change, ConditionValue, EventValue, Regarding, ServicePatch};

/// Reason of the Warning.
const STATUS_OVERWRITTEN: &str = "StatusOverwritten";

/// The values last written into each field of each Service whose next write has to pause, since the Service was written
/// often recently.
pub(super) type LastWritten = BTreeMap<ServiceReference, ServicePatch>;

impl Index {
    /// Records a write of a Service's status; `pauses` says whether the next one waits, because there were many
    /// recently.
    pub(super) fn note_written(&mut self, service: &ServiceReference, patch: &ServicePatch, pauses: bool) {
        // After a release the Service may get the same values again, although no other program has emptied its status.
        if pauses && patch.condition != Change::Remove {
            let earlier = self.last_written.remove(service).unwrap_or_default();
            self.last_written.insert(service.clone(), patch.clone().on_top_of(earlier));
        } else {
            self.last_written.remove(service);
        }
    }

    /// Reports to the owner of a Service, while a write waits, that another program undoes the writes: that is so if a
    /// field would get the value last written into it. (Several programs may each undo a part in turn: then no write
    /// equals the one before.)
    pub(super) fn tell_overwritten(&mut self, now: Duration, action: &Action) {
        let Action::PatchServiceStatus { service, patch, .. } = action else { return };
        if !self.last_written.get(service).is_some_and(|last| patch.repeats_a_field_of(last)) {
            return;
        }
        let ServiceReference { namespace, name, .. } = service;
        let note = format!(
            "another program changes what Herald writes into the status of this Service: Herald writes it again after \
             pauses of up to 30 s. To find that program: kubectl get service -n {namespace} {name} -o yaml \
             --show-managed-fields"
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

impl ServicePatch {
    /// Returns the patch, with the values of an earlier one in the fields that this one keeps.
    fn on_top_of(self, earlier: Self) -> Self {
        Self {
            ingress: self.ingress.or(earlier.ingress),
            condition: self.condition.or(earlier.condition),
            allocated_from: self.allocated_from.or(earlier.allocated_from),
            add_finalizer: self.add_finalizer.or(earlier.add_finalizer),
            remove_finalizer: None,
        }
    }

    /// Returns whether a field of the status would get the value that it was given before.
    fn repeats_a_field_of(&self, earlier: &Self) -> bool {
        let condition = match (&self.condition, &earlier.condition) {
            (Change::Set(new), Change::Set(old)) => new.says_the_same_as(old),
            _ => false,
        };
        condition || (self.ingress != Change::Keep && self.ingress == earlier.ingress)
    }
}

impl ConditionValue {
    /// Returns whether only the time of the last transition differs.
    fn says_the_same_as(&self, other: &Self) -> bool {
        (self.type_, self.status, &self.reason, &self.message)
            == (other.type_, other.status, &other.reason, &other.message)
    }
}

impl<T> Change<T> {
    /// Returns the change, or the earlier one if this one keeps the field.
    fn or(self, earlier: Self) -> Self {
        if matches!(self, Self::Keep) { earlier } else { self }
    }
}
