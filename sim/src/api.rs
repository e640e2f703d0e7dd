//! The API: the true state of nodes, addresses and endpoints, and how watches deliver it.

use std::{sync::Arc, time::Duration};

use herald_protocol::{
    api_view::{Candidate, Class, GivenUp, Vip},
    claim::Birth,
    node::{NodeId, NodeName},
};

use crate::names::{AddrIx, NodeIx};

/// The class of a node that is not a candidate: worse than every other class.
pub const NO_CANDIDATE: Class = Class(u8::MAX);

/// Delays of watches. A node keeps one of these delays for the whole history, so its events stay in order.
pub const WATCH_DELAYS: [Duration; 3] =
    [Duration::from_millis(3), Duration::from_millis(20), Duration::from_millis(60)];

/// While the watches of an edge make progress, the edge renews the freshness of its view at this interval.
pub const FRESH_EVERY: Duration = Duration::from_secs(10);

/// Creation time of the objects that exist from the start.
pub const FIRST_BIRTH: Birth = Birth(1_700_000_000);

/// Difference between the clocks of two API servers in a fault that sets them apart, in seconds.
const CLOCKS_DIFFER: u64 = 2;

/// A VirtualIP object, with the fields from which its candidates follow.
#[derive(Clone, Debug)]
pub struct Object {
    /// Creation time.
    pub birth: Birth,
    /// UID.
    pub uid: Arc<str>,
    /// The home that the controller chose.
    pub home: NodeIx,
    /// VirtualIP.status.
    pub announced_by: Option<NodeIx>,
    /// VirtualIP.status: the node that has given the address up.
    pub given_up: Option<GivenUp>,
    /// Whether the address was ever announced.
    pub ever_announced: bool,
}

/// One address.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The object, while it exists.
    pub object: Option<Object>,
    /// The birth of the last object, whether or not the object still exists.
    pub last_birth: Birth,
    /// When the object was created, if its birth is not later than that of its predecessor.
    pub born_before: Option<Duration>,
    /// Number of objects so far.
    pub objects: u32,
    /// Number of conditions that keep the object deleted.
    pub absent: u32,
    /// `externalTrafficPolicy: Local`: for each node, the number of conditions that keep it without an endpoint.
    pub endpoints: Option<Vec<u32>>,
    /// The published versions with their times, latest last. A node's view may still be any of them.
    pub published: Vec<(Duration, Option<Arc<Vip>>)>,
}

/// The truth.
#[derive(Clone, Debug)]
pub struct Api {
    /// Entries by address.
    pub entries: Vec<Entry>,
    /// By node: number of conditions that make it NotReady.
    pub not_ready: Vec<u32>,
    /// By node: number of conditions that exclude it.
    pub excluded: Vec<u32>,
    /// By node: number of conditions under which the API does not list it on the segment. (The API never lists nodes of
    /// another cluster or second interfaces.)
    pub unlisted: Vec<u32>,
    ids: Vec<NodeId>,
}

/// Number of versions of an object that are remembered: a view may be 30 s old.
const REMEMBERED: usize = 24;

impl Api {
    /// Returns an API with these nodes, the first `members` of which are the cluster's, and one address per home.
    /// `local` says which addresses are Local and where their endpoints are (`None`: Cluster).
    pub fn new(names: &[NodeName], members: usize, homes: &[NodeIx], local: &[Option<Vec<bool>>]) -> Self {
        let entries = homes
            .iter()
            .zip(local)
            .enumerate()
            .map(|(index, (home, local))| Entry {
                object: Some(Object::new(index, 0, FIRST_BIRTH, *home)),
                last_birth: FIRST_BIRTH,
                born_before: None,
                objects: 1,
                absent: 0,
                endpoints: local.as_ref().map(|nodes| nodes.iter().map(|has| u32::from(!has)).collect()),
                published: Vec::new(),
            })
            .collect();
        Self {
            entries,
            not_ready: vec![0; names.len()],
            excluded: vec![0; names.len()],
            unlisted: (0..names.len()).map(|node| u32::from(node >= members)).collect(),
            ids: names.iter().map(NodeName::id).collect(),
        }
    }

    /// Returns the id of a node.
    pub fn id(&self, node: NodeIx) -> NodeId {
        self.ids[node]
    }

