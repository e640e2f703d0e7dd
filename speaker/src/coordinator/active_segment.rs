//! One segment of this node: its engine, and the facts that the engine has received.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use herald_protocol::{
    Engine,
    api_view::{self, ExpectedPeer},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
};

use super::sockets::Sockets;
use crate::{answer_table::Statement, interfaces::LocalSegment, packet::Origin};

/// Time for which address changes are collected: the filters let the new addresses through together, this long after
/// the first change, because each update makes all filters again.
const LISTEN_SETTLE: Duration = Duration::from_millis(20);

/// A segment in use.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    /// The interface.
    pub interface: LocalSegment,
    /// The engine of the protocol.
    pub engine: Engine,
    /// The addresses that lie here, with the facts that the engine received last.
    pub told: BTreeMap<IpAddr, Arc<api_view::Vip>>,
    /// The nodes which the API lists here, as the engine received them last; `None`: the engine has not received any
    /// yet.
    pub stations: Option<Arc<[ExpectedPeer]>>,
    /// The time until which the engine does not receive the nodes that the API lists here, because the list may lack some.
    stations_due: Option<Duration>,
    /// The addresses that this node answers for here.
    pub answered: BTreeSet<IpAddr>,
    /// The answers that have changed since they were stated last.
    pub changed_answers: Vec<(IpAddr, Option<MacAddr>)>,
    /// Whether the segment's answers were ever stated.
    pub stated: bool,
    /// The state of the segment's sockets.
    pub sockets: Sockets,
    /// Whether the interface takes part in the protocol. The interface does not while another of the node's interfaces
    /// on the same segment does.
    pub speaks: bool,
    /// The incarnations on the node's other interfaces, with the link-layer addresses of these, as the engine received
    /// them last.
    pub siblings: BTreeMap<Incarnation, MacAddr>,
    /// The time at which the filters are due to be set, if the addresses of interest have changed.
    relisten_at: Option<Duration>,
    /// The addresses of interest that came since the filters were set last.
    unheard: BTreeSet<IpAddr>,
    /// The nodes that are heard, both ways.
    pub peers: BTreeMap<NodeId, NodeName>,
    /// The nodes that are known to be dead.
    pub dead: BTreeSet<NodeId>,
    /// The nodes with silent speakers that this node answers for here.
    pub covering: BTreeSet<NodeId>,
    /// Whether this node answers for what it owns. The node does not while it listens.
    pub answering: bool,
    /// Whether the engine has finished its shutdown.
    pub finished: bool,
}

impl ActiveSegment {
    pub(super) fn new(interface: LocalSegment, engine: Engine, speaks: bool) -> Self {
        Self {
            interface,
            engine,
            told: BTreeMap::new(),
            stations: None,
            stations_due: None,
            answered: BTreeSet::new(),
            changed_answers: Vec::new(),
            stated: false,
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

    /// Returns the node's own addresses here, to ask from.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            mac: self.interface.segment.mac,
            addresses: self.interface.addresses.clone(),
            link_local: self.interface.link_local,
        }
    }

    /// Returns whether an address lies here, by the facts that the engine received.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.told.get(&address).is_some_and(|told| !told.candidates.is_empty())
    }

    /// Returns whether any address lies here.
    pub(super) fn is_in_use(&self) -> bool {
        self.told.values().any(|told| !told.candidates.is_empty())
    }

    /// Returns whether the engine can take part here.
    pub(super) fn has_carrier(&self) -> bool {
        self.is_able() && self.speaks
    }

    /// Returns whether frames can be heard here.
    pub(super) fn is_able(&self) -> bool {
        self.interface.carrier && !self.sockets.are_closed()
    }

    /// Returns whether the engine should not receive a list of nodes yet that may lack some. The first such list begins a
    /// time of this length.
    pub(super) fn holds_stations(&mut self, now: Duration, hold: Duration) -> bool {
        self.stations.is_none() && now < *self.stations_due.get_or_insert(now + hold)
    }

    /// Returns the time at which the engine receives the nodes in any case, if it waits for them.
    pub(super) fn stations_due(&self) -> Option<Duration> {
        self.stations_due.filter(|_| self.stations.is_none())
    }

    /// Records that the API has brought an address, for which solicitations may come before long.
    pub(super) fn address_came(&mut self, now: Duration, address: IpAddr) {
        self.unheard.insert(address);
        self.relisten_at.get_or_insert(now + LISTEN_SETTLE);
    }

    /// Records that the API's view has no interest in an address any longer.
    pub(super) fn address_went(&mut self, now: Duration) {
        self.relisten_at.get_or_insert(now + LISTEN_SETTLE);
    }

    /// Records that this node answers for an address, or stops. The filters are set at once: a host that receives an
    /// announcement may ask at once.
    pub(super) fn answers(&mut self, now: Duration, address: IpAddr, mac: Option<MacAddr>) {
        self.changed_answers.push((address, mac));
        let answered = mac.is_some();
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

    /// States what is answered here, as far as that has changed since the last time.
    pub(super) fn state_answers(&mut self) -> Statement {
        Statement {
            own: self.interface.segment.mac,
            siblings: self.siblings.values().copied().collect(),
            until: self.engine.answers_until(),
            afresh: !std::mem::replace(&mut self.stated, true),
            changes: std::mem::take(&mut self.changed_answers),
        }
    }

    /// Schedules that the filters are set again in full.
    pub(super) fn relisten(&mut self, now: Duration) {
        self.relisten_at = Some(now);
    }

    /// Returns the time at which [`Local::listen`] has addresses to return.
    pub(super) fn relisten_at(&self) -> Option<Duration> {
        self.relisten_at
    }

    /// Returns the addresses to let through, if the time has come to set the filters.
    pub(super) fn listen(&mut self, now: Duration) -> Option<BTreeSet<IpAddr>> {
        self.relisten_at.take_if(|at| *at <= now)?;
        self.unheard.clear();
        Some(self.of_interest())
    }

    /// Returns all addresses of interest here. An address that another node announces is among them, so that this node
    /// sees conflicts about it and covers it without delay.
    fn of_interest(&self) -> BTreeSet<IpAddr> {
        self.told.keys().chain(&self.answered).copied().collect()
    }
}
