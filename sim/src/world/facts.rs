//! Facts for the invariants.

use std::time::Duration;

use herald_protocol::timers::lost_after;

use super::{Event, World, trouble::Trouble};
use crate::{
    api::{Api, NO_CANDIDATE},
    check::{
        owners::{Facts, Owners},
        retries,
        two_macs::{self, Answer},
    },
    fault::Condition,
    names::{AddrIx, NodeIx, Seconds},
    net::{Kind, Network},
    node::Node,
};

/// How long ago the observation may be on which a verdict rests.
const A_MOMENT: Duration = Duration::from_secs(6);

/// Greatest age of a view by which a move is made: 30 s, the watch's delay, and the steps from one to the other.
const VIEW_AGE: Duration = Duration::from_secs(36);

/// The facts, borrowed while the checks are changed.
pub(super) struct Truth<'a> {
    now: Duration,
    net: &'a Network,
    nodes: &'a [Node],
    api: &'a Api,
    trouble: &'a Trouble,
    interval: Duration,
    cloned: bool,
    seconds: Seconds,
}

/// An address that no node could announce is announced this long after a node can: watches, two probes 100 ms apart,
/// and some candidates that step in late.
const CLAIM: Duration = Duration::from_millis(1500);

impl Truth<'_> {
    fn lately(&self, at: Duration) -> bool {
        !at.is_zero() && self.now < at + A_MOMENT
    }
}

impl Facts for Truth<'_> {
    fn node(&self, interface: NodeIx) -> NodeIx {
        self.seconds.node(interface)
    }

    fn apart(&self, a: NodeIx, b: NodeIx) -> bool {
        let renumbered = |node: &Node| node.renumbered > 0 || node.without_prefix > 0;
        let lost = |node: NodeIx| {
            !self.nodes[node].runs() || self.lately(self.trouble.unreachable[node]) || renumbered(&self.nodes[node])
        };
        lost(a)
            || lost(b)
            || !self.net.connects(a, b, Kind::Other)
            || self.lately(self.trouble.paths_broken)
            || self.net.loss >= 0.05
            || self.net.delay >= Duration::from_millis(20)
    }

    fn silent_for(&self, node: NodeIx) -> Duration {
        let sent = self.seconds.interfaces(self.node(node)).map(|interface| self.trouble.last_sent[interface]);
        self.now - sent.max().unwrap_or_default()
    }

    fn leaving(&self, node: NodeIx) -> bool {
        self.nodes[node].speaker.as_ref().is_some_and(|speaker| speaker.leaving)
            || self.trouble.told_to_leave[self.node(node)].is_some_and(|at| self.now < at + A_MOMENT)
    }

    fn deaf(&self, node: NodeIx) -> bool {
        self.lately(self.trouble.unreachable[node])
            || self.lately(self.trouble.paths_broken)
            || !(0..self.nodes.len())
                .any(|other| self.node(other) != self.node(node) && self.net.carries(other, node, Kind::Other))
    }

    fn better(&self, address: AddrIx, first: NodeIx, second: NodeIx) -> bool {
        // The node may have belonged to the clone by then, and the clone's nodes are not candidates here.
        self.cloned || self.api.was_better(self.now, VIEW_AGE, address, self.node(first), self.node(second))
    }

    fn excluded(&self, address: AddrIx, node: NodeIx) -> bool {
        // The address may have been taken since from a node of the clone.
        self.cloned || self.api.was_excluded(self.now, VIEW_AGE, address, self.node(node))
    }

    fn unheard(&self, a: NodeIx, b: NodeIx) -> bool {
        !self.net.connects(a, b, Kind::Protocol)
            || !self.net.fits_all(a, b)
            || self.trouble.unheard.is_some_and(|at| self.now < at + A_MOMENT)
    }

    fn hears_nothing(&self, node: NodeIx) -> bool {
        // Frames that came just before count as evidence until a silence shows: one and a half intervals after the last
        // Hello.
        let patience = self.interval * 2 + self.net.longest_delay();
        // A machine that was set back to a snapshot, or that stood still together with its clock, remembers that it
        // heard others just now, whatever it hears since.
        let reverted = self.nodes[node].reverted.map(|(_, reverted)| reverted);
        let remembers = reverted.max(self.nodes[self.node(node)].thawed_at);
        self.trouble.deaf_since[node].is_some_and(|since| {
            // A run that has heard clients, and was alone among the nodes, misses no peer.
            let spoke = |other: &NodeIx| {
                self.node(*other) != self.node(node) && self.trouble.last_sent[*other] + patience >= since
            };
            let misses = self.started(node) >= since || (0..self.nodes.len()).any(|other| spoke(&other));
            misses && self.now > since.max(remembers.unwrap_or_default()) + patience
        })
    }

    fn started(&self, node: NodeIx) -> Duration {
        self.nodes[node].speaker.as_ref().map_or(self.now, |speaker| speaker.started)
    }

    fn flight(&self, to: NodeIx) -> Duration {
        // The digest of the next Hello but one makes up for a frame that is lost or overtakes another.
        let made_good = if self.net.is_uniform() { 0 } else { 2 } + 3 * retries(self.net.loss);
        // Frames that wait in the sockets of a process that was stopped for too short a time to notice are read in
        // their order.
        let waited = self.nodes[to].speaker.as_ref().and_then(|speaker| speaker.waited).filter(|waited| {
            let (from, until) = *waited;
            until - from <= lost_after(self.interval) + self.interval && self.now <= until
        });
        // A machine that was reverted knows nothing that was sent since the snapshot, until each peer has sent a Hello.
        let reverted = self.nodes[to].reverted.filter(|(_, at)| self.now <= *at + self.interval * 2);
        let waited = waited.or(reverted).map_or(Duration::ZERO, |(from, until)| until - from);
        self.net.longest_delay() + Duration::from_millis(1) + self.interval * made_good + waited
    }
}

