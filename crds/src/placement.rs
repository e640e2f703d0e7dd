//! The interface of a node on which an address may be announced, and the preference for the node. The controller, which
//! chooses homes, and the speakers, which choose announcers, both use these rules, so that homes and announcers are one
//! set.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    advertisement::{InterfacePattern, chooses_interface},
    selector::{self, SelectorError},
    speaker_status::SegmentStatus,
    virtual_ip::AdvertisementRule,
};

/// An interface on which addresses can be announced, as far as the choice of an address's interface depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The name.
    #[serde(rename = "interface")]
    pub name: String,
    /// The on-link prefixes.
    pub prefixes: Vec<IpNet>,
    /// Whether a default route uses the interface.
    pub default_route: bool,
    /// The other interfaces of the node on the same network, for which this one speaks: an advertisement that names
    /// them applies to this one.
    #[serde(default)]
    pub speaks_for: Vec<String>,
}

impl Interface {
    /// Reads an interface that a speaker published. A prefix that cannot be read is left out.
    pub fn from_status(status: &SegmentStatus) -> Self {
        Self {
            name: status.interface.clone(),
            prefixes: status.prefixes.iter().filter_map(|p| p.parse().ok()).map(|p: IpNet| p.trunc()).collect(),
            default_route: status.default_route,
            speaks_for: status.speaks_for.clone(),
        }
    }

    /// Returns the length of the longest on-link prefix that holds the address.
    pub fn longest_match(&self, address: IpAddr) -> Option<u8> {
        self.prefixes.iter().filter(|prefix| prefix.contains(&address)).map(IpNet::prefix_len).max()
    }
}

impl AsRef<Interface> for Interface {
    fn as_ref(&self) -> &Interface {
        self
    }
}

/// The interface on which a node may announce an address.
#[derive(Debug)]
pub struct Place<'a, I> {
    /// The chosen interface, with whatever the caller keeps beside it.
    pub interface: &'a I,
    /// The preference for the node: the sum of the weights of all preferences that match it, of all advertisements that
    /// select it.
    pub weight: i64,
}

/// The reason why a node may not announce an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// Advertisements exist, and none selects the address.
    #[error("no L2Advertisement selects this address")]
    NoAdvertisement,
    /// A selector cannot be read, and no other advertisement selects the node.
    #[error("L2Advertisement {advertisement}: {source}")]
    Selector {
        /// The name of the advertisement.
        advertisement: String,
        /// The error of the selector.
        #[source]
        source: SelectorError,
    },
    /// No rule selects the node.
    #[error("no L2Advertisement of this address selects the node")]
    NotSelected,
    /// The node's speaker has not reported its interfaces.
    #[error("the node's speaker has not reported its interfaces")]
    NoSpeaker,
    /// No interface fits.
    #[error("no interface of the node has the address in its subnet or is otherwise chosen for it")]
    NoInterface,
}

/// Returns the interface on which a node with these labels and interfaces may announce an address. `interfaces` is
/// `None` if the node's speaker has not reported any. `has_subnet` says whether the address lies in the subnet of some
/// node: a node outside the subnet could only announce to the wrong segment by way of its default route, and may then
/// not announce, unless a rule names its interface.
///
/// The first rule with an interface that fits decides the interface; the weights of all rules that select the node add
/// up. An unreadable preference prefers no node, and does not keep any node from announcing.
///
/// # Errors
/// When the node may not announce the address; the error is the reason.
pub fn place<'a, I: AsRef<Interface>>(
    address: IpAddr,
    rules: &[AdvertisementRule],
    labels: &BTreeMap<String, String>,
    interfaces: Option<&'a [I]>,
    has_subnet: bool,
) -> Result<Place<'a, I>, Unplaced> {
    if rules.is_empty() {
        return Err(Unplaced::NoAdvertisement);
    }
    let (mut interface, mut weight) = (None, 0_i64);
    let mut refusal = Unplaced::NotSelected;
    for rule in rules {
        match selector::any_matches(&rule.node_selectors, labels) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(source) => {
                refusal = Unplaced::Selector { advertisement: rule.name.clone().unwrap_or_default(), source };
                continue;
            }
        }
        let here = interfaces.ok_or(Unplaced::NoSpeaker)?;
        match (interface, choose_by(address, here.iter(), rule, has_subnet)) {
            (None, Some(chosen)) => interface = Some(chosen),
            (None, None) => refusal = Unplaced::NoInterface,
            (Some(_), _) => {}
        }
        let preferred = rule.preferred_node_selectors.iter();
        let preferred = preferred.filter(|p| selector::matches(&p.preference, labels) == Ok(true));
        weight += preferred.map(|p| i64::from(p.weight)).sum::<i64>();
    }
    interface.map(|interface| Place { interface, weight }).ok_or(refusal)
}

/// Returns which of these interfaces a rule chooses for an address.
pub fn choose_by<'a, I: AsRef<Interface>>(
    address: IpAddr,
    interfaces: impl IntoIterator<Item = &'a I>,
    rule: &AdvertisementRule,
    has_subnet: bool,
) -> Option<&'a I> {
    let patterns = &rule.interfaces;
    choose(address, interfaces, patterns)
        .filter(|interface| !has_subnet || names_any(patterns) || interface.as_ref().longest_match(address).is_some())
}

