//! Addresses that are something else already: nodes' own, and those of the cluster's networks.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use herald_crds::address::{AddressBlock, AddressSet};

/// What an address is already.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reservation {
    /// An address of a Node.
    Node(String),
    /// In the pod network of a Node.
    Pods(String),
    /// In the network of the cluster's Services, by the name of its ServiceCIDR.
    Services(String),
    /// A VirtualIP that is named after it and speaks of another address, by its name.
    StrayVirtualIp(String),
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "status.addresses of Node {name}"),
            Self::Pods(name) => write!(f, "spec.podCIDRs of Node {name}"),
            Self::Services(name) => write!(f, "spec.cidrs of ServiceCIDR {name}"),
            Self::StrayVirtualIp(name) => write!(f, "metadata.name of VirtualIP {name}, whose spec.address is another"),
        }
    }
}

/// All of them. Adding costs the runs of one set; taking one away builds the set again, which happens when a node goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserved {
    blocks: BTreeMap<Reservation, Vec<AddressBlock>>,
    all: AddressSet,
}

impl Reserved {
    /// What has changed: `None`: nothing; some blocks added; or more than that.
    pub(super) fn set(&mut self, by: Reservation, blocks: Vec<AddressBlock>) -> Option<Changed> {
        let before = self.blocks.get(&by).map(Vec::as_slice).unwrap_or_default();
        if before == blocks {
            return None;
        }
        let only_added = before.is_empty();
        if blocks.is_empty() {
            self.blocks.remove(&by);
        } else {
            self.blocks.insert(by, blocks.clone());
        }
        if !only_added {
            self.all = self.blocks.values().flatten().collect();
            return Some(Changed::Anything);
        }
        for block in &blocks {
            self.all.insert(block);
        }
        Some(Changed::Added(blocks))
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.all.contains(address)
    }

    /// What the address is.
    pub(super) fn of(&self, address: IpAddr) -> Option<&Reservation> {
        let holds = |block: &AddressBlock| {
            block.family() == AddressBlock::single(address).family()
                && (block.first()..=block.last()).contains(&address)
        };
        let within = self.blocks.iter().filter(|_| self.contains(address));
        within.filter(|(_, blocks)| blocks.iter().any(holds)).map(|(by, _)| by).next()
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &AddressBlock> {
        self.blocks.values().flatten()
    }

    /// What of a set is reserved, and by what.
    pub(super) fn within(&self, set: &AddressSet) -> Vec<(Reservation, AddressSet)> {
        if set.intersection(&self.all).is_empty() {
            return Vec::new();
        }
        let shared = self.blocks.iter().map(|(by, blocks)| (by.clone(), blocks.iter().collect::<AddressSet>()));
        shared.map(|(by, blocks)| (by, blocks.intersection(set))).filter(|(_, shared)| !shared.is_empty()).collect()
    }
}

/// See [`Reserved::set`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// These blocks.
    Added(Vec<AddressBlock>),
    /// Some went.
    Anything,
}
