//! The part of the cluster that a speaker keeps: API objects reduced to what decisions need, and collections that
//! survive the re-listing of a watch. Pure.

mod collection;

pub use collection::{Change, Collection, Keyed};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::{
    SpeakerStatus, VirtualIP,
    address::{IpFamily, name_of_address},
    names::ANNOTATION_INTERFACES,
    node::{Exclusion, NodeConditions},
    speaker_status::SpeakerStatusStatus,
    virtual_ip::{AdvertisementRule, ServiceReference, TrafficPolicy, VirtualIPStatus},
};
use k8s_openapi::{
    api::{
        core::v1::{NodeAddress, NodeCondition, Taint},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::Object;
use serde::{Deserialize, Serialize};

use herald_protocol::{
    claim::Birth,
    node::{NodeId, NodeName},
};

use crate::interfaces::{NodeInterfaces, Segment};

/// A Service, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A VirtualIP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vip {
    /// The address; the object is named after it.
    pub address: IpAddr,
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The time at which the object was created.
    pub birth: Birth,
    /// The object's version.
    pub resource_version: String,
    /// The version of the spec.
    pub generation: Option<i64>,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// The Services that use it.
    pub services: Vec<ServiceReference>,
    /// The policy `Local`, if only nodes with a local endpoint may announce the address.
    pub local: Option<Local>,
    /// The rules for the nodes and interfaces that may announce the address.
    pub rules: Vec<AdvertisementRule>,
    /// The home node of the address.
    pub home_node: Option<String>,
    /// The status: the node that answers for the address, as far as it has been written.
    pub status: VirtualIPStatus,
}

impl From<&ServiceReference> for ServiceName {
    fn from(service: &ServiceReference) -> Self {
        Self { namespace: service.namespace.clone(), name: service.name.clone() }
    }
}

/// `externalTrafficPolicy: Local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// kube-proxy's health check port of the Service, where the controller has named it.
    pub health_check_node_port: Option<u16>,
}

/// A VirtualIP that is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "VirtualIP {name}: spec.address: {address:?} is not the address the object is named after; the object is ignored: \
     delete it"
)]
pub struct VipError {
    name: String,
    address: String,
}

impl Vip {
    /// Reduces an API object.
    ///
    /// # Errors
    /// If `spec.address` is not an address (CEL refuses such an object), or not the address of the object's name: two
    /// objects could have one address, and the name is what the API server keeps unique.
    pub fn reduce(object: VirtualIP) -> Result<Self, VipError> {
        let ObjectMeta { name, uid, resource_version, generation, deletion_timestamp, creation_timestamp, .. } =
            object.metadata;
        let name = name.unwrap_or_default();
        let spec = object.spec;
        // A creation time before 1970 counts as 0.
        let created = creation_timestamp.and_then(|at| u64::try_from(at.0.as_second()).ok()).unwrap_or_default();
        let port = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok());
        let Some(address) = spec.address.parse().ok().filter(|address| name_of_address(*address) == name) else {
            return Err(VipError { name, address: spec.address });
        };
        Ok(Self {
            address,
            name,
            uid: uid.unwrap_or_default(),
            birth: Birth(created),
            resource_version: resource_version.unwrap_or_default(),
            generation,
            deleting: deletion_timestamp.is_some(),
            services: spec.services,
            local: (spec.external_traffic_policy == TrafficPolicy::Local)
                .then_some(Local { health_check_node_port: port }),
            rules: spec.advertisements,
            home_node: spec.home_node,
            status: object.status.unwrap_or_default(),
        })
    }
}

impl Vip {
    /// Returns the Services whose endpoints decide where the address may be announced: none unless the policy is Local.
    pub fn local_services(&self) -> &[ServiceReference] {
        if self.local.is_some() { &self.services } else { &[] }
    }
}

impl Keyed for Vip {
    type Key = IpAddr;
    fn key(&self) -> IpAddr {
        self.address
    }
}

/// The part of a Node's spec that is read. The list of images that a Node holds is never decoded.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeSpecPart {
    /// The taints.
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// Whether the node is cordoned.
    #[serde(default)]
    pub unschedulable: bool,
}

