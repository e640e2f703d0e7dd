//! Hand-over by way of the API, where Hellos do not pass.
//!
//! An address moves to a fitter node when that node claims it, and its owner answers until it hears the claim. Where the
//! network drops the protocol's frames, the fitter node does not know that the owner would stop, so it does not claim.
//! Then the owner stops first, and says so by the API; the fitter node claims when all watches may be expected to have
//! shown that, for others covered for the owner. Nobody answers in between, so an owner that hands over to nobody takes the
//! address back.

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
    wire::State,
};

/// What this node has handed over, or is about to.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    /// The best of the nodes that are fitter, and since when none of these is heard.
    wanted: BTreeMap<IpAddr, Successor>,
    /// When each address that nobody has taken yet is to be taken back.
    given: BTreeMap<IpAddr, Duration>,
    /// Until when each address that its owner has given up is left alone.
    seen: BTreeMap<IpAddr, Duration>,
    /// What was handed over a while ago is not handed over again.
    tried: HoldDown,
}

/// A node that an address is to be handed over to.
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

    /// The address is no more.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.wanted.remove(&address);
        self.given.remove(&address);
        self.seen.remove(&address);
        self.tried.forget(address);
    }
}

impl Engine {
    /// The node that an address of this node's is to be handed over to now: the best of the candidates that are fitter by a
    /// fresh view, if none of these has been heard for [`HAND_OVER_AFTER`], though its kernel lives.
    pub(super) fn successor_by_api(&mut self, now: Duration, address: IpAddr) -> Option<NodeId> {
        let Some(node) = self.fitter_unheard(address).filter(|_| self.is_able() && self.view_is_fresh(now)) else {
            self.handovers.wanted.remove(&address);
            return None;
        };
        if let Some(until) = self.handovers.tried.until(now, address) {
            self.turns.set(until, address, ());
            return None;
        }
        let successor = self.handovers.wanted.entry(address).or_insert(Successor { node, since: now });
        // Which of them is the best may change all the time: that alone is no reason to wait.
        successor.node = node;
        let fell_silent = self.peers.get(node).and_then(Peer::silent_since).unwrap_or_default();
        let due = successor.since.max(fell_silent) + HAND_OVER_AFTER;
        self.ask_unheard(now, node);
        let lives = self.peers.get(node).is_some_and(|peer| peer.rest.kernel.is_alive(now));
        if due > now || !lives {
            self.turns.set(due.max(now + self.interval()), address, ());
            return None;
        }
        Some(node)
    }

    /// The best of the candidates that are fitter than this node, if none of these is heard.
    fn fitter_unheard(&self, address: IpAddr) -> Option<NodeId> {
        let candidates = &self.vips.get(&address)?.candidates;
        let mine = candidates.class_of(self.id);
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

    /// Stops to answer for an address, so that a node which is not heard can claim it.
    pub(super) fn hand_over(&mut self, now: Duration, address: IpAddr, to: NodeId) {
        let why = Withdrawal::HandedOver(to);
        self.handovers.wanted.remove(&address);
        self.handovers.tried.deposed(now, address);
        self.handovers.given.insert(address, now + TAKE_BACK_AFTER);
        self.turns.set(now + TAKE_BACK_AFTER, address, ());
        self.settle_contention(address);
        // Those it remembers are older than its own, and nobody is to answer by them now.
        let unheard: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| !peer.speaks()).map(|(id, _)| id).collect();
        self.forget_claims(address, |node| unheard.contains(&node));
        self.strike(address, Some(why));
        self.tell(Event::Withdrawn { address, why });
    }

    /// Forgets the claims of others on an address, of those that are meant.
    pub(super) fn forget_claims(&mut self, address: IpAddr, are_meant: impl Fn(NodeId) -> bool) {
        let on = self.book.on(address).iter().map(|(node, _)| *node);
        for node in on.filter(|node| *node != self.id && are_meant(*node)).collect::<Vec<_>>() {
            self.book.remove(node, address);
        }
    }

    /// How it stands with an address that was handed over and that nobody is known to hold.
    pub(super) fn handed_over(&mut self, now: Duration, address: IpAddr) -> Option<HandedOver> {
        let Some(take_back) = self.handovers.given.get(&address).copied() else {
            let until = *self.handovers.seen.get(&address)?;
            if until <= now {
                self.handovers.seen.remove(&address);
                return None;
            }
            self.turns.set(until, address, ());
            return Some(HandedOver::Lately);
        };
        if self.stall.is_some() {
            // The successor may have taken it meanwhile: that is heard first.
            self.turns.set(take_back.max(now + self.interval()), address, ());
        }
        Some(if take_back <= now && self.is_able() { HandedOver::InVain } else { HandedOver::Lately })
    }

    /// Somebody holds the address: this node, or its `successor`, to which it can be handed over again at once the next
    /// time.
    pub(super) fn end_hand_over(&mut self, address: IpAddr, successor: bool) {
        self.handovers.seen.remove(&address);
        if self.handovers.given.remove(&address).is_some() && successor {
            self.handovers.tried.forget(address);
        }
    }

    /// May it stop to answer, or begin to? Where it does not take part now, it decides anew once it does.
    fn is_able(&self) -> bool {
        self.state == State::Active && self.stall.is_none() && self.carrier
    }

    /// The API says that a node has stopped to answer for an address. What this node remembers of its claims, or has
    /// overheard, is older, unless it hears that node itself.
    ///
    /// Where the node has yielded, whoever announced the address is named by the API as soon as it owns it. If it is not, it
    /// was the kernel of a node that had the address for a while, whose speaker may know nothing of it.
    pub(super) fn given_up(&mut self, now: Duration, address: IpAddr, given_up: GivenUp) {
        let node = given_up.by();
        if self.peers.get(node).is_some_and(|peer| peer.speaks()) {
            return;
        }
        let yielded = matches!(given_up, GivenUp::Yielded(_));
        if yielded || self.announced_unheard.get(&address) == Some(&node) {
            self.announced_unheard.remove(&address);
        }
        if node != self.id {
            self.book.remove(node, address);
            self.handovers.seen.insert(address, now + HANDED_OVER_PAUSE);
        } else if yielded {
            // To another node before itself.
            self.handovers.seen.insert(address, now + TAKE_BACK_AFTER);
        }
    }
}
