//! What becomes of SpeakerStatuses: somebody deletes or edits them, or the whole kind.

use super::*;

impl Lan {
    /// `kubectl delete speaker NAME`.
    pub(in super::super) fn delete_speaker_status(&mut self, name: &str) {
        self.speakers.apply(Change::Deleted(name.to_owned()));
        self.broadcast(&ApiFact::Speaker(Change::Deleted(name.to_owned())));
    }

    /// `kubectl patch speaker NAME --subresource status`: it has no segments any more.
    pub(in super::super) fn empty_speaker_status(&mut self, name: &'static str) {
        let speaker = Speaker { segments: vec![], ..self.speakers.get(&name.to_owned()).cloned().unwrap() };
        self.speakers.apply(Change::Applied(speaker.clone()));
        self.broadcast(&ApiFact::Speaker(Change::Applied(speaker)));
    }

    /// `kubectl delete crd speakerstatuses.heraldlb.io`: each object is deleted, and no write of one succeeds.
    pub(in super::super) fn delete_speaker_kind(&mut self) {
        self.has_speaker_kind = false;
        for name in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.delete_speaker_status(name);
        }
    }

    /// The kind is there again, without an object.
    pub(in super::super) fn restore_speaker_kind(&mut self) {
        self.has_speaker_kind = true;
    }

    /// The watch of a node lists every SpeakerStatus.
    pub(in super::super) fn list_speaker_statuses(&mut self, name: &'static str) {
        let items: Vec<_> = self.speakers.iter().cloned().map(Change::Applied).collect();
        for step in std::iter::once(Change::Listing).chain(items).chain([Change::Listed, Change::Current]) {
            self.tell(name, Input::Api(ApiFact::Speaker(step)));
        }
    }

    /// The nodes of which there is a SpeakerStatus.
    pub(in super::super) fn speaker_statuses(&self) -> Vec<&str> {
        self.speakers.iter().map(|speaker| speaker.node.as_str()).collect()
    }

    /// The nodes whose SpeakerStatus counts for a node.
    pub(in super::super) fn counted_by(&self, name: &str) -> Vec<&str> {
        let machine = self.hosts[name].machine.as_ref().unwrap();
        machine.cluster.speakers.counted().iter().map(|speaker| speaker.node.as_str()).collect()
    }
}
