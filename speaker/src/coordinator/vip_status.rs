//! The content of a VirtualIP's status, as this node writes it.

use herald_crds::{
    names::{CONDITION_ANNOUNCED, CONDITION_CONFLICT},
    virtual_ip::{AnnouncedReason, VirtualIPStatus},
};
use herald_protocol::{api_view::GivenUp, mac::MacAddr, node::NodeId};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    address_state::{AddressState, Obstacle},
    essence::{Essence, condition, essence},
};
use crate::api_objects::Vip;

/// A host or node that also answers for an address that this node announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// A host outside the cluster.
    Stranger(MacAddr),
    /// The kernel of the node of this name.
    Kernel(String),
}

/// Returns whether the status shows that this node announces the address, there and with that MAC.
pub(super) fn announces(status: &VirtualIPStatus, node: &str, interface: &str, mac: MacAddr) -> bool {
    let Essence { node: by, interface: on, mac: at, reason, .. } = essence(status);
    by.as_deref() == Some(node)
        && on.as_deref() == Some(interface)
        && at == Some(mac.to_string())
        && reason.as_deref() == Some(AnnouncedReason::Announcing.as_str())
}

/// Returns whether the status shows that a node announces the address.
fn is_announced(status: &VirtualIPStatus) -> bool {
    condition(status, CONDITION_ANNOUNCED).is_some_and(|announced| announced.status == "True")
}

/// Returns whether the controller has reported that the announcing node is gone or NotReady.
pub(super) fn is_node_lost(status: &VirtualIPStatus) -> bool {
    essence(status).reason.as_deref() == Some(AnnouncedReason::NodeLost.as_str())
}

/// Returns the message about a lost interface, if the status has one.
pub(super) fn outage(status: &VirtualIPStatus) -> Option<&str> {
    let announced = condition(status, CONDITION_ANNOUNCED)?;
    (announced.reason == AnnouncedReason::InterfaceLost.as_str()).then_some(&announced.message)
}

/// Returns the node that has given the address up, and why, if the status shows it. `id_of` returns the id of a node by
/// its name.
pub(super) fn given_up(status: &VirtualIPStatus, id_of: impl Fn(&String) -> NodeId) -> Option<GivenUp> {
    let node = id_of(status.handed_over_by.as_ref()?);
    let yielded = essence(status).reason.as_deref() == Some(AnnouncedReason::TakenByUnheard.as_str());
    Some(if yielded { GivenUp::Yielded(node) } else { GivenUp::HandedOver(node) })
}

/// Returns the status that this node makes of the present one; `None` where this node has nothing to report. `name`
/// returns the name of a node by its id.
pub(super) fn desired(
    vip: &Vip,
    me: &str,
    duty: &AddressState,
    rival: Option<&Rival>,
    name: impl Fn(NodeId) -> String,
    now: Timestamp,
) -> Option<VirtualIPStatus> {
    let was = &vip.status;
    let mine = was.node.as_deref() == Some(me);
    let announces = duty.owned.as_ref().filter(|_| !matches!(duty.obstacle, Some(Obstacle::InterfaceLost(_))));
    let (reason, message) = if let Some(owned) = announces {
        let message = format!("node {me} answers for it on {} with {}", owned.interface, owned.mac);
        (AnnouncedReason::Announcing, message)
    } else if vip.deleting {
        // If the status of an announcement was never written, the node that made the announcement withdraws it.
        let unwritten = was.node.is_none() && duty.has_owned;
        (mine || unwritten).then_some(())?;
        (AnnouncedReason::Withdrawn, format!("node {me} has fallen silent: the address is being released"))
    } else {
        match duty.obstacle.as_ref()? {
            // The reason also replaces the status of an earlier owner, while no node may announce: that owner's write
            // came last, and it does not know that this node has given the address up since.
            Obstacle::Ineligible(refusal) if mine || (was.node.is_some() && duty.refusal.is_some()) => {
                let message = format!("node {me} has fallen silent: {refusal}; no other node may announce the address");
                (AnnouncedReason::Ineligible, message)
            }
            // If the address was announced before, its last announcer reports more about it.
            Obstacle::Stranger(mac) if !was.was_ever_announced() => {
                let message = format!(
                    "a host outside the cluster with the link-layer address {mac} answered node {me}'s probe for it, \
                     so no node announces it: find that host, or exclude the address from its pool"
                );
                (AnnouncedReason::Conflict, message)
            }
            // The owner's report counts more: this node may have missed its claim.
            Obstacle::ClusterNode(node) if !mine && !is_announced(was) => {
                let node = name(*node);
                let message = format!(
                    "node {node} answers for it without having claimed it: stop the other load-balancer provider that \
                     runs there, or, with kube-proxy in IPVS mode, set ipvs.strictARP: true"
                );
                (AnnouncedReason::AnsweredByClusterNode, message)
            }
            Obstacle::HandedOver(to) if mine || was.node.is_none() => {
                let to = name(*to);
                let message = format!(
                    "node {me} has fallen silent so that node {to}, which is fitter, can announce it: {me} does not \
                     hear that node's speaker, so either the speaker does not run, or the network drops EtherType \
                     0x88b5"
                );
                (AnnouncedReason::HandedOver, message)
            }
            Obstacle::Yielded(to) if mine => {
                let to = name(*to);
                let message = format!(
                    "node {me} has fallen silent because node {to} announced it; {me} does not hear that node's \
                     speaker, so the network drops EtherType 0x88b5, or the kernel of {to} has the address and no \
                     speaker runs there"
                );
                (AnnouncedReason::TakenByUnheard, message)
            }
            Obstacle::InterfaceLost(outage) if mine => {
                let message = format!(
                    "node {me} has fallen silent: its interface {} {}, and no other node has taken the address over",
                    outage.interface, outage.why
                );
                (AnnouncedReason::InterfaceLost, message)
            }
            Obstacle::Ineligible(_)
            | Obstacle::Stranger(_)
            | Obstacle::ClusterNode(_)
            | Obstacle::HandedOver(_)
            | Obstacle::Yielded(_)
            | Obstacle::InterfaceLost(_) => return None,
        }
    };
    let announced = reason.condition(message, vip.generation, Time(now));
    let conflicting = match (reason, &duty.obstacle, rival) {
        (AnnouncedReason::Conflict, Some(Obstacle::Stranger(mac)), _) => Some(*mac),
        (AnnouncedReason::Announcing, _, Some(Rival::Stranger(mac))) => Some(*mac),
        _ => None,
    };
    let conflict = describe_conflict(vip, rival.filter(|_| announces.is_some()), now);
    let conditions = [Some(announced), conflict].into_iter().flatten().map(|new| keep_time(new, was));
    let known = [CONDITION_ANNOUNCED, CONDITION_CONFLICT];
    let others = was.conditions.iter().filter(|c| !known.contains(&c.type_.as_str())).cloned();
    let before = was.node.as_deref().or(was.handed_over_by.as_deref());
    let moved = announces.is_some() && before.is_some_and(|node| node != me);
    let given_up = matches!(reason, AnnouncedReason::HandedOver | AnnouncedReason::TakenByUnheard);
    Some(VirtualIPStatus {
        node: announces.map(|_| me.to_owned()),
        interface: announces.map(|o| o.interface.clone()),
        mac_address: announces.map(|o| o.mac.to_string()),
        conflicting_mac_address: conflicting.map(|mac| mac.to_string()),
        handed_over_by: given_up.then(|| me.to_owned()),
        since: announces.map(|o| Time(o.since)),
        first_announced: was.first_announced.clone().or(announces.map(|o| Time(o.since))),
        // A person may have written any number there.
        transitions: was.transitions.max(0).saturating_add(i64::from(moved)),
        conditions: others.chain(conditions).collect(),
    })
}

