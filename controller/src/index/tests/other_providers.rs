//! Other providers next to Herald: their entries on a Service of ours stay.

use herald_crds::names::{FINALIZER_SERVICE_CLASS, FINALIZER_SERVICE_DEFAULT};
use serde_json::{Value, json};
use test_case::test_case;

use crate::index::tests::fake_cluster::{World, key};

/// Herald is the default provider next to a cloud controller manager: without the finalizer the cloud's load balancer
/// would be left over.
#[test_case(json!({}); "while the Service lives")]
#[test_case(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}); "once it is deleted")]
fn upstreams_finalizer_of_another_provider_stays(change: Value) {
    let owned = format!("v:\"{FINALIZER_SERVICE_DEFAULT}\"");
    let metadata = json!({"finalizers": [FINALIZER_SERVICE_DEFAULT], "managedFields": [{"manager": "cloud-controller-manager",
        "operation": "Update", "subresource": "status", "fieldsV1": {"f:metadata": {"f:finalizers": {owned: {}}}}}]});
    let mut world = World::new();
    world.default_provider = true;
    world.restart();
    world.create(
        "theirs",
        json!({"metadata": metadata, "spec": {"loadBalancerClass": null},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}}),
    );
    world.live();
    assert_eq!(world.condition("theirs"), "False ForeignIngress");
    world.change("theirs", change);
    world.live();
    assert_eq!(world.finalizers("theirs"), [FINALIZER_SERVICE_DEFAULT]);
    assert_eq!(world.ingress("theirs"), ["203.0.113.9"]);
}

/// A Service has a cloud controller manager's finalizer and ours: the other one outlives ours, and causes neither
/// writes nor reports.
#[test_case(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}); "deleted")]
#[test_case(json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}}); "another type")]
fn finalizer_of_another_provider_outlives_ours(change: Value) {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    assert_eq!(world.finalizers("web"), [FINALIZER_SERVICE_CLASS]);
    world.change("web", json!({"metadata": {"finalizers": [FINALIZER_SERVICE_CLASS, FINALIZER_SERVICE_DEFAULT]}}));
    world.live();
    world.log.clear();
    world.change("web", change);
    world.live();
    assert!(world.services.contains_key(&key("web")) && world.vips.is_empty());
    assert_eq!(world.finalizers("web"), [FINALIZER_SERVICE_DEFAULT]);
    let released = world.events().into_iter().filter(|e| e.reason == "DeletedLoadBalancer").count();
    assert_eq!(released, 1);
    world.log.clear();
    world.pass(60);
    assert!(world.log.is_empty(), "{:?}", world.log);
}

/// A replica with other flags took over, or the flags were changed: nobody edited the Service.
#[test]
fn service_that_is_released_by_a_flag_learns_that() {
    let mut world = World::new();
    world.default_provider = true;
    world.restart();
    world.create("web", json!({"spec": {"loadBalancerClass": null}}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
    world.log.clear();
    world.default_provider = false;
    world.restart();
    world.live();
    assert!(world.ingress("web").is_empty());
    let told: Vec<_> = world.events().into_iter().filter(|event| event.warning).collect();
    assert!(told.len() == 1 && told[0].note.contains("--default-provider"), "{told:?}");
}
