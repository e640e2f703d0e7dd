//! An address's home: the node that should announce it first.

use std::{collections::BTreeMap, net::IpAddr};

use herald_crds::{
    placement::{self, Interface, Unplaced},
    virtual_ip::AdvertisementRule,
};

use crate::view::NodeView;

/// A node with the report of its speaker.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The name of the node.
    pub name: &'a str,
    /// The reduced Node.
    pub node: &'a NodeView,
    /// Its interfaces; `None` if no speaker has reported from the node.
    pub segments: Option<&'a [Interface]>,
    /// The number of addresses that the node announces, or is home of, already.
    pub addresses: usize,
    /// The number of those addresses that are of the same family and the same Services as the address to place.
    pub siblings: usize,
}

/// The reason why no node can announce an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCandidate {
    /// Advertisements exist, and none selects the address.
    #[error("L2Advertisements exist, and none selects this address: add its pool to spec.addressPools of one")]
    NotAdvertised,
    /// No node is Ready, has a network, and is eligible and selected.
    #[error(
        "no node is Ready, has a network (condition NetworkUnavailable), is selected by an L2Advertisement, and free of \
         the exclude label and drain taints: see kubectl get nodes --show-labels, and kubectl describe nodes"
    )]
    NoNode,
    /// No speaker has reported from any such node.
    #[error("no speaker has reported from any node that may announce it: see kubectl get speakerstatus and its pods")]
    NoSpeaker,
    /// No interface of any such node fits.
    #[error(
        "no node that may announce it has an interface in its subnet, or with the default route: compare the pool with \
         kubectl get speakerstatus, column Prefixes"
    )]
    NoInterface,
}

/// Returns the home of an address. Among the nodes that can announce it, the highest preference wins, then the fewest
/// other addresses of its Services (a Service with several addresses wants them to fail apart), then the fewest
/// addresses, then the first name.
///
/// # Errors
/// When no node can announce the address; the error is the reason.
pub fn home<'a>(
    address: IpAddr,
    rules: &[AdvertisementRule],
    nodes: impl IntoIterator<Item = Candidate<'a>>,
) -> Result<&'a str, NoCandidate> {
    if rules.is_empty() {
        return Err(NoCandidate::NotAdvertised);
    }
    let nodes: Vec<_> = nodes.into_iter().collect();
    // If the address lies in the subnet of some node, a node outside the subnet would announce to the wrong segment.
    let is_on_link = |segment: &Interface| segment.longest_match(address).is_some();
    let has_subnet = nodes.iter().any(|node| node.segments.is_some_and(|segments| segments.iter().any(is_on_link)));
    let mut nearest = NoCandidate::NoNode;
    let mut best: Option<(i64, usize, usize, &str)> = None;
    for node in nodes {
        match weight(address, rules, &node, has_subnet) {
            Ok(weight) => {
                let rank = (-weight, node.siblings, node.addresses, node.name);
                if best.is_none_or(|least| rank < least) {
                    best = Some(rank);
                }
            }
            Err(why) => nearest = closer(nearest, why),
        }
    }
    best.map(|(.., name)| name).ok_or(nearest)
}

/// Returns the obstacle that is nearer to success: it is the more helpful one.
fn closer(a: NoCandidate, b: NoCandidate) -> NoCandidate {
    let order = |why| match why {
        NoCandidate::NotAdvertised => 0,
        NoCandidate::NoNode => 1,
        NoCandidate::NoSpeaker => 2,
        NoCandidate::NoInterface => 3,
    };
    if order(b) > order(a) { b } else { a }
}

/// Returns the preference of a node that can announce the address.
fn weight(
    address: IpAddr,
    rules: &[AdvertisementRule],
    node: &Candidate<'_>,
    has_subnet: bool,
) -> Result<i64, NoCandidate> {
    if !node.node.may_be_home() {
        return Err(NoCandidate::NoNode);
    }
    let place = placement::place(address, rules, &node.node.labels, node.segments, has_subnet);
    place.map(|place| place.weight).map_err(|why| match why {
        Unplaced::NoAdvertisement => NoCandidate::NotAdvertised,
        Unplaced::Selector { .. } | Unplaced::NotSelected => NoCandidate::NoNode,
        Unplaced::NoSpeaker => NoCandidate::NoSpeaker,
        Unplaced::NoInterface => NoCandidate::NoInterface,
    })
}

