//! Hand-over by way of the API, where Hellos do not get through.
//!
//! An address moves to a fitter node when that node claims it, and its owner answers until it hears the claim. Where
//! the network drops the protocol's frames, the fitter node does not know that the owner would stop, so it does not
//! claim. Then the owner stops first, and writes that to the API; the fitter node claims when all watches may be
//! expected to have shown that, for a peer may have covered for the owner. No node answers in between, so an owner
//! whose address nobody takes takes it back.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::Engine;
use crate::{
    api_view::GivenUp,
    election::HandedOver,
    hold_down::HoldDown,
    io::{Event, Withdrawal},
    node::NodeId,
    peer::Peer,
    timers::{HAND_OVER_AFTER, HANDED_OVER_PAUSE, TAKE_BACK_AFTER},
};

/// The addresses that this node has handed over, or is about to.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    /// The best of the fitter nodes, and since when none of these is heard.
    wanted: BTreeMap<IpAddr, Successor>,
    /// When each address that no node has taken yet is taken back.
    given: BTreeMap<IpAddr, Duration>,
    /// Until when this node leaves an address alone that its owner has given up.
    seen: BTreeMap<IpAddr, Duration>,
    /// An address that was handed over a while ago is not handed over again.
    tried: HoldDown,
}

/// The node to which an address is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Successor {
    node: NodeId,
    since: Duration,
}

impl HandOvers {
    /// Returns whether an address is to be handed over to this node.
    pub(super) fn concern(&self, node: NodeId) -> bool {
        self.wanted.values().any(|successor| successor.node == node)
    }

    /// Forgets an address whose object is gone.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.wanted.remove(&address);
        self.given.remove(&address);
        self.seen.remove(&address);
        self.tried.forget(address);
    }
}

impl Engine {
    /// Follows which node may take over an address of this node by way of the API: since when the fitter nodes are not
    /// heard, and whether the kernel of the best of them lives.
    pub(super) fn follow_own_hand_over(&mut self, now: Duration, address: IpAddr) {
        let Some(node) = self.wanted_successor(now, address) else {
            self.handovers.wanted.remove(&address);
            return;
        };
        if let Some(until) = self.handovers.tried.until(now, address) {
            self.contest.decide_at(until, address);
            return;
        }
        // Which of the fitter nodes is the best may change all the time: that alone is no reason to wait.
        let since = self.handovers.wanted.get(&address).map_or(now, |successor| successor.since);
        let successor = Successor { node, since };
        self.handovers.wanted.insert(address, successor);
        let due = self.hand_over_due(successor);
        self.ask_unheard(now, node);
        if due > now || !self.is_kernel_alive(now, node) {
            self.contest.decide_at(due.max(now + self.interval()), address);
        }
    }

    /// Returns the node to which an address of this node is handed over now: the best of the candidates that are fitter
    /// by a fresh view, if none of these has been heard for [`HAND_OVER_AFTER`], though its kernel lives.
    pub(super) fn successor_by_api(&self, now: Duration, address: IpAddr) -> Option<NodeId> {
        self.wanted_successor(now, address)?;
        if self.handovers.tried.until(now, address).is_some() {
            return None;
        }
        let successor = *self.handovers.wanted.get(&address)?;
        let is_due = self.hand_over_due(successor) <= now && self.is_kernel_alive(now, successor.node);
        is_due.then_some(successor.node)
    }

    /// Returns the fitter node that is not heard, where this node could hand over to it.
    fn wanted_successor(&self, now: Duration, address: IpAddr) -> Option<NodeId> {
        self.fitter_unheard(address).filter(|_| self.participation.is_able() && self.view_is_fresh(now))
    }

    fn hand_over_due(&self, successor: Successor) -> Duration {
        let fell_silent = self.peers.get(successor.node).and_then(Peer::silent_since).unwrap_or_default();
        successor.since.max(fell_silent) + HAND_OVER_AFTER
    }

    fn is_kernel_alive(&self, now: Duration, node: NodeId) -> bool {
        self.peers.get(node).is_some_and(|peer| peer.rest.kernel.is_alive(now))
    }

