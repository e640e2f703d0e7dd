//! Watched objects reduced to the fields that decisions need, so that a cluster of many Services costs little memory
//! and a heartbeat changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use herald_crds::{
    SpeakerStatus,
    address::IpFamily,
    names::{
        ANNOTATION_ALLOCATED_FROM, CONDITION_ADDRESS_ASSIGNED, FINALIZER_SERVICE_CLASS, FINALIZER_SERVICE_DEFAULT,
    },
    node::{Exclusion, NodeConditions},
    placement::Interface,
    service::{Claim, Request, RequestError, Selection},
    speaker_status::LinkUse,
    virtual_ip::{ServiceReference, TrafficPolicy},
};
use ipnet::IpNet;
use k8s_openapi::{
    api::core::v1::{Node, Service, ServicePort},
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};

use crate::{
    advisory::{self, Advisory},
    allocator::{Port, Sharing},
    default_finalizer::put_by_us,
};

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The namespace of the Service.
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// Exactly one family.
    #[default]
    Single,
    /// Two families where possible, else one.
    Prefer,
    /// Two families, or no address.
    Require,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// An address that kube-proxy serves: `ipMode` VIP, or absent, which the API server takes for VIP.
    Vip(IpAddr),
    /// Any other entry: a host name, an address behind a proxy, an address that we would spell differently.
    Other(String),
}

