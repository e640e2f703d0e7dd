//! The report of this node about an address: its state, and the status written last.

use std::{fmt, time::Duration};

use herald_protocol::{mac::MacAddr, node::NodeId};
use jiff::Timestamp;

use super::essence::Essence;
use crate::rank::Refusal;

/// Time after which a conflict is over if no other host has claimed the address meanwhile. The engine reports a
/// conflict that goes on every 10 s (DEFEND_INTERVAL of RFC 5227).
pub(super) const CONFLICT_OVER: Duration = Duration::from_secs(60);

/// This node's part in an address.
#[derive(Debug, Default)]
pub(super) struct AddressState {
    /// The ownership, if this node owns the address.
    pub owned: Option<Owned>,
    /// The reason why this node does not announce the address, where this node reports that reason.
    pub obstacle: Option<Obstacle>,
    /// The reason why this node may not announce the address, while no node may.
    pub refusal: Option<Refusal>,
    /// Whether this node has owned the address since the VirtualIP appeared.
    pub has_owned: bool,
    /// The time at which an outage of the address's interface is reported.
    pub outage_due: Option<Duration>,
    /// The last status emitted, and the version of the object it was decided from: each is emitted once.
    pub emitted: Option<(String, Essence)>,
}

impl AddressState {
    /// Returns whether this node owns the address, on the segment of this interface.
    pub(super) fn is_owned_on(&self, index: u32) -> bool {
        self.owned.as_ref().is_some_and(|owned| owned.segment == index)
    }

    /// Records that the interface can no longer announce.
    pub(super) fn begin_outage(&mut self, outage: Outage) {
        self.outage_due = Some(outage.since + OUTAGE_HELD);
        self.obstacle = Some(Obstacle::InterfaceLost(outage));
    }

    /// Records that the interface can announce again.
    pub(super) fn end_outage(&mut self) {
        self.outage_due = None;
        if matches!(self.obstacle, Some(Obstacle::InterfaceLost(_))) {
            self.obstacle = None;
        }
    }
}

/// The ownership of an address by this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    /// Interface index.
    pub segment: u32,
    /// Interface name.
    pub interface: String,
    /// The link-layer address in the answers.
    pub mac: MacAddr,
    /// The start of the ownership.
    pub since: Timestamp,
}

/// The reason why an address is not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// A stranger held the address before it was ever announced.
    Stranger(MacAddr),
    /// A node of the cluster answers for the address without having claimed it.
    ClusterNode(NodeId),
    /// This node may no longer announce the address, and no other node may.
    Ineligible(Refusal),
    /// This node stopped so that a node which it does not hear can announce the address.
    HandedOver(NodeId),
    /// This node stopped because a node which it does not hear announced the address.
    Yielded(NodeId),
    /// The interface on which this node announced it is gone.
    InterfaceLost(Outage),
}

/// An outage of an interface, on which nothing can be announced meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    /// The interface's name.
    pub interface: String,
    /// The cause.
    pub why: OutageCause,
    /// The start of the outage, by the monotonic clock.
    pub since: Duration,
}

/// Time after which an outage is reported. Other nodes take over within half a second (docs/architecture.md, P2) and
/// report that; a cable that is plugged in again meanwhile needs no report.
pub(super) const OUTAGE_HELD: Duration = Duration::from_secs(2);

/// The cause of an outage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OutageCause {
    /// The interface is down, gone, or without an address whose subnet is on link.
    Unusable,
    /// The interface has no carrier.
    NoCarrier,
    /// The interface yields to another interface of the node, named here, which is on the same segment.
    Yields(String),
    /// The interface listens for whether another interface of the node is on the same segment.
    Tried,
}

impl fmt::Display for OutageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable => f.write_str("is down, gone, or no longer has an address with an on-link prefix"),
            Self::NoCarrier => f.write_str("has no carrier"),
            Self::Yields(to) => {
                write!(f, "is on the same segment as {to}, which speaks for it and has not announced the address yet")
            }
            Self::Tried => f.write_str("is checking whether another interface of the node is on the same segment"),
        }
    }
}

/// Another host or node claims an address that this node owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// The other host or node.
    pub with: Contender,
    /// The time at which the conflict was last seen.
    pub seen: Duration,
}

/// A host or node that answers for an address that this node announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// A host outside the cluster.
    Stranger(MacAddr),
    /// The kernel of a node of the cluster.
    Node(NodeId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_that_yields_is_not_reported_as_down() {
        let text = OutageCause::Yields("eth0".to_owned()).to_string();
        assert_eq!(text, "is on the same segment as eth0, which speaks for it and has not announced the address yet");
    }
}
