//! Cover: two nodes answer for a silent one whose kernel lives (docs/protocol/failure.md#cover).

use std::{collections::BTreeSet, time::Duration};

use super::Engine;
use crate::{io::Event, mutation::Mutation, node::NodeId, peer::Peer};

/// Number of nodes that answer for a silent one, in case one of them fails. Their answers are the same.
pub(super) const COVERERS: usize = 2;

/// The silent nodes that this node answers for.
#[derive(Debug, Default)]
pub(super) struct Covers {
    nodes: BTreeSet<NodeId>,
}

impl Covers {
    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied()
    }
}

impl Engine {
    /// Returns whether this node comes first or second among those that could answer for a silent one. The order is the
    /// same on every node, whatever its view of the API. `unheard`: nodes that the API lists and that are not heard
    /// count as well.
    pub(super) fn is_coverer(&self, id: NodeId, unheard: bool) -> bool {
        let mine = cover_rank(id, self.local.id());
        let counts = |peer: &Peer| peer.takes_part() || unheard && self.may_act_unheard(peer);
        let before = self.peers.iter().filter(|(other, peer)| *other != id && counts(peer));
        before.filter(|(other, _)| cover_rank(id, *other) < mine).take(COVERERS).count() < COVERERS
    }

    /// Returns whether a node needs cover: its speaker is silent, its kernel lives, and it holds an address. Returns
    /// beside that whether the node was never heard.
    pub(super) fn needs_cover(&self, now: Duration, id: NodeId, peer: &Peer) -> (bool, bool) {
        let restarted = peer.listens() && peer.speaks();
        let unheard = peer.may_be_there() && peer.rest.kernel.is_alive(now);
        let silent = restarted || peer.silent_since().is_some() || unheard;
        let alive = self.kernel_silence(peer).is_none();
        let covering = self.covers.contains(id);
        let holds = || self.claims.addresses_of(id).next().is_some() || unheard && !self.presumed_of(id).is_empty();
        (silent && alive && (covering || holds()), unheard)
    }

    /// Returns the nodes that answer for a silent one, by this node's account.
    pub(super) fn coverers(&self, id: NodeId, unheard: bool) -> Vec<NodeId> {
        let counts = |peer: &Peer| peer.takes_part() || unheard && self.may_act_unheard(peer);
        let others = self.peers.iter().filter(|(other, peer)| *other != id && counts(peer)).map(|(other, _)| other);
        let me = (self.participation.is_active()).then_some(self.local.id());
        let mut able: Vec<NodeId> = others.chain(me).collect();
        able.sort_unstable_by_key(|node| cover_rank(id, *node));
        able.truncate(COVERERS);
        able
    }

    /// Begins or ends to cover for a node.
    pub(super) fn update_cover(&mut self, now: Duration, id: NodeId) {
        let Some(peer) = self.peers.get(id) else { return };
        let covering = self.covers.contains(id);
        let able = self.participation.is_able();
        let (needed, unheard) = self.needs_cover(now, id, peer);
        let wanted = needed && able && !self.local.breaks(Mutation::NoCover) && self.is_coverer(id, unheard);
        if wanted && !covering {
            // Another node may have taken an address of it, and this node may have missed the claim.
            if !self.sync.lacks_any() {
                self.covers.nodes.insert(id);
                self.outbox.report(Event::Covering(id));
                self.refresh_answers_of(id);
                if self.peers.iter().any(|(other, peer)| other != id && peer.speaks() && peer.listens()) {
                    self.send_claims_of(id);
                } else {
                    self.send_contested_claims_of(id);
                }
            }
        } else if !wanted && covering {
            self.end_cover(id);
        }
    }

    pub(super) fn end_cover(&mut self, id: NodeId) {
        if self.covers.nodes.remove(&id) {
            self.outbox.report(Event::CoverEnded(id));
            self.refresh_answers_of(id);
        }
    }

    pub(super) fn drop_covers(&mut self) {
        for id in self.covers.nodes.clone() {
            self.end_cover(id);
        }
    }
}

/// Returns the place of a node in the order of those that cover for a silent one: the finalizer of SplitMix64 (Steele,
/// Lea and Flood 2014) over the exclusive or of the two ids. The lowest comes first.
fn cover_rank(silent: NodeId, node: NodeId) -> (u64, NodeId) {
    let mut z = silent.0 ^ node.0;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31), node)
}
