//! The reasons why a Service gets no address.

use std::net::IpAddr;

use herald_crds::{
    address::IpFamily,
    names::{ANNOTATION_ADDRESSES, ANNOTATION_POOL, ANNOTATION_SHARED, LABEL_GATEWAY_NAME},
    pool::PoolError,
    service::RequestError,
    virtual_ip::ServiceReference,
};

use super::{Reservation, SharingObstacle};
use crate::gateway_view::GatewayKey;

/// A reason why a pool gives a Service nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// `spec.autoAssign` is false.
    #[error("spec.autoAssign is false: ask for the pool by annotation {ANNOTATION_POOL}")]
    NotAutomatic,
    /// `spec.drain` is true.
    #[error("spec.drain is true: set it to false")]
    Draining,
    /// The pool has a deletion timestamp. Kubernetes' own allocator takes no address from such a ServiceCIDR either
    /// (`pkg/registry/core/service/ipallocator/cidrallocator.go`).
    #[error("it is being deleted: ask for another, or create one")]
    Deleting,
    /// `spec.serviceAllocation` leaves the Service out.
    #[error("spec.serviceAllocation does not select the Service: label it or its namespace, or change the selectors")]
    NotSelected,
    /// The pool has no address of the family.
    #[error("spec.addresses holds no {0} address: add some")]
    NoSuchFamily(IpFamily),
    /// The pool's spec cannot be read.
    #[error("it is not usable: {0}")]
    Unusable(String),
}

/// Addresses that would be free, were it not for the fields of Services that do not have them from Herald.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedElsewhere {
    /// The number of these addresses.
    pub count: usize,
    /// The lowest of these addresses.
    pub first: IpAddr,
    /// A Service that lists the lowest address in `spec.externalIPs`, or whose status shows it.
    pub by: ServiceReference,
}

/// The reason why a Service gets no address. Each is one sentence that names the object, the field, the value and the
/// remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cluster has no pool.
    #[error("there is no AddressPool: create one with addresses of this network")]
    NoPool,
    /// Pools qualify, and all their addresses are taken.
    #[error(
        "every {family} address of {} is taken, reserved or in quarantine{}: delete a Service that has one, or add \
         addresses to spec.addresses",
        Pools(.pools),
        Elsewhere(.elsewhere)
    )]
    PoolFull {
        /// The requested family.
        family: IpFamily,
        /// The pools that qualify.
        pools: Vec<String>,
        /// The addresses of these pools that are kept back only because other Services list or show them.
        elsewhere: Option<Box<ClaimedElsewhere>>,
    },
    /// No pool may give this Service an address.
    #[error("no AddressPool gives this Service an {family} address: {}", Obstacles(.pools))]
    NoPoolAllows {
        /// The requested family.
        family: IpFamily,
        /// Each pool with its reason.
        pools: Vec<(String, Obstacle)>,
    },
    /// The requested pool does not exist.
    #[error(
        "metadata.annotations asks for AddressPool {pool:?}, which does not exist: create it, or name one that does"
    )]
    UnknownPool {
        /// The name of the pool.
        pool: String,
    },
    /// The requested address lies in no pool, or not in the requested one.
    #[error("the Service asks for {address}, which is not in {}: add it to spec.addresses, or ask for another", AnyOrPools(.pools))]
    AddressNotInPool {
        /// The requested address.
        address: IpAddr,
        /// The pools that the Service names.
        pools: Vec<String>,
    },
    /// The requested address is of a family that the Service does not have.
    #[error("the Service asks for {address}, and spec.ipFamilies has no {family}: add the family, or ask for another")]
    FamilyNotServed {
        /// The requested address.
        address: IpAddr,
        /// The family of the address.
        family: IpFamily,
    },
    /// The requested address is another Service's.
    #[error(
        "the Service asks for {address}, which {} has: ask for another, wait until it is free, or let them share it \
         (annotation {ANNOTATION_SHARED})",
        Holder(.by)
    )]
    AddressInUse {
        /// The requested address.
        address: IpAddr,
        /// The Service that has the address; `None` while the address is being withdrawn.
        by: Option<ServiceReference>,
    },
    /// The requested address is that of Services with which the Service may not share it.
    #[error("the Service asks for {address}, which Service {by} has, and they cannot share it: {why}")]
    SharingRefused {
        /// The requested address.
        address: IpAddr,
        /// One of the Services that have the address.
        by: ServiceReference,
        /// The reason.
        why: Box<SharingObstacle>,
    },
    /// A Service lists the address in `spec.externalIPs`.
    #[error("{address} is in spec.externalIPs of Service {by}: remove it there, or ask for another")]
    AddressInExternalIps {
        /// The requested address.
        address: IpAddr,
        /// The Service that lists the address.
        by: ServiceReference,
    },
    /// The requested address is one that no host has, a node's, or of the cluster's networks.
    #[error("the Service asks for {address}, which is {by}: ask for another, and exclude it from the AddressPool")]
    AddressReserved {
        /// The requested address.
        address: IpAddr,
        /// The reservation of the address.
        by: Reservation,
    },
    /// The status shows an address of a Node, or one that no host has.
    #[error(
        "status.loadBalancer.ingress holds {address}, which is {by}: another provider wrote it, and no Service can have \
         it. Herald does not overwrite it; give the Service one provider (spec.loadBalancerClass), or empty its status, \
         and it gets another address"
    )]
    AddressNotAdopted {
        /// The address in the status.
        address: IpAddr,
        /// The reservation of the address.
        by: Reservation,
    },
    /// `avoidBuggyIPs` keeps the address back.
    #[error("AddressPool {pool} withholds {address} (spec.avoidBuggyIPs): ask for another, or set the field to false")]
    AddressAvoided {
        /// The requested address.
        address: IpAddr,
        /// The pool that keeps the address back.
        pool: String,
    },
    /// A Service without an address was created for a Gateway that does not exist.
    #[error(
        "metadata.labels[{LABEL_GATEWAY_NAME}] names Gateway {gateway}, which does not exist: create it, ask for \
         addresses by annotation {ANNOTATION_ADDRESSES}, or remove the label"
    )]
    GatewayNotFound {
        /// The Gateway that the Service names.
        gateway: GatewayKey,
    },
    /// A Service without an address was created for a Gateway, and Gateways cannot be listed.
    #[error(
        "spec.addresses of Gateway {gateway} cannot be read, since the controller cannot list Gateways (its log says \
         why): give it the ClusterRole of deploy/herald-gateway-addresses.yaml, or start it without --gateway-addresses"
    )]
    GatewaysUnreadable {
        /// The Gateway that the Service names.
        gateway: GatewayKey,
    },
    /// The request cannot be read.
    #[error("{0}")]
    BadRequest(#[from] RequestError),
    /// The status shows an address of another provider.
    #[error(
        "status.loadBalancer.ingress holds {value}, which is in no AddressPool: another provider wrote it. Herald does \
         not overwrite it; give the Service one provider (spec.loadBalancerClass), or empty its status"
    )]
    ForeignIngress {
        /// The entry: an address or a host name.
        value: String,
    },
}

