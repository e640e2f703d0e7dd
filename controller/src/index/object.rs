//! The inputs of the index: watched objects, reduced.

use std::collections::BTreeMap;

use herald_crds::{AddressPool, L2Advertisement, VirtualIP, virtual_ip::ServiceReference};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    gateway_view::{GatewayKey, GatewayView},
    speaker_pod::SpeakerPodView,
    view::{NodeView, ServiceView, SpeakerView},
};

/// The kinds that the index needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Services.
    Service,
    /// Namespaces.
    Namespace,
    /// Pools.
    Pool,
    /// Advertisements.
    Advertisement,
    /// VirtualIPs.
    VirtualIp,
    /// Nodes.
    Node,
    /// Speakers.
    Speaker,
    /// The speakers' pods.
    SpeakerPod,
    /// The networks of the cluster's Services (ServiceCIDR; an API server before 1.33 has none).
    ServiceNetwork,
    /// Gateways of Gateway API, if their addresses are honoured.
    Gateway,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Service,
        Self::Namespace,
        Self::Pool,
        Self::Advertisement,
        Self::VirtualIp,
        Self::Node,
        Self::Speaker,
        Self::SpeakerPod,
        Self::ServiceNetwork,
        Self::Gateway,
    ];

    /// Returns the name of the kind in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Namespace => "Namespace",
            Self::Pool => "AddressPool",
            Self::Advertisement => "L2Advertisement",
            Self::VirtualIp => "VirtualIP",
            Self::Node => "Node",
            Self::Speaker => "SpeakerStatus",
            Self::SpeakerPod => "Pod",
            Self::ServiceNetwork => "ServiceCIDR",
            Self::Gateway => "Gateway",
        }
    }

    /// Returns whether nothing is decided before the kind has been listed. The speakers' pods are not awaited:
    /// decisions that follow from them wait ten seconds, and a controller that may not list them (one that was updated
    /// without its Role) gives out addresses nevertheless. Only Services that were created for a Gateway wait for
    /// Gateways.
    pub fn is_awaited(self) -> bool {
        !matches!(self, Self::SpeakerPod | Self::Gateway)
    }

    /// Returns whether a controller with an old view of this kind should not lead if another can. An old view of Gateways
    /// concerns only the few Services that were created for one: they keep what they have.
    pub fn is_needed_to_lead(self) -> bool {
        self != Self::Gateway
    }
}

/// A watched object, reduced.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Service.
    Service(Box<ServiceView>),
    /// A namespace and its labels.
    Namespace(String, BTreeMap<String, String>),
    /// A pool.
    Pool(Box<AddressPool>),
    /// An advertisement.
    Advertisement(Box<L2Advertisement>),
    /// A VirtualIP.
    VirtualIp(Box<VirtualIP>),
    /// A node.
    Node(String, NodeView),
    /// The report of a node's speaker, by the node.
    Speaker(String, SpeakerView),
    /// A speaker's pod, by its name.
    SpeakerPod(String, SpeakerPodView),
    /// A network of the cluster's Services.
    ServiceNetwork(String, Vec<IpNet>),
    /// A Gateway, by namespace and name.
    Gateway(GatewayKey, GatewayView),
}

impl From<ServiceView> for Object {
    fn from(view: ServiceView) -> Self {
        Self::Service(Box::new(view))
    }
}

/// The identity of a watched object: what is left of it once it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A Service.
    Service(ServiceReference),
    /// A namespace, by its name.
    Namespace(String),
    /// A pool.
    Pool(NameAndUid),
    /// An advertisement, by its name.
    Advertisement(String),
    /// A VirtualIP.
    VirtualIp(NameAndUid),
    /// A node, by its name.
    Node(String),
    /// The report of a node's speaker, by the node.
    Speaker(String),
    /// A speaker's pod, by its name.
    SpeakerPod(String),
    /// A network of the cluster's Services, by its name.
    ServiceNetwork(String),
    /// A Gateway, by namespace and name.
    Gateway(GatewayKey),
}

/// The name of a cluster-wide object, and the UID that tells it from a later one of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAndUid {
    /// Name; empty where the object has none.
    pub name: String,
    /// UID; absent where the API server gave none.
    pub uid: Option<String>,
}

impl NameAndUid {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Self { name: metadata.name.clone().unwrap_or_default(), uid: metadata.uid.clone() }
    }
}

impl Object {
    /// Returns the identity of the object.
    pub fn identity(&self) -> Identity {
        match self {
            Self::Service(view) => Identity::Service(view.reference.clone()),
            Self::Namespace(name, _) => Identity::Namespace(name.clone()),
            Self::Pool(pool) => Identity::Pool(NameAndUid::of(&pool.metadata)),
            Self::Advertisement(advertisement) => {
                Identity::Advertisement(advertisement.metadata.name.clone().unwrap_or_default())
            }
            Self::VirtualIp(vip) => Identity::VirtualIp(NameAndUid::of(&vip.metadata)),
            Self::Node(name, _) => Identity::Node(name.clone()),
            Self::Speaker(name, _) => Identity::Speaker(name.clone()),
            Self::SpeakerPod(name, _) => Identity::SpeakerPod(name.clone()),
            Self::ServiceNetwork(name, _) => Identity::ServiceNetwork(name.clone()),
            Self::Gateway(key, _) => Identity::Gateway(key.clone()),
        }
    }
}

impl Identity {
    /// Returns namespace and name; the namespace of a cluster-wide object is empty.
    pub(super) fn key(&self) -> (&str, &str) {
        match self {
            Self::Service(service) => (&service.namespace, &service.name),
            Self::Gateway(gateway) => (&gateway.namespace, &gateway.name),
            Self::Pool(object) | Self::VirtualIp(object) => ("", &object.name),
            Self::Namespace(name)
            | Self::Advertisement(name)
            | Self::Node(name)
            | Self::Speaker(name)
            | Self::SpeakerPod(name)
            | Self::ServiceNetwork(name) => ("", name),
        }
    }
}