    /// Returns the index of a node.
    pub fn node(&self, id: NodeId) -> Option<NodeIx> {
        self.ids.iter().position(|other| *other == id)
    }

    /// Returns how fit a node truly is for an address.
    pub fn class(&self, address: AddrIx, node: NodeIx) -> Class {
        let entry = &self.entries[address];
        if entry.object.is_none() || self.excluded[node] > 0 || self.unlisted[node] > 0 {
            return NO_CANDIDATE;
        }
        if entry.endpoints.as_ref().is_some_and(|without| without[node] > 0) {
            return NO_CANDIDATE;
        }
        Class(u8::from(self.not_ready[node] > 0))
    }

    /// Returns the object as an up-to-date view has it, candidates in the order of their rank.
    pub fn view(&self, address: AddrIx) -> Option<Arc<Vip>> {
        let object = self.entries[address].object.as_ref()?;
        let mut ranked: Vec<_> = (0..self.ids.len())
            .filter_map(|node| {
                let class = self.class(address, node);
                let order =
                    (class, object.announced_by != Some(node), object.home != node, weight(address, node), node);
                (class != NO_CANDIDATE).then_some(order)
            })
            .collect();
        ranked.sort_unstable();
        Some(Arc::new(Vip {
            birth: object.birth,
            uid: object.uid.clone(),
            candidates: ranked
                .into_iter()
                .map(|(class, _, _, _, node)| Candidate { node: self.ids[node], class })
                .collect(),
            announced_by: object.announced_by.map(|node| self.ids[node]),
            given_up: object.given_up,
            held_here: false,
            ever_announced: object.ever_announced,
            cover: true,
        }))
    }

    /// Records the version that is published now, and returns it.
    pub fn publish(&mut self, now: Duration, address: AddrIx) -> Option<Arc<Vip>> {
        let view = self.view(address);
        let published = &mut self.entries[address].published;
        if published.len() == REMEMBERED {
            published.remove(0);
        }
        published.push((now, view.clone()));
        view
    }

    /// Returns whether `better` was of a better class than `worse` in any version published within the last `within`.
    pub fn was_better(&self, now: Duration, within: Duration, address: AddrIx, better: NodeIx, worse: NodeIx) -> bool {
        self.published_within(now, within, address).any(|vip| {
            let class = |node: NodeIx| {
                let found = vip?.candidates.iter().find(|c| c.node == self.ids[node])?;
                Some(found.class)
            };
            class(better).is_some_and(|class_better| class(worse).is_none_or(|class_worse| class_better < class_worse))
        })
    }

    /// Returns whether a node was not a candidate for the address in any version published within the last `within`.
    pub fn was_excluded(&self, now: Duration, within: Duration, address: AddrIx, node: NodeIx) -> bool {
        let candidate = |vip: &Vip| vip.candidates.iter().any(|c| c.node == self.ids[node]);
        self.published_within(now, within, address).any(|vip| vip.is_some_and(|vip| !candidate(vip)))
    }

    /// Returns the version that was in force `within` ago, and all later ones.
    fn published_within(&self, now: Duration, within: Duration, address: AddrIx) -> impl Iterator<Item = Option<&Vip>> {
        let published = &self.entries[address].published;
        let from = now.saturating_sub(within);
        let first = published.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        published[first..].iter().map(|(_, vip)| vip.as_deref())
    }

    /// Deletes the object.
    pub fn delete(&mut self, address: AddrIx) {
        self.entries[address].object = None;
    }

    /// Creates a younger object for the address. With `born_before`, the API servers' clocks differ and its birth is
    /// older than that of the last one.
    pub fn create(&mut self, now: Duration, address: AddrIx, born_before: bool) {
        let home = (address + now.as_millis() as usize) % self.ids.len();
        let entry = &mut self.entries[address];
        // Births are whole seconds. The controller creates an object of the same name only after the old one is gone,
        // which takes more than one second.
        let birth = if born_before {
            Birth(entry.last_birth.0 - CLOCKS_DIFFER)
        } else {
            Birth(entry.last_birth.0.max(FIRST_BIRTH.0 + now.as_secs()) + 1)
        };
        entry.object = Some(Object::new(address, entry.objects, birth, home));
        entry.last_birth = birth;
        entry.born_before = born_before.then_some(now);
        entry.objects += 1;
    }

