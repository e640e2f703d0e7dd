//! Holders of the cluster's addresses without a claim: a host outside the cluster, or a node's own kernel.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use herald_protocol::{
    api_view::Packet,
    claim::{Claim, Reason},
    mac::MacAddr,
    timers::DEFEND_EVERY,
};

use super::{Event, To, World};
use crate::{
    check::{Invariant, Violation, owners::Facts as _},
    history::{RETRY, Rivals},
    names::{self, AddrIx, Family, HostIx, NodeIx},
    net::Kind,
};

/// A stranger repeats its announcement at this interval: more often than the owner may answer it.
const ANNOUNCES_EVERY: Duration = Duration::from_millis(700);

/// An enquiry takes 0.2 s, and its silence counts for 1 s: a holder that appears later is not seen before the first
/// claim.
const SEEN_AFTER: Duration = Duration::from_millis(1500);

/// Time after which clients that went elsewhere have come back: they ask again after 20 s at most, three times by
/// unicast.
const CLIENTS_RETURN: Duration = Duration::from_secs(30);

/// The holders of an address without a claim.
#[derive(Clone, Debug, Default)]
struct Held {
    /// Number of conditions that put a stranger there.
    strangers: u32,
    /// Nodes whose kernels answer, each as often as there are conditions for it.
    kernels: Vec<NodeIx>,
    /// When the last holder came.
    since: Duration,
    /// When a holder last went.
    gone: Option<Duration>,
}

/// The strangers, which are one host, the last on the network; and the kernels.
#[derive(Debug)]
pub(super) struct Strangers {
    held: Vec<Held>,
    /// By node and address: when the node last reported a conflict, and whether it owned the address then.
    told: BTreeMap<(NodeIx, AddrIx), (Duration, bool)>,
}

impl Strangers {
    pub(super) fn new(addresses: usize) -> Self {
        Self { held: vec![Held::default(); addresses], told: BTreeMap::new() }
    }

    /// Returns whether any node has reported a conflict about the address.
    pub(super) fn is_told(&self, address: AddrIx) -> bool {
        self.told.keys().any(|(_, about)| *about == address)
    }
}

impl Held {
    fn is_held(&self) -> bool {
        self.strangers > 0 || !self.kernels.is_empty()
    }

    /// Returns whether the address has a holder, or had one within this time.
    fn is_held_within(&self, now: Duration, time: Duration) -> bool {
        self.is_held() || self.gone.is_some_and(|at| now < at + time)
    }
}