/// A Service, reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Namespace, name and UID.
    pub reference: ServiceReference,
    /// The resource version of this state.
    pub resource_version: String,
    /// Creation, in seconds since the epoch: the older Service goes first.
    pub created: i64,
    /// Whether the Service is being deleted.
    pub deleting: bool,
    /// Whether the Service has `type: LoadBalancer`, whichever provider serves it.
    pub load_balancer: bool,
    /// The reason why the Service is ours; `None` if it is not.
    pub claim: Option<Claim>,
    /// Our finalizer on the Service, as far as the object proves that it is ours.
    pub finalizer: Option<&'static str>,
    /// Whether the Service has upstream's finalizer, whichever program put it there.
    pub default_finalizer: bool,
    /// `spec.ipFamilies`, in order.
    pub families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// The request of the Service.
    pub request: Result<Request, RequestError>,
    /// The terms on which it may share an address; `None` if it carries no sharing key.
    pub sharing: Option<Sharing>,
    /// Facts that its owner should know, whatever its address.
    pub caveats: Vec<Advisory>,
    /// The labels of a Service of ours; empty for any other.
    pub labels: BTreeMap<String, String>,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`: kube-proxy's health check port, if there is one.
    pub health_check_node_port: Option<i32>,
    /// The entries of `spec.externalIPs` that are addresses.
    pub external_ips: BTreeSet<IpAddr>,
    /// `status.loadBalancer.ingress` as observed.
    pub ingress: Vec<Ingress>,
    /// Our annotation that names the pools of its addresses, as observed.
    pub allocated_from: Option<String>,
    /// Our condition as observed.
    pub condition: Option<Condition>,
}

impl ServiceView {
    /// Reduces a Service; `None` for an object that never reached an API server.
    pub fn of(service: &Service, selection: &Selection) -> Option<Self> {
        let meta = &service.metadata;
        let spec = service.spec.clone().unwrap_or_default();
        let load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let claim = Claim::of(spec.type_.as_deref(), spec.load_balancer_class.as_deref(), selection);
        let status = service.status.as_ref();
        let ingress = status.and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
        let conditions = status.and_then(|s| s.conditions.as_ref());
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        let has = |finalizer: &str| finalizers.iter().any(|f| f == finalizer);
        let no_annotations = BTreeMap::new();
        let request = if claim.is_some() {
            Request::read(meta.annotations.as_ref().unwrap_or(&no_annotations), spec.load_balancer_ip.as_deref())
        } else {
            Ok(Request::default())
        };
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        let key = meta.annotations.as_ref().filter(|_| claim.is_some()).and_then(Request::read_sharing_key);
        let port = |p: &ServicePort| Port { protocol: p.protocol.clone().unwrap_or("TCP".to_owned()), port: p.port };
        let sharing = key.map(|key| Sharing {
            key: key.to_owned(),
            ports: spec.ports.iter().flatten().map(port).collect(),
            local,
            selector: spec.selector.clone().unwrap_or_default(),
        });
        Some(Self {
            reference: ServiceReference {
                namespace: meta.namespace.clone()?,
                name: meta.name.clone()?,
                uid: meta.uid.clone()?,
            },
            resource_version: meta.resource_version.clone()?,
            created: created(meta),
            deleting: meta.deletion_timestamp.is_some(),
            load_balancer,
            claim,
            finalizer: if has(FINALIZER_SERVICE_CLASS) {
                Some(FINALIZER_SERVICE_CLASS)
            } else if has(FINALIZER_SERVICE_DEFAULT) && put_by_us(meta) {
                Some(FINALIZER_SERVICE_DEFAULT)
            } else {
                None
            },
            default_finalizer: has(FINALIZER_SERVICE_DEFAULT),
            families: spec.ip_families.iter().flatten().filter_map(|f| family(f)).collect(),
            family_policy: match spec.ip_family_policy.as_deref() {
                Some("RequireDualStack") => FamilyPolicy::Require,
                Some("PreferDualStack") => FamilyPolicy::Prefer,
                _ => FamilyPolicy::Single,
            },
            caveats: claim.map(|claim| advisory::of(service, claim, request.as_ref().ok())).unwrap_or_default(),
            request,
            sharing,
            labels: if claim.is_some() { meta.labels.clone().unwrap_or_default() } else { BTreeMap::new() },
            external_traffic_policy: if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
            health_check_node_port: spec.health_check_node_port.filter(|port| *port != 0),
            external_ips: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            ingress: ingress
                .into_iter()
                .flatten()
                .map(|entry| {
                    let text = entry.ip.as_ref().or(entry.hostname.as_ref()).cloned().unwrap_or_default();
                    let vip = entry.hostname.is_none() && entry.ip_mode.as_deref().is_none_or(|m| m == "VIP");
                    match entry.ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok()) {
                        Some(ip) if vip => Ingress::Vip(ip),
                        _ => Ingress::Other(text),
                    }
                })
                .collect(),
            allocated_from: meta.annotations.as_ref().and_then(|a| a.get(ANNOTATION_ALLOCATED_FROM)).cloned(),
            condition: conditions.into_iter().flatten().find(|c| c.type_ == CONDITION_ADDRESS_ASSIGNED).cloned(),
        })
    }

    /// Returns namespace and name.
    pub fn key(&self) -> ServiceKey {
        ServiceKey { namespace: self.reference.namespace.clone(), name: self.reference.name.clone() }
    }

    /// Returns the addresses in the status that kube-proxy serves.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ingress.iter().filter_map(|i| match i {
            Ingress::Vip(address) => Some(*address),
            Ingress::Other(_) => None,
        })
    }

    /// Returns every address in the status, also one that kube-proxy does not serve: the address is in use, whichever
    /// program wrote it.
    pub fn shown(&self) -> BTreeSet<IpAddr> {
        let address = |entry: &Ingress| match entry {
            Ingress::Vip(address) => Some(*address),
            Ingress::Other(text) => text.parse().ok(),
        };
        self.ingress.iter().filter_map(address).collect()
    }
}

fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(i64::MAX, |t| t.0.as_second())
}

fn family(text: &str) -> Option<IpFamily> {
    match text {
        "IPv4" => Some(IpFamily::V4),
        "IPv6" => Some(IpFamily::V6),
        _ => None,
    }
}

/// A Node, reduced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// Whether the condition Ready is True.
    pub ready: bool,
    /// Whether the condition NetworkUnavailable is True: the pod network is not set up yet, as after a reboot.
    pub network_unavailable: bool,
    /// Whether the node may announce: neither a label nor a taint excludes it, and it is not being deleted.
    pub eligible: bool,
    /// The addresses that the Node lists as its own.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`: the node's part of the pod network.
    pub pod_networks: Vec<IpNet>,
}

impl NodeView {
    /// Returns whether the node may be the home of an address.
    pub fn may_be_home(&self) -> bool {
        let Self { ready, network_unavailable, .. } = *self;
        NodeConditions { ready, network_unavailable }.is_fit() && self.eligible
    }

