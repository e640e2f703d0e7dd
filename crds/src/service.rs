//! The rules on Services and Nodes that controller and speaker share: whether a Service is Herald's, its request, and
//! the nodes that are excluded.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    address::IpFamily,
    condition::shown,
    names::{
        ANNOTATION_ADDRESSES, ANNOTATION_COUNT, ANNOTATION_POOL, ANNOTATION_SHARED, CLASS, FINALIZER_SERVICE_CLASS,
        FINALIZER_SERVICE_DEFAULT, METALLB_ADDRESSES, METALLB_POOL, METALLB_SHARED,
    },
};

/// The reason why a Service of `type: LoadBalancer` is Herald's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The Service has Herald's class, or another class that Herald serves.
    Class,
    /// The Service has no class, and Herald is the cluster's default provider.
    Default,
}

/// The Services that are Herald's in addition to those of its class, by the controller's flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whether Services without a class are Herald's: the API has no notion of a default class.
    pub default_provider: bool,
    /// The other classes that Herald serves. The class of a Service cannot be changed, so Services of another provider
    /// can come to Herald only with theirs.
    pub other_classes: Vec<String>,
}

impl Claim {
    /// Returns why a Service is Herald's; `None` if it is not.
    pub fn of(service_type: Option<&str>, class: Option<&str>, selection: &Selection) -> Option<Self> {
        match (service_type, class) {
            (Some("LoadBalancer"), Some(CLASS)) => Some(Self::Class),
            (Some("LoadBalancer"), Some(class)) if selection.other_classes.iter().any(|c| c == class) => {
                Some(Self::Class)
            }
            (Some("LoadBalancer"), None) if selection.default_provider => Some(Self::Default),
            _ => None,
        }
    }

    /// Returns the finalizer that Herald puts on such a Service.
    pub fn finalizer(self) -> &'static str {
        match self {
            Self::Class => FINALIZER_SERVICE_CLASS,
            Self::Default => FINALIZER_SERVICE_DEFAULT,
        }
    }
}

/// The most addresses of one family that a Service may ask for. Each is a VirtualIP and a part of a pool; a typing
/// error must not take a whole network.
pub const MOST_ADDRESSES: usize = 32;

/// The request that a Service makes by annotations and `spec.loadBalancerIP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Requested addresses, in the order of the request; at most `count` of each family.
    pub addresses: Vec<IpAddr>,
    /// The requested number of addresses of each family.
    pub count: usize,
    /// Requested pools, the first choice first. One pool may have the IPv4 addresses and another the IPv6 addresses.
    pub pools: Vec<String>,
    /// `spec.loadBalancerIP`, where an annotation asks for something else and wins.
    pub overruled_load_balancer_ip: Option<String>,
}

impl Default for Request {
    /// Returns a request for any one address of each family.
    fn default() -> Self {
        Self { addresses: Vec::new(), count: 1, pools: Vec::new(), overruled_load_balancer_ip: None }
    }
}

/// The error of a request that cannot be read. The message names the field and the value and says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A value is not an address.
    #[error("{field}: {value:?} is not an IP address: write one address per family, separated by a comma")]
    NotAnAddress {
        /// The annotation or field that names the address.
        field: String,
        /// The value as written, or the beginning of a long one.
        value: String,
    },
    /// There are two addresses of one family.
    #[error(
        "{field}: {first} and {second} are both {family}: a Service has one address per family, unless annotation \
         {ANNOTATION_COUNT} asks for more"
    )]
    TwoOfOneFamily {
        /// The annotation that names the addresses.
        field: String,
        /// The family of the addresses.
        family: IpFamily,
        /// The first address.
        first: IpAddr,
        /// The second address.
        second: IpAddr,
    },
    /// The request names more addresses of one family than it asks for in all.
    #[error(
        "{field} names {named} {family} addresses, and annotation {ANNOTATION_COUNT} asks for {count}: name fewer, or \
         write a larger number there"
    )]
    TooManyOfOneFamily {
        /// The annotation that names the addresses.
        field: String,
        /// The family of the addresses.
        family: IpFamily,
        /// The number of named addresses.
        named: usize,
        /// The number of addresses that the Service asks for.
        count: usize,
    },
    /// The value is not a number of addresses.
    #[error(
        "metadata.annotations[{ANNOTATION_COUNT}]: {value:?} is not a number from 1 to {MOST_ADDRESSES}: write how many \
         addresses of each family the Service is to have, or take the annotation away"
    )]
    NotACount {
        /// The value as written, or the beginning of a long one.
        value: String,
    },
}

