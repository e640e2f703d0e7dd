//! What the machine knows of the API, and which addresses a change of it concerns.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use herald_crds::virtual_ip::ServiceReference;
use herald_segment::node::NodeId;

use super::types::ApiFact;
use crate::{
    cluster::{Change, Collection, Keyed, Node, ServiceName, Slice, Speaker, Vip},
    events::{Directory, NodeReference},
    keys::Keys,
    rank,
    state::View,
};

/// What the API says.
#[derive(Debug, Default)]
pub(super) struct ClusterView {
    pub vips: Collection<Vip>,
    pub nodes: Collection<Node>,
    pub speakers: Collection<Speaker>,
    pub slices: Collection<Slice>,
    /// Services whose slices are completely known.
    covered: BTreeSet<ServiceName>,
    /// Services whose slices are asked for.
    wanted: BTreeSet<ServiceName>,
    /// When each watch last made progress.
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

/// The addresses a fact bears on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Concerned {
    All,
    Only(Vec<IpAddr>),
}

impl Concerned {
    pub(super) const NONE: Self = Self::Only(Vec::new());

    fn all_if(all: bool) -> Self {
        if all { Self::All } else { Self::NONE }
    }
}

impl ClusterView {
    /// As an earlier run left it.
    pub(super) fn restored(view: View) -> Self {
        let wanted = view.covered.clone();
        Self {
            vips: Collection::restored(view.vips),
            nodes: Collection::restored(view.nodes),
            speakers: Collection::restored(view.speakers),
            slices: Collection::restored(view.slices),
            covered: view.covered,
            wanted,
            progress: BTreeMap::new(),
        }
    }

    /// For a later run.
    pub(super) fn saved(&self, keys: Option<Keys>) -> View {
        View {
            vips: self.vips.iter().cloned().collect(),
            nodes: self.nodes.iter().cloned().collect(),
            speakers: self.speakers.iter().cloned().collect(),
            slices: self.slices.iter().cloned().collect(),
            covered: self.covered.clone(),
            keys,
        }
    }

    /// Before every kind has been listed once, absence means nothing.
    pub(super) fn is_listed(&self) -> bool {
        self.vips.is_listed() && self.nodes.is_listed() && self.speakers.is_listed()
    }

    /// Are the endpoints that decide about an address known?
    pub(super) fn knows_endpoints_of(&self, vip: &Vip) -> bool {
        vip.local_services().iter().all(|service| self.covered.contains(&service.into()))
    }

    /// For the order of an address.
    pub(super) fn view<'a>(&'a self, unsynced: Option<&'a str>) -> rank::View<'a> {
        rank::View { nodes: &self.nodes, speakers: &self.speakers, slices: &self.slices, unsynced }
    }

    /// A node whose kernel has the address itself, by its own account.
    pub(super) fn held_by(&self, address: IpAddr) -> Option<&str> {
        self.speakers.iter().find(|speaker| speaker.held.contains(&address)).map(|speaker| speaker.node.as_str())
    }

    /// The name of a node that the API knows.
    pub(super) fn name_of(&self, id: NodeId) -> Option<&str> {
        self.nodes.iter().find(|node| node.id == id).map(|node| node.name.as_str())
    }

    /// Stores a fact of the API, and says which addresses it concerns.
    pub(super) fn take_in(&mut self, now: Duration, input: ApiFact) -> Concerned {
        match input {
            ApiFact::Vip(change) => {
                let changed = self.apply(now, Kind::Vips, change, |view| &mut view.vips);
                Concerned::Only(changed.into_iter().map(|(address, _)| address).collect())
            }
            ApiFact::Node(change) => {
                Concerned::all_if(!self.apply(now, Kind::Nodes, change, |view| &mut view.nodes).is_empty())
            }
            ApiFact::Speaker(change) => {
                let changed = self.apply(now, Kind::Speakers, change, |view| &mut view.speakers);
                let mut held = BTreeSet::new();
                for (node, before) in &changed {
                    let (was, is) = (before.as_ref(), self.speakers.get(node));
                    if is.map(|s| &s.segments) != was.map(|s| &s.segments) {
                        return Concerned::All;
                    }
                    let of = |speaker: Option<&Speaker>| speaker.map(|s| s.held.clone()).unwrap_or_default();
                    held.extend(&of(was) ^ &of(is));
                }
                Concerned::Only(held.into_iter().collect())
            }
            ApiFact::Slice(change) => {
                let changed = self.apply(now, Kind::Slices, change, |view| &mut view.slices);
                self.served_by(&changed.into_iter().map(|((service, _), _)| service).collect())
            }
            ApiFact::SlicesCover(services) => {
                let new = services.difference(&self.covered).cloned().collect();
                self.covered = services;
                self.served_by(&new)
            }
        }
    }

    fn apply<T: Keyed + PartialEq>(
        &mut self,
        now: Duration,
        kind: Kind,
        change: Change<T>,
        of: impl Fn(&mut Self) -> &mut Collection<T>,
    ) -> Vec<(T::Key, Option<T>)> {
        if change == Change::Current {
            self.progress.insert(kind, now);
        }
        of(self).apply(change)
    }

    /// As of when every watch is known to be current.
    pub(super) fn current_as_of(&self) -> Option<Duration> {
        let kinds = [Some(Kind::Vips), Some(Kind::Nodes), Some(Kind::Speakers)];
        // Without a Local address nobody watches slices.
        let slices = (!self.wanted.is_empty()).then_some(Kind::Slices);
        let kinds = kinds.into_iter().chain([slices]).flatten();
        kinds.map(|kind| self.progress.get(&kind).copied()).min().flatten()
    }

    /// The addresses whose owner depends on endpoints of these Services.
    fn served_by(&self, services: &BTreeSet<ServiceName>) -> Concerned {
        if services.is_empty() {
            return Concerned::NONE;
        }
        let depends = |vip: &&Vip| vip.local_services().iter().any(|service| services.contains(&service.into()));
        Concerned::Only(self.vips.iter().filter(depends).map(|vip| vip.address).collect())
    }

    /// The Services whose EndpointSlices decide about an address, where they have changed.
    pub(super) fn newly_wanted_slices(&mut self) -> Option<BTreeSet<ServiceName>> {
        if !self.vips.is_listed() {
            return None;
        }
        let alive = self.vips.iter().filter(|vip| !vip.deleting);
        let wanted: BTreeSet<_> = alive.flat_map(|vip| vip.local_services().iter().map(ServiceName::from)).collect();
        if wanted == self.wanted {
            return None;
        }
        // What is no longer watched is no longer known.
        self.covered.retain(|service| wanted.contains(service));
        self.progress.remove(&Kind::Slices);
        self.wanted.clone_from(&wanted);
        Some(wanted)
    }

    /// The Services whose EndpointSlices are to be watched.
    pub(super) fn wanted_slices(&self) -> &BTreeSet<ServiceName> {
        &self.wanted
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
