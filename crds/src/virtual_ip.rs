//! `VirtualIP`: one assigned address, its Services, and the node that answers for it.
//!
//! The object is named after its address ([`name_of_address`](crate::address::name_of_address)) and created before the
//! address is written to a Service, so the API server itself refuses a double assignment, even by two leaders.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advertisement::{Failback, InterfacePattern, NodePreference};

/// The controller's decision about an address.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "heraldlb.io",
    version = "v1alpha1",
    kind = "VirtualIP",
    plural = "virtualips",
    shortname = "vip",
    category = "herald",
    status = "VirtualIPStatus",
    derive = "PartialEq",
    doc = "An assigned address, its Services, and the node that answers for it. Written by Herald; read it, do not edit it.",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(name = "Services", type_ = "string", json_path = ".spec.serviceNames"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Interface", type_ = "string", json_path = ".status.interface"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since"),
    printcolumn(
        name = "Announced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Announced\")].reason"
    ),
    printcolumn(name = "MAC", type_ = "string", json_path = ".status.macAddress", priority = 1),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool", priority = 1),
    printcolumn(name = "Home", type_ = "string", json_path = ".spec.homeNode", priority = 1),
    printcolumn(name = "Moves", type_ = "integer", json_path = ".status.transitions", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPSpec {
    /// The address, in canonical text form.
    #[x_kube(validation = Rule::new("isIP(self)").message("is not an IP address"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable: the object is named after it"))]
    #[schemars(length(min = 2, max = 39))]
    pub address: String,
    /// The pool that the address was assigned from. The pool may be gone: this object proves ownership, not the pool.
    pub pool: String,
    /// The Services that use the address; several where they share it.
    #[schemars(length(min = 1, max = 64))]
    pub services: Vec<ServiceReference>,
    /// Their namespaces and names in one text, for `kubectl get`: the API server prints only the first entry of a list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_names: String,
    /// `Local` if any of the Services has this `spec.externalTrafficPolicy`: only nodes with a usable endpoint announce
    /// the address. Otherwise `Cluster`: any node may.
    #[serde(default)]
    pub external_traffic_policy: TrafficPolicy,
    /// kube-proxy's health check port of the Local Service: it tells when kube-proxy's rules for a new endpoint are in
    /// place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<i32>,
    /// The advertisements that select this address, or one rule that selects all where the cluster has no
    /// L2Advertisement. Empty: L2Advertisements exist and none selects the address, so no node announces it.
    #[schemars(length(max = 64))]
    pub advertisements: Vec<AdvertisementRule>,
    /// The pool by which these advertisements select the address, where it differs from `pool`: an announced address is
    /// not silenced because it comes to count to another pool, or to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised_by: Option<String>,
    /// Its home: the node that should announce it first. Set when this object is created, and again only once the node
    /// has left the cluster. Absent: no node was known to reach the address then, and the speakers choose. The status
    /// names the node that announces it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_node: Option<String>,
}

/// A Service, by the one identity that survives deletion and re-creation under the same name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceReference {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl std::fmt::Display for ServiceReference {
    /// Writes namespace and name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The number of Services that [`names_of`] names: a person has to read the line.
const NAMED: usize = 8;

/// Returns namespaces and names of Services in one text: all of them, or the first ones and the number of the others.
pub fn names_of(services: &[ServiceReference]) -> String {
    let named = services.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(",");
    match services.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// `spec.externalTrafficPolicy` of a Service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Only a node with a usable endpoint of the Service may take the traffic.
    Local,
    /// Any node may take the traffic. A value that a later build writes counts as this.
    #[default]
    #[serde(other)]
    Cluster,
}

/// The settings of one L2Advertisement for an address, copied so that speakers need no access to advertisements and
/// pools.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementRule {
    /// Name of the L2Advertisement; absent for the rule of a cluster that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Nodes that may announce; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// Interfaces; empty: the one whose subnet holds the address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    // The bound is that of an L2Advertisement; without a bound the API server refuses the rule on each entry for its
    // cost.
    #[schemars(length(max = 64))]
    pub interfaces: Vec<InterfacePattern>,
    /// Nodes that announce first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_node_selectors: Vec<NodePreference>,
    /// `Always`: the address goes back to a better node that returns. `Never`: it stays where it works.
    #[serde(default)]
    pub failback: Failback,
    /// Whether other speakers answer for a node whose speaker is silent.
    pub cover: bool,
}

impl AdvertisementRule {
    /// Returns the rule of a cluster without any L2Advertisement: all nodes, the interface by subnet, no failback,
    /// cover.
    pub fn everywhere() -> Self {
        Self {
            name: None,
            node_selectors: Vec::new(),
            interfaces: Vec::new(),
            preferred_node_selectors: Vec::new(),
            failback: Failback::Never,
            cover: true,
        }
    }
}

/// The node that answers for the address. Speakers write it; the controller corrects the condition `Announced` where no
/// speaker can: the announcing node or its speaker is lost, no node may announce the address, or the object is misnamed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPStatus {
    /// The announcing node. Absent while no node announces the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The link-layer address it answers with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// The link-layer address of the host outside the cluster that answers for the address, while one does: the address
    /// is not announced for that reason (`Announced` is False with the reason `Conflict`), or both answer (`Conflict`
    /// is True).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflicting_mac_address: Option<String>,
    /// The node that stopped announcing the address so that a node which it does not hear can announce it, or because
    /// such a node did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over_by: Option<String>,
    /// The time since which this node announces the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The time at which the address was announced for the first time. From then on it is never replaced by another,
    /// whatever happens to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_announced: Option<Time>,
    /// The number of changes of the announcing node.
    #[serde(default)]
    pub transitions: i64,
    /// `Announced`: whether a node answers for the address. `Conflict`: whether another host answers for it too;
    /// present once one has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list")]
    pub conditions: Vec<Condition>,
}

