//! The output of `kubectl explain`: the descriptions of the schema, which are the comments of the types.

use serde_json::Value;

use crate::place::places;

/// Texts that a comment may have and a reader of `kubectl explain` cannot use: links, paths and names of Rust.
const OF_RUST: [&str; 10] = ["[`", "`]", "](", "::", "Option<", "Vec<", "`None`", "`Some", "Self", "# Errors"];

#[test]
fn descriptions_are_written_for_people_who_type_kubectl() {
    for place in places() {
        let Some(text) = place.text("description") else { continue };
        let found: Vec<_> = OF_RUST.iter().filter(|word| text.contains(**word)).collect();
        assert!(found.is_empty(), "{}: {found:?} in {text:?}", place.path);
        assert!(text.ends_with('.'), "{}: {text:?} is not a sentence", place.path);
        assert!(!text.contains("  ") || is_upstreams(&place.path), "{}: {text:?}", place.path);
    }
}

/// Returns whether the description is upstream's: those of conditions and selectors are.
fn is_upstreams(path: &str) -> bool {
    path.contains(".conditions") || path.contains("electors") || path.contains(".preference")
}

#[test]
fn every_field_is_described() {
    for place in places() {
        for (field, schema) in place.schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(!text.is_empty(), "{}.{field}", place.path);
        }
    }
}

/// `kubectl explain` prints the values of an enumeration but not their meanings, so the field has to explain them.
#[test]
fn field_with_an_enumeration_explains_each_value() {
    const NAMED_ELSEWHERE: &str = "SpeakerStatus.status.warnings[].type";
    for place in places().iter().filter(|place| !is_upstreams(&place.path) && place.path != NAMED_ELSEWHERE) {
        let text = place.text("description").unwrap_or_default();
        for value in place.schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
            let value = value.as_str().unwrap();
            assert!(text.contains(&format!("`{value}`")), "{}: {value} is not explained in {text:?}", place.path);
        }
    }
}
