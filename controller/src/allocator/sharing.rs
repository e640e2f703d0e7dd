//! The conditions under which Services may share an address.
//!
//! The rules are MetalLB's (`internal/allocator`, `checkSharing`), and two more: an address is shared across namespaces
//! only where its pool allows it, and Services of externalTrafficPolicy Local need selectors that are equal and not
//! empty, because one node answers for all of them (without a selector the endpoints' nodes are not known).

use std::{collections::BTreeMap, fmt};

use herald_crds::{condition::shown, names::ANNOTATION_SHARED, virtual_ip::ServiceReference};

/// The most Services of one address: the schema of `VirtualIP.spec.services`.
pub(super) const MOST_SHARERS: usize = 64;

/// One port of a Service, by the fields that kube-proxy distinguishes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The protocol: TCP, UDP or SCTP.
    pub protocol: String,
    /// The port of the Service, 1 to 65535.
    pub port: i32,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.port)
    }
}

/// The terms on which a Service with a sharing key may share an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The value of the sharing annotation.
    pub key: String,
    /// The ports of the Service.
    pub ports: Vec<Port>,
    /// Whether its external traffic policy is Local.
    pub local: bool,
    /// The selector of the Service.
    pub selector: BTreeMap<String, String>,
}

/// The reason why two Services may not share an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharingObstacle {
    /// One has no key.
    #[error("it has no annotation {ANNOTATION_SHARED}: give both the same value")]
    NoKey,
    /// The keys differ.
    #[error("its annotation {ANNOTATION_SHARED} is {theirs:?}, not {mine:?}: give both the same value")]
    OtherKey {
        /// Our key.
        mine: String,
        /// Their key.
        theirs: String,
    },
    /// Both have the same port.
    #[error("both have port {0} in spec.ports: change one of them")]
    Port(Port),
    /// One is Local, and their selectors differ or are empty.
    #[error(
        "spec.externalTrafficPolicy of one is Local, and spec.selector differs or is empty: one node answers for both, \
         so give both one selector, or the policy Cluster"
    )]
    Selectors,
    /// The Services are in different namespaces.
    #[error(
        "it is in another namespace, and spec.shareAcrossNamespaces of AddressPool {pool} is false: set it, or use one \
         namespace"
    )]
    Namespaces {
        /// The pool of the address.
        pool: String,
    },
    /// The address has the maximum of Services.
    #[error("{MOST_SHARERS} Services share it already: use another key for more")]
    Full,
}

/// Returns what keeps a Service from an address that another has. `closed_pool` is the pool if it does not allow two
/// namespaces.
pub(super) fn obstacle(
    (service, mine): (&ServiceReference, &Sharing),
    (other, theirs): (&ServiceReference, Option<&Sharing>),
    closed_pool: Option<&str>,
) -> Option<SharingObstacle> {
    let Some(theirs) = theirs else { return Some(SharingObstacle::NoKey) };
    if mine.key != theirs.key {
        return Some(SharingObstacle::OtherKey { mine: shown(&mine.key), theirs: shown(&theirs.key) });
    }
    if let Some(pool) = closed_pool.filter(|_| service.namespace != other.namespace) {
        return Some(SharingObstacle::Namespaces { pool: pool.to_owned() });
    }
    if let Some(port) = mine.ports.iter().find(|port| theirs.ports.contains(port)) {
        return Some(SharingObstacle::Port(port.clone()));
    }
    let selectors_differ = mine.selector != theirs.selector || mine.selector.is_empty();
    ((mine.local || theirs.local) && selectors_differ).then_some(SharingObstacle::Selectors)
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn service(namespace: &str, name: &str) -> ServiceReference {
        ServiceReference { namespace: namespace.to_owned(), name: name.to_owned(), uid: name.to_owned() }
    }

    fn sharing(key: &str, ports: &[(&str, i32)], local: bool, app: Option<&str>) -> Sharing {
        Sharing {
            key: key.to_owned(),
            ports: ports.iter().map(|(p, port)| Port { protocol: (*p).to_owned(), port: *port }).collect(),
            local,
            selector: app.map(|app| ("app".to_owned(), app.to_owned())).into_iter().collect(),
        }
    }

    #[test_case("ns", sharing("k", &[("UDP", 53)], false, Some("b")), None => "" ; "ports of two protocols")]
    #[test_case("ns", sharing("k", &[("TCP", 80)], false, Some("b")), None => ""; "two ports")]
    #[test_case("ns", sharing("k", &[("TCP", 53)], false, Some("a")), None => "both have port TCP 53"; "one port")]
    #[test_case("ns", sharing("j", &[("TCP", 80)], false, Some("a")), None => "is \"j\", not \"k\""; "another key")]
    #[test_case("ns", sharing("k", &[("TCP", 80)], true, Some("a")), None => ""; "Local with one selector")]
    #[test_case("ns", sharing("k", &[("TCP", 80)], true, Some("b")), None => "is Local"; "Local with two selectors")]
    #[test_case("other", sharing("k", &[("TCP", 80)], false, Some("a")), None => ""; "two namespaces, allowed")]
    #[test_case("other", sharing("k", &[("TCP", 80)], false, Some("a")), Some("lan") => "AddressPool lan is false"; "two namespaces")]
    #[test_case("ns", sharing("k", &[("TCP", 80)], false, Some("a")), Some("lan") => ""; "one namespace")]
    fn obstacle_to_sharing_is_mutual(namespace: &str, theirs: Sharing, closed_pool: Option<&str>) -> String {
        let mine = sharing("k", &[("TCP", 53)], false, Some("a"));
        let (a, b) = (service("ns", "a"), service(namespace, "b"));
        let there = obstacle((&a, &mine), (&b, Some(&theirs)), closed_pool);
        let back = obstacle((&b, &theirs), (&a, Some(&mine)), closed_pool);
        assert_eq!(there.is_some(), back.is_some(), "the rule has no direction");
        let said = there.map(|o| o.to_string()).unwrap_or_default();
        let fragments = ["both have port TCP 53", "is \"j\", not \"k\"", "is Local", "AddressPool lan is false"];
        fragments.into_iter().find(|f| said.contains(f)).unwrap_or(&said).to_owned()
    }

    #[test]
    fn local_services_without_a_selector_do_not_share() {
        let mine = sharing("k", &[("TCP", 53)], true, None);
        let theirs = sharing("k", &[("TCP", 80)], true, None);
        let found = obstacle((&service("ns", "a"), &mine), (&service("ns", "b"), Some(&theirs)), None);
        assert_eq!(found, Some(SharingObstacle::Selectors));
    }
}
