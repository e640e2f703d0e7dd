//! `L2Advertisement`: the nodes and interfaces that announce the addresses of pools. Optional: without one in the
//! cluster, every eligible node announces every pool, on the interface whose subnet holds the address.

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::shown;

/// The administrator's settings of an advertisement. Empty lists select everything.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "heraldlb.io",
    version = "v1alpha1",
    kind = "L2Advertisement",
    plural = "l2advertisements",
    shortname = "l2adv",
    category = "herald",
    status = "L2AdvertisementStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which nodes and interfaces announce the addresses of which pools.",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.addressPools"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
    printcolumn(name = "Failback", type_ = "string", json_path = ".spec.failback"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// Pools by name. With neither names nor labels of pools, all pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub address_pools: Vec<String>,
    /// Pools by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub address_pool_selectors: Vec<LabelSelector>,
    /// Services by label; with none, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,
    /// Nodes that may announce, by label; with none, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selectors: Vec<LabelSelector>,
    /// Interfaces to announce on: names, globs (`eth*`) and exclusions (`!eth9`). With only exclusions, all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub interfaces: Vec<InterfacePattern>,
    /// Nodes that announce first while they are alive and Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub preferred_node_selectors: Vec<NodePreference>,
    /// `Always`: an address goes back to a better node that returns. `Never`: it stays where it works.
    #[serde(default)]
    pub failback: Failback,
    /// Whether other speakers answer for a node whose speaker is silent, with that node's link-layer address, while the
    /// node itself lives.
    #[serde(default = "yes")]
    pub cover: bool,
}

const PATTERN_RULE: &str = "self.matches('^!?[A-Za-z0-9_.@*?-]{1,15}$')";
const PATTERN_MESSAGE: &str = "is not an interface pattern: write a name (eth0), a glob (eth*) or an exclusion (!eth9), \
     of at most 15 characters as the kernel allows";

/// A pattern of an interface name: letters, digits, `_`, `.`, `-`, `@`, the wildcards `*` and `?`, and `!` in front for
/// "not".
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": PATTERN_RULE, "message": PATTERN_MESSAGE}]))]
pub struct InterfacePattern(
    /// The pattern. IFNAMSIZ is 16 with the closing NUL.
    #[schemars(length(min = 1, max = 16))]
    pub String,
);

impl InterfacePattern {
    /// Maximum length of a name: IFNAMSIZ is 16 with the closing NUL.
    const MAX_NAME: usize = 15;
}

/// The error of a text that is not a pattern. The message gives the value and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} {PATTERN_MESSAGE}", shown(.0))]
pub struct UnreadablePattern(String);

impl FromStr for InterfacePattern {
    type Err = UnreadablePattern;

    /// Reads a pattern that [`L2AdvertisementSpec::interfaces`] admits.
    fn from_str(text: &str) -> Result<Self, UnreadablePattern> {
        let name = text.strip_prefix('!').unwrap_or(text);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@*?-".contains(&byte);
        let is_pattern = (1..=Self::MAX_NAME).contains(&name.len()) && name.bytes().all(is_allowed);
        if is_pattern { Ok(Self(text.to_owned())) } else { Err(UnreadablePattern(text.to_owned())) }
    }
}

/// Patterns in the form of a flag or an annotation: separated by commas. An empty list makes no choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfacePatterns(
    /// The patterns.
    pub Vec<InterfacePattern>,
);

impl InterfacePatterns {
    /// Reads a list. Texts that are not patterns are left out, and returned separately.
    pub fn read(text: &str) -> (Self, Vec<UnreadablePattern>) {
        let (mut patterns, mut unreadable) = (Vec::new(), Vec::new());
        for pattern in text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
            match pattern.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => unreadable.push(error),
            }
        }
        (Self(patterns), unreadable)
    }
}

impl FromStr for InterfacePatterns {
    type Err = UnreadablePattern;

    /// Reads a list in which every entry is a pattern.
    fn from_str(text: &str) -> Result<Self, UnreadablePattern> {
        let (patterns, unreadable) = Self::read(text);
        unreadable.into_iter().next().map_or(Ok(patterns), Err)
    }
}

/// Whether an address goes back to a better node that returns.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// The address goes back, make-before-break.
    Always,
    /// The address stays where it works. A value that a later build writes counts as this.
    #[default]
    #[serde(other)]
    Never,
}

/// A preference for some nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodePreference {
    /// The preference for these nodes. The weights of all preferences that match a node add up.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The nodes, by label.
    pub preference: LabelSelector,
}

/// The controller's report on an advertisement.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[schemars(extend("default" = crate::condition::unobserved()))]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementStatus {
    /// The `metadata.generation` that this status is about; -1 until it is written for the first time. While it differs
    /// from the generation of the object, the controller has not processed the last edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: whether the advertisement is usable as written. `Stalled`: present, and True, while `Accepted` is
    /// False.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list")]
    pub conditions: Vec<Condition>,
}

