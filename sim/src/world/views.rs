//! The API's watches, and the speakers' writes.

use std::sync::Arc;

use herald_protocol::api_view::Vip;

use super::{Event, World, outputs::STATUS_DELAY};
use crate::{
    api::{FRESH_EVERY, WATCH_DELAYS},
    history::Role,
    names::{AddrIx, NodeIx},
    node::Speaker,
};

impl World<'_> {
    /// An address has changed: all watches will deliver it.
    pub(super) fn publish(&mut self, address: AddrIx) {
        let vip = self.api.publish(self.now, address);
        for (watch, delay) in WATCH_DELAYS.into_iter().enumerate() {
            self.queue.push(self.now + delay, Event::View { watch, address, vip: vip.clone() });
        }
        self.recheck(address);
    }

    /// A node has changed: all watches will deliver every address.
    pub(super) fn publish_all(&mut self) {
        for address in 0..self.history.addresses {
            self.publish(address);
        }
    }

    pub(super) fn view_arrives(&mut self, watch: usize, address: AddrIx, vip: &Option<Arc<Vip>>) {
        for index in 0..self.history.nodes {
            let node = &mut self.nodes[index];
            if node.watch != watch || node.cut > 0 || !node.runs() {
                continue;
            }
            node.view[address].clone_from(vip);
            if !node.speaks() {
                continue;
            }
            // If the node owns the address and another has written that no node announces it, the node writes again.
            let owns = self.says_it_owns(index, address);
            if owns && vip.as_ref().is_some_and(|vip| vip.announced_by.is_none() && vip.given_up.is_some()) {
                self.queue.push(self.now + STATUS_DELAY, Event::Status { node: index, address });
            }
            self.tell_address(index, address);
        }
    }

    /// A node's watches list everything: after a start, or when the API can be reached again. A speaker that starts
    /// without the API has what it saved before.
    pub(super) fn listed(&mut self, index: NodeIx) {
        let connected = self.nodes[index].cut == 0;
        let role = self.history.role(index);
        if connected && self.nodes[index].speaks() {
            for address in 0..self.history.addresses {
                let published = self.api.entries[address].published.last();
                self.nodes[index].view[address] = match role {
                    Role::Member => published.and_then(|(_, vip)| vip.clone()),
                    Role::Rival => self.other.view[address].clone(),
                    // It has the process of the first interface.
                    Role::SecondOf(_) => None,
                };
            }
        }
        if !self.nodes[index].speaks() {
            return;
        }
        if connected {
            self.stations_listed(index);
        } else if self.nodes[index].saved.is_some() {
            self.tell_stations(index);
        }
        self.is_listed(index);
        for address in 0..self.history.addresses {
            // Without the API, an address that never came is unknown, not deleted.
            if connected || self.nodes[index].view[address].is_some() {
                self.tell_address(index, address);
            }
        }
        if connected {
            self.view_is_fresh(index);
        }
    }

    /// Returns whether a node's speaker reports that it owns an address.
    fn says_it_owns(&self, node: NodeIx, address: AddrIx) -> bool {
        let owns = |speaker: &Speaker| speaker.owns.contains(&address);
        self.interfaces(node).any(|interface| self.nodes[interface].speaker.as_ref().is_some_and(owns))
    }

    pub(super) fn fresh(&mut self) {
        for index in 0..self.seconds.first {
            if self.nodes[index].cut == 0 {
                self.view_is_fresh(index);
            }
        }
        self.queue.push(self.now + FRESH_EVERY, Event::Fresh);
    }

    /// A speaker writes whether it owns an address.
    pub(super) fn status_arrives(&mut self, index: NodeIx, address: AddrIx) {
        if self.history.role(index) != Role::Member {
            return;
        }
        let node = &self.nodes[index];
        if node.cut > 0 || !node.speaks() {
            return;
        }
        let owns = self.says_it_owns(index, address);
        let mut speakers = self.interfaces(index).filter_map(|interface| self.nodes[interface].speaker.as_ref());
        let given_up = speakers.find_map(|speaker| speaker.given_up.get(&address).copied());
        let Some(object) = &mut self.api.entries[address].object else { return };
        let before = (object.announced_by, object.ever_announced, object.given_up);
        // A writer whose view is of an older object addresses that object by its UID, and is refused.
        let same = node.view[address].as_ref().is_some_and(|vip| vip.uid == object.uid);
        if owns && same {
            object.announced_by = Some(index);
            object.ever_announced = true;
            object.given_up = None;
        } else if !owns && object.announced_by.is_none_or(|by| by == index) {
            object.announced_by = None;
            object.given_up = given_up.or(object.given_up);
        }
        if (object.announced_by, object.ever_announced, object.given_up) != before {
            self.publish(address);
        } else if owns && !same {
            self.queue.push(self.now + FRESH_EVERY, Event::Status { node: index, address });
        }
    }

    /// The API can be reached again: writes that could not be made are made.
    pub(super) fn reconnected(&mut self, index: NodeIx) {
        let delay = WATCH_DELAYS[self.nodes[index].watch];
        self.queue.push(self.now + delay, Event::Listed(index));
        self.queue.push(self.now + delay, Event::Registers(index));
        let owned = (0..self.history.addresses).filter(|address| self.says_it_owns(index, *address));
        let owned: Vec<_> = owned.collect();
        for address in owned {
            self.queue.push(self.now + delay * 2, Event::Status { node: index, address });
        }
    }
}