    /// Reduces a Node. `include_excluded` disregards the exclude label.
    pub fn of(node: &Node, include_excluded: bool) -> Self {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let NodeConditions { ready, network_unavailable } = NodeConditions::of(conditions);
        let addresses = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
        let pod_networks = node.spec.as_ref().and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
        Self {
            ready,
            network_unavailable,
            eligible: Exclusion::of(&node.metadata, taints, include_excluded).is_none(),
            // Host names are in the same list.
            addresses: addresses.iter().filter_map(|a| a.address.parse().ok()).collect(),
            pod_networks: pod_networks.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            labels,
        }
    }
}

/// The report of a speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerView {
    /// The UID of the SpeakerStatus.
    pub uid: String,
    /// The interfaces on which the node can announce.
    pub segments: Vec<Interface>,
    /// The addresses of the node's own links, each with the length of its on-link prefix. Addresses of container
    /// networks, and of links where kube-proxy binds the addresses of Services, are left out.
    pub link_addresses: BTreeSet<IpNet>,
    /// The nodes whose silent speakers it covers.
    pub covering: Vec<String>,
}

impl SpeakerView {
    /// Reduces a SpeakerStatus.
    pub fn of(status: &SpeakerStatus) -> Self {
        let reported = status.status.iter().flat_map(|s| &s.segments);
        Self {
            uid: status.metadata.uid.clone().unwrap_or_default(),
            segments: reported.map(Interface::from_status).collect(),
            link_addresses: link_addresses(status),
            covering: status.status.iter().flat_map(|s| &s.covering).cloned().collect(),
        }
    }

    /// Returns the on-link prefixes of the node, on all of its own links.
    pub fn on_link_prefixes(&self) -> BTreeSet<IpNet> {
        let of_segments = self.segments.iter().flat_map(|segment| &segment.prefixes);
        of_segments.chain(&self.link_addresses).map(IpNet::trunc).collect()
    }
}

fn link_addresses(status: &SpeakerStatus) -> BTreeSet<IpNet> {
    let links = status.status.iter().flat_map(|s| &s.links);
    let own = links.filter(|link| match link.link_use {
        LinkUse::Segment | LinkUse::Skipped => true,
        // The addresses of a link whose use this build does not know are left out.
        LinkUse::Containers | LinkUse::Later => false,
    });
    own.flat_map(|link| &link.addresses).filter_map(|address| address.parse().ok()).collect()
}

/// Returns whether an object's version is older than the known one. The API server's versions of one object rise as
/// decimal numbers (KEP-5504, "comparable resource version"); a version that is not a number never counts as older.
pub fn is_older(new: Option<&str>, held: Option<&str>) -> bool {
    let number = |version: Option<&str>| version.and_then(|v| v.parse::<u128>().ok());
    matches!((number(new), number(held)), (Some(new), Some(held)) if new < held)
}