    /// The controller clears what a node that it no longer knows has written of itself.
    pub fn forget_announcer(&mut self, node: NodeIx) -> Vec<AddrIx> {
        let mut corrected = Vec::new();
        for (address, entry) in self.entries.iter_mut().enumerate() {
            if let Some(object) = entry.object.as_mut().filter(|object| object.announced_by == Some(node)) {
                object.announced_by = None;
                corrected.push(address);
            }
        }
        corrected
    }
}

/// Returns the UID of the first object of an address.
pub fn first_uid(address: AddrIx) -> Arc<str> {
    uid(address, 0)
}

/// Returns the UID of an object with `before` predecessors.
fn uid(address: AddrIx, before: u32) -> Arc<str> {
    format!("uid-{address}-{before}").into()
}

impl Object {
    fn new(address: AddrIx, before: u32, birth: Birth, home: NodeIx) -> Self {
        Self { birth, uid: uid(address, before), home, announced_by: None, given_up: None, ever_announced: false }
    }
}

/// Rendezvous hash (splitmix64's finaliser over both indices).
fn weight(address: AddrIx, node: NodeIx) -> u64 {
    let mut z =
        (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (node as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> Api {
        let names: Vec<_> = (0..3).map(|i| NodeName::new(&format!("n{i}"))).collect();
        Api::new(&names, 3, &[1, 2], &[None, Some(vec![true, false, true])])
    }

    fn order(api: &Api, address: AddrIx) -> Vec<(usize, u8)> {
        let vip = api.view(address).unwrap();
        vip.candidates.iter().map(|c| (api.node(c.node).unwrap(), c.class.0)).collect()
    }

    #[test]
    fn class_then_incumbent_then_home() {
        let mut api = api();
        assert_eq!(order(&api, 0)[0], (1, 0), "home");
        api.entries[0].object.as_mut().unwrap().announced_by = Some(0);
        assert_eq!(order(&api, 0)[..2], [(0, 0), (1, 0)], "incumbent before home");
        api.not_ready[0] = 1;
        assert_eq!(order(&api, 0)[0], (1, 0));
        assert_eq!(order(&api, 0)[2], (0, 1), "a NotReady node is last");
        api.excluded[0] = 1;
        assert_eq!(order(&api, 0).len(), 2, "an excluded node is not a candidate");
        assert!(order(&api, 1).iter().all(|(node, _)| *node != 1), "a node without an endpoint is not a candidate");
    }

    #[test]
    fn younger_object_has_a_later_birth() {
        let mut api = api();
        let before = api.entries[0].object.as_ref().unwrap().birth;
        api.delete(0);
        assert!(api.view(0).is_none());
        api.create(Duration::from_secs(2), 0, false);
        assert!(api.entries[0].object.as_ref().unwrap().birth > before);
    }

    #[test]
    fn clocks_that_differ_make_a_younger_object_older() {
        let mut api = api();
        let object = |api: &Api| api.entries[0].object.clone().unwrap();
        let first = object(&api);
        api.delete(0);
        api.create(Duration::from_secs(2), 0, true);
        assert!(object(&api).birth < first.birth);
        assert_ne!(object(&api).uid, first.uid);
    }

    #[test]
    fn unlisted_node_announces_nothing() {
        let mut api = api();
        api.entries[0].object.as_mut().unwrap().announced_by = Some(0);
        api.unlisted[0] = 1;
        assert_eq!(api.forget_announcer(0), [0]);
        assert_eq!(order(&api, 0).len(), 2);
    }

    #[test]
    fn published_versions_are_remembered() {
        let mut api = api();
        let s = Duration::from_secs;
        api.publish(s(0), 0);
        api.not_ready[0] = 1;
        api.publish(s(10), 0);
        api.not_ready[0] = 0;
        api.publish(s(20), 0);
        assert!(api.was_better(s(25), s(30), 0, 1, 0));
        assert!(api.was_better(s(49), s(30), 0, 1, 0), "the version in force until 20 s counts");
        assert!(!api.was_better(s(51), s(30), 0, 1, 0));
    }
}
