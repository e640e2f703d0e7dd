//! `AddressPool`: the addresses that may be given to Services.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{AddressBlock, AddressSet, BlockError, IpFamily};
use crate::virtual_ip::ServiceReference;

/// The CEL rule of one address block; `self` is the text. CEL has no order on addresses, so the controller finds a
/// range that ends before it starts, and reports it in the condition `Accepted`. A CIDR with bits behind its prefix is
/// read as its network, as MetalLB reads it, and the condition reports that.
const BLOCK_RULE: &str = "isIP(self) || isCIDR(self) || \
     (self.split('-').size() == 2 && isIP(self.split('-')[0].trim()) && isIP(self.split('-')[1].trim()) && \
     ip(self.split('-')[0].trim()).family() == ip(self.split('-')[1].trim()).family())";
const BLOCK_MESSAGE: &str = "is not an address block: write a CIDR (192.0.2.0/24), a range within one family \
     (192.0.2.10-192.0.2.20) or an address";

/// A block of addresses: a CIDR (192.0.2.0/24), a range within one family (192.0.2.10-192.0.2.20) or a single address.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": BLOCK_RULE, "message": BLOCK_MESSAGE}]))]
pub struct BlockText(
    /// CIDR, `first-last` or a single address. At most 87 characters: two full IPv6 addresses (39 each), a dash, and
    /// spaces round it.
    #[schemars(length(min = 2, max = 87))]
    pub String,
);

/// The administrator's settings of a pool.
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
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub addresses: Vec<BlockText>,

    /// Blocks taken out of `addresses`, written in the same form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude: Vec<BlockText>,

    /// Never give out IPv4 addresses that end in .0 or .255: some old equipment drops them.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Give addresses to Services that do not name this pool.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// The Services that may have addresses of this pool, and the order in which pools are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,

    /// Assign no further address from this pool; assigned addresses stay.
    #[serde(default)]
    pub drain: bool,

    /// Services of different namespaces may share an address of this pool, if they carry the same sharing key
    /// (annotation `heraldlb.io/allow-shared-ip`). Services of one namespace always may.
    #[serde(default)]
    pub share_across_namespaces: bool,
}

/// The Services that may have addresses of a pool. A Service qualifies if its namespace is named or selected (or
/// neither is given) and a service selector matches (or none is given).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Pools with `serviceAllocation` are tried before those without. Pools of a smaller number come first among them,
    /// and pools without a number, or with 0, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub priority: Option<i32>,
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
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

/// The controller's report on a pool.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[schemars(extend("default" = crate::condition::unobserved()))]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolStatus {
    /// The `metadata.generation` that this status is about; -1 until it is written for the first time. While it differs
    /// from the generation of the object, the controller has not processed the last edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The IPv4 part; absent where the pool has no IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyUsage>,
    /// The IPv6 part; absent where the pool has no IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyUsage>,
    /// Addresses kept back because a host outside the cluster uses them. A Service that asks for one by name gets it
    /// nevertheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedAddress>,
    /// `Accepted`: whether the pool is usable as written. `ContainsAssigned`: whether every address assigned from it
    /// still lies in a pool. `Stalled`: present, and True, while `Accepted` is False.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list")]
    pub conditions: Vec<Condition>,
}

/// Counts of addresses of one family, as decimal text: a /64 alone has 2^64, more than an API integer holds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FamilyUsage {
    /// The number of addresses that the pool can give out in all.
    pub capacity: String,
    /// The number of addresses assigned from the pool.
    pub assigned: String,
    /// The number of addresses that the pool can still give out.
    pub available: String,
}

/// An address that is not given out, because a host outside the cluster answered for it before it was ever announced.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QuarantinedAddress {
    /// The address.
    pub address: String,
    /// The link-layer address of that host.
    pub mac_address: String,
    /// The time at which the quarantine of the address began. It lasts for an hour.
    pub since: Time,
    /// The Service that was meant to have the address, and got another.
    pub service: ServiceReference,
}

fn yes() -> bool {
    true
}

/// The error of a pool's field and value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}[{index}]: {source}")]
pub struct PoolError {
    /// The field: `addresses` or `exclude`.
    pub field: &'static str,
    /// Position in the list.
    pub index: usize,
    /// The error of the entry.
    pub source: BlockError,
}

/// The addresses of a pool, as far as its spec can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolAddresses {
    /// The addresses of `addresses` without those of `exclude`.
    pub usable: AddressSet,
    /// The entries that are not address blocks. CEL refuses most of them at admission; it cannot see a range that ends
    /// before it starts.
    pub unreadable: Vec<PoolError>,
    /// The CIDRs with bits behind their prefix, which are read as their networks.
    pub masked: Vec<PoolError>,
}

impl PoolAddresses {
    fn read(&mut self, field: &'static str, list: &[BlockText]) -> Vec<AddressBlock> {
        let mut blocks = Vec::new();
        for (index, text) in list.iter().enumerate() {
            match text.0.parse() {
                Ok(block) => blocks.push(block),
                Err(source) => {
                    let masked = if let BlockError::HostBits { network, .. } = &source { Some(*network) } else { None };
                    blocks.extend(masked.map(AddressBlock::from));
                    let entries = if masked.is_some() { &mut self.masked } else { &mut self.unreadable };
                    entries.push(PoolError { field, index, source });
                }
            }
        }
        blocks
    }
}

impl AddressPoolSpec {
    /// Returns the addresses that this pool may give out. [`Self::avoids`] says which of them `avoidBuggyIPs` keeps
    /// back.
    pub fn read_addresses(&self) -> PoolAddresses {
        let mut read = PoolAddresses::default();
        let (addresses, exclude) = (read.read("addresses", &self.addresses), read.read("exclude", &self.exclude));
        read.usable = addresses.iter().collect();
        exclude.iter().for_each(|block| read.usable.remove(block));
        read
    }

    /// Returns whether `avoidBuggyIPs` keeps the address back. (This is a predicate and not part of the usable set:
    /// cutting .0 and .255 out of a /8 would split it into 131,072 runs.)
    pub fn avoids(&self, address: std::net::IpAddr) -> bool {
        match address {
            std::net::IpAddr::V4(v4) => self.avoid_buggy_ips && matches!(v4.octets()[3], 0 | 255),
            std::net::IpAddr::V6(_) => false,
        }
    }
}

impl AddressPoolStatus {
    /// Returns the counts of one family.
    pub fn usage(&self, family: IpFamily) -> Option<&FamilyUsage> {
        match family {
            IpFamily::V4 => self.ipv4.as_ref(),
            IpFamily::V6 => self.ipv6.as_ref(),
        }
    }
}
