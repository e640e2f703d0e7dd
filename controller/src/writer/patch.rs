//! The bodies of writes.

use herald_crds::{
    VirtualIP, VirtualIPSpec,
    address::name_of_address,
    event::{Report, about_service},
    names::{
        ANNOTATION_ALLOCATED_FROM, CONDITION_ADDRESS_ASSIGNED, FINALIZER_WITHDRAWAL, GROUP, MANAGER_CONTROLLER, VERSION,
    },
};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time},
};
use serde_json::{Map, Value, json};

use crate::action::{AdvertisementReport, Change, ConditionValue, EventValue, PoolReport, Regarding, ServicePatch};

/// Returns a VirtualIP to create, held by our finalizer from the beginning.
pub(super) fn virtual_ip(
    address: std::net::IpAddr,
    labels: std::collections::BTreeMap<String, String>,
    spec: VirtualIPSpec,
) -> VirtualIP {
    let mut vip = VirtualIP::new(&name_of_address(address), spec);
    vip.metadata.labels = Some(labels);
    vip.metadata.finalizers = Some(vec![FINALIZER_WITHDRAWAL.to_owned()]);
    vip
}

/// Returns a strategic-merge patch on the status subresource of a Service. Only such a patch merges lists by their
/// keys, so that conditions and finalizers of others stay (a JSON merge patch replaces lists).
pub(crate) fn service(patch: &ServicePatch, resource_version: &str, uid: &str, now: &Time) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), json!(resource_version));
    metadata.insert("uid".to_owned(), json!(uid));
    if let Some(finalizer) = patch.add_finalizer {
        metadata.insert("finalizers".to_owned(), json!([finalizer]));
    }
    if let Some(finalizer) = patch.remove_finalizer {
        metadata.insert("$deleteFromPrimitiveList/finalizers".to_owned(), json!([finalizer]));
    }
    // The status subresource of a Service accepts metadata as well (`serviceStatusStrategy` keeps only the spec).
    match &patch.allocated_from {
        Change::Keep => {}
        Change::Set(pools) => {
            drop(metadata.insert("annotations".to_owned(), json!({ANNOTATION_ALLOCATED_FROM: pools})))
        }
        Change::Remove => drop(metadata.insert("annotations".to_owned(), json!({ANNOTATION_ALLOCATED_FROM: null}))),
    }
    let mut status = Map::new();
    match &patch.ingress {
        Change::Keep => {}
        Change::Set(addresses) => {
            let entry = |a: &std::net::IpAddr| json!({"ip": a.to_string(), "ipMode": "VIP"});
            let ingress: Vec<Value> = addresses.iter().map(entry).collect();
            status.insert("loadBalancer".to_owned(), json!({ "ingress": ingress }));
        }
        Change::Remove => {
            status.insert("loadBalancer".to_owned(), json!({ "ingress": null }));
        }
    }
    match &patch.condition {
        Change::Keep => {}
        Change::Set(condition) => {
            status.insert("conditions".to_owned(), json!([condition.at(now)]));
        }
        Change::Remove => {
            let gone = json!([{"$patch": "delete", "type": CONDITION_ADDRESS_ASSIGNED}]);
            status.insert("conditions".to_owned(), gone);
        }
    }
    let mut body = Map::from_iter([("metadata".to_owned(), Value::Object(metadata))]);
    if !status.is_empty() {
        body.insert("status".to_owned(), Value::Object(status));
    }
    Value::Object(body)
}

/// Returns a JSON merge patch of a VirtualIP's spec and labels. Such a patch leaves fields alone that it does not name,
/// so every optional field of a spec is named with null.
pub(super) fn virtual_ip_spec(
    spec: &VirtualIPSpec,
    labels: &std::collections::BTreeMap<String, Option<String>>,
    resource_version: &str,
) -> Result<Value, serde_json::Error> {
    let mut fields = json!({"homeNode": null, "healthCheckNodePort": null, "advertisedBy": null, "serviceNames": null});
    if let (Some(fields), Value::Object(new)) = (fields.as_object_mut(), serde_json::to_value(spec)?) {
        fields.extend(new);
    }
    Ok(json!({"metadata": {"resourceVersion": resource_version, "labels": labels}, "spec": fields}))
}

/// Returns a JSON merge patch of a VirtualIP's finalizers.
pub(super) fn virtual_ip_finalizers(remaining: &[String], resource_version: &str) -> Value {
    json!({"metadata": {"resourceVersion": resource_version, "finalizers": remaining}})
}

/// Returns a JSON merge patch of a VirtualIP's status that names no announcing node. Such a patch replaces lists, so it
/// contains the `others` too.
pub(super) fn virtual_ip_status(
    condition: &ConditionValue,
    others: &[Condition],
    resource_version: &str,
    now: &Time,
) -> Value {
    let conditions: Vec<_> = others.iter().cloned().chain([condition.at(now)]).collect();
    json!({
        "metadata": {"resourceVersion": resource_version},
        "status": {"node": null, "interface": null, "macAddress": null, "since": null,
            "conditions": conditions}
    })
}

