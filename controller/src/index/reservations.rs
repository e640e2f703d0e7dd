//! What addresses are already, as Nodes and other objects say, and who has to know when that changes.

use herald_crds::{address::AddressBlock, virtual_ip::ServiceReference};

use super::Index;
use crate::{action::Subject, allocator::Reservation, view::NodeView};

impl Index {
    pub(super) fn reserve_for_node(&mut self, name: &str, node: &NodeView) {
        let own = node.addresses.iter().copied().map(AddressBlock::single);
        self.reserve(Reservation::Node(name.to_owned()), own);
        let pods = node.pod_networks.iter().copied().map(AddressBlock::from);
        self.reserve(Reservation::Pods(name.to_owned()), pods);
    }

    /// Sets what these addresses are already. If that changes, it concerns the pools that hold them, the Services that
    /// have one, and those that wait. An address in no pool concerns nobody who waits.
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
