//! The page `docs/crds.md`: every field of Herald's kinds, from their definitions.

use herald_crds::manifest;
use serde_json::Value;

const HEAD: &str = "\
# Every field

<!-- Generated from crds/src by `make crd-reference`; do not edit. -->

The kinds of `heraldlb.io/v1alpha1`, with every field. `kubectl explain pool.spec` prints the same. All kinds are cluster-scoped. You
write AddressPools and L2Advertisements; Herald writes VirtualIPs, SpeakerStatuses and every `status`.

- [AddressPool](#addresspool), [L2Advertisement](#l2advertisement), [VirtualIP](#virtualip), [SpeakerStatus](#speakerstatus)
- A *selector* is a label selector of Kubernetes, with `matchLabels` and `matchExpressions`. Of several selectors in one list, one has
  to match. An empty selector (`{}`) matches everything.
- A *condition* has `type`, `status` (True, False), `reason`, `message`, `lastTransitionTime` and `observedGeneration`. The reasons are in
  [reasons.md](reasons.md#pools-and-advertisements) and [observe.md](observe.md#objects).
- A field without a default that is not required may be absent. A text in quotation marks is the API server's answer to a value that it
  refuses.
";

/// Returns the text of the page.
///
/// # Errors
/// When a definition cannot be written as JSON, which would be a defect of its type.
pub fn page() -> Result<String, serde_json::Error> {
    let mut page = HEAD.to_owned();
    for (_, definition) in manifest::definitions() {
        page += &section(&serde_json::to_value(definition)?["spec"]);
    }
    Ok(page)
}

/// Returns the section of one kind.
fn section(definition: &Value) -> String {
    let names = &definition["names"];
    let version = &definition["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut section = format!("\n## {}\n\n{}\n", text(&names["kind"]), description(schema));
    let short = entries(&names["shortNames"]).map(text).collect::<Vec<_>>().join(", ");
    section += &format!("\n`kubectl get {short}` shows these columns, those in brackets with `-o wide`: ");
    let columns = entries(&version["additionalPrinterColumns"]).map(column).collect::<Vec<_>>();
    section += &format!("{}.\n", columns.join(", "));
    for part in ["spec", "status"] {
        let fields = &schema["properties"][part];
        section += &format!("\n### `{part}` of {}\n\n{}\n\n", text(&names["kind"]), description(fields));
        section += "| field | type | default | meaning |\n|---|---|---|---|\n";
        rows(&mut section, part, fields);
    }
    section
}

/// Returns a column of `kubectl get` as it is printed.
fn column(column: &Value) -> String {
    let name = text(&column["name"]).to_uppercase();
    if column["priority"].as_i64().unwrap_or(0) > 0 { format!("(`{name}`)") } else { format!("`{name}`") }
}

/// Writes a row for each field of an object, each followed by the rows of its own fields.
fn rows(page: &mut String, path: &str, object: &Value) {
    let Some(fields) = object["properties"].as_object() else { return };
    for (name, field) in fields {
        let path = format!("{path}.{name}");
        let required = entries(&object["required"]).any(|required| required == name);
        *page += &format!(
            "| `{path}` | {} | {} | {} |\n",
            type_of(field),
            default(field, required),
            [description(field), bounds(field)].join(" ").trim_end().replace('|', "\\|")
        );
        let (entry, path) =
            if field["type"] == "array" { (&field["items"], format!("{path}[]")) } else { (field, path) };
        if known(entry).is_none() {
            rows(page, &path, entry);
        }
    }
}

/// Returns the name of a schema of Kubernetes that the head of the page explains once.
fn known(schema: &Value) -> Option<&'static str> {
    let has = |field: &str| schema["properties"].get(field).is_some();
    if has("matchExpressions") && has("matchLabels") {
        Some("selector")
    } else if has("lastTransitionTime") && has("reason") {
        Some("condition")
    } else {
        None
    }
}

fn type_of(schema: &Value) -> String {
    if schema["type"] == "array" {
        return format!("list of {}", type_of(&schema["items"]));
    }
    if let Some(known) = known(schema) {
        return known.to_owned();
    }
    match (text(&schema["type"]), text(&schema["format"])) {
        ("string", "date-time") => "time".to_owned(),
        (name, _) => name.to_owned(),
    }
}

fn default(schema: &Value, required: bool) -> String {
    match &schema["default"] {
        _ if required => "required".to_owned(),
        // The defaults of an object's fields have rows of their own.
        Value::Null | Value::Object(_) => String::new(),
        Value::String(default) if default.is_empty() => "empty".to_owned(),
        default => format!("`{}`", default.to_string().trim_matches('"')),
    }
}

/// Returns what the API server demands of a value, in sentences.
fn bounds(schema: &Value) -> String {
    let mut sentences = Vec::new();
    let mut range = |subject: &str, from: &Value, to: &Value, unit: &str| match (from.as_f64(), to.as_f64()) {
        (Some(from), Some(to)) => sentences.push(format!("{subject}{from} to {to}{unit}.")),
        (None, Some(to)) => sentences.push(format!("{subject}At most {to}{unit}.")),
        (Some(from), None) => sentences.push(format!("{subject}At least {from}{unit}.")),
        (None, None) => {}
    };
    range("", &schema["minItems"], &schema["maxItems"], " entries");
    range("", &schema["minimum"], &schema["maximum"], "");
    let value = if schema["type"] == "array" { &schema["items"] } else { schema };
    let each = if schema["type"] == "array" { "Each: " } else { "" };
    range(each, &value["minLength"], &value["maxLength"], " characters");
    if schema["x-kubernetes-list-type"] == "set" {
        sentences.push("No entry twice.".to_owned());
    }
    let words: Vec<_> = entries(&value["enum"]).map(|word| format!("`{}`", text(word))).collect();
    if !words.is_empty() {
        sentences.push(format!("One of {}.", words.join(", ")));
    }
    let refusals = entries(&value["x-kubernetes-validations"]);
    sentences.extend(refusals.map(|rule| format!("\"{}\".", text(&rule["message"]))));
    sentences.join(" ")
}

/// Returns the description of a schema in one line.
fn description(schema: &Value) -> String {
    text(&schema["description"]).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;
    use test_case::test_case;

    use super::*;

    #[test]
    fn page_matches_the_types() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/crds.md");
        let written = fs::read_to_string(path).unwrap();
        assert!(
            written == page().unwrap(),
            "docs/crds.md differs from the types: run `make crd-reference` and read the difference"
        );
    }

    #[test]
    fn every_field_has_a_meaning() {
        for line in page().unwrap().lines().filter(|line| line.starts_with("| `")) {
            let meaning = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            assert!(!meaning.is_empty() && !meaning.ends_with('|'), "{line}");
        }
    }

    #[test_case(json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string", "maxLength": 9}})
                => "1 to 2 entries. Each: At most 9 characters.")]
    #[test_case(json!({"type": "integer", "minimum": 0.0}) => "At least 0.")]
    #[test_case(json!({"type": "string", "enum": ["Never", "Always"]}) => "One of `Never`, `Always`.")]
    #[test_case(json!({"x-kubernetes-validations": [{"rule": "isIP(self)", "message": "is not an IP address"}]})
                => "\"is not an IP address\".")]
    fn bounds_are_sentences(schema: Value) -> String {
        bounds(&schema)
    }

    #[test_case(json!({"default": true}), false => "`true`")]
    #[test_case(json!({"default": "Never"}), false => "`Never`")]
    #[test_case(json!({}), true => "required")]
    #[test_case(json!({}), false => "")]
    fn default_is_shown(schema: Value, required: bool) -> String {
        default(&schema, required)
    }
}
