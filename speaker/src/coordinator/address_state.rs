//! What this node has to say about an address, and has said.

use std::{fmt, time::Duration};

use herald_protocol::{mac::MacAddr, node::NodeId};
use jiff::Timestamp;

use super::essence::Essence;
use crate::rank::Refusal;

/// A conflict is over when nobody else has claimed the address for this long. The segment protocol reports one that
/// goes on every 10 s (DEFEND_INTERVAL of RFC 5227).
pub(super) const CONFLICT_OVER: Duration = Duration::from_secs(60);

/// This node's part in an address.
#[derive(Debug, Default)]
pub(super) struct Duty {
    /// Does this node own it?
    pub owned: Option<Owned>,
    /// Why it does not, where that is its to say.
    pub obstacle: Option<Obstacle>,
    /// Why this node may not announce it, while no node may.
    pub refusal: Option<Refusal>,
    /// Has it owned the address since the VirtualIP appeared?
    pub has_owned: bool,
    /// When an outage of its interface is to be told.
    pub outage_due: Option<Duration>,
    /// The last status emitted, and the version of the object it was decided from: emitted once.
    pub emitted: Option<(String, Essence)>,
}

impl Duty {
    /// Does this node own the address, on the segment of this interface?
    pub(super) fn is_owned_on(&self, index: u32) -> bool {
        self.owned.as_ref().is_some_and(|owned| owned.segment == index)
    }

    /// The interface can announce nothing any more.
    pub(super) fn begin_outage(&mut self, outage: Outage) {
        self.outage_due = Some(outage.since + OUTAGE_HELD);
        self.obstacle = Some(Obstacle::InterfaceLost(outage));
    }

    /// The interface can announce again.
    pub(super) fn end_outage(&mut self) {
        self.outage_due = None;
        if matches!(self.obstacle, Some(Obstacle::InterfaceLost(_))) {
            self.obstacle = None;
        }
    }
}

/// An address this node owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    /// Interface index.
    pub segment: u32,
    /// Interface name.
    pub interface: String,
    /// With what it answers.
    pub mac: MacAddr,
    /// Since when.
    pub since: Timestamp,
}

/// Why an address is not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// A stranger held it before it was ever announced.
    Stranger(MacAddr),
    /// A node of the cluster answers for it without having claimed it.
    ClusterNode(NodeId),
    /// This node may no longer, and no other may.
    Ineligible(Refusal),
    /// This node stopped, so that a node which it does not hear can.
    HandedOver(NodeId),
    /// This node stopped, because a node which it does not hear announced it.
    Yielded(NodeId),
    /// The interface on which this node announced it is gone.
    InterfaceLost(Outage),
}

/// An interface that nothing can be announced on any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    /// Its name.
    pub interface: String,
    /// What has become of it.
    pub why: OutageCause,
    /// Since when, by the monotonic clock.
    pub since: Duration,
}

/// An outage is told when it has lasted for this long. Others take over within half a second (docs/architecture.md, P2) and
/// say so; a cable that is plugged in again is no news.
pub(super) const OUTAGE_HELD: Duration = Duration::from_secs(2);

/// What has become of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OutageCause {
    /// It is down, gone, or without an address whose subnet is on link.
    Unusable,
    /// It has no carrier.
    NoCarrier,
    /// It yields to another interface of the node, named here, which is on the same segment.
    Yields(String),
    /// It listens whether another interface of the node is on the same segment.
    Tried,
}

impl fmt::Display for OutageCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable => f.write_str("is down, gone, or has no address with an on-link prefix any more"),
            Self::NoCarrier => f.write_str("has no carrier"),
            Self::Yields(to) => {
                write!(f, "is on the same segment as {to}, which speaks for it and has not announced the address yet")
            }
            Self::Tried => f.write_str("listens whether another interface of the node is on the same segment"),
        }
    }
}

/// Somebody else says that it has what this node owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Who.
    pub with: Contender,
    /// When it was last seen.
    pub seen: Duration,
}

/// Who answers for an address that this node announces.
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
    fn interface_that_yields_is_not_said_to_be_down() {
        let text = OutageCause::Yields("eth0".to_owned()).to_string();
        assert_eq!(text, "is on the same segment as eth0, which speaks for it and has not announced the address yet");
    }
}
