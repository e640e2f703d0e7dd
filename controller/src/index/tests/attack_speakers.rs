//! Nodes that leave the cluster and come back, while their speakers' pods stay.

use serde_json::json;

use crate::index::{
    speakers::{ABANDONED_AFTER, SILENT_AFTER},
    world::{World, address},
    *,
};

const VIP: &str = "192.0.2.1";

/// `kubectl delete node`, and the kubelet registers it again at once: the pod garbage collector waits 40 s before it deletes
/// the pods of a node that is not there (pkg/controller/podgc, quarantineTime), so nothing happens to the speaker's.
#[test]
fn pod_that_outlives_its_node_object_is_not_missing() {
    let mut world = World::new();
    world.create("web", json!({}));
    world.live();
    world.pass(60);
    let view = world.nodes.remove("a").unwrap();
    world.relist(Kind::Node);
    world.settle();
    world.nodes.insert("a".to_owned(), view);
    world.relist(Kind::Node);
    world.log.clear();
    world.pass(SILENT_AFTER.as_secs() + 1);
    let said = world.vips[&address(VIP)].announced().unwrap().reason.clone();
    assert_eq!(said, "Announcing", "its speaker's pod is Ready and always was");
    world.pass(2 * ABANDONED_AFTER.as_secs());
    world.wrote_nothing();
    assert!(world.speakers.contains_key("a"));
}
