//! Conditions begin and end.

use std::time::Duration;

use super::{Event, World};
use crate::{
    fault::{Condition, Step, Stop},
    names::{HostIx, NodeIx},
    net::Network,
};

/// Delay from which three probes 50 ms apart may all seem unanswered when the verdict falls.
pub(super) const LONG_DELAY: Duration = Duration::from_millis(20);

/// Loss from which verdicts by three probes are wrong often enough to occur in the histories: at 3 % three round trips
/// in a row fail with a probability of 2e-4, three Hellos of one node with 3e-5; both at once with 6e-9.
const HIGH_LOSS: f64 = 0.05;

impl World<'_> {
    pub(super) fn step(&mut self, index: usize) {
        let Step { begins, condition, .. } = self.steps[index].clone();
        self.trace(|| format!("{} {condition:?}", if begins { "begins" } else { "ends" }));
        self.step_count += 1;
        self.judges.settled = None;
        if self.no_pace_is_promised() {
            self.judges.no_pace_until_step = Some(self.now);
        }
        if begins {
            self.conditions.push(condition.clone());
        } else if let Some(position) = self.conditions.iter().position(|active| *active == condition) {
            self.conditions.remove(position);
        }
        self.note(&condition);
        let hosts = self.nodes.len() + self.clients.len() + 1;
        self.net = Network::under(hosts, self.conditions.iter());
        self.change(begins, &condition);
        self.note(&condition);
        self.note_who_hears();
        for address in 0..self.history.addresses {
            self.recheck(address);
        }
        if !self.conditions.iter().any(keeps_unsettled) {
            self.queue.push(self.now + self.history.settle(), Event::Settled(self.step_count));
        }
    }

    /// Records the facts on which a verdict of the next seconds may rest.
    fn note(&mut self, condition: &Condition) {
        if let Condition::Deaf(node) | Condition::Mute(node) | Condition::Paused(node, false) = condition {
            self.trouble.impaired[*node] = self.now;
        }
        match condition {
            Condition::Off(node) | Condition::Paused(node, _) => {
                for interface in self.interfaces(*node) {
                    self.trouble.unreachable[interface] = self.now;
                }
            }
            Condition::NoCarrier(node)
            | Condition::PortSilent(node)
            | Condition::Deaf(node)
            | Condition::Mute(node)
            | Condition::OtherMachine(node)
            // Its kernel does not answer for the address by which the others know it.
            | Condition::Renumbered(node, _) => self.trouble.unreachable[*node] = self.now,
            Condition::OneWay(..) | Condition::Partition(_) => self.trouble.paths_broken = self.now,
            Condition::Loss(p) if *p >= HIGH_LOSS => self.trouble.paths_broken = self.now,
            Condition::Delay(delay) if *delay >= LONG_DELAY => self.trouble.paths_broken = self.now,
            // No peer misses a second interface on which nothing is announced.
            Condition::EtherTypeDropped(Some(interface))
                if self.seconds.contains(*interface) && !self.judges.owners.is_in_use(*interface) => {}
            // A frame that is too long to pass is not heard either.
            Condition::EtherTypeDropped(_) | Condition::Mtu(..) | Condition::PathMtu(_) => {
                self.trouble.unheard = Some(self.now);
            }
            _ => {}
        }
    }

    fn change(&mut self, begins: bool, condition: &Condition) {
        let one = |count: &mut u32| if begins { *count += 1 } else { *count -= 1 };
        match condition {
            Condition::Off(node) => {
                self.interfaces(*node).for_each(|interface| one(&mut self.nodes[interface].off));
                self.power(*node, begins);
            }
            Condition::Paused(node, clock) => {
                let now = self.now;
                for interface in self.interfaces(*node) {
                    let node_ref = &mut self.nodes[interface];
                    one(&mut node_ref.paused);
                    if begins {
                        node_ref.freeze(now, *clock);
                        // The node cannot know of a pause that does not show on its clock.
                        if *clock {
                            node_ref.stopped_at.get_or_insert(now);
                        }
                    } else if node_ref.paused == 0 && node_ref.thaw(now) {
                        node_ref.stopped_at = None;
                    }
                }
                if self.nodes[*node].paused == 0 {
                    self.resume(*node);
                }
            }
            Condition::Stalled(node) => {
                for interface in self.interfaces(*node) {
                    one(&mut self.nodes[interface].stalled);
                    if begins {
                        self.nodes[interface].stopped_at.get_or_insert(self.now);
                    }
                }
                if !begins {
                    self.resume(*node);
                }
            }
            Condition::Down(node, stop) => {
                self.interfaces(*node).for_each(|interface| one(&mut self.nodes[interface].down));
                if begins {
                    self.stop(*node, *stop);
                } else {
                    self.restart(*node);
                }
            }
            Condition::NoCarrier(interface) => self.update_interfaces(self.seconds.node(*interface)),
            Condition::ApiLost(lost) => {
                let nodes = lost.map_or(0..self.seconds.first, |node| node..node + 1);
                for node in nodes {
                    self.interfaces(node).for_each(|interface| one(&mut self.nodes[interface].cut));
                    if self.nodes[node].cut == 0 {
                        self.reconnected(node);
                    }
                }
            }
            Condition::Absent(address) => {
                one(&mut self.api.entries[*address].absent);
                match (begins, self.api.entries[*address].absent) {
                    (true, 1) => self.api.delete(*address),
                    (false, 0) => self.api.create(self.now, *address, false),
                    _ => return,
                }
                self.publish(*address);
            }
            Condition::AbsentBeforeOlder(address) => {
                one(&mut self.api.entries[*address].absent);
                match (begins, self.api.entries[*address].absent) {
                    (true, 1) => self.api.delete(*address),
                    (false, 0) => {
                        self.api.create(self.now, *address, true);
                        self.judges.owners.born_before(*address);
                    }
                    _ => return,
                }
                self.publish(*address);
            }
            Condition::Unlisted(node) => self.listing_changes(begins, *node),
            Condition::OtherMachine(node) if begins => self.machine_is_replaced(*node),
            Condition::OtherMachine(_) => {}
            Condition::Renumbered(node, none_left) => self.renumbered(begins, *node, *none_left),
            Condition::Mtu(node, _) => self.tell_mtu(*node),
            Condition::Reverted(node) => self.snapshot_changes(begins, *node),
            Condition::NotReady(node) => {
                one(&mut self.api.not_ready[*node]);
                self.publish_all();
            }
            Condition::Excluded(node) => {
                one(&mut self.api.excluded[*node]);
                self.publish_all();
            }
            Condition::NoEndpoint(address, node) => {
                if let Some(without) = &mut self.api.entries[*address].endpoints {
                    one(&mut without[*node]);
                    self.publish(*address);
                }
            }
            Condition::Stranger(address) => self.stranger_changes(begins, *address),
            Condition::KernelAnswers(address, node) => self.kernel_changes(begins, *address, *node),
            Condition::KernelTakes(address, node) => {
                self.kernel_changes(begins, *address, *node);
                if begins {
                    self.kernel_announces(*address, *node);
                }
            }
            Condition::TwoKeys(node) => self.keys_change(begins, *node),
            Condition::Forged(_) => {
                one(&mut self.forger.forging);
                if begins {
                    self.queue.push(self.now, Event::Forge(0));
                }
            }
            Condition::Loss(_)
            | Condition::Delay(_)
            | Condition::Duplicate(_)
            | Condition::Reorder(_)
            | Condition::OneWay(..)
            | Condition::Partition(_)
            | Condition::PortSilent(_)
            | Condition::Deaf(_)
            | Condition::Mute(_)
            | Condition::ProxyArp
            | Condition::Suppression
            | Condition::PathMtu(_)
            | Condition::EtherTypeDropped(_) => {}
        }
    }

    fn power(&mut self, index: NodeIx, off: bool) {
        if off {
            self.kill(index);
            // Clients and speakers cannot tell the cause, so only a fault that is alone is measured.
            if self.history.faults.iter().filter(|fault| fault.node().is_some()).count() == 1 {
                self.measured.off = Some((index, self.now));
            }
        } else if self.nodes[index].off == 0 {
            self.interfaces(index).for_each(|interface| self.nodes[interface].boot += 1);
            self.measured.off = None;
            self.queue.push(self.now, Event::Start(index));
        }
    }

    fn restart(&mut self, index: NodeIx) {
        if self.nodes[index].down > 0 {
            return;
        }
        // A process that was asked to stop and still runs is killed before its successor starts.
        self.kill(index);
        if self.nodes[index].saved.is_none() {
            self.nodes[index].view.iter_mut().for_each(|vip| *vip = None);
        }
        self.queue.push(self.now, Event::Start(index));
    }

    /// Everything has had its time to settle since the step.
    pub(super) fn settles(&mut self, step: u64) {
        // Two views that differ for good never settle.
        if step == self.step_count && !self.history.is_cloned() && !self.conditions.iter().any(keeps_unsettled) {
            self.trace(|| "everything should be settled".to_owned());
            self.judges.settled = Some(self.now);
            self.look_at_addresses();
        }
    }

    /// Returns whether packets can get from one host to the other and back, and the other can answer.
    pub(super) fn reachable(&self, from: HostIx, to: HostIx) -> bool {
        let runs = |host: HostIx| self.nodes.get(host).is_none_or(|node| node.runs());
        runs(from) && runs(to) && (from == to || self.net.connects(from, to, crate::net::Kind::Other))
    }
}