impl Request {
    /// Returns the sharing key, which counts even if the rest of the request cannot be read.
    pub fn read_sharing_key(annotations: &BTreeMap<String, String>) -> Option<&str> {
        either(annotations, ANNOTATION_SHARED, METALLB_SHARED).map(|(_, key)| key)
    }

    /// Reads annotations (ours, else MetalLB's) and `spec.loadBalancerIP` (which an annotation overrules).
    ///
    /// # Errors
    /// If the number of addresses cannot be read, a value is not an address, or the request names more addresses of a
    /// family than it asks for.
    pub fn read(annotations: &BTreeMap<String, String>, load_balancer_ip: Option<&str>) -> Result<Self, RequestError> {
        let load_balancer_ip = load_balancer_ip.map(str::trim).filter(|v| !v.is_empty());
        let mut overruled = None;
        let (field, list) = match (either(annotations, ANNOTATION_ADDRESSES, METALLB_ADDRESSES), load_balancer_ip) {
            (Some((key, list)), also) => {
                overruled = also.filter(|ip| !list.split(',').any(|a| is_same_address(a.trim(), ip))).map(shown);
                (format!("metadata.annotations[{key}]"), list)
            }
            (None, Some(ip)) => ("spec.loadBalancerIP".to_owned(), ip),
            (None, None) => (String::new(), ""),
        };
        let count = read_count(annotations)?;
        let addresses = read_addresses(&field, list.split(','), count)?;
        let list = either(annotations, ANNOTATION_POOL, METALLB_POOL).map_or("", |(_, list)| list);
        let mut pools: Vec<String> = Vec::new();
        for pool in list.split(',').map(str::trim).filter(|pool| !pool.is_empty()) {
            if !pools.iter().any(|known| known == pool) {
                pools.push(pool.to_owned());
            }
        }
        Ok(Self { addresses, count, pools, overruled_load_balancer_ip: overruled })
    }

    /// Returns the request with these addresses in place of its own; `field` names the field that holds them.
    ///
    /// # Errors
    /// If one of them is not an address, or more of a family are named than the request asks for.
    pub fn with_addresses<'a>(
        &self,
        field: &str,
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RequestError> {
        Ok(Self { addresses: read_addresses(field, addresses, self.count)?, ..self.clone() })
    }
}

/// Returns the addresses that a field lists, each once; `count` of each family at most.
fn read_addresses<'a>(
    field: &str,
    list: impl IntoIterator<Item = &'a str>,
    count: usize,
) -> Result<Vec<IpAddr>, RequestError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in list.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        let not_an_address = |_| RequestError::NotAnAddress { field: field.to_owned(), value: shown(part) };
        let address: IpAddr = part.parse().map_err(not_an_address)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    for family in IpFamily::ALL {
        let named: Vec<_> = addresses.iter().copied().filter(|address| IpFamily::of(*address) == family).collect();
        let field = field.to_owned();
        match named[..] {
            [first, second, ..] if count == 1 => {
                return Err(RequestError::TwoOfOneFamily { field, family, first, second });
            }
            _ if named.len() > count => {
                return Err(RequestError::TooManyOfOneFamily { field, family, named: named.len(), count });
            }
            _ => {}
        }
    }
    Ok(addresses)
}