impl VirtualIPStatus {
    /// Returns whether a node has ever announced the address. From then on the address is never replaced by another.
    /// The first field alone would do, but a status may have been written by hand, or restored in part.
    pub fn was_ever_announced(&self) -> bool {
        self.first_announced.is_some() || self.node.is_some() || self.since.is_some() || self.transitions > 0
    }
}

/// Reasons of the condition `Announced`: exactly one place writes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncedReason {
    /// True: the node in the status answers for the address (speaker).
    Announcing,
    /// False: the address is being deleted and its announcer has fallen silent (speaker).
    Withdrawn,
    /// False: the node may no longer announce the address, and stopped (speaker).
    Ineligible,
    /// False: the node stopped answering so that a fitter node, which it does not hear, can take the address (speaker).
    HandedOver,
    /// False: the node stopped answering because another node, which it does not hear, announced the address (speaker).
    TakenByUnheard,
    /// False: the interface on which the node announced the address is down, without carrier, or no longer reaches it
    /// (speaker).
    InterfaceLost,
    /// False: the node in the status is gone or NotReady, and no other node has claimed the address yet (controller).
    NodeLost,
    /// False: the speaker's pod on the node in the status is gone or has not been Ready for a while, and no other node
    /// covers for it (controller).
    SpeakerNotReady,
    /// False: no node may announce the address; the message says why (controller).
    NoEligibleNode,
    /// False: nodes could announce the address, and with externalTrafficPolicy Local only one with a usable endpoint of
    /// the Service does: none has announced it yet (controller).
    NoEndpoint,
    /// False: a host outside the cluster held the address before it was ever announced (speaker).
    Conflict,
    /// False: a node of the cluster answers for the address without having claimed it: another provider, or kube-proxy
    /// in IPVS mode with arp_ignore = 0 (speaker).
    AnsweredByClusterNode,
    /// False: the object is named after another address than its own, so no node announces it (controller).
    NameMismatch,
}

impl AnnouncedReason {
    /// Returns the reason as the condition spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Announcing => "Announcing",
            Self::Withdrawn => "Withdrawn",
            Self::Ineligible => "Ineligible",
            Self::HandedOver => "HandedOver",
            Self::TakenByUnheard => "TakenByUnheard",
            Self::InterfaceLost => "InterfaceLost",
            Self::NodeLost => "NodeLost",
            Self::SpeakerNotReady => "SpeakerNotReady",
            Self::NoEligibleNode => "NoEligibleNode",
            Self::NoEndpoint => "NoEndpoint",
            Self::Conflict => "Conflict",
            Self::AnsweredByClusterNode => "AnsweredByClusterNode",
            Self::NameMismatch => "NameMismatch",
        }
    }

    /// Returns the `status` of the condition.
    pub fn status(self) -> &'static str {
        if matches!(self, Self::Announcing) { "True" } else { "False" }
    }

    /// Returns the condition itself.
    pub fn condition(self, message: String, generation: Option<i64>, now: Time) -> Condition {
        Condition {
            type_: crate::names::CONDITION_ANNOUNCED.to_owned(),
            status: self.status().to_owned(),
            reason: self.as_str().to_owned(),
            message: crate::condition::bounded(&message).to_owned(),
            observed_generation: generation,
            last_transition_time: now,
        }
    }
}

impl VirtualIP {
    /// Returns the condition `Announced`, if it has been written.
    pub fn announced(&self) -> Option<&Condition> {
        let conditions = &self.status.as_ref()?.conditions;
        conditions.iter().find(|c| c.type_ == crate::names::CONDITION_ANNOUNCED)
    }

    /// Returns whether the announcer of this deleted object has reported that it fell silent.
    pub fn is_withdrawn(&self) -> bool {
        self.announced().is_some_and(|c| c.reason == AnnouncedReason::Withdrawn.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(n: usize) -> ServiceReference {
        ServiceReference { namespace: "ns".to_owned(), name: format!("s{n}"), uid: n.to_string() }
    }

    #[test]
    fn every_sharer_is_named_up_to_eight() {
        let services: Vec<_> = (0..10).map(service).collect();
        assert_eq!(names_of(&services[..2]), "ns/s0,ns/s1");
        assert_eq!(names_of(&services[..8]), "ns/s0,ns/s1,ns/s2,ns/s3,ns/s4,ns/s5,ns/s6,ns/s7");
        assert_eq!(names_of(&services), "ns/s0,ns/s1,ns/s2,ns/s3,ns/s4,ns/s5,ns/s6,ns/s7 and 2 more");
    }

    /// A list is read as a whole, even if it contains one such object.
    #[test]
    fn values_of_a_later_build_leave_the_rest_readable() {
        let written = |policy: &str, failback: &str| {
            serde_json::json!({
                "address": "192.0.2.1", "pool": "lan", "services": [], "externalTrafficPolicy": policy,
                "advertisements": [{"cover": true, "failback": failback}], "mood": "good",
            })
        };
        let read: Vec<VirtualIPSpec> =
            serde_json::from_value(vec![written("Nearest", "Sometimes"), written("Local", "Always")].into()).unwrap();
        let values: Vec<_> = read.iter().map(|s| (s.external_traffic_policy, s.advertisements[0].failback)).collect();
        assert_eq!(values, [(TrafficPolicy::Cluster, Failback::Never), (TrafficPolicy::Local, Failback::Always)]);
    }
}
