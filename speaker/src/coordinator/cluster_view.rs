//! The coordinator's view of the API, and the addresses that a change of it concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use herald_crds::virtual_ip::{AdvertisementRule, ServiceReference};
use herald_protocol::node::NodeId;

use super::{
    interface_rules::InterfaceRules,
    io::ApiFact,
    slice_watch::SliceWatch,
    speakers::{Changed, Own, Speakers},
};
use crate::{
    api_objects::{Change, Collection, Keyed, Node, Slice, SliceSelection, Speaker, Vip},
    keys::Keys,
    kube_events::{Directory, NodeReference},
    rank::{self, NodeChange, Side},
    saved_state::View,
};

/// The view of the API.
#[derive(Debug, Default)]
pub(super) struct ClusterView {
    pub vips: Collection<Vip>,
    pub nodes: Collection<Node>,
    pub speakers: Speakers,
    pub slices: Collection<Slice>,
    slice_watch: SliceWatch,
    interface_rules: InterfaceRules,
    /// The time at which each watch last made progress.
    progress: BTreeMap<Kind, Duration>,
}

/// A watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Vips,
    Nodes,
    Speakers,
    Slices,
}

/// The consequences of a fact.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// The addresses that the fact bears on.
    pub addresses: Vec<IpAddr>,
    /// Whether the view has changed in a part that outlives a restart.
    pub view: bool,
    /// Whether statuses may have to change: nodes came or went, or this node became Ready or NotReady.
    pub statuses: bool,
    /// Whether the interfaces of other nodes have changed.
    pub stations: bool,
    /// Whether the settings that select interfaces may have changed.
    pub selection: bool,
    /// The nodes that are gone.
    pub gone: Vec<String>,
}

impl Effects {
    fn on(addresses: Vec<IpAddr>) -> Self {
        Self { view: !addresses.is_empty(), addresses, ..Self::default() }
    }

    /// Adds the consequences of another fact.
    fn add(&mut self, other: Self) {
        let Self { addresses, view, statuses, stations, selection, gone } = other;
        self.addresses.extend(addresses);
        self.gone.extend(gone);
        self.view |= view;
        self.statuses |= statuses;
        self.stations |= stations;
        self.selection |= selection;
    }
}

impl ClusterView {
    /// Returns the view that an earlier run left.
    pub(super) fn restored(view: View) -> Self {
        Self {
            interface_rules: InterfaceRules::of(&view.vips),
            slice_watch: SliceWatch::restored(view.vips.iter(), view.covered),
            vips: Collection::restored(view.vips),
            nodes: Collection::restored(view.nodes),
            speakers: Speakers::restored(view.speakers),
            slices: Collection::restored(view.slices),
            progress: BTreeMap::new(),
        }
    }

    /// Returns the view to save for a later run.
    pub(super) fn saved(&self, keys: Option<Keys>) -> View {
        let covered = self.slice_watch.known();
        View {
            vips: self.vips.iter().cloned().collect(),
            nodes: self.nodes.iter().cloned().collect(),
            speakers: self.speakers.counted().iter().cloned().collect(),
            slices: self.slices.iter().filter(|slice| covered.contains(&slice.service)).cloned().collect(),
            covered,
            keys,
        }
    }

    /// Returns whether every kind has been listed once; before that, absence means nothing.
    pub(super) fn is_listed(&self) -> bool {
        self.unlisted().next().is_none()
    }

