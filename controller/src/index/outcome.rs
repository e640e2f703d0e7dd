//! The outcome of a write.

use std::time::Duration;

use super::{Index, Kind, NameAndUid, address_of, queue::Ended, uid};
use crate::action::{Action, Outcome, Subject};

impl Index {
    /// Applies the outcome of a write.
    pub fn handle_outcome(&mut self, now: Duration, action: &Action, outcome: Outcome) {
        let subject = match (action, action.subject()) {
            (Action::Event(event), _) => {
                // An event that the API server could not take is posted again.
                if matches!(outcome, Outcome::Failed | Outcome::Refused { .. }) {
                    self.told.untell(event);
                }
                return;
            }
            (_, None) => return,
            (_, Some(subject)) => subject,
        };
        let ended = match outcome {
            Outcome::Failed | Outcome::Refused { .. } => Ended::Failed,
            Outcome::Unavailable => Ended::Unavailable,
            Outcome::Gone => Ended::WrittenUnprompted,
            _ if self.is_unprompted(action) => Ended::WrittenUnprompted,
            _ => Ended::Written,
        };
        let failed = matches!(ended, Ended::Failed | Ended::Unavailable);
        self.note_refusal(action, &outcome);
        if let Action::LookUpService { service, .. } = action {
            self.looked_up(service, &outcome);
            self.queue.ended(&subject, ended, now);
            return self.mark(subject);
        }
        let version = match &outcome {
            Outcome::Pool(pool) => pool.metadata.resource_version.clone(),
            _ => None,
        };
        let kept = match &outcome {
            Outcome::VirtualIp(vip) => Some(vip.spec.clone()),
            _ => None,
        };
        match (action, &outcome) {
            (Action::CreateVirtualIp { address, .. }, _) => drop(self.homes_under_way.remove(address)),
            (Action::PatchPoolStatus { report, .. }, Outcome::Pool(pool)) => {
                let kept = pool.status.as_ref().and_then(|status| status.observed_generation);
                self.note_observed_generation(Kind::Pool, &pool.metadata, report.generation, kept);
            }
            (Action::PatchAdvertisementStatus { report, .. }, Outcome::Advertisement(advertisement)) => {
                let kept = advertisement.status.as_ref().and_then(|status| status.observed_generation);
                self.note_observed_generation(Kind::Advertisement, &advertisement.metadata, report.generation, kept);
            }
            _ => {}
        }
        match outcome {
            Outcome::VirtualIp(vip) => {
                // The answer to a create brings the object; any other answer may come after the object has gone.
                let name = vip.metadata.name.as_deref().unwrap_or_default();
                let held = address_of(&vip).and_then(|a| self.vips.get(&a)).map(|entry| &entry.vip);
                let known = held.or_else(|| self.strays.get(name)).is_some_and(|held| uid(held) == uid(&vip));
                if known || matches!(action, Action::CreateVirtualIp { .. }) {
                    self.apply_vip(*vip);
                }
            }
            Outcome::Service(view) => {
                if self.services.get(&view.key()).is_some_and(|s| s.reference == view.reference) {
                    self.apply_service(*view);
                }
            }
            Outcome::Pool(pool) => {
                if pool.metadata.name.as_ref().is_some_and(|n| self.pools.contains_key(n)) {
                    self.apply_pool(*pool);
                }
            }
            Outcome::Advertisement(advertisement) => {
                if advertisement.metadata.name.as_ref().is_some_and(|n| self.advertisements.contains_key(n)) {
                    self.apply_advertisement(*advertisement);
                }
            }
            Outcome::Gone => self.handle_gone(action),
            Outcome::Done | Outcome::Failed | Outcome::Refused { .. } | Outcome::Unavailable => {}
        }
        // Reports count as made from here on: a decision whose write fails is taken again, and reports then.
        if !failed {
            if let Action::CreateVirtualIp { address, spec, .. } | Action::UpdateVirtualIpSpec { address, spec, .. } =
                action
            {
                self.note_unkept(*address, spec, kept);
            }
            let told = &mut self.told;
            self.events.extend(action.events().iter().filter(|event| told.tell(now, event)).cloned());
            match action {
                Action::CreateVirtualIp { address, .. } => self.creation_dates.created(now, *address),
                Action::PatchPoolStatus { pool, report, .. } => self.pool_written(pool, now, report, version),
                Action::CorrectVirtualIpStatus { address, corrects: Some(corrects), .. } => {
                    self.note_corrected(*address, corrects);
                }
                // The watch may report the deletion later; meanwhile the object would be deleted again.
                Action::DeleteSpeakerStatus { node, uid }
                    if self.speakers.get(node).is_some_and(|s| s.view.uid == *uid) =>
                {
                    self.delete_speaker(node);
                }
                _ => {}
            }
        }
        self.queue.ended(&subject, ended, now);
        if let Action::PatchServiceStatus { service, patch, .. } = action
            && ended == Ended::Written
        {
            self.note_written(service, patch, self.queue.pauses(&subject));
        }
        self.mark(subject);
    }

    /// Returns whether no other program can cause this write again and again.
    pub(super) fn is_unprompted(&self, action: &Action) -> bool {
        match action {
            // These are the object's last writes: no program can undo them.
            Action::DeleteVirtualIp { .. } | Action::RemoveVirtualIpFinalizer { .. } => true,
            // A look-up writes nothing.
            Action::LookUpService { .. } => true,
            Action::PatchPoolStatus { pool, resource_version, report } => {
                self.pools.get(pool).is_some_and(|entry| entry.follows(resource_version, report))
            }
            _ => false,
        }
    }

    fn handle_gone(&mut self, action: &Action) {
        match action {
            Action::PatchServiceStatus { service, .. } => self.delete_service(service),
            Action::PatchPoolStatus { pool, .. } => {
                if let Some(entry) = self.pools.get(pool) {
                    self.delete_pool(&NameAndUid::of(&entry.pool.metadata));
                }
            }
            Action::PatchAdvertisementStatus { advertisement, .. } => self.delete_advertisement(advertisement),
            Action::DeleteSpeakerStatus { node, .. } => self.delete_speaker(node),
            Action::DescribeStrayVirtualIp { name, .. } | Action::ReleaseStrayVirtualIp { name, .. } => {
                self.forget_stray(name);
            }
            _ => {
                if let Some(Subject::VirtualIp(address)) = action.subject()
                    && let Some(entry) = self.vips.get(&address)
                {
                    self.delete_vip(&NameAndUid::of(&entry.vip.metadata));
                }
            }
        }
    }
}