fn yes() -> bool {
    true
}

/// Returns whether a list of patterns chooses the interface. An empty list chooses all; with only exclusions, all
/// others.
pub fn chooses_interface(patterns: &[InterfacePattern], name: &str) -> bool {
    let (mut any_positive, mut chosen) = (false, false);
    for InterfacePattern(pattern) in patterns {
        match pattern.strip_prefix('!') {
            Some(excluded) if glob(excluded.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => {
                any_positive = true;
                chosen |= glob(pattern.as_bytes(), name.as_bytes());
            }
        }
    }
    chosen || !any_positive
}

/// Returns whether a name matches a pattern: `*` stands for any run, `?` for any one byte. Only the last of several `*`
/// takes another byte when the rest does not match, because the bytes that earlier ones have taken cannot matter any
/// longer. The time is therefore the product of both lengths at most.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at_pattern, mut at_name) = (0, 0);
    // The start of the rest behind the last `*`, and the end of the part of the name that this `*` has taken.
    let mut last_star = None;
    while let Some(byte) = name.get(at_name) {
        match (pattern.get(at_pattern), last_star) {
            (Some(b'*'), _) => {
                at_pattern += 1;
                last_star = Some((at_pattern, at_name));
            }
            (Some(wanted), _) if *wanted == b'?' || wanted == byte => {
                at_pattern += 1;
                at_name += 1;
            }
            (_, Some((rest, taken))) => {
                at_pattern = rest;
                at_name = taken + 1;
                last_star = Some((rest, at_name));
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(at_pattern).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("" => (vec![], 0))]
    #[test_case("eth0, !eth9 ,bond*" => (vec!["eth0".to_owned(), "!eth9".to_owned(), "bond*".to_owned()], 0))]
    #[test_case("eth0,," => (vec!["eth0".to_owned()], 0))]
    #[test_case("abcdefghijklmno,!abcdefghijklmno" => (vec!["abcdefghijklmno".to_owned(), "!abcdefghijklmno".to_owned()], 0); "fifteen characters")]
    #[test_case("abcdefghijklmnop" => (vec![], 1); "sixteen characters")]
    #[test_case("eth0,!,!!eth1,e th2,eth/3" => (vec!["eth0".to_owned()], 4))]
    fn list_is_read_without_its_unreadable_patterns(text: &str) -> (Vec<String>, usize) {
        let (InterfacePatterns(patterns), unreadable) = InterfacePatterns::read(text);
        assert_eq!(text.parse::<InterfacePatterns>().is_ok(), unreadable.is_empty());
        (patterns.into_iter().map(|pattern| pattern.0).collect(), unreadable.len())
    }

    #[test]
    fn unreadable_pattern_names_its_value_and_what_to_write() {
        let error = "eth/3".parse::<InterfacePattern>().unwrap_err().to_string();
        assert!(error.contains("\"eth/3\" is not an interface pattern: write a name (eth0)"), "{error}");
        let long = "ü".repeat(1000).parse::<InterfacePattern>().unwrap_err().to_string();
        assert!(long.len() < 400, "{long}");
    }

    #[test_case(&[], "eth0", true; "no pattern chooses all")]
    #[test_case(&["eth0"], "eth0", true)]
    #[test_case(&["eth0"], "eth01", false)]
    #[test_case(&["eth*"], "eth12", true)]
    #[test_case(&["*.100"], "bond0.100", true)]
    #[test_case(&["eth?"], "eth", false)]
    #[test_case(&["!eth9"], "eth9", false)]
    #[test_case(&["!eth9"], "eth0", true; "only exclusions choose the others")]
    #[test_case(&["eth*", "!eth9"], "eth9", false; "an exclusion wins")]
    #[test_case(&["eth*", "!eth9"], "bond0", false)]
    #[test_case(&["*a*b*"], "xaybz", true)]
    #[test_case(&["*ab"], "aab", true; "the rest matches later")]
    #[test_case(&["*"], "", true)]
    #[test_case(&["e**0"], "eth0", true)]
    #[test_case(&["?*?"], "e", false)]
    fn patterns_choose_an_interface(patterns: &[&str], name: &str, expected: bool) {
        let patterns: Vec<_> = patterns.iter().map(|p| InterfacePattern((*p).to_owned())).collect();
        assert_eq!(chooses_interface(&patterns, name), expected);
    }

    /// A match of this kind took a second before, and every pattern is matched with every interface.
    #[test]
    fn pattern_of_many_stars_is_matched_as_fast_as_another() {
        let patterns = vec![InterfacePattern("**************b".to_owned()); 10_000];
        assert!(!chooses_interface(&patterns, "aaaaaaaaaaaaaaa"));
    }
}
