//! Tests of the reduction of objects, and of collections that survive a re-listing.

use serde_json::json;
use test_case::test_case;

use super::*;

/// The API server keeps the name unique, so the name decides.
#[test_case("192.0.2.1", "192.0.2.1", true)]
#[test_case("2001-db8--7", "2001:db8::7", true)]
#[test_case("192.0.2.1", "192.0.2.2", false; "another address")]
#[test_case("web", "192.0.2.1", false; "no address")]
fn virtual_ip_is_named_after_its_address(name: &str, address: &str, read: bool) {
    let vip = json!({"apiVersion": "heraldlb.io/v1alpha1", "kind": "VirtualIP", "metadata": {"name": name, "uid": "u"},
        "spec": {"address": address, "pool": "lan", "services": [], "advertisements": []}});
    assert_eq!(Vip::reduce(serde_json::from_value(vip).unwrap()).is_ok(), read);
}

#[derive(Clone, Debug, PartialEq)]
struct Item(&'static str, u32);

impl Keyed for Item {
    type Key = &'static str;
    fn key(&self) -> &'static str {
        self.0
    }
}

#[test]
fn second_listing_removes_absent_objects_only_at_its_end() {
    let mut items = Collection::default();
    for change in [Change::Listing, Change::Applied(Item("a", 1)), Change::Applied(Item("b", 1))] {
        items.apply(change);
    }
    assert!(!items.is_listed());
    assert_eq!(items.apply(Change::Listed), []);
    assert!(items.is_listed());
    items.apply(Change::Listing);
    assert_eq!(items.apply(Change::Applied(Item("b", 1))), [], "the same version is no change");
    assert!(items.get(&"a").is_some(), "not known to be gone yet");
    assert_eq!(items.apply(Change::Listed), [("a", Some(Item("a", 1)))]);
    assert_eq!(items.apply(Change::Applied(Item("b", 2))), [("b", Some(Item("b", 1)))]);
    assert_eq!(items.apply(Change::Deleted("b")), [("b", Some(Item("b", 2)))]);
    assert_eq!(items.apply(Change::Deleted("b")), []);
}