/// Returns the number of addresses of each node: by the announcing node where one is known, else by the home.
pub fn counts<'a>(nodes: impl IntoIterator<Item = Option<&'a str>>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for node in nodes.into_iter().flatten() {
        *counts.entry(node).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use herald_crds::advertisement::{InterfacePattern, NodePreference};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use test_case::test_case;

    use super::*;

    fn node(zone: &str) -> NodeView {
        NodeView {
            labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
            ready: true,
            eligible: true,
            ..NodeView::default()
        }
    }

    fn segment(name: &str, prefix: &str, default_route: bool) -> Interface {
        let (name, prefixes) = (name.to_owned(), vec![prefix.parse().unwrap()]);
        Interface { name, prefixes, default_route, speaks_for: vec![] }
    }

    fn zone(zone: &str) -> LabelSelector {
        LabelSelector {
            match_labels: Some(BTreeMap::from([("zone".to_owned(), zone.to_owned())])),
            ..LabelSelector::default()
        }
    }

    /// Returns the home among three nodes: a (zone x, 2 addresses), b (zone y, 1), c (zone y, 1), all in 192.0.2.0/24,
    /// default route on eth0.
    fn choose(rules: &[AdvertisementRule], address: &str, change: impl Fn(&mut [NodeView; 3])) -> String {
        let mut nodes = [node("x"), node("y"), node("y")];
        change(&mut nodes);
        let segments = [segment("eth0", "192.0.2.0/24", true), segment("eth1", "198.51.100.0/24", false)];
        let of = |name, i: usize, addresses| Candidate {
            name,
            node: &nodes[i],
            segments: Some(&segments),
            addresses,
            siblings: 0,
        };
        let chosen = home(address.parse().unwrap(), rules, [of("a", 0, 2), of("b", 1, 1), of("c", 2, 1)]);
        chosen.map_or_else(|why| format!("{why:?}"), str::to_owned)
    }

    fn rule(change: impl Fn(&mut AdvertisementRule)) -> Vec<AdvertisementRule> {
        let mut rule = AdvertisementRule::everywhere();
        change(&mut rule);
        vec![rule]
    }

    #[test]
    fn node_with_the_fewest_addresses_then_the_first_name_is_home() {
        assert_eq!(choose(&rule(|_| ()), "192.0.2.9", |_| ()), "b");
        assert_eq!(choose(&rule(|_| ()), "192.0.2.9", |n| n[1].ready = false), "c");
        assert_eq!(choose(&rule(|_| ()), "192.0.2.9", |n| n[1].eligible = false), "c");
        assert_eq!(choose(&rule(|_| ()), "192.0.2.9", |n| n[1].network_unavailable = true), "c");
    }

    #[test]
    fn preferences_come_before_balance() {
        let prefer = rule(|r| r.preferred_node_selectors = vec![NodePreference { weight: 5, preference: zone("x") }]);
        assert_eq!(choose(&prefer, "192.0.2.9", |_| ()), "a");
        assert_eq!(choose(&prefer, "192.0.2.9", |n| n[0].ready = false), "b");
    }

    /// Node a has three addresses, none of the Service's; node b has one, which is the Service's.
    #[test]
    fn addresses_of_one_service_are_placed_apart_before_the_rest_is_balanced() {
        let (node, segments) = (node("x"), [segment("eth0", "192.0.2.0/24", true)]);
        let of =
            |name, addresses, siblings| Candidate { name, node: &node, segments: Some(&segments), addresses, siblings };
        let choose = |a, b| home("192.0.2.9".parse().unwrap(), &rule(|_| ()), [a, b]).map(str::to_owned);
        assert_eq!(choose(of("a", 3, 0), of("b", 1, 1)), Ok("a".to_owned()));
        assert_eq!(choose(of("a", 3, 1), of("b", 1, 1)), Ok("b".to_owned()), "one each");
    }

    /// The weights of all advertisements that select a node add up, as they do where speakers order the nodes.
    #[test]
    fn preferences_of_several_advertisements_add_up() {
        let of = |weight, preference: LabelSelector| {
            rule(|r| r.preferred_node_selectors = vec![NodePreference { weight, preference: preference.clone() }])
                .remove(0)
        };
        let rules = [of(4, zone("x")), of(4, zone("x")), of(5, zone("y"))];
        assert_eq!(choose(&rules, "192.0.2.9", |_| ()), "a");
    }

    #[test_case("203.0.113.1", "b"; "in no subnet: the default route")]
    #[test_case("198.51.100.7", "b"; "on the second interface")]
    fn home_has_an_interface_for_the_address(address: &str, expected: &str) {
        assert_eq!(choose(&rule(|_| ()), address, |_| ()), expected);
    }

    #[test_case("!eth1", "198.51.100.7", "NoInterface"; "the interface of the subnet is excluded")]
    #[test_case("eth1", "192.0.2.9", "b"; "a named interface needs no subnet")]
    #[test_case("eth9", "192.0.2.9", "NoInterface")]
    fn patterns_restrict_the_home(pattern: &str, address: &str, expected: &str) {
        let rules = rule(|r| r.interfaces = vec![InterfacePattern(pattern.to_owned())]);
        assert_eq!(choose(&rules, address, |_| ()), expected);
    }

    #[test]
    fn node_outside_the_subnet_is_home_only_where_no_node_is_in_it() {
        let (node, rules) = (node("x"), rule(|_| ()));
        let (inside, outside) = ([segment("eth0", "192.0.2.0/24", true)], [segment("eth0", "198.51.100.0/24", true)]);
        let of = |name, segments, addresses| Candidate {
            name,
            node: &node,
            segments: Some(segments),
            addresses,
            siblings: 0,
        };
        let home =
            |candidates: [Candidate<'_>; 2]| home("192.0.2.9".parse().unwrap(), &rules, candidates).map(str::to_owned);
        // The node inside wins, however many addresses it has.
        assert_eq!(home([of("in", &inside, 9), of("out", &outside, 0)]), Ok("in".to_owned()));
        assert_eq!(home([of("a", &outside, 9), of("b", &outside, 0)]), Ok("b".to_owned()));
    }

    #[test]
    fn error_says_why_there_is_no_home() {
        assert_eq!(choose(&[], "192.0.2.9", |_| ()), "NotAdvertised");
        assert_eq!(choose(&rule(|r| r.node_selectors = vec![zone("z")]), "192.0.2.9", |_| ()), "NoNode");
        let (node, rules) = (node("x"), rule(|_| ()));
        let silent = Candidate { name: "a", node: &node, segments: None, addresses: 0, siblings: 0 };
        assert_eq!(home("192.0.2.9".parse().unwrap(), &rules, [silent]), Err(NoCandidate::NoSpeaker));
    }
}
