//! What this node writes into the status of a VirtualIP.

use herald_crds::{
    names::CONDITION_ANNOUNCED,
    virtual_ip::{AnnouncedReason, VirtualIPStatus},
};
use herald_segment::mac::MacAddr;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Duty;
use crate::{cluster::Vip, rank::Refusal};

/// What there is to say about an address.
pub(super) enum Report {
    /// This node answers for it.
    Announcing,
    /// It is being deleted, and this node is silent.
    Withdrawn,
    /// This node may not answer for it, and none follows.
    Ineligible(Refusal),
}

/// What two statuses must agree in to be the same: times and wording do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Essence {
    node: Option<String>,
    interface: Option<String>,
    mac: Option<String>,
    reason: Option<String>,
}

pub(super) fn essence(status: &VirtualIPStatus) -> Essence {
    let announced = status.conditions.iter().find(|c| c.type_ == CONDITION_ANNOUNCED);
    Essence {
        node: status.node.clone(),
        interface: status.interface.clone(),
        mac: status.mac_address.clone(),
        reason: announced.map(|c| c.reason.clone()),
    }
}

/// Does the status say that this node announces the address, there and with that MAC?
pub(super) fn announces(status: &VirtualIPStatus, node: &str, interface: &str, mac: MacAddr) -> bool {
    essence(status)
        == Essence {
            node: Some(node.to_owned()),
            interface: Some(interface.to_owned()),
            mac: Some(mac.to_string()),
            reason: Some(AnnouncedReason::Announcing.as_str().to_owned()),
        }
}

/// Has the controller said that the announcing node is gone or NotReady?
pub(super) fn is_node_lost(status: &VirtualIPStatus) -> bool {
    essence(status).reason.as_deref() == Some(AnnouncedReason::NodeLost.as_str())
}

/// The status the report makes of the one that is there; `None` where it is not this node's to write.
pub(super) fn desired(vip: &Vip, me: &str, duty: &Duty, report: &Report, now: Timestamp) -> Option<VirtualIPStatus> {
    let was = &vip.status;
    let mine = was.node.as_deref() == Some(me);
    // An announcement whose status was never written is withdrawn by the one who made it.
    let unwritten = was.node.is_none() && duty.answered;
    let (reason, message, owned) = match report {
        Report::Announcing => {
            let owned = duty.owned.as_ref()?;
            let message = format!("node {me} answers for it on {} with {}", owned.interface, owned.mac);
            (AnnouncedReason::Announcing, message, Some(owned))
        }
        Report::Withdrawn if mine || unwritten => {
            (AnnouncedReason::Withdrawn, format!("node {me} has fallen silent: the address is being released"), None)
        }
        Report::Ineligible(refusal) if mine => {
            let message = format!("node {me} has fallen silent: {refusal}; no other node may announce the address");
            (AnnouncedReason::Ineligible, message, None)
        }
        Report::Withdrawn | Report::Ineligible(_) => return None,
    };
    let mut condition = reason.condition(message, vip.generation, Time(now));
    let (others, before): (Vec<_>, Vec<_>) =
        was.conditions.iter().cloned().partition(|c| c.type_ != CONDITION_ANNOUNCED);
    // As metav1 has it: the time of the last change of `status`, not of the wording.
    if let Some(before) = before.into_iter().find(|c| c.status == condition.status) {
        condition.last_transition_time = before.last_transition_time;
    }
    let moved = owned.is_some() && was.node.as_deref().is_some_and(|node| node != me);
    Some(VirtualIPStatus {
        node: owned.map(|_| me.to_owned()),
        interface: owned.map(|o| o.interface.clone()),
        mac_address: owned.map(|o| o.mac.to_string()),
        since: owned.map(|o| Time(o.since)),
        transitions: was.transitions + i64::from(moved),
        conditions: others.into_iter().chain([condition]).collect(),
    })
}