/// Returns the requested number of addresses of each family. An empty annotation counts as absent.
fn read_count(annotations: &BTreeMap<String, String>) -> Result<usize, RequestError> {
    let text = annotations.get(ANNOTATION_COUNT).map(|text| text.trim()).filter(|text| !text.is_empty());
    let Some(text) = text else { return Ok(1) };
    let count = text.parse().ok().filter(|count| (1..=MOST_ADDRESSES).contains(count));
    count.ok_or_else(|| RequestError::NotACount { value: shown(text) })
}

/// Returns the annotation that counts, with its value: ours, else the first of theirs. An empty one counts as absent.
fn either<'a>(
    annotations: &'a BTreeMap<String, String>,
    ours: &'static str,
    theirs: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    let value = |key: &'static str| annotations.get(key).map(|v| (key, v.trim())).filter(|(_, v)| !v.is_empty());
    [ours].into_iter().chain(theirs).find_map(value)
}

/// Returns whether two texts name the same address, however each spells it.
fn is_same_address(one: &str, other: &str) -> bool {
    one == other || one.parse::<IpAddr>().is_ok_and(|one| other.parse() == Ok(one))
}

/// Returns whether the value of the label `node.kubernetes.io/exclude-from-external-load-balancers` excludes its node.
/// The rule is upstream's since 1.34 (`k8s.io/cloud-provider`): only a value that parses as false lets the node in; an
/// empty value, "true" and anything unreadable exclude it. The spellings are those of Go's `strconv.ParseBool`.
pub fn excludes_node(label: Option<&str>) -> bool {
    label.is_some_and(|value| !matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False"))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("LoadBalancer", Some(CLASS), false, Some(Claim::Class))]
    #[test_case("LoadBalancer", Some(CLASS), true, Some(Claim::Class))]
    #[test_case("LoadBalancer", None, true, Some(Claim::Default))]
    #[test_case("LoadBalancer", None, false, None)]
    #[test_case("LoadBalancer", Some("example.com/internal-vip"), true, None)]
    #[test_case("LoadBalancer", Some("metallb.io/metallb"), false, Some(Claim::Class); "another class that is named")]
    #[test_case("ClusterIP", Some(CLASS), true, None)]
    #[test_case("NodePort", None, true, None)]
    fn type_and_class_decide(service_type: &str, class: Option<&str>, default_provider: bool, expected: Option<Claim>) {
        let selection = Selection { default_provider, other_classes: vec!["metallb.io/metallb".to_owned()] };
        assert_eq!(Claim::of(Some(service_type), class, &selection), expected);
    }

    fn read(annotations: &[(&str, &str)], ip: Option<&str>) -> Result<Request, RequestError> {
        Request::read(&annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), ip)
    }

    #[test_case(&[], None => Vec::<String>::new())]
    #[test_case(&[], Some("192.0.2.1") => vec!["192.0.2.1"])]
    #[test_case(&[], Some("") => Vec::<String>::new(); "an empty field asks for nothing")]
    #[test_case(&[(ANNOTATION_ADDRESSES, "192.0.2.1")], None => vec!["192.0.2.1"])]
    #[test_case(&[(ANNOTATION_ADDRESSES, "2001:db8::1, 192.0.2.1")], None => vec!["2001:db8::1", "192.0.2.1"])]
    #[test_case(&[(ANNOTATION_ADDRESSES, "192.0.2.2,192.0.2.1,192.0.2.2"), (ANNOTATION_COUNT, "2")], None => vec!["192.0.2.2", "192.0.2.1"]; "as many as are asked for")]
    #[test_case(&[(ANNOTATION_ADDRESSES, "192.0.2.1"), (METALLB_ADDRESSES[0], "192.0.2.2")], None => vec!["192.0.2.1"]; "ours wins")]
    #[test_case(&[(METALLB_ADDRESSES[0], "192.0.2.2")], None => vec!["192.0.2.2"]; "MetalLB's")]
    #[test_case(&[(METALLB_ADDRESSES[1], "192.0.2.3")], None => vec!["192.0.2.3"]; "MetalLB's earlier prefix")]
    #[test_case(&[(METALLB_ADDRESSES[1], "192.0.2.3"), (METALLB_ADDRESSES[0], "192.0.2.2")], None => vec!["192.0.2.2"]; "MetalLB's present prefix wins")]
    #[test_case(&[(ANNOTATION_ADDRESSES, "192.0.2.1")], Some("192.0.2.2") => vec!["192.0.2.1"]; "annotation wins over the field")]
    fn requested_addresses_are_read(annotations: &[(&str, &str)], ip: Option<&str>) -> Vec<String> {
        read(annotations, ip).unwrap().addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn overruled_field_is_reported() {
        let request = read(&[(ANNOTATION_ADDRESSES, "192.0.2.1")], Some("192.0.2.2")).unwrap();
        assert_eq!(request.overruled_load_balancer_ip.as_deref(), Some("192.0.2.2"));
        for (annotation, field) in [("192.0.2.1", "192.0.2.1"), ("2001:DB8:0::7,", "2001:db8::7")] {
            let request = read(&[(ANNOTATION_ADDRESSES, annotation)], Some(field)).unwrap();
            assert_eq!(request.overruled_load_balancer_ip, None);
        }
    }

    #[test_case(&[] => Vec::<String>::new())]
    #[test_case(&[(ANNOTATION_POOL, "lan")] => vec!["lan"])]
    #[test_case(&[(ANNOTATION_POOL, " four, six ,")] => vec!["four", "six"])]
    #[test_case(&[(ANNOTATION_POOL, "six,four,six")] => vec!["six", "four"]; "each once")]
    #[test_case(&[(METALLB_POOL[1], "lan")] => vec!["lan"]; "MetalLB's earlier prefix")]
    fn requested_pools_are_read(annotations: &[(&str, &str)]) -> Vec<String> {
        read(annotations, None).unwrap().pools
    }

    #[test_case(&[], 1)]
    #[test_case(&[(ANNOTATION_COUNT, " 3 ")], 3)]
    #[test_case(&[(ANNOTATION_COUNT, "")], 1; "empty")]
    #[test_case(&[(ANNOTATION_COUNT, "32")], 32)]
    fn requested_number_is_read(annotations: &[(&str, &str)], count: usize) {
        assert_eq!(read(annotations, None).unwrap().count, count);
    }

    #[test_case(&[(ANNOTATION_COUNT, "0")], None, "metadata.annotations[heraldlb.io/address-count]: \"0\" is not a number from 1 to 32")]
    #[test_case(&[(ANNOTATION_COUNT, "-1")], None, "\"-1\" is not a number")]
    #[test_case(&[(ANNOTATION_COUNT, "x")], None, "\"x\" is not a number")]
    #[test_case(&[(ANNOTATION_COUNT, "33")], None, "\"33\" is not a number")]
    #[test_case(&[(ANNOTATION_COUNT, "2"), (ANNOTATION_ADDRESSES, "192.0.2.1,192.0.2.2,192.0.2.3")], None, "names 3 IPv4 addresses, and annotation heraldlb.io/address-count asks for 2")]
    #[test_case(&[(ANNOTATION_ADDRESSES, "192.0.2.300")], None, "metadata.annotations[heraldlb.io/addresses]: \"192.0.2.300\"")]
    #[test_case(&[(ANNOTATION_ADDRESSES, "192.0.2.1,192.0.2.2")], None, "192.0.2.1 and 192.0.2.2 are both IPv4")]
    #[test_case(&[], Some("web"), "spec.loadBalancerIP: \"web\"")]
    fn unreadable_request_is_refused_with_a_remedy(annotations: &[(&str, &str)], ip: Option<&str>, message: &str) {
        let error = read(annotations, ip).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test_case(None, false)]
    #[test_case(Some(""), true)]
    #[test_case(Some("true"), true)]
    #[test_case(Some("false"), false)]
    #[test_case(Some("False"), false)]
    #[test_case(Some("no"), true; "junk excludes")]
    fn exclude_label_excludes_unless_it_is_false(value: Option<&str>, expected: bool) {
        assert_eq!(excludes_node(value), expected);
    }
}
