//! The inputs of the index: watched objects, reduced.

use std::collections::{BTreeMap, BTreeSet};

use herald_crds::{AddressPool, L2Advertisement, VirtualIP};
use ipnet::IpNet;

use crate::{
    gateway_view::{GatewayKey, GatewayView},
    speaker_pod::SpeakerPodView,
    view::{NodeView, ServiceKey, ServiceView, SpeakerView},
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

impl Object {
    pub(super) fn service_key(&self) -> Option<ServiceKey> {
        match self {
            Self::Service(view) => Some(view.key()),
            _ => None,
        }
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Service(view) => Some(&view.reference.name),
            Self::Namespace(name, _)
            | Self::Node(name, _)
            | Self::Speaker(name, _)
            | Self::SpeakerPod(name, _)
            | Self::ServiceNetwork(name, _) => Some(name),
            Self::Gateway(key, _) => Some(&key.name),
            Self::Advertisement(advertisement) => advertisement.metadata.name.as_deref(),
            Self::Pool(pool) => pool.metadata.name.as_deref(),
            Self::VirtualIp(vip) => vip.metadata.name.as_deref(),
        }
    }
}

/// Returns the known objects that are not listed, as objects to delete.
pub(super) fn missing<V>(
    held: &BTreeMap<String, V>,
    listed: &[Object],
    object: impl Fn(String) -> Object,
) -> Vec<Object> {
    let listed: BTreeSet<_> = listed.iter().filter_map(Object::name).collect();
    held.keys().filter(|name| !listed.contains(name.as_str())).cloned().map(object).collect()
}
