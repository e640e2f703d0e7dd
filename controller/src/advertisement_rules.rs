//! The advertisements that apply to an address, and the verdict on an advertisement.

use std::collections::{BTreeMap, BTreeSet};

use herald_crds::{
    L2AdvertisementSpec,
    selector::{self, SelectorError},
    virtual_ip::AdvertisementRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The most rules that a VirtualIP holds (its schema); the first by name count.
pub const MOST_RULES: usize = 64;

/// A pool, in the form in which advertisements select it.
#[derive(Clone, Copy, Debug)]
pub struct AdvertisedPool<'a> {
    /// The name of the pool.
    pub name: &'a str,
    /// Its labels; `None` if the pool is gone.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// An address that an advertisement may select.
#[derive(Clone, Copy, Debug)]
pub struct Advertised<'a> {
    /// The pool that the address counts to.
    pub pool: AdvertisedPool<'a>,
    /// The pools that hold the address.
    pub held_by: &'a [AdvertisedPool<'a>],
    /// The present rules of the address, and the pool by which its advertisements were chosen.
    pub had: Option<(&'a [AdvertisementRule], AdvertisedPool<'a>)>,
    /// The labels of each of its Services.
    pub service_labels: &'a [&'a BTreeMap<String, String>],
}

/// The advertisements that announce an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// One rule for each advertisement that selects the address.
    pub rules: Vec<AdvertisementRule>,
    /// The pool by which they select it, if it differs from the pool that the address counts to.
    pub by_pool: Option<String>,
}

/// Returns the rules for an address: one that selects everything where the cluster has no advertisement; else those
/// that select the address by the pool it counts to, in order of their names. While a pool is renamed or split, two
/// pools hold the address, and the advertisement may name the other one: that pool counts where the first one yields no
/// rule. The result has no rule where none selects the address.
///
/// No edit of pools silences an address. While no pool holds the address, it keeps its advertisements. Where no
/// advertisement selects the pools that hold it, a present advertisement goes on selecting it by the pool by which it
/// did; if that pool is gone, and its labels with it, selectors still select it.
///
/// An advertisement that is not accepted changes nothing: an address that has a rule of it keeps that rule, as it was
/// made when the advertisement was accepted last, and for every other address the advertisement does not exist.
pub fn select<'a>(
    advertisements: impl Iterator<Item = (&'a String, &'a L2AdvertisementSpec)> + Clone,
    of: Advertised<'_>,
) -> Selection {
    let accepted = advertisements.clone().filter(|(_, spec)| unreadable(spec).is_none());
    let mut selection = select_accepted(accepted, of);
    let unaccepted: BTreeSet<&String> =
        advertisements.filter(|(_, spec)| unreadable(spec).is_some()).map(|(name, _)| name).collect();
    if unaccepted.is_empty() {
        return selection;
    }
    let Some((had, pool)) = of.had else { return selection };
    let is_kept = |rule: &&AdvertisementRule| rule.name.as_ref().is_some_and(|name| unaccepted.contains(name));
    let kept: Vec<AdvertisementRule> = had.iter().filter(is_kept).cloned().collect();
    let is_default = selection.rules.iter().all(|rule| rule.name.is_none());
    if kept.is_empty() {
        // The address was not announced before the advertisement became one that does not count.
        if is_default && had.is_empty() {
            selection.rules.clear();
        }
        return selection;
    }
    if is_default {
        return Selection { rules: kept, by_pool: (pool.name != of.pool.name).then(|| pool.name.to_owned()) };
    }
    selection.rules.extend(kept);
    selection.rules.sort_by(|a, b| a.name.cmp(&b.name));
    selection.rules.truncate(MOST_RULES);
    selection
}

