//! IPv4 and IPv6.

use serde_json::{Value, json};
use test_case::test_case;

use crate::index::tests::fake_cluster::World;

#[test]
fn addresses_are_in_the_order_of_the_families() {
    let mut world = World::new();
    world.pool("six", json!({"addresses": ["2001:db8::/64"]}));
    world.create("web", json!({"spec": {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}}));
    world.settle();
    assert_eq!(world.ingress("web"), ["2001:db8::1", "192.0.2.1"]);
    let writes: Vec<_> = world.writes().into_iter().filter(|w| w != "PatchPoolStatus").collect();
    assert_eq!(writes, ["CreateVirtualIp", "CreateVirtualIp", "PatchServiceStatus", "Event"]);
    world.change("web", json!({"spec": {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}}));
    world.live();
    assert_eq!(world.ingress("web"), ["2001:db8::1"]);
    assert_eq!(world.vips.len(), 1);
}

#[test_case("RequireDualStack", &[], "False NoPoolAllows"; "both or none")]
#[test_case("PreferDualStack", &["192.0.2.1"], "True Assigned"; "one now, the other later")]
fn policy_decides_when_one_family_is_missing(policy: &str, expected: &[&str], condition: &str) {
    let mut world = World::new();
    world.create("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy}}));
    world.live();
    assert_eq!(
        (world.ingress("web"), &*world.condition("web")),
        (expected.iter().map(|a| (*a).to_owned()).collect(), condition)
    );
    world.pool("six", json!({"addresses": ["2001:db8::7"]}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1", "2001:db8::7"]);
}

/// Dual stack comes and goes, and the first address stays; the second is free for others.
#[test_case("RequireDualStack")]
#[test_case("PreferDualStack")]
fn second_family_comes_and_goes(policy: &str) {
    let mut world = World::new();
    world.pool("six", json!({"addresses": ["2001:db8::7"]}));
    world.create("web", json!({}));
    world.live();
    for _ in 0..2 {
        world.change("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy}}));
        world.live();
        assert_eq!(world.ingress("web"), ["192.0.2.1", "2001:db8::7"]);
        world.change("web", json!({"spec": {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}}));
        world.live();
        assert_eq!(world.ingress("web"), ["192.0.2.1"]);
        assert_eq!(world.vips.len(), 1);
    }
    // An upgrade that cannot be met removes nothing.
    world.delete_pool("six");
    world.change("web", json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": policy}}));
    world.live();
    assert_eq!(world.ingress("web"), ["192.0.2.1"]);
}

/// A refused request is reported whatever the policy of the Service; only an unavailable family is a mere note.
#[test_case(json!({"spec": {"loadBalancerIP": "192.0.2.3"}}), "AddressInUse")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.300"}}}), "BadRequest")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "dmzz"}}}), "UnknownPool")]
#[test_case(json!({"metadata": {"annotations": {"heraldlb.io/address-pool": "closed"}}}), "NoPoolAllows")]
fn service_that_prefers_two_families_learns_which_request_is_refused(change: Value, reason: &str) {
    let mut world = World::new();
    world.pool("six", json!({"addresses": ["2001:db8::1-2001:db8::9"]}));
    world.pool("closed", json!({"addresses": ["192.0.2.9", "2001:db8::b"], "drain": true}));
    world.create("first", json!({"spec": {"loadBalancerIP": "192.0.2.3"}}));
    let both = json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}});
    world.create("web", both.clone());
    world.live();
    assert_eq!((world.ingress("web").len(), world.condition("web")), (2, "True Assigned".into()));
    world.log.clear();
    world.change("web", change);
    world.live();
    assert_eq!((world.ingress("web").len(), world.condition("web")), (2, format!("False {reason}")));
    assert!(world.events().iter().any(|event| event.reason == "SyncLoadBalancerFailed"));
    assert_eq!(world.index.tally().waiting.get(reason), Some(&1));
}
