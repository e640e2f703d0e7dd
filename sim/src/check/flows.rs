//! I4: a client's connection goes on unless its node died.

use std::time::Duration;

use super::{Invariant, Violation};
use crate::names::{AddrIx, HostIx, NodeIx};

/// A flow whose packets reach another node than before, which resets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The client.
    pub client: HostIx,
    /// The address.
    pub address: AddrIx,
    /// The node that the flow had reached.
    pub from: NodeIx,
    /// The node that the flow reaches now.
    pub to: NodeIx,
    /// Whether the old node was out of the client's reach since the last packet got through.
    pub node_failed: bool,
    /// Whether the owner changed, or the segment was divided, since the flow began. (The other invariants judge those
    /// changes.)
    pub owner_changed: bool,
}

/// Returns a violation if nothing justifies the reset.
pub fn moved(now: Duration, moved: Moved) -> Option<Violation> {
    if moved.node_failed || moved.owner_changed {
        return None;
    }
    Some(Violation {
        invariant: Invariant::FlowBroken,
        at: now,
        seen: format!(
            "client {} talked to address {} on node {}, which is alive and owns it, and was led to node {}",
            moved.client, moved.address, moved.from, moved.to
        ),
    })
}

/// A flow as it is when everything should be well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The client.
    pub client: HostIx,
    /// The address.
    pub address: AddrIx,
    /// Since when no packet has got through.
    pub progress: Duration,
    /// The node to which the cache leads.
    pub cached: Option<NodeIx>,
    /// The owner.
    pub owner: Option<NodeIx>,
}

/// Longest time without progress of a settled flow. A client whose entry expires the moment its owner's speaker falls
/// silent solicits at once, and again a second later, when the cover has begun.
pub const STUCK: Duration = Duration::from_millis(2500);

/// Returns a violation if a flow does not go on, or goes elsewhere than to the owner, long after the last fault.
pub fn settled(now: Duration, flow: Settled) -> Option<Violation> {
    let Settled { client, address, progress, cached, owner } = flow;
    let (invariant, seen) = if now >= progress + STUCK {
        let since = progress.as_secs_f64();
        (
            Invariant::FlowBroken,
            format!("no packet of client {client} to address {address} has got through since {since:.3} s"),
        )
    } else if cached.is_some() && owner.is_some() && cached != owner {
        let seen = format!("client {client} reaches address {address} at node {cached:?}, but its owner is {owner:?}");
        (Invariant::StaleCache, seen)
    } else {
        return None;
    };
    Some(Violation { invariant, at: now, seen })
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case(false, false => Some(Invariant::FlowBroken); "led away from a live owner")]
    #[test_case(true, false => None; "the node died")]
    #[test_case(false, true => None; "the owner changed")]
    fn resets(node_failed: bool, owner_changed: bool) -> Option<Invariant> {
        let reset = Moved { client: 9, address: 0, from: 1, to: 2, node_failed, owner_changed };
        moved(Duration::from_secs(1), reset).map(|violation| violation.invariant)
    }

    #[test_case(0, Some(1) => Some(Invariant::FlowBroken); "stuck")]
    #[test_case(9, Some(2) => Some(Invariant::StaleCache); "stale")]
    #[test_case(9, Some(1) => None; "well")]
    #[test_case(9, None => None; "resolving")]
    fn when_settled(progress_s: u64, cached: Option<NodeIx>) -> Option<Invariant> {
        let progress = Duration::from_secs(progress_s);
        let flow = Settled { client: 9, address: 0, progress, cached, owner: Some(1) };
        settled(Duration::from_secs(10), flow).map(|violation| violation.invariant)
    }
}
