//! Label selectors, with the meaning of the API (`k8s.io/apimachinery`, `pkg/apis/meta/v1/helpers.go` and
//! `pkg/labels`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The error of a requirement that cannot be read. The message names the key and the fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The operator does not exist.
    #[error("matchExpressions: operator {operator:?} of key {key:?}: write In, NotIn, Exists or DoesNotExist")]
    UnknownOperator {
        /// The label key of the requirement.
        key: String,
        /// The operator as written.
        operator: String,
    },
    /// `In` or `NotIn` has no value.
    #[error("matchExpressions: operator {operator} of key {key:?} needs at least one value")]
    NoValues {
        /// The label key of the requirement.
        key: String,
        /// The operator as written.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` has values.
    #[error("matchExpressions: operator {operator} of key {key:?} takes no values")]
    UnwantedValues {
        /// The label key of the requirement.
        key: String,
        /// The operator as written.
        operator: String,
    },
}

/// Returns whether the selector chooses an object with these labels. An empty selector chooses all.
///
/// # Errors
/// When a requirement cannot be read, whatever the labels are, because a selector is right or wrong by itself. The
/// error is that of the first one.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool, SelectorError> {
    let mut all =
        selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key).is_some_and(|have| have == value));
    for requirement in selector.match_expressions.iter().flatten() {
        // There is no short circuit: an unreadable requirement is reported for every object.
        all &= meets(requirement, labels)?;
    }
    Ok(all)
}

/// Returns whether one of the selectors chooses an object with these labels. An empty list chooses all.
///
/// # Errors
/// When a requirement cannot be read, as in [`matches()`].
pub fn any_matches(selectors: &[LabelSelector], labels: &BTreeMap<String, String>) -> Result<bool, SelectorError> {
    let mut any = selectors.is_empty();
    for selector in selectors {
        any |= matches(selector, labels)?;
    }
    Ok(any)
}

fn meets(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> Result<bool, SelectorError> {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let values = values.as_deref().unwrap_or_default();
    let have = labels.get(key);
    let (key, operator) = (|| key.clone(), || operator.clone());
    match (requirement.operator.as_str(), values) {
        ("In" | "NotIn", []) => Err(SelectorError::NoValues { key: key(), operator: operator() }),
        ("In", values) => Ok(have.is_some_and(|v| values.contains(v))),
        // An object without the key meets `NotIn`, as in upstream.
        ("NotIn", values) => Ok(!have.is_some_and(|v| values.contains(v))),
        ("Exists", []) => Ok(have.is_some()),
        ("DoesNotExist", []) => Ok(have.is_none()),
        ("Exists" | "DoesNotExist", _) => Err(SelectorError::UnwantedValues { key: key(), operator: operator() }),
        _ => Err(SelectorError::UnknownOperator { key: key(), operator: operator() }),
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: (!values.is_empty()).then(|| values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test_case("In", &["a", "b"], true)]
    #[test_case("In", &["b"], false)]
    #[test_case("NotIn", &["b"], true)]
    #[test_case("NotIn", &["a"], false)]
    #[test_case("Exists", &[], true)]
    #[test_case("DoesNotExist", &[], false)]
    fn operator_decides_on_a_present_key(operator: &str, values: &[&str], expected: bool) {
        let labels = labels(&[("zone", "a"), ("other", "b")]);
        assert_eq!(matches(&expression("zone", operator, values), &labels), Ok(expected));
    }

    #[test_case("In", &["a"], false)]
    #[test_case("NotIn", &["a"], true)]
    #[test_case("Exists", &[], false)]
    #[test_case("DoesNotExist", &[], true)]
    fn operator_decides_on_an_absent_key(operator: &str, values: &[&str], expected: bool) {
        assert_eq!(matches(&expression("zone", operator, values), &labels(&[("other", "a")])), Ok(expected));
    }

    #[test_case("in", &["a"], "operator \"in\" of key \"zone\": write In")]
    #[test_case("In", &[], "operator In of key \"zone\" needs at least one value")]
    #[test_case("NotIn", &[], "operator NotIn of key \"zone\" needs at least one value")]
    #[test_case("Exists", &["a"], "operator Exists of key \"zone\" takes no values")]
    fn unreadable_requirement_is_named(operator: &str, values: &[&str], message: &str) {
        let mut selector = expression("zone", operator, values);
        // The labels do not match, and the error is reported nevertheless.
        selector.match_labels = Some(labels(&[("absent", "x")]));
        let error = matches(&selector, &labels(&[])).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let mut selector = expression("zone", "In", &["a"]);
        selector.match_labels = Some(labels(&[("disk", "ssd")]));
        assert_eq!(matches(&selector, &labels(&[("zone", "a"), ("disk", "ssd")])), Ok(true));
        assert_eq!(matches(&selector, &labels(&[("zone", "a")])), Ok(false));
        assert_eq!(matches(&selector, &labels(&[("disk", "ssd")])), Ok(false));
    }

    #[test]
    fn empty_selector_chooses_all() {
        assert_eq!(matches(&LabelSelector::default(), &labels(&[])), Ok(true));
        assert_eq!(any_matches(&[], &labels(&[])), Ok(true));
        assert_eq!(any_matches(&[expression("zone", "Exists", &[])], &labels(&[])), Ok(false));
    }
}