/// Returns the interface on which an address is announced, under the patterns of one advertisement.
///
/// Among the interfaces that the patterns allow: the one whose on-link prefix holds the address (the longest prefix,
/// then the first name); else one that a default route uses; else, where a pattern names interfaces rather than only
/// excluding some, the first of these: the administrator knows a subnet in which the node has no address.
pub fn choose<'a, I: AsRef<Interface>>(
    address: IpAddr,
    interfaces: impl IntoIterator<Item = &'a I>,
    patterns: &[InterfacePattern],
) -> Option<&'a I> {
    let named = names_any(patterns);
    interfaces
        .into_iter()
        .filter(|interface| is_chosen(patterns, interface.as_ref()))
        .filter_map(|interface| {
            let fit = match interface.as_ref().longest_match(address) {
                Some(length) => Fit::OnLink(length),
                None if interface.as_ref().default_route => Fit::DefaultRoute,
                None if named => Fit::Named,
                None => return None,
            };
            Some((fit, interface))
        })
        // `max_by` keeps the last of equals, so names are compared the other way round.
        .max_by(|(fit_a, a), (fit_b, b)| fit_a.cmp(fit_b).then_with(|| b.as_ref().name.cmp(&a.as_ref().name)))
        .map(|(_, interface)| interface)
}

/// Returns whether the patterns choose the interface, or one for which it speaks.
fn is_chosen(patterns: &[InterfacePattern], interface: &Interface) -> bool {
    std::iter::once(&interface.name).chain(&interface.speaks_for).any(|name| chooses_interface(patterns, name))
}

/// Returns whether the patterns name interfaces, and do not only exclude some.
fn names_any(patterns: &[InterfacePattern]) -> bool {
    patterns.iter().any(|InterfacePattern(pattern)| !pattern.starts_with('!'))
}