    /// Returns the kinds that have not been listed yet.
    pub(super) fn unlisted(&self) -> impl Iterator<Item = &'static str> {
        let kinds = [
            ("VirtualIP", self.vips.is_listed()),
            ("Node", self.nodes.is_listed()),
            ("SpeakerStatus", self.speakers.counted().is_listed()),
        ];
        kinds.into_iter().filter(|(_, is_listed)| !is_listed).map(|(kind, _)| kind)
    }

    /// Returns whether the endpoints that decide about an address are known.
    pub(super) fn knows_endpoints_of(&self, vip: &Vip) -> bool {
        vip.local_services().iter().all(|service| self.slice_watch.covers(&service.into()))
    }

    /// Returns the view by which nodes are ranked. `unsynced` is the node whose kube-proxy has no rules yet.
    pub(super) fn view<'a>(&'a self, unsynced: Option<&'a str>) -> rank::View<'a> {
        rank::View { nodes: &self.nodes, speakers: self.speakers.counted(), slices: &self.slices, unsynced }
    }

    /// Returns a node whose kernel has the address itself, by that node's own account.
    pub(super) fn held_by(&self, address: IpAddr) -> Option<&str> {
        let holds = |speaker: &&Speaker| speaker.held.contains(&address);
        self.speakers.counted().iter().find(holds).map(|speaker| speaker.node.as_str())
    }

    /// Returns the name of a node that the API knows.
    pub(super) fn name_of(&self, id: NodeId) -> Option<&str> {
        self.nodes.iter().find(|node| node.id == id).map(|node| node.name.as_str())
    }

    /// Returns the rules by which L2Advertisements name interfaces.
    pub(super) fn interface_rules(&self) -> impl Iterator<Item = &AdvertisementRule> {
        self.interface_rules.iter()
    }

    /// Stores a fact of the API, and returns its consequences.
    pub(super) fn take_in(&mut self, now: Duration, input: ApiFact, own: Own<'_>) -> Effects {
        match input {
            ApiFact::Vip(change) => {
                let changed = self.apply(now, Kind::Vips, change, |view| &mut view.vips);
                let mut selection = false;
                for (address, before) in &changed {
                    selection |= self.interface_rules.vip_changed(before.as_ref(), self.vips.get(address));
                    self.slice_watch.vip_changed(before.as_ref(), self.vips.get(address));
                }
                Effects { selection, ..Effects::on(changed.into_iter().map(|(address, _)| address).collect()) }
            }
            ApiFact::Node(change) => {
                let changed = self.apply(now, Kind::Nodes, change, |view| &mut view.nodes);
                let mut effects = self.nodes_changed(&changed, own);
                let forgotten: Changed = effects.gone.iter().flat_map(|node| self.speakers.forget(node)).collect();
                effects.add(self.speakers_changed(&forgotten, own));
                effects
            }
            ApiFact::Speaker(change) => {
                self.note_progress(now, Kind::Speakers, &change);
                let changed = self.speakers.apply(now, change, own, &self.nodes);
                self.speakers_changed(&changed, own)
            }
            ApiFact::Slice(change) => {
                let changed = self.apply(now, Kind::Slices, change, |view| &mut view.slices);
                let served = changed.iter().flat_map(|((service, _), _)| self.slice_watch.served_by(service));
                let addresses: BTreeSet<IpAddr> = served.collect();
                Effects::on(addresses.into_iter().collect())
            }
            ApiFact::SlicesCover(covered) => Effects::on(self.slice_watch.cover(covered).into_iter().collect()),
        }
    }

    fn nodes_changed(&self, changed: &[(String, Option<Node>)], own: Own<'_>) -> Effects {
        let mut effects = Effects { view: !changed.is_empty(), ..Effects::default() };
        let mut changes = Vec::new();
        for (name, before) in changed {
            let (after, speaker) = (self.nodes.get(name), self.speakers.counted().get(name));
            let side = |node| Side { node, speaker };
            changes.push((name.as_str(), NodeChange::new(side(before.as_ref()), side(after))));
            let ready = |node: Option<&Node>| node.map(|node| node.ready);
            effects.selection |= name == own.node;
            let another = before.is_none() || after.is_none();
            effects.statuses |= another || name == own.node && ready(before.as_ref()) != ready(after);
            effects.gone.extend(after.is_none().then(|| name.clone()));
        }
        effects.addresses = self.concerned_by(&changes, own);
        effects
    }

    fn speakers_changed(&self, changed: &Changed, own: Own<'_>) -> Effects {
        let mut changes = Vec::new();
        let mut concerned = BTreeSet::new();
        for (name, before) in changed {
            let (node, after) = (self.nodes.get(name), self.speakers.counted().get(name));
            let held_by = |speaker: Option<&Speaker>| speaker.map(|speaker| speaker.held.clone()).unwrap_or_default();
            concerned.extend(&held_by(before.as_ref()) ^ &held_by(after));
            if before.as_ref().map(|speaker| &speaker.segments) != after.map(|speaker| &speaker.segments) {
                let side = |speaker| Side { node, speaker };
                changes.push((name.as_str(), NodeChange::new(side(before.as_ref()), side(after))));
            }
        }
        let moved = !changes.is_empty();
        concerned.extend(self.concerned_by(&changes, own));
        Effects { addresses: concerned.into_iter().collect(), view: moved, stations: moved, ..Effects::default() }
    }

    /// Returns the addresses whose order may depend on one of these changes of nodes.
    fn concerned_by(&self, changes: &[(&str, NodeChange<'_>)], own: Own<'_>) -> Vec<IpAddr> {
        let changes: Vec<_> = changes.iter().filter(|(_, change)| !change.is_idle()).collect();
        if changes.is_empty() || !self.is_listed() {
            return Vec::new();
        }
        let view = self.view(None);
        let bears = |vip: &&Vip| {
            changes.iter().any(|(name, change)| change.bears_on(vip, view, (*name == own.node).then_some(own.segments)))
        };
        self.vips.iter().filter(bears).map(|vip| vip.address).collect()
    }

    fn apply<T: Keyed + PartialEq>(
        &mut self,
        now: Duration,
        kind: Kind,
        change: Change<T>,
        of: impl Fn(&mut Self) -> &mut Collection<T>,
    ) -> Vec<(T::Key, Option<T>)> {
        self.note_progress(now, kind, &change);
        of(self).apply(change)
    }

    fn note_progress<T: Keyed + PartialEq>(&mut self, now: Duration, kind: Kind, change: &Change<T>) {
        if *change == Change::Current {
            self.progress.insert(kind, now);
        }
    }

    /// Returns whether a Node other than this one has no SpeakerStatus that counts: it may have been deleted, and is written
    /// again.
    pub(super) fn lacks_statuses(&self, own: &str) -> bool {
        self.nodes.iter().any(|node| node.name != own && self.speakers.counted().get(&node.name).is_none())
    }

    /// Lets peers count that are heard and have no SpeakerStatus, and returns the consequences.
    pub(super) fn count_heard(&mut self, now: Duration, own: Own<'_>) -> Effects {
        let changed = self.speakers.count_heard(now, own, &self.nodes);
        self.speakers_changed(&changed, own)
    }

    /// Forgets SpeakerStatuses that have been gone for long enough, and returns the consequences.
    pub(super) fn expire_speakers(&mut self, now: Duration, own: Own<'_>) -> Effects {
        let changed = self.speakers.expire(now, own);
        self.speakers_changed(&changed, own)
    }

    /// Returns the time as of which every watch is known to be current; `None` also while the endpoints that decide
    /// about an address are not completely known.
    pub(super) fn current_as_of(&self) -> Option<Duration> {
        if !self.slice_watch.covers_all() {
            return None;
        }
        let kinds = [Some(Kind::Vips), Some(Kind::Nodes), Some(Kind::Speakers)];
        // No watch on slices runs while no address is Local.
        let slices = self.slice_watch.is_wanted().then_some(Kind::Slices);
        let kinds = kinds.into_iter().chain([slices]).flatten();
        kinds.map(|kind| self.progress.get(&kind).copied()).min().flatten()
    }

    /// Returns the EndpointSlices to watch from now on, where the selection has changed.
    pub(super) fn poll_slice_watch(&mut self, now: Duration) -> Option<SliceSelection> {
        if !self.vips.is_listed() {
            return None;
        }
        self.slice_watch.schedule(now);
        let was_empty = self.slice_watch.selection().is_empty();
        let selection = self.slice_watch.poll(now)?;
        if was_empty {
            // The recorded progress belongs to a watch that has ended since.
            self.progress.remove(&Kind::Slices);
        }
        Some(selection)
    }

    /// Returns the time at which [`ClusterView::poll_slice_watch`] may have a selection, or
    /// [`ClusterView::expire_speakers`] has SpeakerStatuses to forget.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.slice_watch.poll_timeout().into_iter().chain(self.speakers.poll_timeout()).min()
    }

    /// Returns the EndpointSlices that are watched.
    pub(super) fn watched_slices(&self) -> &SliceSelection {
        self.slice_watch.selection()
    }
}

impl Directory for ClusterView {
    fn node(&self, id: NodeId) -> Option<NodeReference> {
        let node = self.nodes.iter().find(|node| node.id == id)?;
        Some(NodeReference { name: node.name.clone(), uid: node.uid.clone() })
    }

    fn services(&self, address: IpAddr) -> Vec<ServiceReference> {
        self.vips.get(&address).map(|vip| vip.services.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
