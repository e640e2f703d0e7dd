//! `AddressPool`: which addresses may be given to Services.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{AddressBlock, AddressSet, BlockError, IpFamily};
use crate::virtual_ip::ServiceReference;

/// CEL: one address block. `self` is the text. CEL has no order on addresses, so a range that ends before it starts is
/// found by the controller and reported in the condition `Accepted`.
const BLOCK_RULE: &str = "isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked()) || \
     (self.split('-').size() == 2 && isIP(self.split('-')[0].trim()) && isIP(self.split('-')[1].trim()) && \
     ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family())";
const BLOCK_MESSAGE: &str = "is not an address block: write a CIDR without host bits (192.0.2.0/24), \
     a range within one family (192.0.2.10-192.0.2.20) or an address";

/// A text that is one [`AddressBlock`].
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": BLOCK_RULE, "message": BLOCK_MESSAGE}]))]
pub struct BlockText(
    /// CIDR, `first-last` or a single address. At most 87 characters: two full IPv6 addresses (39 each), a dash, and
    /// spaces round it.
    #[schemars(length(min = 2, max = 87))]
    pub String,
);

/// What an administrator writes into a pool.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "heraldlb.io",
    version = "v1alpha1",
    kind = "AddressPool",
    plural = "addresspools",
    shortname = "pool",
    category = "herald",
    status = "AddressPoolStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Addresses that may be given to Services of type LoadBalancer.",
    printcolumn(name = "Auto-Assign", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "IPv4-Available", type_ = "string", json_path = ".status.ipv4.available"),
    printcolumn(name = "IPv4-Assigned", type_ = "string", json_path = ".status.ipv4.assigned"),
    printcolumn(name = "IPv6-Available", type_ = "string", json_path = ".status.ipv6.available", priority = 1),
    printcolumn(name = "IPv6-Assigned", type_ = "string", json_path = ".status.ipv6.assigned", priority = 1),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// The addresses: CIDRs (`192.0.2.0/28`), ranges (`192.0.2.10-192.0.2.20`) or single addresses, of both families.
    #[schemars(length(min = 1, max = 128))]
    pub addresses: Vec<BlockText>,

    /// Blocks taken out of `addresses`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub exclude: Vec<BlockText>,

    /// Never give out IPv4 addresses that end in .0 or .255: some old equipment drops them.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Give addresses to Services that do not name this pool.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Which Services may have addresses of this pool, and in which order pools are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,

    /// Assign nothing more from this pool; what is assigned stays.
    #[serde(default)]
    pub drain: bool,

    /// Services of different namespaces may share an address of this pool, if they carry one sharing key (annotation
    /// `heraldlb.io/allow-shared-ip`). Within a namespace they always may.
    #[serde(default)]
    pub share_across_namespaces: bool,
}

/// Which Services may have addresses of a pool. A Service qualifies if its namespace is named or selected (or neither
/// is given) and a service selector matches (or none is given).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Pools of a smaller number are tried first; pools without one come last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub priority: Option<i32>,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub namespaces: Vec<String>,
    /// Namespaces by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services by label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub service_selectors: Vec<LabelSelector>,
}

/// What the controller reports of a pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The IPv4 part; absent where the pool has no IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyUsage>,
    /// The IPv6 part; absent where the pool has no IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyUsage>,
    /// Addresses kept back because a host outside the cluster uses them. Who asks for one by name gets it all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedAddress>,
    /// `Accepted` and `ContainsAssigned`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Counts of addresses of one family, as decimal text: a /64 alone has 2^64, more than an API integer holds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FamilyUsage {
    /// Addresses the pool can give out in all.
    pub capacity: String,
    /// Addresses assigned from it.
    pub assigned: String,
    /// Addresses it can still give out.
    pub available: String,
}

/// An address that is not given out, because a host outside the cluster answered for it before it was ever announced.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedAddress {
    /// The address.
    pub address: String,
    /// That host's link-layer address.
    pub mac_address: String,
    /// When it was put here. It stays for an hour.
    pub since: Time,
    /// The Service that was to have it, and got another.
    pub service: ServiceReference,
}

fn yes() -> bool {
    true
}

/// A pool's field and value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}[{index}]: {source}")]
pub struct PoolError {
    /// `addresses` or `exclude`.
    pub field: &'static str,
    /// Position in the list.
    pub index: usize,
    /// What is wrong with it.
    pub source: BlockError,
}

impl AddressPoolSpec {
    /// The addresses this pool may give out: `addresses` less `exclude`. What `avoidBuggyIPs` keeps back is asked of
    /// [`Self::avoids`].
    ///
    /// # Errors
    /// The first entry that is no address block. CEL refuses most of them at admission; what it cannot see is a range
    /// that ends before it starts.
    pub fn usable(&self) -> Result<AddressSet, PoolError> {
        let parse = |field: &'static str, list: &[BlockText]| -> Result<Vec<AddressBlock>, PoolError> {
            let block = |(index, text): (usize, &BlockText)| {
                text.0.parse().map_err(|source| PoolError { field, index, source })
            };
            list.iter().enumerate().map(block).collect()
        };
        let mut usable: AddressSet = parse("addresses", &self.addresses)?.iter().collect();
        for block in parse("exclude", &self.exclude)? {
            usable.remove(&block);
        }
        Ok(usable)
    }

    /// Is the address one of those `avoidBuggyIPs` keeps back? (A predicate and not part of [`Self::usable`]: cutting
    /// .0 and .255 out of a /8 would make 131,072 runs of it.)
    pub fn avoids(&self, address: std::net::IpAddr) -> bool {
        match address {
            std::net::IpAddr::V4(v4) => self.avoid_buggy_ips && matches!(v4.octets()[3], 0 | 255),
            std::net::IpAddr::V6(_) => false,
        }
    }
}

impl AddressPoolStatus {
    /// The counts of one family.
    pub fn usage(&self, family: IpFamily) -> Option<&FamilyUsage> {
        match family {
            IpFamily::V4 => self.ipv4.as_ref(),
            IpFamily::V6 => self.ipv6.as_ref(),
        }
    }
}
