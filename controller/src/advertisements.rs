//! Which advertisements apply to an address.

use std::collections::BTreeMap;

use herald_crds::{L2AdvertisementSpec, selector, virtual_ip::AdvertisementRule};
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