/// Returns the rules for an address if all these advertisements are accepted.
fn select_accepted<'a>(
    advertisements: impl Iterator<Item = (&'a String, &'a L2AdvertisementSpec)> + Clone,
    of: Advertised<'_>,
) -> Selection {
    if advertisements.clone().next().is_none() {
        return Selection { rules: vec![AdvertisementRule::everywhere()], by_pool: None };
    }
    let of_service = advertisements.filter(|(_, spec)| selects_service(spec, of.service_labels));
    let has = |name: &String, rules: &[AdvertisementRule]| rules.iter().any(|rule| rule.name.as_ref() == Some(name));
    let present = [of.pool].into_iter().chain(of.held_by.iter().copied()).map(|pool| (pool, None));
    let former = of.had.map(|(rules, pool)| (pool, Some(rules)));
    for (pool, among) in present.chain(former) {
        let selected = of_service.clone().filter(|(name, spec)| match among {
            None => selects_pool(spec, pool),
            Some(rules) => {
                let still = || selects_pool(spec, pool) || may_have_selected(spec, pool);
                has(name, rules) && (of.held_by.is_empty() || still())
            }
        });
        let rules: Vec<_> = selected.take(MOST_RULES).map(|(name, spec)| rule(name, spec)).collect();
        if !rules.is_empty() {
            return Selection { rules, by_pool: (pool.name != of.pool.name).then(|| pool.name.to_owned()) };
        }
    }
    Selection { rules: Vec::new(), by_pool: None }
}

/// Returns whether one of the selectors chooses these labels. A selector that cannot be read chooses nothing.
fn any(selectors: &[LabelSelector], labels: &BTreeMap<String, String>) -> bool {
    selectors.iter().any(|s| selector::matches(s, labels).unwrap_or(false))
}

fn selects_pool(spec: &L2AdvertisementSpec, pool: AdvertisedPool<'_>) -> bool {
    (spec.address_pools.is_empty() && spec.address_pool_selectors.is_empty())
        || spec.address_pools.iter().any(|name| name == pool.name)
        || pool.labels.is_some_and(|labels| any(&spec.address_pool_selectors, labels))
}

/// Returns whether the pool is gone and may have been selected by its labels.
fn may_have_selected(spec: &L2AdvertisementSpec, pool: AdvertisedPool<'_>) -> bool {
    pool.labels.is_none() && !spec.address_pool_selectors.is_empty()
}

fn selects_service(spec: &L2AdvertisementSpec, service_labels: &[&BTreeMap<String, String>]) -> bool {
    spec.service_selectors.is_empty() || service_labels.iter().any(|labels| any(&spec.service_selectors, labels))
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

/// The verdict on an advertisement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// There is nothing to report.
    #[error("every selector can be read, and every pool exists")]
    Valid,
    /// A selector cannot be read: the advertisement changes nothing.
    #[error(
        "spec.{field}[{index}]: {source}. Until that is corrected, the advertisement changes nothing: addresses that \
         it selected keep the rules that they have from it, and all other addresses ignore it"
    )]
    InvalidSelector {
        /// The list in the spec.
        field: &'static str,
        /// The position of the selector in the list.
        index: usize,
        /// The error of the selector.
        source: SelectorError,
    },
    /// A pool does not exist.
    #[error("spec.addressPools names AddressPool {0}, which does not exist: create it, or remove the name")]
    UnknownPool(String),
    /// Advertisements that come first by name may use up all rules of an address.
    #[error(
        "{before} L2Advertisements come before it by name, and an address takes the first {MOST_RULES} that select it: \
         this one may not apply to the addresses that it selects; let one advertisement select more pools or Services"
    )]
    ManyBefore {
        /// The number of advertisements that come first.
        before: usize,
    },
    /// The advertisement selects no node.
    #[error(
        "spec.nodeSelectors selects none of the cluster's nodes, so this advertisement announces no address: label a \
         node, or change the selector"
    )]
    NoNodeSelected,
}

