//! One segment of this node: its protocol machine, and what the machine has been told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use herald_protocol::{
    Engine,
    api_view::{self, Station},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
};

use super::sockets::Sockets;
use crate::{interfaces::LocalSegment, packet::Origin};

/// Addresses that come and go are let through together, this long after the first: each time, all filters are made anew.
const LISTEN_SETTLE: Duration = Duration::from_millis(20);

/// A segment in use.
#[derive(Debug)]
pub(super) struct Local {
    /// The interface.
    pub interface: LocalSegment,
    /// The protocol.
    pub machine: Engine,
    /// The addresses that lie here, as the protocol was told of them.
    pub told: BTreeMap<IpAddr, Arc<api_view::Vip>>,
    /// The nodes which the API lists here, as the protocol was told of them; `None`: not yet.
    pub stations: Option<Arc<[Station]>>,
    /// What is answered here.
    pub answered: BTreeSet<IpAddr>,
    /// What the kernel grants.
    pub sockets: Sockets,
    /// Does it take part in the protocol? Not while another of the node's interfaces on the same segment does.
    pub speaks: bool,
    /// The runs on the node's other interfaces, and the link-layer addresses of these, as the protocol was told of them.
    pub siblings: BTreeMap<Incarnation, MacAddr>,
    /// When what is of interest here is to be let through, if that has changed.
    relisten_at: Option<Duration>,
    /// What is of interest here since, and not let through yet.
    unheard: BTreeSet<IpAddr>,
    /// The nodes that are heard, both ways.
    pub peers: BTreeMap<NodeId, NodeName>,
    /// Those that are known to be dead.
    pub dead: BTreeSet<NodeId>,
    /// Those this node answers for here, since their speakers are silent.
    pub covering: BTreeSet<NodeId>,
    /// Does it answer for what it owns? Not while it listens.
    pub answering: bool,
    /// Has it said its last word?
    pub finished: bool,
}

impl Local {
    pub(super) fn new(interface: LocalSegment, machine: Engine, speaks: bool) -> Self {
        Self {
            interface,
            machine,
            told: BTreeMap::new(),
            stations: None,
            answered: BTreeSet::new(),
            sockets: Sockets::default(),
            speaks,
            siblings: BTreeMap::new(),
            relisten_at: Some(Duration::ZERO),
            unheard: BTreeSet::new(),
            peers: BTreeMap::new(),
            dead: BTreeSet::new(),
            covering: BTreeSet::new(),
            answering: false,
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

    /// Returns whether an address lies here, as the protocol was told.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.told.get(&address).is_some_and(|told| !told.candidates.is_empty())
    }

    /// Returns whether any address lies here.
    pub(super) fn is_in_use(&self) -> bool {
        self.told.values().any(|told| !told.candidates.is_empty())
    }

    /// Returns whether the protocol can take part here.
    pub(super) fn has_carrier(&self) -> bool {
        self.is_able() && self.speaks
    }

    /// Returns whether anything can be heard here.
    pub(super) fn is_able(&self) -> bool {
        self.interface.carrier && !self.sockets.are_closed()
    }

    /// The API has brought an address, which may be asked for before long.
    pub(super) fn address_came(&mut self, now: Duration, address: IpAddr) {
        self.unheard.insert(address);
        self.relisten_at.get_or_insert(now + LISTEN_SETTLE);
    }

    /// An address is no longer of interest to the API's view.
    pub(super) fn address_went(&mut self, now: Duration) {
        self.relisten_at.get_or_insert(now + LISTEN_SETTLE);
    }

    /// An address is answered for, or no longer: whom an announcement reaches may ask at once.
    pub(super) fn answers(&mut self, now: Duration, address: IpAddr, answered: bool) {
        if answered {
            self.answered.insert(address);
        } else {
            self.answered.remove(&address);
        }
        if answered && (self.unheard.contains(&address) || !self.told.contains_key(&address)) {
            self.relisten_at = Some(now);
        } else if !answered && !self.told.contains_key(&address) {
            self.address_went(now);
        }
    }

    /// All is to be let through again.
    pub(super) fn relisten(&mut self, now: Duration) {
        self.relisten_at = Some(now);
    }

    /// When [`Local::listen`] has something to say.
    pub(super) fn relisten_at(&self) -> Option<Duration> {
        self.relisten_at
    }

    /// Returns what is to be let through, if it is time for that.
    pub(super) fn listen(&mut self, now: Duration) -> Option<BTreeSet<IpAddr>> {
        self.relisten_at.take_if(|at| *at <= now)?;
        self.unheard.clear();
        Some(self.of_interest())
    }

    /// All that is of interest here: what others announce is defended by knowing of it, and covered without delay.
    fn of_interest(&self) -> BTreeSet<IpAddr> {
        self.told.keys().chain(&self.answered).copied().collect()
    }
}
