//! The API server: its objects, and the watches of the connected nodes.

use super::*;

impl Lan {
    /// Lets the watches of a node list everything.
    pub(in super::super) fn list(&mut self, name: &'static str) {
        fn steps<T: Keyed + Clone + PartialEq>(all: &Collection<T>, fact: fn(Change<T>) -> ApiFact) -> Vec<Input> {
            let items = all.iter().cloned().map(Change::Applied);
            let steps = std::iter::once(Change::Listing).chain(items).chain([Change::Listed, Change::Current]);
            steps.map(|step| Input::Api(fact(step))).collect()
        }
        let mut facts = steps(&self.nodes, ApiFact::Node);
        if self.has_speaker_kind {
            facts.extend(steps(&self.speakers, ApiFact::Speaker));
        }
        facts.extend(steps(&self.vips, ApiFact::Vip));
        facts.into_iter().for_each(|fact| self.tell(name, fact));
    }

    /// Cuts a node's speaker off from the API, which goes on without it.
    pub(in super::super) fn disconnect(&mut self, name: &str) {
        self.hosts.get_mut(name).unwrap().connected = false;
    }

    /// Connects a node's speaker to the API server again: the writes that its queue has kept are done.
    pub(in super::super) fn reconnect(&mut self, name: &'static str) {
        self.hosts.get_mut(name).unwrap().connected = true;
        for write in self.queued.extract_if(.., |(by, _), _| *by == name).map(|(_, write)| write).collect::<Vec<_>>() {
            self.write(name, &write);
        }
        self.work();
    }

    pub(super) fn broadcast(&mut self, fact: &ApiFact) {
        let names: Vec<_> = self.hosts.iter().filter(|(_, host)| host.connected).map(|(name, _)| *name).collect();
        names.into_iter().for_each(|name| self.tell(name, Input::Api(fact.clone())));
    }

    /// Stores an object in the API, in a new version.
    pub(in super::super) fn apply(&mut self, mut vip: Vip) {
        self.version += 1;
        vip.resource_version = self.version.to_string();
        self.vips.apply(Change::Applied(vip.clone()));
        self.broadcast(&ApiFact::Vip(Change::Applied(vip)));
    }

    pub(in super::super) fn remove(&mut self, address: IpAddr) {
        self.vips.apply(Change::Deleted(address));
        self.broadcast(&ApiFact::Vip(Change::Deleted(address)));
    }

    pub(in super::super) fn apply_node(&mut self, node: Node) {
        self.nodes.apply(Change::Applied(node.clone()));
        self.broadcast(&ApiFact::Node(Change::Applied(node)));
    }

    /// Deletes a node, as `kubectl delete node` does.
    pub(in super::super) fn remove_node(&mut self, name: &str) {
        self.nodes.apply(Change::Deleted(name.to_owned()));
        self.broadcast(&ApiFact::Node(Change::Deleted(name.to_owned())));
    }

    pub(in super::super) fn apply_slice(&mut self, slice: Slice) {
        self.slices.apply(Change::Applied(slice.clone()));
        self.broadcast(&ApiFact::Slice(Change::Applied(slice)));
    }

    /// Lets every watch make progress.
    pub(in super::super) fn refresh(&mut self) {
        for fact in [
            ApiFact::Vip(Change::Current),
            ApiFact::Node(Change::Current),
            ApiFact::Speaker(Change::Current),
            ApiFact::Slice(Change::Current),
        ] {
            self.broadcast(&fact);
        }
    }

    pub(super) fn write(&mut self, name: &'static str, write: &VipWrite) {
        if !self.hosts[name].connected {
            self.queued.insert((name, write.name.clone()), write.clone());
            return;
        }
        let Some(vip) = self.vips.iter().find(|vip| vip.name == write.name).cloned() else { return };
        self.written.push((self.now, name, vip.address));
        // The API server refuses a status that was decided from an old version; the watch brings the new one.
        if vip.resource_version == write.resource_version {
            self.apply(Vip { status: write.status.clone(), ..vip });
        }
    }

    /// Stores a SpeakerStatus in the API.
    pub(super) fn report(&mut self, name: &'static str, write: SpeakerWrite) {
        self.reports.push((name, write.status.clone()));
        if !self.has_speaker_kind || !self.hosts[name].connected {
            return;
        }
        let speaker = self.speakers.get(&name.to_owned()).cloned().unwrap_or_else(|| speaker_at(name));
        let held = write.status.held_addresses.iter().map(|address| address.parse().unwrap()).collect();
        let segments = write.status.segments.iter().filter_map(Segment::from_status).collect();
        let speaker = Speaker { held, segments, ..speaker };
        let moved = self.speakers.get(&name.to_owned()) != Some(&speaker);
        self.speakers.apply(Change::Applied(speaker.clone()));
        let own = Speaker { own: Some(write.status), ..speaker.clone() };
        self.tell(name, Input::Api(ApiFact::Speaker(Change::Applied(own))));
        if moved {
            let others: Vec<_> = self.hosts.keys().copied().filter(|other| *other != name).collect();
            for other in others {
                self.tell(other, Input::Api(ApiFact::Speaker(Change::Applied(speaker.clone()))));
            }
        }
    }
}