impl Verdict {
    /// Returns the `status` of the condition `Accepted`: whether the advertisement is usable as written.
    pub fn status(&self) -> &'static str {
        if matches!(self, Self::InvalidSelector { .. }) { "False" } else { "True" }
    }

    /// Returns the reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Valid => "Valid",
            Self::InvalidSelector { .. } => "InvalidSelector",
            Self::UnknownPool(_) => "UnknownPool",
            Self::ManyBefore { .. } => "ManyBefore",
            Self::NoNodeSelected => "NoNodeSelected",
        }
    }
}

/// Returns the fault of a selector of an advertisement, if one cannot be read.
fn unreadable(spec: &L2AdvertisementSpec) -> Option<Verdict> {
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
                return Some(Verdict::InvalidSelector { field, index, source });
            }
        }
    }
    None
}

/// Returns the verdict on an advertisement, given the pools, the nodes, and the number of advertisements before it.
/// `node_labels` is called at most once.
pub fn verdict<'a, N: Iterator<Item = &'a BTreeMap<String, String>>>(
    spec: &L2AdvertisementSpec,
    before: usize,
    pool_exists: impl Fn(&str) -> bool,
    node_labels: impl FnOnce() -> N,
) -> Verdict {
    if let Some(verdict) = unreadable(spec) {
        return verdict;
    }
    if let Some(pool) = spec.address_pools.iter().find(|pool| !pool_exists(pool)) {
        return Verdict::UnknownPool(pool.clone());
    }
    if before >= MOST_RULES {
        return Verdict::ManyBefore { before };
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
    fn address_is_selected_by_pool_and_service(spec: Value, expected: bool) {
        let spec: L2AdvertisementSpec = serde_json::from_value(spec).unwrap();
        let labels = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        let (pool, service) = (labels("net", "lan"), labels("app", "web"));
        let pool = AdvertisedPool { name: "lan", labels: Some(&pool) };
        let of = Advertised { pool, held_by: &[pool], had: None, service_labels: &[&service] };
        let name = "adv".to_owned();
        assert_eq!(select([(&name, &spec)].into_iter(), of).rules.len(), usize::from(expected));
    }

    /// The address counts to `lan`, and has the rules of `a`, by the pool `old`, and of an advertisement that is gone.
    #[test_case(json!({"addressPools": ["lan"]}), json!({}), &["lan"] => vec!["a", "b"]; "its pool")]
    #[test_case(json!({"addressPools": ["new"]}), json!({"addressPools": ["lan"]}), &["lan", "new"] => vec!["b"]; "its pool before another that holds it")]
    #[test_case(json!({"addressPools": ["new"]}), json!({"addressPools": ["dmz"]}), &["lan", "new"] => vec!["a"]; "another pool that holds it")]
    #[test_case(json!({"addressPools": ["new"]}), json!({"addressPools": ["dmz"]}), &["lan"] => Vec::<&str>::new(); "no pool that holds it")]
    #[test_case(json!({"addressPools": ["old"]}), json!({"addressPools": ["dmz"]}), &["lan"] => vec!["a"]; "the pool by which it was selected")]
    #[test_case(json!({"addressPools": ["old"]}), json!({"addressPools": ["lan"]}), &["lan"] => vec!["b"]; "its pool before the one by which it was selected")]
    #[test_case(json!({"addressPools": ["dmz"]}), json!({"addressPools": ["old"]}), &["lan"] => Vec::<&str>::new(); "former pool selected by an advertisement without a rule")]
    #[test_case(json!({"addressPools": ["new"]}), json!({"addressPools": ["dmz"]}), &[] => vec!["a"]; "address that no pool holds keeps its rules")]
    #[test_case(json!({"addressPoolSelectors": [{"matchLabels": {"net": "old"}}]}), json!({"addressPools": ["dmz"]}), &["lan"] => vec!["a"]; "selected by labels of a pool that is gone")]
    #[test_case(json!({"addressPools": ["old"], "serviceSelectors": [{"matchLabels": {"app": "db"}}]}), json!({"addressPools": ["dmz"]}), &[]
        => Vec::<&str>::new(); "the Service is no longer selected")]
    fn address_keeps_its_advertisements_while_pools_change(a: Value, b: Value, held_by: &[&str]) -> Vec<String> {
        let specs = [("a".to_owned(), a), ("b".to_owned(), b)];
        let specs = specs.map(|(name, spec)| (name, serde_json::from_value::<L2AdvertisementSpec>(spec).unwrap()));
        let none = BTreeMap::new();
        let held_by: Vec<_> = held_by.iter().map(|name| AdvertisedPool { name, labels: Some(&none) }).collect();
        let had = ["a", "gone"].map(|name| rule(name, &specs[0].1));
        let [pool, old] = ["lan", "old"].map(|name| AdvertisedPool { name, labels: None });
        let of = Advertised { pool, held_by: &held_by, had: Some((&had, old)), service_labels: &[&none] };
        let selection = select(specs.iter().map(|(name, spec)| (name, spec)), of);
        selection.rules.into_iter().filter_map(|rule| rule.name).collect()
    }

    const UNREADABLE: &str = r#"{"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Is"}]}]}"#;

    /// Advertisement `typo` is not accepted; the address has these rules, and `other` is accepted and selects a pool.
    #[test_case(None, None => vec!["-"]; "a new address in a cluster without another advertisement")]
    #[test_case(Some(&["-"]), None => vec!["-"]; "an address that is announced without one")]
    #[test_case(Some(&["typo"]), None => vec!["typo"]; "an address that it selected when it was accepted")]
    #[test_case(Some(&[]), None => Vec::<&str>::new(); "an address that nothing announced")]
    #[test_case(Some(&["other"]), Some("lan") => vec!["other"]; "an address that another selects")]
    #[test_case(Some(&["other", "typo"]), Some("lan") => vec!["other", "typo"]; "an address that both selected")]
    #[test_case(Some(&["typo"]), Some("dmz") => vec!["typo"]; "an address that it alone selected")]
    #[test_case(Some(&["-"]), Some("dmz") => Vec::<&str>::new(); "an address that the other one leaves out")]
    fn advertisement_that_is_not_accepted_changes_nothing(had: Option<&[&str]>, other: Option<&str>) -> Vec<String> {
        let mut specs = vec![("typo".to_owned(), serde_json::from_str::<L2AdvertisementSpec>(UNREADABLE).unwrap())];
        let of_pool = |pool| serde_json::from_value(json!({"addressPools": [pool]})).unwrap();
        specs.extend(other.map(|pool| ("other".to_owned(), of_pool(pool))));
        specs.sort_by(|a, b| a.0.cmp(&b.0));
        let earlier = |name: &&str| match *name {
            "-" => AdvertisementRule::everywhere(),
            name => AdvertisementRule { cover: false, ..rule(name, &of_pool("lan")) },
        };
        let had = had.map(|names| names.iter().map(earlier).collect::<Vec<_>>());
        let none = BTreeMap::new();
        let pool = AdvertisedPool { name: "lan", labels: Some(&none) };
        let had = had.as_deref().map(|rules| (rules, pool));
        let of = Advertised { pool, held_by: &[pool], had, service_labels: &[&none] };
        let selection = select(specs.iter().map(|(name, spec)| (name, spec)), of);
        let kept = |rule: &AdvertisementRule| rule.name.as_deref() != Some("typo") || !rule.cover;
        assert!(selection.rules.iter().all(kept), "{:?}", selection.rules);
        selection.rules.into_iter().map(|rule| rule.name.unwrap_or_else(|| "-".to_owned())).collect()
    }

    #[test]
    fn without_advertisements_everything_is_announced_everywhere() {
        let pool = AdvertisedPool { name: "lan", labels: None };
        let of = Advertised { pool, held_by: &[], had: None, service_labels: &[] };
        let everywhere = Selection { rules: vec![AdvertisementRule::everywhere()], by_pool: None };
        assert_eq!(select([].into_iter(), of), everywhere);
    }
}
