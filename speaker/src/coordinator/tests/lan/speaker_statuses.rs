//! Deletions and edits of SpeakerStatuses, or of the whole kind, by a person.

use super::*;

impl Lan {
    /// Deletes a SpeakerStatus, as `kubectl delete speaker NAME` does.
    pub(in super::super) fn delete_speaker_status(&mut self, name: &str) {
        self.speakers.apply(Change::Deleted(name.to_owned()));
        self.broadcast(&ApiFact::Speaker(Change::Deleted(name.to_owned())));
    }

    /// Removes all segments of a SpeakerStatus, as `kubectl patch speaker NAME --subresource status` does.
    pub(in super::super) fn empty_speaker_status(&mut self, name: &'static str) {
        let speaker = Speaker { segments: vec![], ..self.speakers.get(&name.to_owned()).cloned().unwrap() };
        self.speakers.apply(Change::Applied(speaker.clone()));
        self.broadcast(&ApiFact::Speaker(Change::Applied(speaker)));
    }

    /// Deletes the kind, as `kubectl delete crd speakerstatuses.heraldlb.io` does: each object is deleted, and no write
    /// of one succeeds.
    pub(in super::super) fn delete_speaker_kind(&mut self) {
        self.has_speaker_kind = false;
        for name in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.delete_speaker_status(name);
        }
    }

    /// Restores the kind, without an object.
    pub(in super::super) fn restore_speaker_kind(&mut self) {
        self.has_speaker_kind = true;
    }

    /// Lets the watch of a node list every SpeakerStatus.
    pub(in super::super) fn list_speaker_statuses(&mut self, name: &'static str) {
        let items: Vec<_> = self.speakers.iter().cloned().map(Change::Applied).collect();
        for step in std::iter::once(Change::Listing).chain(items).chain([Change::Listed, Change::Current]) {
            self.tell(name, Input::Api(ApiFact::Speaker(step)));
        }
    }

    /// Returns the nodes that have a SpeakerStatus.
    pub(in super::super) fn speaker_statuses(&self) -> Vec<&str> {
        self.speakers.iter().map(|speaker| speaker.node.as_str()).collect()
    }

    /// Returns the nodes whose SpeakerStatus counts for a node.
    pub(in super::super) fn counted_by(&self, name: &str) -> Vec<&str> {
        let machine = self.hosts[name].coordinator.as_ref().unwrap();
        machine.cluster.speakers.counted().iter().map(|speaker| speaker.node.as_str()).collect()
    }
}
