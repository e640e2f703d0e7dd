//! Membership of the segment by the API: nodes that come, go, are renumbered, replaced or reverted to a snapshot; and
//! nodes of another cluster.

use std::{sync::Arc, time::Duration};

use herald_protocol::{Input, api_view::ExpectedPeer, wire::FrameLimit};

use super::{Event, World};
use crate::{
    api::WATCH_DELAYS,
    history::{History, Role},
    names::{self, Family, HostIx, NodeIx},
    node::Node,
};

/// Time from a change until the speaker writes its SpeakerStatus.
pub(super) const REGISTER_DELAY: Duration = Duration::from_millis(80);

/// Returns what the API lists of each node, and what each node knows of the others.
pub(super) fn stations(history: &History, nodes: &[Node]) -> (Vec<Option<ExpectedPeer>>, Vec<Arc<[ExpectedPeer]>>) {
    let station = |index: NodeIx| ExpectedPeer {
        node: nodes[index].name.clone(),
        mac: nodes[index].mac,
        address: names::known_address(index),
    };
    let all: Vec<_> = (0..nodes.len()).map(station).collect();
    let of = |index: NodeIx| match history.role(index) {
        Role::Member => (0..history.nodes, index),
        Role::Rival => (history.nodes..history.nodes + history.rivals, index),
        Role::SecondOf(first) => (0..history.nodes, first),
    };
    let others = |index: NodeIx| {
        let (of, own) = of(index);
        let (before, after) = all[of.clone()].split_at(own - of.start);
        before.iter().chain(&after[1..]).cloned().collect()
    };
    let known = (0..nodes.len()).map(others).collect();
    let listed = all.iter().take(history.nodes).cloned().map(Some);
    (listed.collect(), known)
}

