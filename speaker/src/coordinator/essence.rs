//! The fields of a VirtualIP's status that are compared.

use herald_crds::{
    names::{CONDITION_ANNOUNCED, CONDITION_CONFLICT},
    virtual_ip::VirtualIPStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The fields in which two statuses must agree to count as the same: times and wording do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Essence {
    pub(super) node: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) mac: Option<String>,
    pub(super) conflicting_mac: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) conflict: Option<String>,
    pub(super) handed_over_by: Option<String>,
}

/// Returns the condition of this type.
pub(super) fn condition<'a>(status: &'a VirtualIPStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Returns the fields of a status that are compared.
pub(super) fn essence(status: &VirtualIPStatus) -> Essence {
    let conflict = condition(status, CONDITION_CONFLICT).filter(|condition| condition.status == "True");
    Essence {
        node: status.node.clone(),
        interface: status.interface.clone(),
        mac: status.mac_address.clone(),
        conflicting_mac: status.conflicting_mac_address.clone(),
        reason: condition(status, CONDITION_ANNOUNCED).map(|c| c.reason.clone()),
        // The message names the other host or node.
        conflict: conflict.map(|condition| condition.message.clone()),
        handed_over_by: status.handed_over_by.clone(),
    }
}