/// The part of a Node's status that is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NodeStatusPart {
    /// The conditions.
    #[serde(default)]
    pub conditions: Vec<NodeCondition>,
    /// The addresses.
    #[serde(default)]
    pub addresses: Vec<NodeAddress>,
}

/// A Node as it is watched.
pub type NodeObject = Object<NodeSpecPart, NodeStatusPart>;

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The name.
    pub name: String,
    /// The id of the node in the protocol.
    pub id: NodeId,
    /// The UID.
    pub uid: String,
    /// The addresses of type InternalIP: kube-proxy's health checks are answered there, for each family by the proxier
    /// of that family.
    pub internal_ips: Vec<IpAddr>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the node is Ready. `Unknown` does not count as Ready.
    pub ready: bool,
    /// Whether the node's pod network is not set up yet.
    #[serde(default)]
    pub network_unavailable: bool,
    /// The reason why the node must not announce, if there is one. (Cordon alone is not a reason.)
    pub excluded: Option<Exclusion>,
    /// The annotation `heraldlb.io/interfaces`, as it is written: the interfaces that the node's speaker takes.
    #[serde(default)]
    pub interfaces: Option<String>,
    /// Whether the node is cordoned. The stop of a speaker on a cordoned node is a departure, and not a restart.
    pub cordoned: bool,
}

impl Node {
    /// Returns the settings of the Node for its interfaces.
    pub fn interface_settings(&self) -> NodeInterfaces<'_> {
        NodeInterfaces { name: &self.name, labels: &self.labels, annotation: self.interfaces.as_deref() }
    }

    /// Reduces an API object. `include_excluded` disregards the exclude label.
    pub fn reduce(object: NodeObject, include_excluded: bool) -> Self {
        let excluded = Exclusion::of(&object.metadata, &object.spec.taints, include_excluded);
        let ObjectMeta { name, uid, labels, annotations, .. } = object.metadata;
        let NodeStatusPart { conditions, addresses } = object.status.unwrap_or_default();
        let NodeConditions { ready, network_unavailable } = NodeConditions::of(&conditions);
        let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
        let name = name.unwrap_or_default();
        Self {
            id: NodeName::new(&name).id(),
            name,
            uid: uid.unwrap_or_default(),
            internal_ips: internal.filter_map(|address| address.address.parse().ok()).collect(),
            labels: labels.unwrap_or_default(),
            ready,
            network_unavailable,
            excluded,
            interfaces: annotations.and_then(|mut annotations| annotations.remove(ANNOTATION_INTERFACES)),
            cordoned: object.spec.unschedulable,
        }
    }

    /// Returns whether the node can serve the addresses that it announces.
    pub fn is_fit(&self) -> bool {
        let Self { ready, network_unavailable, .. } = *self;
        NodeConditions { ready, network_unavailable }.is_fit()
    }

    /// Returns whether this node will be gone for a while once its speaker stops.
    pub fn is_leaving(&self) -> bool {
        let going =
            matches!(self.excluded, Some(Exclusion::Deleted | Exclusion::AutoscalerTaint | Exclusion::DrainTaint));
        self.cordoned || going
    }
}

impl Keyed for Node {
    type Key = String;
    fn key(&self) -> String {
        self.name.clone()
    }
}

/// A SpeakerStatus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speaker {
    /// The node's name.
    pub node: String,
    /// The object's version.
    pub resource_version: String,
    /// The segments on which the node can announce.
    pub segments: Vec<Segment>,
    /// Addresses of VirtualIPs that the node's kernel has itself.
    #[serde(default)]
    pub held: BTreeSet<IpAddr>,
    /// The status as it is written, kept of this node's own object only.
    pub own: Option<SpeakerStatusStatus>,
}

impl Speaker {
    /// Returns the SpeakerStatus of a node before its speaker has written anything.
    pub fn of_node(node: String) -> Self {
        Self { node, resource_version: String::new(), segments: Vec::new(), held: BTreeSet::new(), own: None }
    }

    /// Reduces an API object.
    pub fn reduce(object: SpeakerStatus, own_node: &str) -> Self {
        let node = object.metadata.name.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let own = node == own_node;
        Self {
            resource_version: object.metadata.resource_version.filter(|_| own).unwrap_or_default(),
            segments: status.segments.iter().filter_map(Segment::from_status).collect(),
            held: status.held_addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            own: own.then_some(status),
            node,
        }
    }
}

