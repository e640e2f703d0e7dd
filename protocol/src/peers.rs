//! The other speakers of the segment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    api_view::ExpectedPeer,
    incarnation::Noted,
    mac::MacAddr,
    node::{NodeId, NodeMap, NodeName},
    peer::{Peer, Presence},
    wire::{Hello, Sender},
};

/// All peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_id: NodeMap<Peer>,
    /// The peer that has a link-layer address.
    by_mac: BTreeMap<MacAddr, NodeId>,
    silent: BTreeSet<NodeId>,
    speaking: usize,
    /// Number of peers that [are on their way](Peer::is_present), or there.
    present: usize,
    /// Whether any of them may differ from before. Peers that were just heard again do not differ.
    changed: bool,
}

impl Peers {
    /// More nodes than any segment has; more can only be forged by a holder of the key.
    const MAX: usize = 4096;

    /// Returns a peer.
    pub(crate) fn get(&self, id: NodeId) -> Option<&Peer> {
        self.by_id.get(&id)
    }

    /// Returns a peer.
    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.changed = true;
        self.by_id.get_mut(&id)
    }

    /// Returns a peer, for a change that affects neither its presence nor the keys and versions that it reads.
    pub(crate) fn get_for_note(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.by_id.get_mut(&id)
    }

    /// Takes in a Hello of a run of this peer that has not shown that it hears this node. Returns `false` if it is not
    /// a later one.
    pub(crate) fn note_pending(&mut self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        let Some(peer) = self.by_id.get_mut(&sender.node) else { return false };
        let was_present = peer.is_present();
        match peer.note_pending(now, sender, hello) {
            Noted::Replayed => return false,
            Noted::ReadsAsBefore => {}
            Noted::ReadsOther => self.changed = true,
        }
        self.present += usize::from(!was_present && peer.is_present());
        true
    }

    /// Drops the pending run of a peer, which has not shown that it hears this node.
    pub(crate) fn drop_pending(&mut self, id: NodeId) {
        self.changed = true;
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        self.present -= usize::from(peer.is_present());
        peer.pending = None;
        peer.rest.pending_since = None;
        self.present += usize::from(peer.is_present());
    }

    /// A run that has not shown that it hears this node announces that it ends.
    pub(crate) fn pending_ends(&mut self, Sender { node, incarnation, sequence }: Sender) {
        let Some(peer) = self.by_id.get_mut(&node) else { return };
        if peer.pending.as_ref().is_some_and(|pending| pending.incarnation == incarnation) {
            peer.rest.remember_run(incarnation, sequence);
            self.drop_pending(node);
        }
    }

    /// Takes in a Hello that repeats its sender's last one, but for its reports on others, as nearly all of them do.
    /// Returns `false` if it does not repeat it.
    pub(crate) fn hears_again(&mut self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        let run = self.by_id.get_mut(&sender.node).and_then(Peer::speaking_run);
        run.is_some_and(|run| run.repeats(now, sender, hello))
    }

    /// Adds a peer, unless it is there. Returns `false` if there is no room.
    pub(crate) fn add(&mut self, id: NodeId, name: &NodeName) -> bool {
        if self.by_id.len() >= Self::MAX {
            return self.by_id.contains_key(&id);
        }
        self.by_id.entry(id).or_insert_with(|| Peer::new(name.clone()));
        true
    }

    /// Returns whether any peer may have changed since the last call, other than by being heard again.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Returns whether every peer speaks, or is about to.
    pub(crate) fn all_present(&self) -> bool {
        self.present == self.by_id.len()
    }

    /// Sets the presence of a peer.
    pub(crate) fn set_presence(&mut self, id: NodeId, presence: Presence) {
        self.changed = true;
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        self.speaking -= usize::from(peer.speaks());
        self.present -= usize::from(peer.is_present());
        self.silent.remove(&id);
        peer.stand(presence);
        self.speaking += usize::from(peer.speaks());
        self.present += usize::from(peer.is_present());
        if peer.silent_since().is_some() {
            self.silent.insert(id);
        }
    }

    /// Returns how many peers speak.
    pub(crate) fn speaking(&self) -> usize {
        self.speaking
    }

    /// Returns the silent peers.
    pub(crate) fn silent(&self) -> impl Iterator<Item = NodeId> {
        self.silent.iter().copied()
    }

    /// Returns every peer, in an order without meaning.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.by_id.iter().map(|(id, peer)| (*id, peer))
    }

    /// Returns every peer, in an order without meaning.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Peer)> {
        self.changed = true;
        self.by_id.iter_mut().map(|(id, peer)| (*id, peer))
    }

    /// Returns the peer with this link-layer address.
    pub(crate) fn by_mac(&self, mac: MacAddr) -> Option<NodeId> {
        self.by_mac.get(&mac).copied()
    }

    /// Updates a peer's link-layer addresses from the former ones to those that it or the API now states. A node's
    /// statement about itself goes before the API's about another.
    pub(crate) fn learn_macs(&mut self, id: NodeId, before: [Option<MacAddr>; 2]) {
        let now = self.by_id.get(&id).map_or_else(Default::default, Peer::macs);
        if now == before {
            return;
        }
        for mac in before.into_iter().flatten().filter(|mac| !now.contains(&Some(*mac))) {
            self.release_mac(id, mac);
        }
        let [said, listed] = now;
        self.by_mac.extend(said.map(|mac| (mac, id)));
        let says_so = |peer: &Peer| peer.macs()[0] == listed;
        if let Some(mac) = listed
            && !self.by_mac(mac).and_then(|holder| self.get(holder)).is_some_and(says_so)
        {
            self.by_mac.insert(mac, id);
        }
    }

    /// A peer no longer has this link-layer address. Another may have it: a machine that was installed with another
    /// name.
    fn release_mac(&mut self, id: NodeId, mac: MacAddr) {
        if self.by_mac.get(&mac) == Some(&id) {
            self.by_mac.remove(&mac);
            let other = self.iter().find(|(other, peer)| *other != id && peer.macs().contains(&Some(mac)));
            let other = other.map(|(other, _)| (mac, other));
            self.by_mac.extend(other);
        }
    }

    /// Takes in which nodes the API lists on the segment.
    pub(crate) fn list(&mut self, stations: &[ExpectedPeer]) {
        let mut listed: BTreeMap<NodeId, &ExpectedPeer> = stations.iter().map(|s| (s.node.id(), s)).collect();
        let ids: Vec<NodeId> = self.by_id.keys().copied().collect();
        for id in ids {
            self.relist(id, listed.remove(&id));
        }
        for (id, station) in listed {
            if self.add(id, &station.node) {
                self.relist(id, Some(station));
            }
        }
        self.changed = true;
        let silent = &self.silent;
        self.by_id.retain(|id, peer| {
            peer.rest.station.is_some() || peer.run.is_some() || peer.pending.is_some() || silent.contains(id)
        });
    }

    fn relist(&mut self, id: NodeId, station: Option<&ExpectedPeer>) {
        if let Some(peer) = self.by_id.get_mut(&id) {
            let before = peer.macs();
            peer.rest.station = station.map(|station| (station.mac, station.address));
            if peer.probe_target().is_none() {
                peer.rest.kernel.stop();
            }
            if let Some(station) = station {
                peer.rest.name = station.node.clone();
            }
            self.learn_macs(id, before);
            self.bury_replaced(id);
        }
    }

    /// Forgets the run of a dead node whose name another machine has by the API. From now on that machine is asked for
    /// signs of life at its own link-layer address, as a node that was never heard.
    fn bury_replaced(&mut self, id: NodeId) {
        let Some(peer) = self.by_id.get_mut(&id).filter(|peer| peer.presence() == Presence::Dead) else { return };
        let [Some(said), Some(listed)] = peer.macs() else { return };
        if said != listed && peer.run.is_some() {
            peer.forget_run();
            self.set_presence(id, Presence::Unheard);
        }
    }

    /// Forgets a peer.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.set_presence(id, Presence::Unheard);
        self.drop_pending(id);
        let macs = self.by_id.remove(&id).map_or_else(Default::default, |peer| peer.macs());
        for mac in macs.into_iter().flatten() {
            self.release_mac(id, mac);
        }
    }
}