    /// Returns the best of the candidates that are fitter than this node, if none of these is heard.
    fn fitter_unheard(&self, address: IpAddr) -> Option<NodeId> {
        let candidates = &self.objects.get(address)?.candidates;
        let mine = candidates.class_of(self.local.id());
        let fitter = candidates.iter().take_while(|candidate| mine.is_none_or(|mine| candidate.class < mine));
        let fitter = fitter.filter_map(|candidate| Some((candidate.node, self.peers.get(candidate.node)?)));
        let mut best = None;
        for (node, peer) in fitter {
            if peer.speaks() {
                return None;
            }
            if best.is_none() && (peer.may_be_there() || peer.silent_since().is_some()) {
                best = Some(node);
            }
        }
        best
    }

    /// Ceases to answer for an address, so that a node which is not heard can claim it.
    pub(super) fn hand_over(&mut self, now: Duration, address: IpAddr, to: NodeId) {
        let why = Withdrawal::HandedOver(to);
        self.handovers.wanted.remove(&address);
        self.handovers.tried.deposed(now, address);
        self.handovers.given.insert(address, now + TAKE_BACK_AFTER);
        self.contest.decide_at(now + TAKE_BACK_AFTER, address);
        self.settle_contention(address);
        // The remembered claims of unheard nodes are older than this node's own, and no node may answer by them now.
        let unheard: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| !peer.speaks()).map(|(id, _)| id).collect();
        self.forget_claims(address, |node| unheard.contains(&node));
        self.withdraw_own(address, Some(why));
        self.outbox.report(Event::Withdrawn { address, why });
    }

    /// Forgets the claims of those other nodes on an address that `are_meant`.
    pub(super) fn forget_claims(&mut self, address: IpAddr, are_meant: impl Fn(NodeId) -> bool) {
        let on = self.claims.on(address).iter().map(|(node, _)| *node);
        for node in on.filter(|node| *node != self.local.id() && are_meant(*node)).collect::<Vec<_>>() {
            self.claims.remove(node, address);
        }
    }

    /// Follows an address that was handed over and that no node is known to hold: sets when it is decided about again.
    pub(super) fn follow_hand_over(&mut self, now: Duration, address: IpAddr) {
        if let Some(take_back) = self.handovers.given.get(&address).copied() {
            if self.participation.is_stalled() {
                // The successor may have taken it meanwhile: this node hears that first.
                self.contest.decide_at(take_back.max(now + self.interval()), address);
            }
            return;
        }
        let Some(until) = self.handovers.seen.get(&address).copied() else { return };
        if until <= now {
            self.handovers.seen.remove(&address);
        } else {
            self.contest.decide_at(until, address);
        }
    }

    /// Returns the state of an address that was handed over and that no node is known to hold.
    pub(super) fn handed_over(&self, now: Duration, address: IpAddr) -> Option<HandedOver> {
        match self.handovers.given.get(&address) {
            Some(take_back) if *take_back <= now && self.participation.is_able() => Some(HandedOver::InVain),
            Some(_) => Some(HandedOver::Lately),
            None => self.handovers.seen.get(&address).filter(|until| **until > now).map(|_| HandedOver::Lately),
        }
    }

    /// Ends the hand-over of an address that a node holds again: this node, or its `successor`, to which it can be
    /// handed over at once the next time.
    pub(super) fn end_hand_over(&mut self, address: IpAddr, successor: bool) {
        self.handovers.seen.remove(&address);
        if self.handovers.given.remove(&address).is_some() && successor {
            self.handovers.tried.forget(address);
        }
    }

    /// Takes in that a node has ceased to answer for an address, by the API. The claims of that node that this node
    /// remembers, or has overheard, are older, unless it hears that node itself.
    ///
    /// Where the node has yielded, the API names the announcer as soon as that owns the address. If it names none, the
    /// announcer was the kernel of a node that had the address for a while, whose speaker may know nothing of it.
    pub(super) fn given_up(&mut self, now: Duration, address: IpAddr, given_up: GivenUp) {
        let node = given_up.by();
        if self.peers.get(node).is_some_and(|peer| peer.speaks()) {
            return;
        }
        let yielded = matches!(given_up, GivenUp::Yielded(_));
        if yielded || self.overhearing.announcer(address) == Some(node) {
            self.overhearing.forget_announcer(address);
        }
        if node != self.local.id() {
            self.claims.remove(node, address);
            self.handovers.seen.insert(address, now + HANDED_OVER_PAUSE);
        } else if yielded {
            // This node has yielded to another node before.
            self.handovers.seen.insert(address, now + TAKE_BACK_AFTER);
        }
    }
}
