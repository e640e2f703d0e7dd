//! Reservations from Nodes, SpeakerStatuses and other objects, and the objects to decide again when they change.

use std::collections::BTreeSet;

use herald_crds::{address::AddressBlock, virtual_ip::ServiceReference};
use ipnet::IpNet;

use super::Index;
use crate::{
    action::Subject,
    allocator::{Reservation, subnet_reservations},
};

impl Index {
    /// Reserves the addresses and the pod networks that the Node and the SpeakerStatus of this name list, as far as
    /// these objects still exist.
    pub(super) fn reserve_for_node(&mut self, name: &str) {
        let node = self.nodes.get(name);
        let listed: BTreeSet<_> = node.into_iter().flat_map(|node| &node.addresses).copied().collect();
        let pods: Vec<_> = node.into_iter().flat_map(|node| &node.pod_networks).copied().collect();
        let links = self.speakers.get(name).into_iter().flat_map(|entry| &entry.view.link_addresses);
        // An address that the Node lists as well is reserved once.
        let of_links: BTreeSet<_> = links.map(IpNet::addr).filter(|address| !listed.contains(address)).collect();
        self.reserve(Reservation::Node(name.to_owned()), listed.into_iter().map(AddressBlock::single));
        self.reserve(Reservation::Pods(name.to_owned()), pods.into_iter().map(AddressBlock::from));
        self.reserve(Reservation::Links(name.to_owned()), of_links.into_iter().map(AddressBlock::single));
    }

    /// Reserves the addresses that follow from the on-link prefixes that one node newly reports, and releases those
    /// that followed from prefixes which only that node reported.
    pub(super) fn reserve_for_prefixes(&mut self, before: &BTreeSet<IpNet>, now: &BTreeSet<IpNet>) {
        let change = self.on_link.replace(before, now);
        for (by, block) in change.appeared.into_iter().flat_map(subnet_reservations) {
            self.reserve(by, [block]);
        }
        for (by, _) in change.vanished.into_iter().flat_map(subnet_reservations) {
            self.reserve(by, []);
        }
    }

    /// Sets the addresses that one cause reserves. A change concerns the pools that hold these addresses, the Services
    /// that have one, and waiting Services. An address in no pool does not concern a waiting Service.
    pub(super) fn reserve(&mut self, by: Reservation, blocks: impl IntoIterator<Item = AddressBlock>) {
        let changed = self.allocator.set_reserved(by, blocks.into_iter().collect());
        let pools = self.allocator.pools_over(&changed);
        if !pools.is_empty() {
            self.mark_waiting();
        }
        for pool in pools {
            self.mark(Subject::Pool(pool));
        }
        let holders = changed.iter().flat_map(|block| self.allocator.holders_within(block));
        for service in holders.cloned().collect::<Vec<ServiceReference>>() {
            self.mark_service(&service);
        }
    }
}
