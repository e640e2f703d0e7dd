//! The cost of the definitions' rules for the API server.
//!
//! The API server estimates each rule from the longest text and the most entries that the schema admits. It refuses a
//! definition with a rule that may cost more than 10,000,000, or whose rules may cost more than 100,000,000 together
//! (k8s.io/apiextensions-apiserver, `pkg/apis/apiextensions/validation`, `StaticEstimatedCostLimit` and
//! `StaticEstimatedCRDCostLimit`). A text or list without a bound counts as long as a request may be, 3 MiB.
//! docs/benchmarks.md holds the estimates, made by `make cel-cost`.

use std::{fs, path::Path};

use serde_json::Value;

use crate::place::{Place, places};

fn rules(place: &Place) -> &[Value] {
    place.schema.get("x-kubernetes-validations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn lists_and_texts_below_a_rule_are_bounded() {
    let mut ruled = 0;
    for place in places().iter().filter(|place| !rules(place).is_empty()) {
        ruled += 1;
        assert!(place.times.is_some(), "a list round {} has no maxItems", place.path);
        assert_eq!(place.text("type"), Some("string"), "{}: measure rules on other types again", place.path);
        assert!(place.schema.get("maxLength").is_some(), "{} has no maxLength", place.path);
    }
    assert!(ruled > 0);
}

/// A rule that was added or moved since the last `make cel-cost` has no row.
#[test]
fn every_rule_has_a_row_with_its_cost() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md")).unwrap();
    for place in places() {
        let rows = page.lines().filter(|line| line.starts_with(&format!("| `{}`: `", place.path))).count();
        assert_eq!(rows, rules(&place).len(), "{}: run `make cel-cost`", place.path);
    }
}
