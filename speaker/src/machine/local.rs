//! One segment of this node: its protocol machine, and what the machine has been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use herald_segment::{
    Segment,
    node::{NodeId, NodeName},
    view::{self, Station},
};

use crate::{interfaces::LocalSegment, packet::Origin};

/// A segment in use.
#[derive(Debug)]
pub(super) struct Local {
    /// The interface.
    pub interface: LocalSegment,
    /// The protocol.
    pub machine: Segment,
    /// The addresses that lie here, as the protocol was told of them.
    pub told: BTreeMap<IpAddr, Arc<view::Vip>>,
    /// The nodes which the API lists here, as the protocol was told of them; `None`: not yet.
    pub stations: Option<Arc<[Station]>>,
    /// What is answered here.
    pub answered: BTreeSet<IpAddr>,
    /// Has what is of interest here changed since it was last let through?
    pub relisten: bool,
    /// The nodes that are heard, both ways.
    pub peers: BTreeMap<NodeId, NodeName>,
    /// Those that are known to be dead.
    pub dead: BTreeSet<NodeId>,
    /// Those this node answers for here, since their speakers are silent.
    pub covering: BTreeSet<NodeId>,
    /// Has it said its last word?
    pub finished: bool,
}

impl Local {
    pub(super) fn new(interface: LocalSegment, machine: Segment) -> Self {
        Self {
            interface,
            machine,
            told: BTreeMap::new(),
            stations: None,
            answered: BTreeSet::new(),
            relisten: true,
            peers: BTreeMap::new(),
            dead: BTreeSet::new(),
            covering: BTreeSet::new(),
            finished: false,
        }
    }

    /// The node's own addresses here, to ask from.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            mac: self.interface.segment.mac,
            addresses: self.interface.addresses.clone(),
            link_local: self.interface.link_local,
        }
    }

    /// All that is of interest here: what others announce is defended by knowing of it, and covered without delay.
    pub(super) fn of_interest(&self) -> BTreeSet<IpAddr> {
        self.told.keys().chain(&self.answered).copied().collect()
    }
}