impl Refusal {
    /// Returns whether the only reason is that there is no address of a family now: a Service that prefers two families
    /// then works with one. If the Service names a pool, only a family that the pool does not have is left out
    /// silently.
    pub fn is_absence(&self, pool_is_named: bool) -> bool {
        match self {
            Self::PoolFull { .. } => !pool_is_named,
            Self::NoPoolAllows { pools, .. } => {
                !pool_is_named || pools.iter().all(|(_, obstacle)| matches!(obstacle, Obstacle::NoSuchFamily(_)))
            }
            _ => false,
        }
    }

    /// Returns whether a change of another object than the Service and its Gateway may end the refusal, so that the
    /// Service has to be looked at after each such change. A thousand Services with a typing error must not cost a
    /// thousand decisions whenever some Service is deleted.
    pub fn may_end_by_others(&self) -> bool {
        match self {
            Self::BadRequest(_) | Self::FamilyNotServed { .. } => false,
            Self::NoPool
            | Self::PoolFull { .. }
            | Self::NoPoolAllows { .. }
            | Self::UnknownPool { .. }
            | Self::AddressNotInPool { .. }
            | Self::AddressInUse { .. }
            | Self::SharingRefused { .. }
            | Self::AddressInExternalIps { .. }
            | Self::AddressReserved { .. }
            | Self::AddressNotAdopted { .. }
            | Self::AddressAvoided { .. }
            | Self::GatewayNotFound { .. }
            | Self::GatewaysUnreadable { .. }
            | Self::ForeignIngress { .. } => true,
        }
    }

    /// Returns the sentence of a refusal of a request whose addresses a Gateway asks for.
    pub fn sentence(&self, asked_by: Option<&GatewayKey>) -> String {
        match asked_by {
            Some(gateway) if self.is_about_a_requested_address() => format!(
                "{self} (spec.addresses of Gateway {gateway} asks for it: change it there, or overrule it by annotation \
                 {ANNOTATION_ADDRESSES} of the Service)"
            ),
            _ => self.to_string(),
        }
    }

