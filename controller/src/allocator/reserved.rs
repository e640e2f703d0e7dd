//! Reserved addresses: those that no host has, nodes' own, and those of the cluster's networks.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use herald_crds::address::{AddressBlock, AddressSet};
use ipnet::{Ipv4Net, Ipv6Net};

use super::special::{RANGES, SpecialRange};

/// The present use of an address. The order is that in which a pool's condition lists them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reservation {
    /// The address is in a range of which no host has an address.
    Special(SpecialRange),
    /// The address is the network address of a prefix on link at a node.
    NetworkAddress(Ipv4Net),
    /// The address is the broadcast address of a prefix on link at a node.
    BroadcastAddress(Ipv4Net),
    /// The address is the subnet-router anycast address of a prefix on link at a node.
    SubnetRouterAnycast(Ipv6Net),
    /// A Node lists the address.
    Node(String),
    /// The address is on a link of a node, and the Node does not list it; by the name of the node and its
    /// SpeakerStatus.
    Links(String),
    /// The address is in the pod network of a Node.
    Pods(String),
    /// The address is in the network of the cluster's Services, by the name of its ServiceCIDR.
    Services(String),
    /// A VirtualIP is named after the address but has another one in its spec; by the name of the VirtualIP.
    StrayVirtualIp(String),
}

impl fmt::Display for Reservation {
    /// Writes the words that follow "the address is".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special(range) => write!(f, "in {range}"),
            Self::NetworkAddress(net) => write!(f, "the network address of {net}, on link at a node"),
            Self::BroadcastAddress(net) => write!(f, "the broadcast address of {net}, on link at a node"),
            Self::SubnetRouterAnycast(net) => {
                write!(f, "the subnet-router anycast address of {net}, on link at a node")
            }
            Self::Node(name) => write!(f, "in status.addresses of Node {name}"),
            Self::Links(name) => write!(f, "in status.links of SpeakerStatus {name}"),
            Self::Pods(name) => write!(f, "in spec.podCIDRs of Node {name}"),
            Self::Services(name) => write!(f, "in spec.cidrs of ServiceCIDR {name}"),
            Self::StrayVirtualIp(name) => {
                write!(f, "in metadata.name of VirtualIP {name}, whose spec.address is another")
            }
        }
    }
}

impl Reservation {
    /// Returns whether the address stays reserved although a Service shows it in its status. No host has a special
    /// address. A provider that publishes nodes (k3s ServiceLB) wrote an address of a Node; announcing it from another
    /// node would take that node off the network. An address that only a link has may have been bound to it by another
    /// provider for this very Service (kube-vip, PureLB).
    fn outweighs_a_status(&self) -> bool {
        match self {
            Self::Special(_) | Self::Node(_) => true,
            Self::NetworkAddress(_) | Self::BroadcastAddress(_) | Self::SubnetRouterAnycast(_) => false,
            Self::Links(_) | Self::Pods(_) | Self::Services(_) | Self::StrayVirtualIp(_) => false,
        }
    }
}

/// All reservations. An insertion costs the runs of one set; a removal looks at every block once.
#[derive(Clone, Debug)]
pub(super) struct Reserved {
    blocks: BTreeMap<Reservation, Vec<AddressBlock>>,
    all: AddressSet,
}

impl Default for Reserved {
    /// Returns the reservations of every cluster.
    fn default() -> Self {
        let special = RANGES.map(|range| (Reservation::Special(range), vec![AddressBlock::from(range.network)]));
        let blocks = BTreeMap::from(special);
        Self { all: blocks.values().flatten().collect(), blocks }
    }
}

impl Reserved {
    /// Replaces the blocks that one cause reserves, and returns the change; `None` if there is none.
    pub(super) fn set(&mut self, by: Reservation, blocks: Vec<AddressBlock>) -> Option<Changed> {
        let before = self.blocks.remove(&by).unwrap_or_default();
        let without = |of: &[AddressBlock], others: &[AddressBlock]| -> Vec<AddressBlock> {
            of.iter().filter(|block| !others.contains(block)).copied().collect()
        };
        let (added, removed) = (without(&blocks, &before), without(&before, &blocks));
        if !blocks.is_empty() {
            self.blocks.insert(by, blocks);
        }
        let mut freed: AddressSet = removed.iter().collect();
        if !freed.is_empty() {
            // Another cause may reserve some of these addresses too.
            self.blocks().for_each(|block| freed.remove(block));
        }
        self.all.subtract(&freed);
        added.iter().for_each(|block| self.all.insert(block));
        let changed = Changed { added, removed, freed };
        (!changed.added.is_empty() || !changed.removed.is_empty()).then_some(changed)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.all.contains(address)
    }

    /// Returns the first reservation of the address.
    pub(super) fn of(&self, address: IpAddr) -> Option<&Reservation> {
        self.all_of(address).next()
    }

    /// Returns why a Service does not keep the address although its status shows it.
    pub(super) fn outweighing_a_status(&self, address: IpAddr) -> Option<&Reservation> {
        self.all_of(address).find(|by| by.outweighs_a_status())
    }

    fn all_of(&self, address: IpAddr) -> impl Iterator<Item = &Reservation> {
        let holds = move |block: &AddressBlock| {
            block.family() == AddressBlock::single(address).family()
                && (block.first()..=block.last()).contains(&address)
        };
        // Most addresses are not reserved: one search replaces that of all blocks.
        let blocks = self.contains(address).then_some(&self.blocks).into_iter().flatten();
        blocks.filter(move |(_, blocks)| blocks.iter().any(holds)).map(|(by, _)| by)
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &AddressBlock> {
        self.blocks.values().flatten()
    }

    /// Returns the reserved addresses of a set, by reservation.
    pub(super) fn within(&self, set: &AddressSet) -> Vec<(Reservation, AddressSet)> {
        if set.intersection(&self.all).is_empty() {
            return Vec::new();
        }
        let shared = self.blocks.iter().map(|(by, blocks)| (by.clone(), blocks.iter().collect::<AddressSet>()));
        shared.map(|(by, blocks)| (by, blocks.intersection(set))).filter(|(_, shared)| !shared.is_empty()).collect()
    }
}

/// The change made by [`Reserved::set`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    /// The blocks that were not reserved by this cause.
    pub(super) added: Vec<AddressBlock>,
    /// The blocks that this cause no longer reserves.
    pub(super) removed: Vec<AddressBlock>,
    /// The removed addresses that no other cause reserves.
    pub(super) freed: AddressSet,
}