/// Returns the condition `Conflict`, where there is or was a conflict.
fn describe_conflict(vip: &Vip, rival: Option<&Rival>, now: Timestamp) -> Option<Condition> {
    let new = |status: &str, reason: &str, message: String| Condition {
        type_: CONDITION_CONFLICT.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: vip.generation,
        last_transition_time: Time(now),
    };
    match (rival, condition(&vip.status, CONDITION_CONFLICT)) {
        (Some(Rival::Stranger(mac)), _) => {
            let message = format!(
                "a host outside the cluster with the link-layer address {mac} claims it too; the address is defended \
                 and stays where it is: find that host"
            );
            Some(new("True", "ClaimedByStranger", message))
        }
        (Some(Rival::Kernel(node)), _) => {
            let message = format!(
                "the kernel of node {node} has the address itself and answers for it too, so that some clients reach \
                 that node; the address stays where it is: remove it from that node's interface, and stop what put it \
                 there"
            );
            Some(new("True", AnnouncedReason::AnsweredByClusterNode.as_str(), message))
        }
        (None, Some(_)) => Some(new("False", "NotSeen", "no other host answers for it".to_owned())),
        (None, None) => None,
    }
}

/// Keeps the transition time of a condition whose `status` is unchanged: by metav1, it is the time of the last change
/// of `status`, not of the wording.
fn keep_time(mut new: Condition, was: &VirtualIPStatus) -> Condition {
    if let Some(before) = condition(was, &new.type_).filter(|before| before.status == new.status) {
        new.last_transition_time = before.last_transition_time.clone();
    }
    new
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::{coordinator::address_state::Owned, rank::tests::vip};

    #[test_case(i64::MAX => i64::MAX)]
    #[test_case(i64::MIN => 1)]
    #[test_case(4 => 5)]
    fn number_of_moves_that_a_person_has_written_is_counted_on(written: i64) -> i64 {
        let mut vip = vip("192.0.2.10");
        vip.status = VirtualIPStatus { node: Some("a".to_owned()), transitions: written, ..VirtualIPStatus::default() };
        let owned =
            Owned { segment: 2, interface: "eth0".to_owned(), mac: MacAddr::ZERO, since: Timestamp::UNIX_EPOCH };
        let duty = AddressState { owned: Some(owned), ..AddressState::default() };
        desired(&vip, "b", &duty, None, |_| String::new(), Timestamp::UNIX_EPOCH).unwrap().transitions
    }

    /// Two speakers that contradict each other would write for ever: the owner, and a speaker that has overheard the
    /// owner's announcement and missed its claim.
    #[test_case(AnnouncedReason::Announcing, false; "the owner has written that it announces")]
    #[test_case(AnnouncedReason::NodeLost, true; "the owner is gone")]
    fn overheard_answer_does_not_overwrite_the_owners_status(reason: AnnouncedReason, writes: bool) {
        let mut vip = vip("192.0.2.10");
        vip.status.node = Some("a".to_owned());
        vip.status.conditions = vec![reason.condition(String::new(), None, Time(Timestamp::UNIX_EPOCH))];
        let duty = AddressState { obstacle: Some(Obstacle::ClusterNode(NodeId(1))), ..AddressState::default() };
        let desired = desired(&vip, "b", &duty, None, |_| "a".to_owned(), Timestamp::UNIX_EPOCH);
        assert_eq!(desired.is_some(), writes, "{desired:?}");
    }
}
