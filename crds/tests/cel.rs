//! The CEL rules of the definitions: the values that they admit and refuse, and their messages.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use herald_crds::{AddressPool, L2Advertisement, VirtualIP};
use kube::core::cel::{validate_cel, validate_cel_update};
use serde_json::json;
use test_case::test_case;

fn pool(addresses: &[&str], exclude: &[&str]) -> AddressPool {
    serde_json::from_value(json!({
        "apiVersion": "heraldlb.io/v1alpha1", "kind": "AddressPool", "metadata": {"name": "p"},
        "spec": {"addresses": addresses, "exclude": exclude},
    }))
    .unwrap()
}

#[test_case(&["192.0.2.0/24"])]
#[test_case(&["192.0.2.5/24"]; "host bits")]
#[test_case(&["192.0.2.10-192.0.2.20"])]
#[test_case(&["192.0.2.10 - 192.0.2.20"])]
#[test_case(&["192.0.2.10", "2001:db8::/64", "2001:db8:1::1-2001:db8:1::ff"])]
fn valid_pool_is_admitted(addresses: &[&str]) {
    validate_cel(&pool(addresses, &[])).unwrap();
    validate_cel(&pool(&["192.0.2.0/24"], addresses)).unwrap();
}

#[test_case("192.0.2.0/33"; "prefix too long")]
#[test_case("192.0.2.300"; "not an address")]
#[test_case("192.0.2.1-2001:db8::1"; "two families")]
#[test_case("192.0.2.1-192.0.2.3-192.0.2.5"; "two dashes")]
#[test_case("web"; "a word")]
fn invalid_pool_is_refused_with_a_remedy(block: &str) {
    for (bad, field) in [(pool(&[block], &[]), "spec.addresses"), (pool(&["192.0.2.0/24"], &[block]), "spec.exclude")] {
        let errors = validate_cel(&bad).unwrap_err();
        let said: Vec<_> = errors.iter().map(|e| format!("{}: {}", e.field_path, e.message)).collect();
        assert!(said.iter().any(|s| s.starts_with(field) && s.contains("is not an address block")), "{said:?}");
    }
}

fn advertisement(interfaces: &[&str]) -> L2Advertisement {
    serde_json::from_value(json!({
        "apiVersion": "heraldlb.io/v1alpha1", "kind": "L2Advertisement", "metadata": {"name": "a"},
        "spec": {"interfaces": interfaces},
    }))
    .unwrap()
}

#[test]
fn interface_patterns_are_checked() {
    validate_cel(&advertisement(&["eth0", "eth*", "!eth9", "bond0.100", "veth?@if2"])).unwrap();
    for bad in ["eth 0", "!!eth0", "eth0/1", "!", "a-name-of-16-char"] {
        assert!(validate_cel(&advertisement(&[bad])).is_err(), "{bad:?} is refused");
    }
}

fn vip(address: &str) -> VirtualIP {
    serde_json::from_value(json!({
        "apiVersion": "heraldlb.io/v1alpha1", "kind": "VirtualIP", "metadata": {"name": "192.0.2.1"},
        "spec": {"address": address, "pool": "p", "advertisements": [],
                 "services": [{"namespace": "default", "name": "web", "uid": "1"}]},
    }))
    .unwrap()
}

#[test]
fn the_address_of_a_virtual_ip_is_immutable() {
    validate_cel(&vip("192.0.2.1")).unwrap();
    assert!(validate_cel(&vip("web")).is_err());
    validate_cel_update(&vip("192.0.2.1"), &vip("192.0.2.1")).unwrap();
    let errors = validate_cel_update(&vip("192.0.2.1"), &vip("192.0.2.2")).unwrap_err();
    assert!(errors.iter().any(|e| e.message.contains("is immutable")), "{errors:?}");
}