/// The fit of an interface for an address; the last variant is the best.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Named,
    DefaultRoute,
    OnLink(u8),
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;
    use crate::advertisement::NodePreference;

    fn nic(name: &str, prefix: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            prefixes: vec![prefix.parse().unwrap()],
            default_route: name == "eth0",
            speaks_for: vec![],
        }
    }

    fn nics() -> Vec<Interface> {
        vec![
            nic("eth0", "192.0.2.0/24"),
            nic("eth1", "10.0.0.0/8"),
            nic("eth2", "10.1.0.0/16"),
            nic("eth3", "172.16.0.0/12"),
        ]
    }

    /// Returns the name as a constant, so that cases can state it.
    fn known(name: &str) -> &'static str {
        ["eth0", "eth1", "eth2", "eth3"].into_iter().find(|known| *known == name).unwrap()
    }

    fn patterns(patterns: &[&str]) -> Vec<InterfacePattern> {
        patterns.iter().map(|pattern| InterfacePattern((*pattern).to_owned())).collect()
    }

    #[test_case("192.0.2.10", &[] => Some("eth0"); "by prefix")]
    #[test_case("10.1.2.3", &[] => Some("eth2"); "the longest prefix")]
    #[test_case("10.9.2.3", &[] => Some("eth1"))]
    #[test_case("203.0.113.1", &[] => Some("eth0"); "by the default route")]
    #[test_case("192.0.2.10", &["!eth0"] => None; "excluded, and no other has the prefix")]
    #[test_case("10.1.2.3", &["!eth2"] => Some("eth1"))]
    #[test_case("10.1.2.3", &["eth0"] => Some("eth0"); "an override, though another has the prefix")]
    #[test_case("203.0.113.1", &["eth3", "eth1"] => Some("eth1"); "named: the first")]
    #[test_case("203.0.113.1", &["eth*"] => Some("eth0"); "named: the default route goes first")]
    #[test_case("10.1.2.3", &["eth*"] => Some("eth2"); "named: the prefix goes first")]
    #[test_case("203.0.113.1", &["!eth0"] => None; "exclusions name nothing")]
    fn interface_is_chosen_by_prefix_route_or_name(address: &str, names: &[&str]) -> Option<&'static str> {
        choose(address.parse().unwrap(), &nics(), &patterns(names)).map(|nic| known(&nic.name))
    }

    #[test]
    fn first_name_wins_among_equals() {
        let nics = [nic("eth1", "192.0.2.0/24"), nic("eth0", "192.0.2.0/24")];
        assert_eq!(choose("192.0.2.10".parse().unwrap(), &nics, &[]).map(|nic| &*nic.name), Some("eth0"));
    }

    /// Two interfaces of a node are on one network, and advertisements name each: eth0 speaks for both.
    #[test_case(&["eth1"] => Some("eth0"); "the other is named")]
    #[test_case(&["eth0"] => Some("eth0"); "the interface itself is named")]
    #[test_case(&["!eth0"] => Some("eth0"); "the other is not excluded")]
    #[test_case(&["!eth0", "!eth1"] => None; "both are excluded")]
    #[test_case(&["eth2"] => None; "a third is named")]
    fn interface_that_speaks_for_another_is_chosen_by_either_name(names: &[&str]) -> Option<&'static str> {
        let nic = Interface { speaks_for: vec!["eth1".to_owned()], ..nic("eth0", "192.0.2.0/24") };
        choose("192.0.2.10".parse().unwrap(), [&nic], &patterns(names)).map(|nic| known(&nic.name))
    }

    fn labelled(labels: Value) -> LabelSelector {
        serde_json::from_value(json!({"matchLabels": labels})).unwrap()
    }

    fn unreadable() -> LabelSelector {
        serde_json::from_value(json!({"matchExpressions": [{"key": "zone", "operator": "Near"}]})).unwrap()
    }

    fn for_nodes(selectors: &[LabelSelector]) -> AdvertisementRule {
        AdvertisementRule {
            name: Some("lan".to_owned()),
            node_selectors: selectors.to_vec(),
            ..AdvertisementRule::everywhere()
        }
    }

    fn preferring(weight: i32, preference: LabelSelector) -> AdvertisementRule {
        AdvertisementRule {
            preferred_node_selectors: vec![NodePreference { weight, preference }],
            ..AdvertisementRule::everywhere()
        }
    }

    /// Returns the interface and the weight of a node in zone x.
    fn placed(
        address: &str,
        rules: &[AdvertisementRule],
        nics: Option<&[Interface]>,
    ) -> Result<(&'static str, i64), Unplaced> {
        let labels = BTreeMap::from([("zone".to_owned(), "x".to_owned())]);
        let address = address.parse().unwrap();
        let has_subnet = nics.is_some_and(|nics| nics.iter().any(|nic| nic.longest_match(address).is_some()));
        place(address, rules, &labels, nics, has_subnet).map(|place| (known(&place.interface.name), place.weight))
    }

    #[test]
    fn weights_of_all_advertisements_that_select_the_node_add_up() {
        let here = labelled(json!({"zone": "x"}));
        let elsewhere = labelled(json!({"zone": "y"}));
        let rules = [
            preferring(5, here.clone()),
            preferring(7, elsewhere.clone()),
            preferring(10, unreadable()),
            AdvertisementRule { interfaces: patterns(&["eth9"]), ..preferring(20, here.clone()) },
            AdvertisementRule { node_selectors: vec![elsewhere], ..preferring(40, here) },
        ];
        assert_eq!(placed("192.0.2.9", &rules, Some(&nics())), Ok(("eth0", 25)));
    }

    #[test]
    fn first_rule_with_an_interface_that_fits_decides() {
        let named = |name| AdvertisementRule { interfaces: patterns(&[name]), ..AdvertisementRule::everywhere() };
        let rules = [named("eth9"), named("eth3"), named("eth0")];
        assert_eq!(placed("192.0.2.9", &rules, Some(&nics())), Ok(("eth3", 0)));
    }

    #[test]
    fn node_outside_the_subnet_may_not_unless_its_interface_is_named() {
        let nics = [nic("eth0", "198.51.100.0/24")];
        let placed = |rule: &AdvertisementRule| {
            let address = "192.0.2.9".parse().unwrap();
            place(address, std::slice::from_ref(rule), &BTreeMap::new(), Some(&nics[..]), true)
                .map(|place| known(&place.interface.name))
        };
        assert_eq!(placed(&AdvertisementRule::everywhere()), Err(Unplaced::NoInterface));
        let named = AdvertisementRule { interfaces: patterns(&["eth0"]), ..AdvertisementRule::everywhere() };
        assert_eq!(placed(&named), Ok("eth0"));
    }

    #[test]
    fn error_says_why_a_node_may_not_announce() {
        let (all, nics) = ([AdvertisementRule::everywhere()], nics());
        let elsewhere = labelled(json!({"zone": "y"}));
        let unreadable = || for_nodes(&[unreadable(), labelled(json!({"zone": "x"}))]);
        assert_eq!(placed("192.0.2.9", &[], Some(&nics)), Err(Unplaced::NoAdvertisement));
        assert_eq!(placed("192.0.2.9", &all, None), Err(Unplaced::NoSpeaker));
        assert_eq!(
            placed("192.0.2.9", &[for_nodes(std::slice::from_ref(&elsewhere))], None),
            Err(Unplaced::NotSelected)
        );
        assert_eq!(placed("203.0.113.1", &all, Some(&nics[1..])), Err(Unplaced::NoInterface));
        // One unreadable selector disables its advertisement, and no other.
        let refusal = placed("192.0.2.9", &[unreadable()], Some(&nics)).unwrap_err();
        assert!(
            refusal.to_string().starts_with("L2Advertisement lan: matchExpressions: operator \"Near\""),
            "{refusal}"
        );
        assert_eq!(placed("192.0.2.9", &[unreadable(), all[0].clone()], Some(&nics)), Ok(("eth0", 0)));
    }
}