#[cfg(test)]
mod tests {
    use herald_crds::names::{LABEL_EXCLUDE_NODE, MANAGER_CONTROLLER, TAINT_DRAIN};
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    fn service(spec: Value, finalizers: Value, managed_by: &str) -> ServiceView {
        let owned = format!("v:\"{FINALIZER_SERVICE_DEFAULT}\"");
        let object = json!({
            "metadata": {"namespace": "ns", "name": "web", "uid": "u", "resourceVersion": "1", "finalizers": finalizers,
                "managedFields": [{"manager": managed_by, "operation": "Update", "subresource": "status",
                    "fieldsV1": {"f:metadata": {"f:finalizers": {owned: {}}}}}]},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode": "Proxy"},
                {"hostname": "lb.example.com"}]}}
        });
        ServiceView::of(&serde_json::from_value(object).unwrap(), &Selection::default()).unwrap()
    }

    #[test]
    fn absent_ip_mode_is_vip() {
        let view = service(json!({"type": "LoadBalancer"}), json!([]), "x");
        let vip = |a: &str| Ingress::Vip(a.parse().unwrap());
        let other = |a: &str| Ingress::Other(a.to_owned());
        assert_eq!(view.ingress, [vip("192.0.2.1"), vip("192.0.2.2"), other("192.0.2.3"), other("lb.example.com")]);
    }

    #[test_case(json!([FINALIZER_SERVICE_CLASS]), "other", Some(FINALIZER_SERVICE_CLASS))]
    #[test_case(json!([FINALIZER_SERVICE_DEFAULT]), MANAGER_CONTROLLER, Some(FINALIZER_SERVICE_DEFAULT))]
    #[test_case(json!([FINALIZER_SERVICE_DEFAULT]), "cloud-controller-manager", None; "another provider's finalizer")]
    #[test_case(json!([]), MANAGER_CONTROLLER, None)]
    fn finalizer_is_ours_by_class_or_manager(finalizers: Value, managed_by: &str, expected: Option<&'static str>) {
        assert_eq!(service(json!({"type": "ClusterIP"}), finalizers, managed_by).finalizer, expected);
    }

    #[test_case(json!({}), json!([]), true, true)]
    #[test_case(json!({LABEL_EXCLUDE_NODE: ""}), json!([]), true, false)]
    #[test_case(json!({LABEL_EXCLUDE_NODE: "false"}), json!([]), true, true)]
    #[test_case(json!({}), json!([{"key": TAINT_DRAIN, "effect": "NoSchedule"}]), true, false)]
    #[test_case(json!({}), json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]), true, true; "cordon")]
    fn node_is_reduced_to_ready_and_eligible(labels: Value, taints: Value, ready: bool, eligible: bool) {
        let node = json!({"metadata": {"labels": labels}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let view = NodeView::of(&serde_json::from_value(node).unwrap(), false);
        assert_eq!((view.ready, view.eligible), (ready, eligible));
    }

    #[test]
    fn addresses_of_links_are_kept_by_their_use() {
        let link = |name: &str, link_use: &str, addresses: &[&str]| json!({"interface": name, "use": link_use, "addresses": addresses});
        let status = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "a"}, "status": {"version": "1",
            "segments": [{"interface": "eth0", "macAddress": "02:00:00:00:00:01", "prefixes": ["192.0.2.0/24", "10.20.0.0/16"]}],
            "links": [link("eth0", "Segment", &["192.0.2.11/24", "2001:db8::11/64", "odd"]),
                link("wg0", "Skipped", &["10.40.0.2/29"]), link("kube-ipvs0", "Containers", &["192.0.2.50/32"]),
                link("new0", "OfALaterBuild", &["192.0.2.60/32"])]}});
        let view = SpeakerView::of(&serde_json::from_value(status).unwrap());
        let nets = |all: &[&str]| all.iter().map(|net| net.parse().unwrap()).collect::<BTreeSet<IpNet>>();
        assert_eq!(view.link_addresses, nets(&["192.0.2.11/24", "2001:db8::11/64", "10.40.0.2/29"]));
        let expected = nets(&["192.0.2.0/24", "10.20.0.0/16", "2001:db8::/64", "10.40.0.0/29"]);
        assert_eq!(view.on_link_prefixes(), expected);
    }

    #[test_case(json!([{"type": "Ready", "status": "True"}]), true)]
    #[test_case(json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]), true; "network is up")]
    #[test_case(json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "True"}]), false; "no network yet")]
    #[test_case(json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "Unknown"}]), true; "not known")]
    #[test_case(json!([{"type": "Ready", "status": "Unknown"}]), false; "unknown")]
    #[test_case(json!([]), false; "no condition")]
    fn node_may_be_home_by_its_conditions(conditions: Value, expected: bool) {
        let node = json!({"metadata": {"name": "a"}, "status": {"conditions": conditions}});
        assert_eq!(NodeView::of(&serde_json::from_value(node).unwrap(), false).may_be_home(), expected);
    }

    /// All nodes are control planes with the label, and the setting lets them announce.
    #[test]
    fn excluded_node_may_be_home_with_the_setting() {
        let node = json!({"metadata": {"name": "a", "labels": {LABEL_EXCLUDE_NODE: ""}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let node = serde_json::from_value(node).unwrap();
        assert_eq!([false, true].map(|included| NodeView::of(&node, included).may_be_home()), [false, true]);
    }

    #[test_case(Some("9"), Some("10"), true; "numbers, not text")]
    #[test_case(Some("10"), Some("10"), false)]
    #[test_case(Some("x"), Some("10"), false)]
    #[test_case(Some("9"), None, false)]
    fn versions_are_compared_as_numbers(new: Option<&str>, held: Option<&str>, expected: bool) {
        assert_eq!(is_older(new, held), expected);
    }
}