/// Returns whether nothing need be as it should while this condition lasts: chance decides which nodes hear each other,
/// or nodes differ in it.
pub(super) fn keeps_unsettled(condition: &Condition) -> bool {
    match condition {
        Condition::Loss(_)
        | Condition::Delay(_)
        | Condition::Reorder(_)
        | Condition::OneWay(..)
        | Condition::Partition(_)
        | Condition::Deaf(_)
        | Condition::Mute(_)
        | Condition::PortSilent(_)
        | Condition::NoCarrier(_)
        | Condition::Paused(..)
        | Condition::PathMtu(_)
        // A node that drops pings and dies is covered until this condition ends.
        | Condition::Suppression
        | Condition::EtherTypeDropped(_) => true,
        Condition::Down(_, stop) => matches!(stop, Stop::Asked(_)),
        Condition::Duplicate(_)
        | Condition::Stalled(_)
        | Condition::Off(_)
        | Condition::ApiLost(_)
        | Condition::Absent(_)
        | Condition::AbsentBeforeOlder(_)
        | Condition::Unlisted(_)
        | Condition::OtherMachine(_)
        | Condition::Renumbered(..)
        | Condition::Mtu(..)
        | Condition::Reverted(_)
        | Condition::NotReady(_)
        | Condition::Excluded(_)
        | Condition::NoEndpoint(..)
        | Condition::ProxyArp
        | Condition::Stranger(_)
        | Condition::KernelAnswers(..)
        | Condition::KernelTakes(..)
        | Condition::TwoKeys(_)
        | Condition::Forged(_) => false,
    }
}
