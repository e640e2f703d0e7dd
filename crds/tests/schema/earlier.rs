//! The programs of an earlier build with the definitions of today, as while an upgrade is under way or after the
//! programs alone were rolled back.
//!
//! The definitions of a build say what it writes and reads, for both are made of the same types: a field that is
//! required there is required when the build reads, and a word that is not in an enumeration there is an error when it
//! reads.

use std::{collections::BTreeSet, fs, path::Path};

use herald_crds::manifest::definitions;
use serde_json::Value;

use crate::place::schema_of;

/// The definitions of the commit that issues of Herald compare with.
const EARLIER: &str = "../e2e/src/scenario/earlier_crds/8520e6f.yaml";

/// Returns for each kind its name, the earlier schema, and the schema of today.
fn both() -> Vec<(String, Value, Value)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(EARLIER)).unwrap();
    let earlier = text.split("\n---\n").map(|document| schema_of(&serde_saphyr::from_str(document).unwrap()));
    let today = definitions().map(|(_, definition)| schema_of(&serde_json::to_value(definition).unwrap()));
    let pair = |(kind, schema): (String, Value)| {
        let (_, now) = today.iter().find(|(name, _)| *name == kind).unwrap().clone();
        (kind, schema, now)
    };
    let pairs: Vec<_> = earlier.map(pair).collect();
    assert_eq!(pairs.len(), today.len());
    pairs
}

/// Returns the demands that the schema `to` makes of a value, and `from` does not.
fn demands(path: &str, from: &Value, to: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let texts = |schema: &Value, keyword: &str| -> BTreeSet<String> {
        let all = schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
        all.map(|value| value.as_str().map_or_else(|| value["rule"].to_string(), str::to_owned)).collect()
    };
    for keyword in ["type", "format", "pattern"] {
        if to.get(keyword).is_some_and(|value| from.get(keyword) != Some(value)) {
            found.push(format!("{path}: {keyword}"));
        }
    }
    for keyword in ["required", "x-kubernetes-validations"] {
        found.extend(
            texts(to, keyword).difference(&texts(from, keyword)).map(|word| format!("{path}: {keyword} {word}")),
        );
    }
    if to.get("enum").is_some() {
        let (from, to) = (texts(from, "enum"), texts(to, "enum"));
        let unknown: Vec<_> = from.difference(&to).cloned().collect();
        if from.is_empty() || !unknown.is_empty() {
            found.push(format!("{path}: enum {}", unknown.join(",")).trim_end().to_owned());
        }
    }
    let number = |schema: &Value, keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    for (keyword, sign) in [
        ("maxLength", 1.0),
        ("maxItems", 1.0),
        ("maximum", 1.0),
        ("minLength", -1.0),
        ("minItems", -1.0),
        ("minimum", -1.0),
    ] {
        let admits = number(from, keyword).map_or(f64::INFINITY, |value| value * sign);
        if number(to, keyword).is_some_and(|value| value * sign < admits) {
            found.push(format!("{path}: {keyword}"));
        }
    }
    let merged = |schema: &Value| schema.get("x-kubernetes-list-type").cloned();
    if merged(to) != merged(from) {
        found.push(format!("{path}: unique entries"));
    }
    if from["nullable"] == true && to["nullable"] != true {
        found.push(format!("{path}: not null"));
    }
    for (field, below) in from.get("properties").and_then(Value::as_object).into_iter().flatten() {
        match to["properties"].get(field) {
            Some(to) => found.extend(demands(&format!("{path}.{field}"), below, to)),
            None => found.push(format!("{path}.{field}: dropped")),
        }
    }
    for (keyword, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let (Some(from), Some(to)) = (from.get(keyword), to.get(keyword)) {
            found.extend(demands(&format!("{path}{suffix}"), from, to));
        }
    }
    found
}

/// The definitions of today admit every value that an earlier program writes, and drop no field of it.
#[test]
fn definitions_of_today_admit_what_an_earlier_program_writes() {
    let mut found: Vec<String> =
        both().iter().flat_map(|(kind, earlier, today)| demands(kind, earlier, today)).collect();
    // The bounds of conditions are upstream's. An earlier program's types and reasons are single words, and its
    // messages exceed 32 KiB only where a key or an operator of a selector is that long.
    found.retain(|line| !line.contains(".status.conditions"));
    // A person writes these. An object with a value twice, or with one that is too long to name anything, stays as it
    // is: the API server does not refuse an update for parts that it does not change.
    assert_eq!(
        found,
        [
            "AddressPool.spec.addresses: unique entries",
            // The present rule admits more: a CIDR may have bits behind its prefix.
            format!("AddressPool.spec.addresses[]: x-kubernetes-validations {}", block_rule()).as_str(),
            "AddressPool.spec.exclude: unique entries",
            format!("AddressPool.spec.exclude[]: x-kubernetes-validations {}", block_rule()).as_str(),
            "AddressPool.spec.serviceAllocation.namespaces: unique entries",
            "AddressPool.spec.serviceAllocation.namespaces[]: maxLength",
            "AddressPool.spec.serviceAllocation.namespaces[]: minLength",
            "L2Advertisement.spec.addressPools: unique entries",
            "L2Advertisement.spec.addressPools[]: maxLength",
            "L2Advertisement.spec.addressPools[]: minLength",
            "L2Advertisement.spec.interfaces: unique entries",
            // The name of a node cannot be longer.
            "SpeakerStatus.spec.nodeName: maxLength",
            "SpeakerStatus.spec.nodeName: minLength",
        ]
    );
}

fn block_rule() -> String {
    let (_, _, today) = both().into_iter().find(|(kind, ..)| kind == "AddressPool").unwrap();
    let rules = "/properties/spec/properties/addresses/items/x-kubernetes-validations/0/rule";
    today.pointer(rules).unwrap().to_string()
}

/// An earlier program reads the objects that today's programs write, except for the warnings that it does not know: it
/// cannot read a list with one (docs/install.md, "Upgrading").
#[test]
fn earlier_program_reads_everything_but_new_warnings() {
    let is_an_error =
        |line: &String| ["type", "required", "enum", "not null"].iter().any(|what| line.contains(&format!(": {what}")));
    let lines = both().into_iter().flat_map(|(kind, earlier, today)| demands(&kind, &today, &earlier));
    let found: Vec<String> = lines.filter(is_an_error).collect();
    assert_eq!(
        found,
        ["SpeakerStatus.status.warnings[].type: enum \
             BondMode,ClaimsLacking,InterfaceSetting,InterfacesOnOneSegment,SocketRefused"]
    );
}
