//! Conditions in the statuses of Herald's kinds, in the form of the API conventions: a list keyed by type, with the
//! bounds that upstream's own kinds carry (k8s.io/apimachinery, `pkg/apis/meta/v1/types.go`, Condition). The Rust type
//! leaves the bounds out of its schema.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The longest message. The API server counts characters; this code counts bytes, which are at least as many.
pub const MESSAGE_LIMIT: usize = 32_768;

/// Returns a message in the form that a condition takes: a message longer than [`MESSAGE_LIMIT`] is cut, and the rest
/// says enough.
pub fn bounded(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_LIMIT)]
}

/// The most characters of a value that a message shows: an IPv6 address and more.
const SHOWN: usize = 64;

/// Returns a value in the form in which messages show it. An annotation holds up to 256 KiB; in full it would take the
/// remedy out of the condition, which is cut at its end, and write as much into the log.
pub fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

/// Returns the schema of a list of conditions. Each program that writes one owns its own entry, however it writes: with
/// a list that is replaced as a whole, server-side apply by one program would remove the other's entry.
pub(crate) fn list(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": bounded_condition(generator),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Returns the status of an object that no controller has seen yet, as the API server fills it in. Without this status
/// kstatus takes a new object for finished: it compares generations only where `status.observedGeneration` exists
/// (`checkGeneration`, `sigs.k8s.io/cli-utils/pkg/kstatus/status/generic.go`). Flux's own kinds do the same.
pub(crate) fn unobserved() -> Value {
    json!({"observedGeneration": -1})
}

fn bounded_condition(generator: &mut SchemaGenerator) -> Value {
    let mut schema = Condition::json_schema(generator).to_value();
    let bounds = [
        (
            "type",
            json!({
                "maxLength": 316,
                "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            }),
        ),
        ("status", json!({"enum": ["True", "False", "Unknown"]})),
        ("reason", json!({"minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"})),
        ("message", json!({"maxLength": MESSAGE_LIMIT})),
        ("observedGeneration", json!({"minimum": 0})),
    ];
    let mut fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (field, bounds) in bounds {
        let field = fields.as_mut().and_then(|fields| fields.get_mut(field)).and_then(Value::as_object_mut);
        if let (Some(field), Value::Object(bounds)) = (field, bounds) {
            field.extend(bounds);
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_cut_at_a_character() {
        let long = format!("a{}", "ä".repeat(MESSAGE_LIMIT));
        assert_eq!(bounded(&long).len(), MESSAGE_LIMIT - 1, "an ä is two bytes");
        assert_eq!(bounded("short"), "short");
    }

    #[test]
    fn every_field_of_a_condition_but_its_time_is_bounded() {
        let schema = bounded_condition(&mut SchemaGenerator::default());
        let fields = schema["properties"].as_object().unwrap().iter();
        for (name, field) in fields.filter(|(name, _)| *name != "lastTransitionTime") {
            let is_bounded = ["maxLength", "enum", "minimum", "format"].iter().any(|bound| field.get(bound).is_some());
            assert!(is_bounded, "{name}: {field}");
        }
    }

    #[test]
    fn long_value_is_shown_in_part() {
        assert_eq!(shown("192.0.2.l"), "192.0.2.l");
        assert_eq!(shown(&"ä".repeat(SHOWN)), "ä".repeat(SHOWN));
        assert_eq!(shown(&"ä".repeat(SHOWN + 1)), format!("{}...", "ä".repeat(SHOWN)));
    }
}
