//! Clients talk, and from time to time the world is checked.

use std::time::Duration;

use herald_protocol::{api_view::Packet, timers::HOLD_DOWN};

use super::{Event, To, World, steps::keeps_unsettled};
use crate::{
    api::NO_CANDIDATE,
    check::{
        Invariant, Violation,
        flows::{self, Moved, Settled},
    },
    client::{Ask, Reached, Said},
    fault::Condition,
    names::{self, Family, HostIx, NodeIx},
};

/// Time after which clients' caches must be right once everything has settled: three unicast solicitations a second
/// apart, a doubt of a second before, and a broadcast.
const CACHES_SETTLE: Duration = Duration::from_secs(6);

/// Time from one check to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// An address leaves a node that is not a candidate within this time: at once if the protocol is heard, otherwise by
/// way of the API.
const MOVES: Duration = Duration::from_secs(10);

/// A broken path excuses a reset for this long: announcements come in rounds over 3 s, and an entry may be probed only
/// then.
const EXCUSED: Duration = Duration::from_secs(30);

impl World<'_> {
    /// A flow's packet is due.
    pub(super) fn talk(&mut self, client: usize, index: usize) {
        let host = self.nodes.len() + client;
        let now = self.now;
        let flow = &mut self.clients[client][index];
        let address = flow.address;
        let ask = flow.ask(now);
        let mac = flow.mac();
        match ask {
            Some(Ask::Broadcast) => self.solicit(host, To::All, address),
            Some(Ask::Unicast(mac)) => {
                if let Some(to) = self.host_of(mac) {
                    self.solicit(host, To::Host(to), address);
                }
            }
            None => {}
        }
        if let Some(node) = mac.and_then(|mac| self.host_of(mac)).filter(|node| *node < self.nodes.len())
            && self.reachable(host, node)
            && !self.net.loses(&mut self.rng)
            && !self.net.loses(&mut self.rng)
        {
            // A flow does not depend on the interface by which a node is reached.
            let node = self.seconds.node(node);
            let flow = &mut self.clients[client][index];
            let established = flow.established;
            if let Reached::Moved { from, since } = flow.reached(now, node) {
                self.trace(|| format!("client {host}: address {address} moves from node {from} to node {node}"));
                let lately = |at: Duration| !at.is_zero() && now < at + EXCUSED;
                let any = |node: NodeIx, is: &dyn Fn(NodeIx) -> bool| self.interfaces(node).any(is);
                let highest = self.judges.owners.highest(address).map(|interface| self.seconds.node(interface));
                let moved = Moved {
                    client: host,
                    address,
                    from,
                    to: node,
                    node_failed: any(from, &|interface| {
                        !self.reachable(host, interface)
                            || self.trouble.unreachable[interface] >= since
                            || self.trouble.uncovered[interface] >= established
                    }),
                    // A frame that was sent before the change may arrive after it, and after the frames that report it.
                    owner_changed: self
                        .judges
                        .owners
                        .changed_since(address, established.saturating_sub(self.net.longest_delay()))
                        || highest == Some(node)
                        || lately(self.trouble.paths_broken)
                        || self.trouble.unheard.is_some_and(lately)
                        || any(node, &|interface| lately(self.trouble.impaired[interface]))
                        || self.may_lead_elsewhere(address)
                        || self.goes_by_old_memory()
                        || any(from, &|interface| lately(self.trouble.unreachable[interface])),
                };
                if let Some(violation) = flows::moved(now, moved) {
                    self.violate(violation);
                }
            }
        }
        let pause = Duration::from_millis(20) + Duration::from_millis(30).mul_f64(self.rng.f64());
        self.queue.push(now + pause, Event::Talk { client, flow: index });
    }

    /// A client asks for an address.
    pub(super) fn solicit(&mut self, host: HostIx, to: To, address: usize) {
        let asked = names::vip(address);
        let binding = Some((names::host_address(host, Family::of(asked)), names::mac(host)));
        let packet = Packet { source: names::mac(host), binding, asks: Some(asked) };
        self.send_packet(host, to, packet);
    }

    /// A packet arrives at a client.
    pub(super) fn client_hears(&mut self, host: HostIx, from: HostIx, packet: &Packet) {
        self.kernel_answers(host, from, packet);
        let Some((stated, mac)) = packet.binding else { return };
        let Some(address) = names::vip_index(stated) else { return };
        let said = match Family::of(stated) {
            Family::V4 if packet.asks == Some(stated) => Said::Gratuitously,
            Family::V4 => Said::InAnswer,
            Family::V6 => Said::ByAdvertisement,
        };
        let now = self.now;
        for flow in self.clients[host - self.nodes.len()].iter_mut().filter(|flow| flow.address == address) {
            flow.heard(now, mac, said);
        }
    }

    /// Checks whether all is well, if it should be.
    pub(super) fn look(&mut self) {
        self.queue.push(self.now + LOOK_EVERY, Event::Look);
        let Some(since) = self.judges.settled else {
            self.look_for_unserved();
            return;
        };
        self.look_at_addresses();
        if self.now < since + CACHES_SETTLE {
            return;
        }
        self.look_for_untold_conflicts();
        for client in 0..self.clients.len() {
            for index in 0..self.clients[client].len() {
                let flow = &self.clients[client][index];
                let address = flow.address;
                if self.api.entries[address].object.is_none()
                    || !self.is_eligible(address)
                    || self.is_refused(address)
                    || self.may_lead_elsewhere(address)
                {
                    continue;
                }
                // A change a moment ago has yet to reach the clients.
                if self.judges.owners.changed_since(address, self.now.saturating_sub(CACHES_SETTLE)) {
                    continue;
                }
                let settled = Settled {
                    client: self.nodes.len() + client,
                    address,
                    progress: flow.progress,
                    cached: flow.mac().and_then(|mac| self.host_of(mac)),
                    owner: self.answered_with(address),
                };
                if let Some(violation) = flows::settled(self.now, settled) {
                    self.violate(violation);
                    return;
                }
            }
        }
    }

    /// Checks that each address that some node may announce is answered, with one MAC.
    pub(super) fn look_at_addresses(&mut self) {
        for address in 0..self.history.addresses {
            // The conditions under which it must be answered may have come about without a step.
            self.recheck(address);
            let patience = Duration::from_millis(200);
            let missing = self.judges.answered.missing_since(address);
            if let Some(since) = missing.filter(|since| self.now >= *since + patience) {
                self.check_answered(address, since);
            }
            if self.outcome.violation.is_some() {
                return;
            }
        }
        self.look_for_ghosts();
        self.look_for_unserved();
        if let Some((address, a, b)) = self.judges.two_macs.any() {
            let seen = format!(
                "all should be settled, but address {address} is answered by node {} with {} and by node {} with {}",
                a.0, a.1, b.0, b.1
            );
            self.violate(Violation { invariant: Invariant::TwoMacs, at: self.now, seen });
        }
    }

    /// Checks that no address stays with a node that is not a candidate (so that its traffic goes nowhere) while
    /// another node could have it.
    ///
    /// The check also runs while the protocol is not heard at all: ARP passes there.
    fn look_for_unserved(&mut self) {
        let disturbed = |condition: &Condition| match condition {
            Condition::EtherTypeDropped(None) => false,
            Condition::EtherTypeDropped(Some(_)) | Condition::ApiLost(_) | Condition::Stalled(_) => true,
            Condition::Down(..) | Condition::Off(_) => true,
            other => keeps_unsettled(other),
        };
        let sound = !self.conditions.iter().any(disturbed);
        for address in 0..self.history.addresses {
            let owner = self.answered_with(address).map(|interface| self.seconds.node(interface));
            let owner = owner.filter(|owner| *owner < self.history.nodes);
            let left = |owner: NodeIx| {
                let holds = self.judges.owners.holders(address).any(|holder| self.seconds.node(holder) == owner);
                // An address that no other node took after a hand-over is not handed over again for a while.
                let mut speakers =
                    self.interfaces(owner).filter_map(|interface| self.nodes[interface].speaker.as_ref());
                let waits = speakers
                    .any(|speaker| speaker.took_back.get(&address).is_some_and(|at| self.now < *at + HOLD_DOWN));
                holds && !waits && self.api.class(address, owner) == NO_CANDIDATE
            };
            let unserved = sound && owner.is_some_and(left) && self.is_eligible(address);
            let since = self.judges.unserved[address].filter(|_| unserved).unwrap_or(self.now);
            self.judges.unserved[address] = unserved.then_some(since);
            if self.now >= since + MOVES {
                let seen = format!(
                    "address {address} has stayed with node {owner:?}, no candidate, since {:.3} s; another could have it",
                    since.as_secs_f64()
                );
                self.violate(Violation { invariant: Invariant::Unserved, at: self.now, seen });
                return;
            }
        }
    }

    /// Checks that no address is answered whose object is gone.
    fn look_for_ghosts(&mut self) {
        if self.nodes.iter().any(|node| node.cut > 0) {
            return;
        }
        for address in 0..self.history.addresses {
            let Some(node) = self.answered_with(address).filter(|_| self.api.entries[address].object.is_none()) else {
                continue;
            };
            let seen = format!("address {address} is answered with node {node}'s MAC, but its object is gone");
            self.violate(Violation { invariant: Invariant::Ghost, at: self.now, seen });
        }
    }
}