impl World<'_> {
    fn stranger(&self) -> HostIx {
        self.nodes.len() + self.clients.len()
    }

    /// A stranger comes or goes.
    pub(super) fn stranger_changes(&mut self, begins: bool, address: AddrIx) {
        let now = self.now;
        let held = &mut self.strangers.held[address];
        if begins {
            held.strangers += 1;
            held.since = now;
            if held.strangers == 1 {
                self.queue.push(now, Event::Stranger(address));
            }
        } else {
            held.strangers -= 1;
            held.gone = Some(now);
        }
    }

    /// A node's kernel begins or ceases to answer for an address.
    pub(super) fn kernel_changes(&mut self, begins: bool, address: AddrIx, node: NodeIx) {
        let held = &mut self.strangers.held[address];
        if begins {
            held.kernels.push(node);
            held.since = self.now;
        } else if let Some(index) = held.kernels.iter().position(|holder| *holder == node) {
            held.kernels.swap_remove(index);
            held.gone = Some(self.now);
        }
    }

    /// A node's kernel announces an address that it has just taken.
    pub(super) fn kernel_announces(&mut self, address: AddrIx, node: NodeIx) {
        if self.nodes[node].runs() {
            let (vip, mac) = (names::vip(address), self.nodes[node].mac);
            let asks = Some(vip).filter(IpAddr::is_ipv4);
            self.send_packet(node, To::All, Packet { source: mac, binding: Some((vip, mac)), asks });
        }
    }

    /// The stranger announces the address.
    pub(super) fn stranger_announces(&mut self, address: AddrIx) {
        if self.strangers.held[address].strangers == 0 {
            return;
        }
        self.queue.push(self.now + ANNOUNCES_EVERY, Event::Stranger(address));
        let (vip, host) = (names::vip(address), self.stranger());
        let mac = names::mac(host);
        let asks = Some(vip).filter(IpAddr::is_ipv4);
        self.send_packet(host, To::All, Packet { source: mac, binding: Some((vip, mac)), asks });
    }

    /// A packet arrives at a host that may hold addresses without a claim.
    pub(super) fn holder_hears(&mut self, host: HostIx, from: HostIx, packet: &Packet) {
        let Some(asked) = packet.asks.filter(|asked| packet.binding.is_none_or(|(stated, _)| stated != *asked)) else {
            return;
        };
        let Some(held) = names::vip_index(asked).map(|address| &self.strangers.held[address]) else { return };
        let holds = if host == self.stranger() { held.strangers > 0 } else { held.kernels.contains(&host) };
        if !holds {
            return;
        }
        // The answer to a solicitation from :: goes to all (RFC 4861 section 7.2.4).
        let to_all = packet.binding.is_none() && Family::of(asked) == Family::V6;
        let to = if to_all { To::All } else { To::Host(from) };
        let mac = self.mac_of(host);
        self.send_packet(host, to, Packet { source: mac, binding: Some((asked, mac)), asks: None });
    }

    /// Returns whether the cache of a client may lead elsewhere than to the owner.
    pub(super) fn may_lead_elsewhere(&self, address: AddrIx) -> bool {
        self.history.is_contested(address) || self.strangers.held[address].is_held_within(self.now, CLIENTS_RETURN)
    }

    /// Returns whether no node should claim the address, or not yet.
    pub(super) fn is_refused(&self, address: AddrIx) -> bool {
        // A node that was away resumes an address only if no other node took it, and reports nothing if one did.
        let holds =
            |node: NodeIx| self.nodes[node].speaker.as_ref().is_none_or(|speaker| speaker.owns.contains(&address));
        self.may_be_claimed_late(address) && !self.judges.owners.holders(address).any(holds)
    }

    /// Returns whether the first claim of the address may have been put off.
    pub(super) fn may_be_claimed_late(&self, address: AddrIx) -> bool {
        self.history.is_contested(address) || self.strangers.held[address].is_held_within(self.now, RETRY)
    }

    /// Judges a first claim of an address that another host answers for, if no frame is lost or late.
    pub(super) fn judge_first_claim(&self, node: NodeIx, address: AddrIx, claim: &Claim) -> Option<Violation> {
        let held = &self.strangers.held[address];
        let lately = |at: Duration| !at.is_zero() && self.now < at + SEEN_AFTER * 2;
        let known = self.nodes[self.seconds.node(node)].view[address].as_ref().is_none_or(|vip| vip.ever_announced);
        let first = claim.reason == Reason::Vacant && !known && !self.judges.owners.has_claimed(address, claim.birth);
        let sound = self.net.is_uniform() && self.net.loss == 0.0 && !lately(self.trouble.paths_broken);
        if !first || !sound || lately(self.trouble.unreachable[node]) || self.now < held.since + SEEN_AFTER {
            return None;
        }
        let stranger = (held.strangers > 0 && self.net.connects(node, self.stranger(), Kind::Other))
            .then(|| "a stranger".to_owned());
        let answers = |holder: &&NodeIx| {
            let heard = self.nodes[**holder].speaks() && self.net.connects(node, **holder, Kind::Protocol);
            self.seconds.node(**holder) != self.seconds.node(node)
                && heard
                && !lately(self.trouble.unreachable[**holder])
        };
        let kernel = || held.kernels.iter().find(answers).map(|holder| format!("the kernel of node {holder}"));
        let rival = || self.rival_that_answers(node, address).map(|rival| format!("node {rival} of another cluster"));
        let who = stranger.or_else(kernel).or_else(rival)?;
        let seen = format!("node {node} claims address {address} for the first time, but {who} answers for it");
        Some(Violation { invariant: Invariant::Stranger, at: self.now, seen })
    }

    /// Returns the node of another cluster that has answered for an address for long enough to be seen by a node.
    fn rival_that_answers(&self, node: NodeIx, address: AddrIx) -> Option<NodeIx> {
        if self.history.rivals_are == Rivals::Cloned {
            return None;
        }
        let (rival, since) = self.rival_owner(address)?;
        let seen = self.answers_now(rival) && self.net.connects(node, rival, Kind::Other);
        (seen && self.now >= since + SEEN_AFTER).then_some(rival)
    }

    /// Returns whether a node knows nothing of this host, which is another node: the API, as far as it has reached the
    /// node's speaker, does not list the host with its present link-layer address, and the two do not hear each other.
    /// The word of a run that does not echo what it is told does not count (docs/protocol/peers.md#pending).
    fn passes_for_a_stranger(&self, node: NodeIx, host: HostIx) -> bool {
        let Some(other) = self.nodes.get(host) else { return false };
        // A speaker knows the interfaces of its own node.
        if self.seconds.node(host) == self.seconds.node(node) {
            return false;
        }
        let told = self.nodes[node].speaker.as_ref().is_some_and(|speaker| speaker.told_of_stations);
        let listed =
            told && self.nodes[self.seconds.node(node)].stations.iter().any(|station| station.mac == other.mac);
        let truth = self.truth();
        !listed && (truth.unheard(node, host) || truth.apart(node, host))
    }

    /// A node reports a conflict. Returns a violation if there is none, or if the node reports it (and so defends the
    /// address) too often.
    pub(super) fn judge_conflict(&mut self, node: NodeIx, address: AddrIx, mac: MacAddr) -> Option<Violation> {
        let speaker = self.nodes[node].speaker.as_ref()?;
        let owns = speaker.owns.contains(&address);
        let before = self.strangers.told.insert((node, address), (self.now, owns));
        let defended = before.filter(|(at, owned)| *owned && *at >= speaker.started).map(|(at, _)| at);
        // Packets wait in the sockets of a process for as long as the process does not run.
        let held = &self.strangers.held[address];
        let there = self.history.is_contested(address)
            || held.is_held()
            || held.gone.is_some()
            || self.host_of(mac).is_some_and(|host| self.passes_for_a_stranger(node, host));
        let why = match defended.filter(|at| owns && self.now < *at + DEFEND_EVERY) {
            _ if !there => "there is no stranger".to_owned(),
            Some(at) => format!("it reported one at {:.3} s", at.as_secs_f64()),
            None => return None,
        };
        let seen = format!("node {node} reports a conflict about address {address}, but {why}");
        Some(Violation { invariant: Invariant::Stranger, at: self.now, seen })
    }
}