fn node(extra: serde_json::Value) -> NodeObject {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "u1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "images": [{"names": ["x"]}]},
    });
    for (key, value) in extra.as_object().unwrap() {
        object[key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

#[test_case(json!({}), None)]
#[test_case(json!({"spec": {"unschedulable": true}}), None; "cordon alone excludes nothing")]
#[test_case(json!({"spec": {"taints": [{"key": "heraldlb.io/drain", "effect": "NoSchedule"}]}}), Some(Exclusion::DrainTaint))]
#[test_case(json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}), Some(Exclusion::AutoscalerTaint))]
#[test_case(json!({"metadata": {"name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}), Some(Exclusion::Deleted))]
#[test_case(json!({"metadata": {"name": "n1", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}}), Some(Exclusion::Label))]
#[test_case(json!({"metadata": {"name": "n1", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": "false"}}}), None)]
fn labels_taints_and_deletion_exclude_a_node(extra: serde_json::Value, expected: Option<Exclusion>) {
    let overridden = expected.filter(|e| *e != Exclusion::Label);
    assert_eq!(Node::reduce(node(extra.clone()), false).excluded, expected);
    assert_eq!(Node::reduce(node(extra), true).excluded, overridden);
}

#[test_case(json!([{"type": "Ready", "status": "True"}]), true)]
#[test_case(json!([{"type": "Ready", "status": "Unknown"}]), false)]
#[test_case(json!([{"type": "DiskPressure", "status": "True"}]), false)]
#[test_case(json!([]), false)]
fn only_the_status_true_counts_as_ready(conditions: serde_json::Value, expected: bool) {
    let object = node(json!({"status": {"conditions": conditions}}));
    assert_eq!(Node::reduce(object, false).ready, expected);
}

/// The controller has the same rule: `herald_crds::node`.
#[test_case("True", false)]
#[test_case("False", true)]
fn node_without_a_pod_network_is_unfit(unavailable: &str, expected: bool) {
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    let conditions = json!([condition("Ready", "True"), condition("NetworkUnavailable", unavailable)]);
    let node = Node::reduce(node(json!({"status": {"conditions": conditions}})), false);
    assert_eq!((node.ready, node.is_fit()), (true, expected));
}

/// A node that an earlier build saved lacks the condition.
#[test]
fn node_that_an_earlier_build_saved_has_a_network() {
    let mut saved = serde_json::to_value(Node::reduce(node(json!({})), false)).unwrap();
    saved.as_object_mut().unwrap().remove("network_unavailable").unwrap();
    assert!(!serde_json::from_value::<Node>(saved).unwrap().network_unavailable);
}

#[test_case(json!({"name": "n1"}) => None)]
#[test_case(json!({"name": "n1", "annotations": {"heraldlb.io/interfaces": "eth*,!eth9"}}) => Some("eth*,!eth9".to_owned()))]
#[test_case(json!({"name": "n1", "annotations": {"heraldlb.io/interfaces": ""}}) => Some(String::new()); "set to an empty text")]
fn annotation_sets_the_interfaces(metadata: serde_json::Value) -> Option<String> {
    Node::reduce(node(json!({"metadata": metadata})), false).interfaces
}

fn slice(endpoints: serde_json::Value) -> Slice {
    slice_of("IPv4", endpoints).unwrap()
}

fn slice_of(family: &str, endpoints: serde_json::Value) -> Option<Slice> {
    let object = json!({
        "metadata": {"name": family, "namespace": "default", "labels": {(SERVICE_NAME_LABEL): "web"}},
        "addressType": family, "endpoints": endpoints,
    });
    Slice::reduce(serde_json::from_value(object).unwrap())
}

fn service() -> ServiceReference {
    ServiceReference { namespace: "default".to_owned(), name: "web".to_owned(), uid: String::new() }
}

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

#[test_case(json!({}), Endpoint::Ready; "absent means ready")]
#[test_case(json!({"ready": true, "serving": true, "terminating": false}), Endpoint::Ready)]
#[test_case(json!({"ready": false, "serving": true, "terminating": true}), Endpoint::ServingTerminating)]
#[test_case(json!({"ready": false, "serving": false, "terminating": true}), Endpoint::None)]
#[test_case(json!({"ready": false, "serving": true, "terminating": false}), Endpoint::None)]
#[test_case(json!({"ready": false}), Endpoint::None)]
fn conditions_decide_the_endpoint(conditions: serde_json::Value, expected: Endpoint) {
    let slice = slice(json!([{"addresses": ["10.0.0.1"], "nodeName": "n1", "conditions": conditions}]));
    let mut slices = Collection::default();
    slices.apply(Change::Applied(slice));
    assert_eq!(slices.best(&[service()], V4, "n1"), expected);
}

/// A dual-stack Service has slices of each family, written one after the other: an endpoint that is unready in one is
/// still ready in the other for a while, and a Service without endpoints of a family is not served there.
#[test]
fn address_is_served_by_endpoints_of_its_family() {
    let mut slices = Collection::default();
    let ready = |node: &str, ready: bool| json!([{"addresses": [], "nodeName": node, "conditions": {"ready": ready}}]);
    slices.apply(Change::Applied(slice_of("IPv4", ready("n1", false)).unwrap()));
    slices.apply(Change::Applied(slice_of("IPv6", ready("n1", true)).unwrap()));
    assert_eq!(slices.best(&[service()], V4, "n1"), Endpoint::None);
    assert_eq!(slices.best(&[service()], V6, "n1"), Endpoint::Ready);
    assert_eq!(slice_of("FQDN", ready("n1", true)), None);
}

#[test]
fn best_endpoint_counts_and_one_without_a_node_does_not() {
    let slice = slice(json!([
        {"addresses": ["10.0.0.1"], "nodeName": "n1", "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.0.0.2"], "nodeName": "n1"},
        {"addresses": ["10.0.0.3"]},
    ]));
    assert_eq!(slice.nodes, BTreeMap::from([("n1".to_owned(), Endpoint::Ready)]));
}
