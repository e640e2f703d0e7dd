//! The watches: the objects that the index sees, and when it sees them.

use std::collections::BTreeMap;

use super::World;
use crate::{
    index::{Kind, Object},
    view::ServiceView,
};

/// The watches that are behind.
#[derive(Default)]
pub(super) struct Watches {
    behind: BTreeMap<Kind, Unseen>,
}

/// The objects of a kind that the index has seen, and the changes that it has not seen yet.
struct Unseen {
    seen: Vec<Object>,
    next: Vec<(bool, Object)>,
}

impl Watches {
    fn seen(&self, kind: Kind) -> Option<Vec<Object>> {
        self.behind.get(&kind).map(|unseen| unseen.seen.clone())
    }
}

impl World {
    /// Makes the watch show an object, or its deletion.
    pub(super) fn shows(&mut self, gone: bool, object: Object) {
        match self.watches.behind.get_mut(&kind_of(&object)) {
            Some(unseen) => unseen.next.push((gone, object)),
            None if gone => self.index.delete(&object.identity()),
            None => self.index.apply(object),
        }
    }

    /// Freezes a kind for the index, and for one that is started later, at the objects seen so far.
    pub(in crate::index) fn fall_behind(&mut self, kind: Kind) {
        if !self.is_behind(kind) {
            let unseen = Unseen { seen: self.list(kind), next: Vec::new() };
            self.watches.behind.insert(kind, unseen);
        }
    }

    pub(in crate::index) fn is_behind(&self, kind: Kind) -> bool {
        self.watches.behind.contains_key(&kind)
    }

    /// Makes the watch of a kind show all changes that it has not shown.
    pub(in crate::index) fn catch_up(&mut self, kind: Kind) {
        for (gone, object) in self.watches.behind.remove(&kind).into_iter().flat_map(|unseen| unseen.next) {
            self.shows(gone, object);
        }
    }

    /// Makes every watch show all changes that it has not shown.
    pub(in crate::index) fn catch_up_all(&mut self) {
        for kind in Kind::ALL {
            self.catch_up(kind);
        }
    }

    /// Gives the index a complete list of a kind, as its watch sees it.
    pub(in crate::index) fn relist(&mut self, kind: Kind) {
        let objects = self.watches.seen(kind).unwrap_or_else(|| self.list(kind));
        self.index.replace(kind, objects);
    }

    fn list(&self, kind: Kind) -> Vec<Object> {
        let selection = self.selection();
        match kind {
            Kind::Service => self.services.values().map(|s| ServiceView::of(s, &selection).unwrap().into()).collect(),
            Kind::Namespace => {
                let all = self.namespaces.iter();
                all.map(|(name, labels)| Object::Namespace(name.clone(), labels.clone())).collect()
            }
            Kind::Pool => self.pools.values().cloned().map(|p| Object::Pool(Box::new(p))).collect(),
            Kind::Advertisement => {
                self.advertisements.values().cloned().map(|a| Object::Advertisement(Box::new(a))).collect()
            }
            Kind::ServiceNetwork => {
                let all = self.service_networks.iter();
                all.map(|(n, cidrs)| Object::ServiceNetwork(n.clone(), cidrs.clone())).collect()
            }
            Kind::Gateway => {
                let all = self.gateways.iter();
                all.map(|(key, gateway)| Object::Gateway(key.clone(), gateway.clone())).collect()
            }
            Kind::VirtualIp => self
                .vips
                .values()
                .chain(self.strays.values())
                .cloned()
                .map(|v| Object::VirtualIp(Box::new(v)))
                .collect(),
            Kind::Node => self.nodes.iter().map(|(n, v)| Object::Node(n.clone(), v.clone())).collect(),
            Kind::SpeakerPod => self.pods.iter().map(|(n, p)| Object::SpeakerPod(n.clone(), p.clone())).collect(),
            Kind::Speaker => self.speakers.iter().map(|(n, s)| Object::Speaker(n.clone(), s.clone())).collect(),
        }
    }
}

fn kind_of(object: &Object) -> Kind {
    match object {
        Object::Service(_) => Kind::Service,
        Object::Namespace(..) => Kind::Namespace,
        Object::Pool(_) => Kind::Pool,
        Object::Advertisement(_) => Kind::Advertisement,
        Object::VirtualIp(_) => Kind::VirtualIp,
        Object::Node(..) => Kind::Node,
        Object::Speaker(..) => Kind::Speaker,
        Object::SpeakerPod(..) => Kind::SpeakerPod,
        Object::ServiceNetwork(..) => Kind::ServiceNetwork,
        Object::Gateway(..) => Kind::Gateway,
    }
}