/// Returns a JSON merge patch of a pool's status.
pub(super) fn pool_status(report: &PoolReport, resource_version: &str, now: &Time) -> Value {
    let conditions: Vec<_> = report.conditions.iter().map(|c| c.at(now)).collect();
    json!({
        "metadata": {"resourceVersion": resource_version},
        "status": {"observedGeneration": report.generation, "ipv4": report.ipv4, "ipv6": report.ipv6,
            "quarantined": report.quarantined, "conditions": conditions}
    })
}

/// Returns a JSON merge patch of an advertisement's status. All its conditions are ours.
pub(super) fn advertisement_status(report: &AdvertisementReport, resource_version: &str, now: &Time) -> Value {
    let conditions: Vec<_> = report.conditions.iter().map(|c| c.at(now)).collect();
    json!({
        "metadata": {"resourceVersion": resource_version},
        "status": {"observedGeneration": report.generation, "conditions": conditions}
    })
}

/// Returns an event in the form of the API.
pub(super) fn event(value: &EventValue, instance: &str, now: MicroTime) -> Event {
    let regarding = match &value.regarding {
        Regarding::Service(service) => about_service(service),
        Regarding::Object { kind, name, uid } => ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some((*kind).to_owned()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
    };
    // The name follows upstream's recorder: no two events of one object fall into one nanosecond.
    let name = format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), now.0.as_nanosecond());
    let EventValue { warning, reason, action, note, .. } = value;
    let (warning, program) = (*warning, MANAGER_CONTROLLER);
    Report { name, regarding, warning, reason, action, note, at: now, program, instance }.into()
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use super::*;

    fn now() -> Time {
        Time("2026-01-02T03:04:05Z".parse().unwrap())
    }

    #[test]
    fn finalizer_ingress_and_condition_go_in_one_patch() {
        let condition = ConditionValue {
            type_: CONDITION_ADDRESS_ASSIGNED,
            status: "True",
            reason: "Assigned".to_owned(),
            message: "192.0.2.1 from AddressPool lan".to_owned(),
            generation: None,
            since: None,
        };
        let patch = ServicePatch {
            ingress: Change::Set(vec!["192.0.2.1".parse().unwrap()]),
            condition: Change::Set(condition),
            allocated_from: Change::Set("lan".to_owned()),
            add_finalizer: Some("f"),
            remove_finalizer: None,
        };
        let expected = json!({
            "metadata": {"resourceVersion": "7", "uid": "u", "finalizers": ["f"],
                "annotations": {"heraldlb.io/allocated-from-pool": "lan"}},
            "status": {
                "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]},
                "conditions": [{"type": CONDITION_ADDRESS_ASSIGNED, "status": "True", "reason": "Assigned",
                    "message": "192.0.2.1 from AddressPool lan", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}
        });
        assert_eq!(service(&patch, "7", "u", &now()), expected);
    }

    /// An unnamed field would keep its value: an address whose pool came back was advertised by another pool from then
    /// on.
    #[test]
    fn patch_names_every_field_of_a_spec_even_an_absent_one() {
        let spec: VirtualIPSpec = serde_json::from_value(json!({
            "address": "192.0.2.1", "pool": "lan", "services": [], "advertisements": [],
        }))
        .unwrap();
        let patch = virtual_ip_spec(&spec, &std::collections::BTreeMap::new(), "7").unwrap();
        let named: Vec<_> = patch["spec"].as_object().unwrap().keys().cloned().collect();
        let definition = serde_json::to_value(VirtualIP::crd()).unwrap();
        let fields = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
        assert_eq!(named, fields.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
        assert_eq!(patch["spec"]["advertisedBy"], Value::Null);
    }

    #[test]
    fn removal_names_only_the_removed_finalizer() {
        let patch = ServicePatch { remove_finalizer: Some("f"), ..ServicePatch::default() };
        let expected =
            json!({"metadata": {"resourceVersion": "7", "uid": "u", "$deleteFromPrimitiveList/finalizers": ["f"]}});
        assert_eq!(service(&patch, "7", "u", &now()), expected);
    }

    #[test]
    fn event_about_a_cluster_scoped_object_is_in_the_default_namespace() {
        let value = EventValue {
            regarding: Regarding::Object { kind: "VirtualIP", name: "192.0.2.1".to_owned(), uid: "u".to_owned() },
            warning: true,
            reason: "R",
            action: "A",
            note: "n".to_owned(),
        };
        let event = event(&value, "i", MicroTime(now().0));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.unwrap().starts_with("192.0.2.1."));
    }
}