impl World<'_> {
    /// Returns the facts as they are now.
    pub(super) fn truth(&self) -> Truth<'_> {
        Truth {
            now: self.now,
            net: &self.net,
            nodes: &self.nodes,
            api: &self.api,
            trouble: &self.trouble,
            interval: self.history.interval(),
            seconds: self.seconds,
            cloned: self.history.is_cloned(),
        }
    }

    /// Compares a claim with the owners so far and with the facts.
    pub(super) fn judge_owned(
        &mut self,
        node: NodeIx,
        address: AddrIx,
        claim: herald_protocol::claim::Claim,
    ) -> Option<crate::check::Violation> {
        // Taken out while they change, because the facts borrow the world.
        let mut owners = std::mem::replace(&mut self.judges.owners, Owners::new(0));
        let found = owners.owned(self.now, address, node, claim, &self.truth());
        self.judges.owners = owners;
        found
    }

    /// The nodes that answer, or that can be reached, have changed: looks at the address again.
    pub(super) fn recheck(&mut self, address: AddrIx) {
        let mut contested = false;
        if self.judges.answers[address].windows(2).any(|pair| pair[0].1 != pair[1].1) {
            let answers = self.judges.answers[address].iter().copied();
            let real: Vec<_> = answers.filter(|(node, _)| self.answers_now(*node)).collect();
            contested = true;
            let net = &self.net;
            // Another cluster is a stranger; and a segment on which permitted frames are lost is not connected.
            let (first, members) = (self.history.nodes, self.history.nodes + self.history.rivals);
            let rival = |node: NodeIx| (first..members).contains(&node);
            let cloned = self.history.is_cloned();
            let seconds = self.seconds;
            let nodes = &self.nodes;
            // A node's interfaces belong to one process, which knows on which of them an address lies. (On each of two
            // segments it may cover for a third node.)
            let is_own = |(node, mac): &Answer| nodes[*node].mac == *mac;
            let is_one_node = |a: &Answer, b: &Answer| seconds.node(a.0) == seconds.node(b.0) && is_own(a) && is_own(b);
            let hear =
                |a, b| (cloned || rival(a) == rival(b)) && net.connects(a, b, Kind::Protocol) && net.fits_all(a, b);
            self.judges.two_macs.update(self.now, address, &real, |a, b| is_one_node(a, b) || hear(a.0, b.0));
            let bound = two_macs::bound(self.history.interval(), net.loss, net.longest_delay());
            self.judges.two_macs.known(self.now, bound, is_one_node);
        }
        if !contested && !self.judges.two_macs.is_empty() {
            self.judges.two_macs.update(self.now, address, &[], |_, _| false);
        }
        let vantage = self.nodes.len();
        let answered = self.judges.answers[address].iter().any(|(node, mac)| {
            let owner = self.host_of(*mac);
            self.answers_now(*node)
                && !self.is_rival(*node)
                && self.reachable(vantage, *node)
                && owner.is_some_and(|owner| self.reachable(vantage, owner))
        });
        let eligible = self.is_eligible(address) && !self.is_refused(address);
        match (&mut self.judges.eligible[address], eligible) {
            (since @ None, true) => *since = Some(self.now),
            (since @ Some(_), false) => *since = None,
            _ => {}
        }
        if self.judges.answered.update(self.now, address, answered || !eligible)
            && let Some(bound) = self.gap()
        {
            let event = Event::Answered { address, since: self.now };
            self.queue.push(self.now + bound, event);
        }
    }

    /// A step has changed which nodes can hear each other.
    pub(super) fn note_who_hears(&mut self) {
        for node in 0..self.nodes.len() {
            let covers = |other: NodeIx| {
                let is_other = self.seconds.node(other) != self.seconds.node(node);
                is_other && self.nodes[other].speaks() && self.net.connects(node, other, Kind::Protocol)
            };
            if !self.nodes[node].speaks() && !(0..self.nodes.len()).any(covers) {
                self.trouble.uncovered[node] = self.now;
            }
        }
        let hosts = self.nodes.len() + self.clients.len();
        for node in 0..self.nodes.len() {
            let hears = (0..hosts).any(|host| {
                let runs = self.nodes.get(host).is_none_or(Node::runs);
                let is_other = self.seconds.node(host) != self.seconds.node(node);
                is_other && runs && self.net.carries(host, node, Kind::Other)
            });
            let hears = hears || (self.net.proxy_arp || self.net.suppresses) && self.net.delivers(node);
            let since = self.trouble.deaf_since[node].unwrap_or(self.now);
            self.trouble.deaf_since[node] = (!hears).then_some(since);
        }
    }

    /// Returns whether a machine was set back to a snapshot while the protocol was dropped, so that no peer can tell
    /// it, or recorded frames were played back then, so that nodes believe different ones. Their answers are not
    /// promised then (docs/protocol/peers.md#snapshot, docs/protocol/frames.md#attack-held-back).
    pub(super) fn goes_by_old_memory(&self) -> bool {
        let drops = |condition: &Condition| matches!(condition, Condition::EtherTypeDropped(_));
        let since = |dropped: Duration| {
            self.nodes.iter().any(|node| node.reverted.is_some_and(|(_, reverted)| reverted >= dropped))
                || self.trouble.played_back.is_some_and(|at| at >= dropped)
        };
        self.conditions.iter().any(drops) && self.trouble.unheard.is_some_and(since)
    }

    /// Returns whether the node's speaker runs and answers.
    pub(super) fn answers_now(&self, index: NodeIx) -> bool {
        let node = &self.nodes[index];
        node.speaks() && node.speaker.as_ref().is_some_and(|speaker| speaker.answering)
    }

    /// Returns the interface with whose MAC the cluster answers for an address.
    pub(super) fn answered_with(&self, address: AddrIx) -> Option<NodeIx> {
        let (_, mac) =
            self.judges.answers[address].iter().find(|(node, _)| self.answers_now(*node) && !self.is_rival(*node))?;
        self.host_of(*mac)
    }

    /// Looks at all addresses that a node answers for.
    pub(super) fn recheck_node(&mut self, index: NodeIx) {
        let answers: Vec<_> =
            self.nodes[index].speaker.iter().flat_map(|speaker| speaker.answers.keys().copied()).collect();
        for address in answers {
            self.recheck(address);
        }
    }

    /// Returns how long an address may be unanswered from now on. `None`: there is no bound.
    pub(super) fn gap(&self) -> Option<Duration> {
        if self.judges.settled.is_some() {
            return Some(Duration::from_millis(50));
        }
        // Before the first step the first claims take their time.
        self.history.gap.filter(|_| self.step_count > 0)
    }

    /// Returns whether a node can announce the address and, by the true state, may.
    pub(super) fn is_eligible(&self, address: AddrIx) -> bool {
        let vantage = self.nodes.len();
        let Some(object) = &self.api.entries[address].object else { return false };
        (0..self.seconds.first).any(|node| {
            let viewed = self.nodes[node].view[address].as_ref();
            self.nodes[node].speaks()
                && self.api.class(address, node) != NO_CANDIDATE
                && !self.may_doubt_birth(address, node)
                && viewed.is_some_and(|vip| {
                    let named = vip.candidates.iter().any(|candidate| candidate.node == self.nodes[node].id);
                    vip.uid == object.uid && named
                })
                && self
                    .interfaces(node)
                    .any(|interface| self.takes_part(interface) && self.reachable(vantage, interface))
        })
    }

    /// Returns whether a node may still take the object for a known deleted one: its birth is not later, the node has
    /// started since it was created, and nothing has confirmed for 30 s what the node's view shows
    /// (docs/protocol/ownership.md#births).
    pub(super) fn may_doubt_birth(&self, address: AddrIx, node: NodeIx) -> bool {
        let started = self.nodes[node].speaker.as_ref().map(|speaker| speaker.started);
        let since = |created: Duration| started.is_some_and(|at| at >= created && self.now < at + VIEW_AGE);
        self.api.entries[address].born_before.is_some_and(since)
    }

    pub(super) fn check_answered(&mut self, address: AddrIx, since: Duration) {
        if self.judges.answered.missing_since(address) != Some(since) {
            return;
        }
        let Some(bound) = self.gap() else { return };
        // If no node was eligible a moment ago, watches are late, and the address is claimed as a new one is.
        let Some(eligible) = self.judges.eligible[address] else { return };
        let claimed_by = eligible + CLAIM;
        if self.now < claimed_by {
            self.queue.push(claimed_by, Event::Answered { address, since });
            return;
        }
        if let Some(violation) = self.judges.answered.overdue(self.now, address, bound) {
            self.violate(violation);
        }
    }
}
