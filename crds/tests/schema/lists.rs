//! How server-side apply merges lists.

use crate::place::places;

/// A list that is not named here is atomic, the API's default: a field manager that applies it replaces it as a whole.
/// Lists that only Herald writes are atomic, and so are lists of objects, which have no key. Plain values that an
/// administrator writes may come from several field managers. Conditions have several writers.
#[test]
fn lists_that_several_may_write_are_merged_by_entry() {
    let merged: Vec<String> = places()
        .iter()
        .filter_map(|place| {
            let keys = place.schema.get("x-kubernetes-list-map-keys").map(ToString::to_string).unwrap_or_default();
            place.text("x-kubernetes-list-type").map(|by| format!("{} {by}{keys}", place.path))
        })
        .collect();
    assert_eq!(
        merged,
        [
            "AddressPool.spec.addresses set",
            "AddressPool.spec.exclude set",
            "AddressPool.spec.serviceAllocation.namespaces set",
            "AddressPool.status.conditions map[\"type\"]",
            "L2Advertisement.spec.addressPools set",
            "L2Advertisement.spec.interfaces set",
            "L2Advertisement.status.conditions map[\"type\"]",
            "VirtualIP.status.conditions map[\"type\"]",
        ]
    );
}

/// A field that makes an entry of a list unique must be required in each entry.
#[test]
fn keys_of_a_list_are_required_in_its_entries() {
    for place in places() {
        let keys = place.schema.get("x-kubernetes-list-map-keys").and_then(|keys| keys.as_array());
        for key in keys.into_iter().flatten() {
            assert!(place.schema["items"]["required"].as_array().unwrap().contains(key), "{} {key}", place.path);
        }
    }
}