    fn is_about_a_requested_address(&self) -> bool {
        match self {
            Self::AddressNotInPool { .. }
            | Self::FamilyNotServed { .. }
            | Self::AddressInUse { .. }
            | Self::SharingRefused { .. }
            | Self::AddressInExternalIps { .. }
            | Self::AddressReserved { .. }
            | Self::AddressAvoided { .. } => true,
            Self::NoPool
            | Self::PoolFull { .. }
            | Self::NoPoolAllows { .. }
            | Self::UnknownPool { .. }
            | Self::AddressNotAdopted { .. }
            | Self::GatewayNotFound { .. }
            | Self::GatewaysUnreadable { .. }
            | Self::BadRequest(_)
            | Self::ForeignIngress { .. } => false,
        }
    }

    /// Returns the reason as a condition spells it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoPool => "NoPool",
            Self::PoolFull { .. } => "PoolFull",
            Self::NoPoolAllows { .. } => "NoPoolAllows",
            Self::UnknownPool { .. } => "UnknownPool",
            Self::AddressNotInPool { .. } => "AddressNotInPool",
            Self::FamilyNotServed { .. } => "FamilyNotServed",
            Self::AddressInUse { .. } => "AddressInUse",
            Self::SharingRefused { .. } => "SharingRefused",
            Self::AddressInExternalIps { .. } => "AddressInExternalIPs",
            Self::AddressReserved { .. } => "AddressReserved",
            Self::AddressNotAdopted { .. } => "AddressNotAdopted",
            Self::AddressAvoided { .. } => "AddressAvoided",
            Self::GatewayNotFound { .. } => "GatewayNotFound",
            Self::GatewaysUnreadable { .. } => "GatewaysUnreadable",
            Self::BadRequest(_) => "BadRequest",
            Self::ForeignIngress { .. } => "ForeignIngress",
        }
    }
}

/// The reason why a pool's spec cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// An entry of `addresses` or `exclude` cannot be read.
    #[error(transparent)]
    Addresses(#[from] PoolError),
    /// A label selector cannot be read.
    #[error("spec.serviceAllocation.{field}[{index}]: {message}")]
    Selector {
        /// `namespaceSelectors` or `serviceSelectors`.
        field: &'static str,
        /// The position of the selector in the list.
        index: usize,
        /// The error of the selector.
        message: String,
    },
    /// No address is left.
    #[error("spec.exclude and spec.avoidBuggyIPs leave no address of spec.addresses: add others")]
    NoAddresses,
}

/// Maximum of pools that a message names. A condition's message holds 32 KiB, and a person reads only a few names.
const SHOWN: usize = 8;

impl PoolFault {
    /// Returns whether the pool gives nothing until it is mended. An unreadable entry of `addresses` leaves the others
    /// usable; without an entry of `exclude`, or a selector, the pool would give addresses that it must not give.
    pub fn stops_assignment(&self) -> bool {
        match self {
            Self::Addresses(error) => error.field == "exclude",
            Self::Selector { .. } | Self::NoAddresses => true,
        }
    }
}

struct Pools<'a>(&'a [String]);

impl std::fmt::Display for Pools<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.len() == 1 { "AddressPool " } else { "AddressPools " })?;
        f.write_str(&self.0.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "))?;
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

struct Elsewhere<'a>(&'a Option<Box<ClaimedElsewhere>>);

impl std::fmt::Display for Elsewhere<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(elsewhere) = self.0 else { return Ok(()) };
        let ClaimedElsewhere { count, first, by } = &**elsewhere;
        write!(
            f,
            " ({count} of them only because Services list them in spec.externalIPs or show them in their status, as \
             {by} does {first})"
        )
    }
}

struct Obstacles<'a>(&'a [(String, Obstacle)]);

impl std::fmt::Display for Obstacles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (pool, why)) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{pool}: {why}", if at == 0 { "" } else { "; " })?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, "; and {more} more"),
            _ => Ok(()),
        }
    }
}

struct AnyOrPools<'a>(&'a [String]);

impl std::fmt::Display for AnyOrPools<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [] => f.write_str("any AddressPool"),
            pools => Pools(pools).fmt(f),
        }
    }
}

struct Holder<'a>(&'a Option<ServiceReference>);

impl std::fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(service) => write!(f, "Service {service}"),
            None => f.write_str("a Service that is being withdrawn still"),
        }
    }
}
