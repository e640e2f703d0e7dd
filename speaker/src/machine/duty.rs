//! What this node has to say about an address, and has said.

use std::time::Duration;

use herald_segment::{mac::MacAddr, node::NodeId};
use jiff::Timestamp;

use super::status::Essence;
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
    /// The last status emitted, and the version of the object it was decided from: emitted once.
    pub emitted: Option<(String, Essence)>,
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
}

/// A stranger claims what this node owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Who.
    pub mac: MacAddr,
    /// When it was last seen.
    pub seen: Duration,
}
