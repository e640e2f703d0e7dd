//! Which advertisements apply to an address, and what is to be said of one.

use std::collections::BTreeMap;

use herald_crds::{
    L2AdvertisementSpec,
    selector::{self, SelectorError},
    virtual_ip::AdvertisementRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A VirtualIP holds at most this many rules (its schema); the first by name count.
const MOST_RULES: usize = 64;

/// The address an advertisement may select.
#[derive(Clone, Copy, Debug)]
pub struct Advertised<'a> {
    /// The pool it was assigned from.
    pub pool: &'a str,
    /// The pool's labels; none where the pool is gone.
    pub pool_labels: &'a BTreeMap<String, String>,
    /// The labels of each of its Services.
    pub service_labels: &'a [&'a BTreeMap<String, String>],
}

/// The rules for an address: one that selects everything where the cluster has no advertisement; else those that
/// select it, in order of their names; none where none does.
pub fn rules<'a>(
    advertisements: impl IntoIterator<Item = (&'a String, &'a L2AdvertisementSpec)>,
    of: Advertised<'_>,
) -> Vec<AdvertisementRule> {
    let mut advertisements = advertisements.into_iter().peekable();
    if advertisements.peek().is_none() {
        return vec![AdvertisementRule::everywhere()];
    }
    let selected = advertisements.filter(|(_, spec)| selects(spec, of));
    selected.take(MOST_RULES).map(|(name, spec)| rule(name, spec)).collect()
}

fn selects(spec: &L2AdvertisementSpec, of: Advertised<'_>) -> bool {
    // A selector that cannot be read selects nothing.
    let any = |selectors: &[LabelSelector], labels: &BTreeMap<String, String>| {
        selectors.iter().any(|s| selector::matches(s, labels).unwrap_or(false))
    };
    let pool = (spec.address_pools.is_empty() && spec.address_pool_selectors.is_empty())
        || spec.address_pools.iter().any(|p| p == of.pool)
        || any(&spec.address_pool_selectors, of.pool_labels);
    let service = spec.service_selectors.is_empty()
        || of.service_labels.iter().any(|labels| any(&spec.service_selectors, labels));
    pool && service
}

fn rule(name: &str, spec: &L2AdvertisementSpec) -> AdvertisementRule {
    AdvertisementRule {
        name: Some(name.to_owned()),
        node_selectors: spec.node_selectors.clone(),
        interfaces: spec.interfaces.clone(),
        preferred_node_selectors: spec.preferred_node_selectors.clone(),
        failback: spec.failback,
        cover: spec.cover,
    }
}

/// What is to be said of an advertisement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// Nothing.
    #[error("every selector can be read, and every pool exists")]
    Valid,
    /// A selector that cannot be read: it selects nothing.
    #[error("spec.{field}[{index}]: {source}. It selects nothing")]
    InvalidSelector {
        /// The list.
        field: &'static str,
        /// Position in it.
        index: usize,
        /// What is wrong.
        source: SelectorError,
    },
    /// A pool that does not exist.
    #[error("spec.addressPools names AddressPool {0}, which does not exist: create it, or take the name away")]
    UnknownPool(String),
    /// No node is selected.
    #[error(
        "spec.nodeSelectors selects none of the cluster's nodes, so what this advertisement selects is not announced by \
         it: label a node, or change the selector"
    )]
    NoNodeSelected,
}

impl Verdict {
    /// `status` of the condition `Accepted`: is it usable as written?
    pub fn status(&self) -> &'static str {
        if matches!(self, Self::InvalidSelector { .. }) { "False" } else { "True" }
    }

    /// Its reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Valid => "Valid",
            Self::InvalidSelector { .. } => "InvalidSelector",
            Self::UnknownPool(_) => "UnknownPool",
            Self::NoNodeSelected => "NoNodeSelected",
        }
    }
}

/// What is to be said of an advertisement, among these pools and nodes. `node_labels` is asked once.
pub fn verdict<'a, N: Iterator<Item = &'a BTreeMap<String, String>>>(
    spec: &L2AdvertisementSpec,
    pool_exists: impl Fn(&str) -> bool,
    node_labels: impl FnOnce() -> N,
) -> Verdict {
    let preferences: Vec<_> = spec.preferred_node_selectors.iter().map(|p| p.preference.clone()).collect();
    let lists = [
        ("addressPoolSelectors", &spec.address_pool_selectors),
        ("serviceSelectors", &spec.service_selectors),
        ("nodeSelectors", &spec.node_selectors),
        ("preferredNodeSelectors", &preferences),
    ];
    let empty = BTreeMap::new();
    for (field, selectors) in lists {
        for (index, selector) in selectors.iter().enumerate() {
            if let Err(source) = selector::matches(selector, &empty) {
                return Verdict::InvalidSelector { field, index, source };
            }
        }
    }
    if let Some(pool) = spec.address_pools.iter().find(|pool| !pool_exists(pool)) {
        return Verdict::UnknownPool(pool.clone());
    }
    let selected = |labels| selector::any_matches(&spec.node_selectors, labels).unwrap_or(false);
    if spec.node_selectors.is_empty() || node_labels().any(selected) { Verdict::Valid } else { Verdict::NoNodeSelected }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    #[test_case(json!({}), true; "empty selects all")]
    #[test_case(json!({"addressPools": ["lan"]}), true)]
    #[test_case(json!({"addressPools": ["dmz"]}), false)]
    #[test_case(json!({"addressPools": ["dmz"], "addressPoolSelectors": [{"matchLabels": {"net": "lan"}}]}), true; "name or label")]
    #[test_case(json!({"addressPoolSelectors": [{"matchLabels": {"net": "dmz"}}]}), false)]
    #[test_case(json!({"serviceSelectors": [{"matchLabels": {"app": "web"}}]}), true)]
    #[test_case(json!({"serviceSelectors": [{"matchLabels": {"app": "db"}}]}), false)]
    #[test_case(json!({"addressPools": ["lan"], "serviceSelectors": [{"matchLabels": {"app": "db"}}]}), false; "pool and service")]
    fn selected(spec: Value, expected: bool) {
        let spec: L2AdvertisementSpec = serde_json::from_value(spec).unwrap();
        let labels = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        let (pool, service) = (labels("net", "lan"), labels("app", "web"));
        let of = Advertised { pool: "lan", pool_labels: &pool, service_labels: &[&service] };
        let name = "adv".to_owned();
        assert_eq!(rules([(&name, &spec)], of).len(), usize::from(expected));
    }

    #[test]
    fn without_advertisements_everything_is_announced_everywhere() {
        let of = Advertised { pool: "lan", pool_labels: &BTreeMap::new(), service_labels: &[] };
        assert_eq!(rules([], of), [AdvertisementRule::everywhere()]);
    }
}