impl Keyed for Speaker {
    type Key = String;
    fn key(&self) -> String {
        self.node.clone()
    }
}

/// The ability of a node to serve a Service with `externalTrafficPolicy: Local`, best last. kube-proxy has the same
/// rule (KEP-1669): ready endpoints, else serving ones that terminate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Endpoint {
    /// The node has no usable endpoint: kube-proxy there drops the traffic.
    None,
    /// All usable endpoints of the node are shutting down.
    ServingTerminating,
    /// The node has a ready endpoint.
    Ready,
}

/// An EndpointSlice: the best endpoint of each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The Service's name.
    pub service: ServiceName,
    /// The object's name.
    pub name: String,
    /// The family of the slice's endpoints. kube-proxy serves an address of one family by endpoints of that family
    /// alone, and the slices are written family by family: the slice of the other family may be a tenth of a second
    /// older.
    pub family: IpFamily,
    /// The nodes that have a usable endpoint.
    pub nodes: BTreeMap<String, Endpoint>,
}

/// The key of a [`Slice`]: the slices of one Service are neighbours.
pub type SliceKey = (ServiceName, String);

impl Slice {
    /// Reduces an API object; `None` where it belongs to no Service, or kube-proxy serves no address by it (FQDN).
    pub fn reduce(object: EndpointSlice) -> Option<Self> {
        let service = object.metadata.labels?.remove(SERVICE_NAME_LABEL)?;
        let family = match object.address_type.as_str() {
            "IPv4" => IpFamily::V4,
            "IPv6" => IpFamily::V6,
            _ => return None,
        };
        let mut nodes = BTreeMap::new();
        for endpoint in object.endpoints {
            // An endpoint without a node is local to no node.
            let Some(node) = endpoint.node_name else { continue };
            let conditions = endpoint.conditions.unwrap_or_default();
            // Absent means ready, serving as ready, and not terminating (discovery/v1 EndpointConditions).
            let ready = conditions.ready.unwrap_or(true);
            let serving = conditions.serving.unwrap_or(ready);
            let class = match (ready, serving, conditions.terminating.unwrap_or(false)) {
                (true, ..) => Endpoint::Ready,
                (false, true, true) => Endpoint::ServingTerminating,
                _ => continue,
            };
            let best = nodes.entry(node).or_insert(class);
            *best = class.max(*best);
        }
        Some(Self {
            service: ServiceName { namespace: object.metadata.namespace?, name: service },
            name: object.metadata.name?,
            family,
            nodes,
        })
    }
}

/// The EndpointSlices that are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceSelection {
    /// The slices of these Services.
    Of(BTreeSet<ServiceName>),
    /// All slices of the cluster.
    All,
}

impl Default for SliceSelection {
    /// Returns the selection of no slices.
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

impl SliceSelection {
    /// Returns whether the slices of a Service are selected.
    pub fn contains(&self, service: &ServiceName) -> bool {
        match self {
            Self::Of(services) => services.contains(service),
            Self::All => true,
        }
    }

    /// Returns whether the selection is empty.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Of(services) if services.is_empty())
    }
}

impl Keyed for Slice {
    type Key = SliceKey;
    fn key(&self) -> SliceKey {
        (self.service.clone(), self.name.clone())
    }
}

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl Collection<Slice> {
    /// Returns the best endpoint that a node has for an address of any of the Services. If Services that share an
    /// address differ in their endpoints, one node may be unable to serve them all: it is better to serve one than
    /// none.
    pub fn best(&self, services: &[ServiceReference], address: IpAddr, node: &str) -> Endpoint {
        let family = IpFamily::of(address);
        services
            .iter()
            .map(ServiceName::from)
            .flat_map(|service| {
                self.from((service.clone(), String::new())).take_while(move |slice| slice.service == service)
            })
            .filter(|slice| slice.family == family)
            .filter_map(|slice| slice.nodes.get(node).copied())
            .max()
            .unwrap_or(Endpoint::None)
    }
}

#[cfg(test)]
mod tests;
