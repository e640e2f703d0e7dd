//! Log lines for the events on a segment.

use herald_protocol::{Event as SegmentEvent, Withdrawal, node::NodeId};

use crate::coordinator::Event;

/// Writes one line. `name` returns the name of a node by its id.
pub fn tell(event: &Event, name: impl Fn(NodeId) -> String) {
    let interface = event.interface.as_str();
    match &event.what {
        SegmentEvent::Owned { claim, from, silent_for } => {
            let (address, epoch, from) = (claim.address, claim.epoch.0, from.map(name));
            tracing::info!(%address, interface, epoch, reason = ?claim.reason, from, ?silent_for, "announcing");
        }
        SegmentEvent::Lost { claim, to } => {
            let (address, epoch, to) = (claim.address, claim.epoch.0, name(*to));
            tracing::info!(%address, interface, epoch, to, reason = ?claim.reason, "another node announces now");
        }
        SegmentEvent::Withdrawn { address, why } => match why {
            Withdrawal::Deleted => tracing::info!(%address, interface, "stopped announcing: address being deleted"),
            Withdrawal::NoCandidate => {
                tracing::warn!(%address, interface, "stopped announcing: no node may announce the address");
            }
            Withdrawal::HandedOver(node) => {
                let node = name(*node);
                tracing::warn!(%address, interface, node, "stopped announcing for a fitter node that is not heard");
            }
            Withdrawal::TakenByUnheard(node) => {
                let node = name(*node);
                tracing::warn!(%address, interface, node, "stopped announcing: a node that is not heard announces");
            }
        },
        SegmentEvent::PeerUp(node) => tracing::info!(interface, node = node.as_str(), "a peer is heard"),
        SegmentEvent::PeerSilent(node) => tracing::info!(interface, node = name(*node), "a peer has fallen silent"),
        SegmentEvent::PeerUnheard(node) => {
            tracing::warn!(interface, node = node.as_str(), "a node is not heard; probing its kernel");
        }
        SegmentEvent::PeerDead(node) => tracing::warn!(interface, node = name(*node), "a node is dead"),
        SegmentEvent::Covering(node) => tracing::info!(interface, node = name(*node), "answering for a silent speaker"),
        SegmentEvent::CoveringLong(node) => {
            tracing::warn!(interface, node = name(*node), "a speaker has been silent for a minute on a living node");
        }
        SegmentEvent::CoverEnded(node) => tracing::info!(interface, node = name(*node), "stopped covering a node"),
        SegmentEvent::Conflict { address, mac } => {
            tracing::warn!(%address, interface, %mac, "a host outside the cluster claims an address");
        }
        SegmentEvent::AnsweredByClusterNode { address, node } => {
            tracing::warn!(%address, interface, node = name(*node), "a node answers for an address it has not claimed");
        }
        SegmentEvent::BornOutOfOrder(address) => {
            tracing::warn!(
                %address, interface,
                "a VirtualIP was created after its predecessor, but its creationTimestamp is not later: the clocks of \
                 API servers differ, or one was set back"
            );
        }
        SegmentEvent::CannotBeAsked(node) => {
            tracing::warn!(
                interface,
                node = name(*node),
                "a silent node cannot be probed: the API lists no address of it on this segment"
            );
        }
        SegmentEvent::ClaimsLacking(node) => {
            tracing::warn!(interface, node = name(*node), "the claims of a node that is heard do not arrive");
        }
        SegmentEvent::Reverted => {
            tracing::warn!(
                interface,
                "this machine was set back to a snapshot of its memory: joining the segment again"
            );
        }
        SegmentEvent::DuplicateNode(node) => {
            tracing::error!(interface, node = name(*node), "two machines speak as one node");
        }
        SegmentEvent::SegmentLoop => tracing::error!(interface, "this node's own frames come back"),
        SegmentEvent::Stalled(time) => tracing::warn!(interface, ?time, "this process did not run for a while"),
        // The coordinator turns these into outputs of its own.
        SegmentEvent::StateChanged | SegmentEvent::Finished => {}
    }
}