impl World<'_> {
    /// Returns the host that has this link-layer address now.
    pub(super) fn host_of(&self, mac: herald_protocol::mac::MacAddr) -> Option<HostIx> {
        names::host_of_mac(mac).filter(|host| self.nodes.get(*host).is_none_or(|node| node.mac == mac))
    }

    /// The API's list of the nodes on the segment has changed: all watches will deliver it.
    pub(super) fn publish_stations(&mut self) {
        let all: Arc<[ExpectedPeer]> = self.stations.iter().flatten().cloned().collect();
        for (watch, delay) in WATCH_DELAYS.into_iter().enumerate() {
            self.queue.push(self.now + delay, Event::Stations { watch, all: all.clone() });
        }
    }

    pub(super) fn stations_arrive(&mut self, watch: usize, all: &Arc<[ExpectedPeer]>) {
        for index in 0..self.history.nodes {
            let node = &self.nodes[index];
            if node.watch == watch && node.cut == 0 && node.runs() {
                self.takes_stations(index, all.iter());
            }
        }
    }

    /// A node's watches list the nodes again.
    pub(super) fn stations_listed(&mut self, index: NodeIx) {
        if self.history.role(index) == Role::Member {
            let all: Vec<_> = self.stations.iter().flatten().cloned().collect();
            self.takes_stations(index, all.iter());
        } else {
            self.tell_stations(index);
        }
    }

    fn takes_stations<'a>(&mut self, index: NodeIx, all: impl Iterator<Item = &'a ExpectedPeer>) {
        let node = &mut self.nodes[index];
        node.stations = all.filter(|station| station.node != node.name).cloned().collect();
        self.tell_stations(index);
    }

    /// Tells the node's speaker of the other nodes.
    pub(super) fn tell_stations(&mut self, index: NodeIx) {
        for interface in self.interfaces(index) {
            self.tell_stations_on(interface);
        }
    }

    /// Tells the run on an interface of the other nodes.
    pub(super) fn tell_stations_on(&mut self, interface: NodeIx) {
        let known = self.nodes[self.seconds.node(interface)].stations.clone();
        if let Some(speaker) = &mut self.nodes[interface].speaker {
            speaker.told_of_stations = true;
        }
        self.speaker_handles(interface, Input::Stations(known));
    }

    /// A node's speaker writes its state on the segment, if the API accepts the write.
    pub(super) fn registers(&mut self, index: NodeIx) {
        let node = &self.nodes[index];
        // A speaker that has left the segment reports that.
        let left = node.without_prefix > 0 && node.runs() && node.stalled == 0 && node.down == 0;
        if node.cut > 0 || !(node.speaks() || left) || self.history.role(index) != Role::Member {
            return;
        }
        if self.api.unlisted[index] > node.without_prefix {
            return;
        }
        let Some(interface) = self.published_interface(index) else {
            // A role that is still being decided is not written.
            self.queue.push(self.now + REGISTER_DELAY, Event::Registers(index));
            return;
        };
        let node = &self.nodes[interface];
        let station = node.address.map(|address| ExpectedPeer { node: node.name.clone(), mac: node.mac, address });
        if self.stations[index] != station {
            self.stations[index] = station;
            self.publish_stations();
        }
    }

    /// The API ceases to list a node, or would list it again.
    pub(super) fn listing_changes(&mut self, begins: bool, index: NodeIx) {
        if begins {
            self.api.unlisted[index] += 1;
            self.stations[index] = None;
            self.api.forget_announcer(index);
        } else {
            self.api.unlisted[index] -= 1;
            self.queue.push(self.now + REGISTER_DELAY, Event::Registers(index));
        }
        self.publish_stations();
        self.publish_all();
    }

    /// Another machine takes a node's name. It does not know the former state.
    pub(super) fn machine_is_replaced(&mut self, index: NodeIx) {
        self.kill(index);
        for interface in self.interfaces(index) {
            let node = &mut self.nodes[interface];
            node.machine += 1;
            node.mac = names::mac_of_machine(interface, node.machine);
            node.saved = None;
            node.view.iter_mut().for_each(|vip| *vip = None);
            // The snapshots are of the former machine.
            node.snapshots.iter_mut().for_each(|memory| *memory = None);
            for address in 0..self.history.addresses {
                self.judges.owners.gave_up(address, interface);
            }
        }
    }

    /// A node's own address changes, or changes back.
    pub(super) fn renumbered(&mut self, begins: bool, index: NodeIx, none_left: bool) {
        let node = &mut self.nodes[index];
        let counter = if none_left { &mut node.without_prefix } else { &mut node.renumbered };
        if begins {
            *counter += 1;
        } else {
            *counter -= 1;
        }
        let known = names::known_address(index);
        let other = if Family::of(known) == Family::V4 { Family::V6 } else { Family::V4 };
        node.address = match (node.without_prefix, node.renumbered) {
            (0, 0) => Some(known),
            (0, _) => Some(names::host_address(index, other)),
            _ => None,
        };
        if none_left {
            if begins {
                self.api.unlisted[index] += 1;
            } else {
                self.api.unlisted[index] -= 1;
            }
            self.publish_all();
        }
        if self.nodes[index].without_prefix > 0 {
            self.leaves_segment(index);
        } else {
            self.queue.push(self.now, Event::Start(index));
        }
        self.tell_interface(index);
        self.queue.push(self.now + REGISTER_DELAY, Event::Registers(index));
    }

    /// Tells the node's speaker its own addresses.
    pub(super) fn tell_interface(&mut self, index: NodeIx) {
        let node = &self.nodes[index];
        let (mac, address) = (node.mac, node.address);
        self.speaker_handles(index, Input::Interface { mac, address });
    }

    /// Tells the node's speaker how long frames may be.
    pub(super) fn tell_mtu(&mut self, index: NodeIx) {
        let limit = FrameLimit::of_mtu(self.net.mtu(index));
        self.speaker_handles(index, Input::FrameLimit(limit));
    }

    /// Takes a snapshot of a virtual machine, or lets it go on from the oldest one.
    pub(super) fn snapshot_changes(&mut self, begins: bool, index: NodeIx) {
        let now = self.now;
        let node = &mut self.nodes[index];
        if begins {
            node.take_snapshot(now);
            return;
        }
        if node.snapshots.is_empty() {
            return;
        }
        let Some(memory) = node.snapshots.remove(0) else { return };
        if node.off > 0 || node.down > 0 {
            return;
        }
        self.kill(index);
        for address in 0..self.history.addresses {
            self.judges.owners.gave_up(address, index);
        }
        self.nodes[index].revert(now, memory);
        self.trace(|| format!("node {index}: goes on from a snapshot"));
        let Some(speaker) = &self.nodes[index].speaker else { return };
        let claims = speaker.machine.segment().saved_state().claims;
        let answers: Vec<_> = speaker.answers.iter().map(|(address, mac)| (*address, *mac)).collect();
        for claim in claims {
            if let Some(address) = names::vip_index(claim.address) {
                self.judges.owners.reverted(now, address, index, claim);
            }
        }
        for (address, mac) in answers {
            self.judges.answers[address].push((index, mac));
        }
        // Its connections are broken: it lists again, and reads its link.
        self.resume(index);
        self.tell_interface(index);
        self.tell_mtu(index);
    }
}
