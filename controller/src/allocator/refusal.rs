//! Why a Service gets no address.

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

/// One reason a pool gives a Service nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// `spec.autoAssign` is false.
    #[error("spec.autoAssign is false: ask for the pool by annotation {ANNOTATION_POOL}")]
    NotAutomatic,
    /// `spec.drain` is true.
    #[error("spec.drain is true: set it to false")]
    Draining,
    /// It has a deletion timestamp. Kubernetes' own allocator takes no address from such a ServiceCIDR either
    /// (`pkg/registry/core/service/ipallocator/cidrallocator.go`).
    #[error("it is being deleted: ask for another, or create one")]
    Deleting,
    /// `spec.serviceAllocation` leaves the Service out.
    #[error("spec.serviceAllocation does not select the Service: label it or its namespace, or change the selectors")]
    NotSelected,
    /// It has no address of the family.
    #[error("spec.addresses holds no {0} address: add some")]
    NoSuchFamily(IpFamily),
    /// Its spec cannot be read.
    #[error("it is not usable: {0}")]
    Unusable(String),
}

/// Addresses that are free but for the fields of Services which do not have them from Herald.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedElsewhere {
    /// How many.
    pub count: usize,
    /// The lowest of them.
    pub first: IpAddr,
    /// A Service that lists it in `spec.externalIPs`, or whose status shows it.
    pub by: ServiceReference,
}

/// Why a Service gets no address. Each says in one sentence which object, field and value, and what to do.
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
        /// The family.
        family: IpFamily,
        /// The pools that qualify.
        pools: Vec<String>,
        /// What of them is kept back only because other Services list or show it.
        elsewhere: Option<Box<ClaimedElsewhere>>,
    },
    /// No pool may give this Service an address.
    #[error("no AddressPool gives this Service an {family} address: {}", Obstacles(.pools))]
    NoPoolAllows {
        /// The family.
        family: IpFamily,
        /// Each pool with its reason.
        pools: Vec<(String, Obstacle)>,
    },
    /// The pool asked for does not exist.
    #[error(
        "metadata.annotations asks for AddressPool {pool:?}, which does not exist: create it, or name one that does"
    )]
    UnknownPool {
        /// Its name.
        pool: String,
    },
    /// The address asked for lies in no pool, or not in the one asked for.
    #[error("the Service asks for {address}, which is not in {}: add it to spec.addresses, or ask for another", AnyOrPools(.pools))]
    AddressNotInPool {
        /// The address.
        address: IpAddr,
        /// The pools that the Service names.
        pools: Vec<String>,
    },
    /// The address asked for is of a family the Service does not have.
    #[error("the Service asks for {address}, and spec.ipFamilies has no {family}: add the family, or ask for another")]
    FamilyNotServed {
        /// The address.
        address: IpAddr,
        /// Its family.
        family: IpFamily,
    },
    /// The address asked for is another Service's.
    #[error(
        "the Service asks for {address}, which {} has: ask for another, wait until it is free, or let them share it \
         (annotation {ANNOTATION_SHARED})",
        Holder(.by)
    )]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Who has it; nobody any more while it is being withdrawn.
        by: Option<ServiceReference>,
    },
    /// The address asked for is that of Services with which it may not share it.
    #[error("the Service asks for {address}, which Service {by} has, and they cannot share it: {why}")]
    SharingRefused {
        /// The address.
        address: IpAddr,
        /// One of those that have it.
        by: ServiceReference,
        /// Why.
        why: Box<SharingObstacle>,
    },
    /// A Service lists the address in `spec.externalIPs`.
    #[error("{address} stands in spec.externalIPs of Service {by}: take it out there, or ask for another")]
    AddressInExternalIps {
        /// The address.
        address: IpAddr,
        /// That Service.
        by: ServiceReference,
    },
    /// The address asked for is one that no host has, a node's, or of the cluster's networks.
    #[error("the Service asks for {address}, which is {by}: ask for another, and exclude it from the AddressPool")]
    AddressReserved {
        /// The address.
        address: IpAddr,
        /// What it is.
        by: Reservation,
    },
    /// The status shows an address of a Node, or one that no host has.
    #[error(
        "status.loadBalancer.ingress holds {address}, which is {by}: another provider wrote it, and no Service can have \
         it. Herald does not overwrite it; give the Service one provider (spec.loadBalancerClass), or empty its status, \
         and it gets another address"
    )]
    AddressNotAdopted {
        /// The address.
        address: IpAddr,
        /// What it is.
        by: Reservation,
    },
    /// `avoidBuggyIPs` keeps the address back.
    #[error("AddressPool {pool} keeps {address} back (spec.avoidBuggyIPs): ask for another, or set it to false")]
    AddressAvoided {
        /// The address.
        address: IpAddr,
        /// The pool.
        pool: String,
    },
    /// A Service without an address was created for a Gateway that is not there.
    #[error(
        "metadata.labels[{LABEL_GATEWAY_NAME}] names Gateway {gateway}, which does not exist: create it, or ask for \
         addresses by annotation {ANNOTATION_ADDRESSES}, or take the label away"
    )]
    GatewayNotFound {
        /// The Gateway.
        gateway: GatewayKey,
    },
    /// A Service without an address was created for a Gateway, and Gateways cannot be listed.
    #[error(
        "spec.addresses of Gateway {gateway} cannot be read, since the controller cannot list Gateways (its log says \
         why): give it the ClusterRole of deploy/herald-gateway-addresses.yaml, or start it without --gateway-addresses"
    )]
    GatewaysUnreadable {
        /// The Gateway.
        gateway: GatewayKey,
    },
    /// The request cannot be read.
    #[error("{0}")]
    BadRequest(#[from] RequestError),
    /// Somebody else's address stands in the status.
    #[error(
        "status.loadBalancer.ingress holds {value}, which is in no AddressPool: another provider wrote it. Herald does \
         not overwrite it; give the Service one provider (spec.loadBalancerClass), or empty its status"
    )]
    ForeignIngress {
        /// Address or host name.
        value: String,
    },
}

impl Refusal {
    /// Returns whether nothing is wrong but that there is no address of a family now: a Service that prefers two families
    /// does with one. If it names a pool, only a family that the pool does not have is left out without a word.
    pub fn is_absence(&self, pool_is_named: bool) -> bool {
        match self {
            Self::PoolFull { .. } => !pool_is_named,
            Self::NoPoolAllows { pools, .. } => {
                !pool_is_named || pools.iter().all(|(_, obstacle)| matches!(obstacle, Obstacle::NoSuchFamily(_)))
            }
            _ => false,
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

    /// The reason as a condition spells it.
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

/// Why a pool's spec cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// An entry of `addresses` or `exclude`.
    #[error(transparent)]
    Addresses(#[from] PoolError),
    /// A label selector.
    #[error("spec.serviceAllocation.{field}[{index}]: {message}")]
    Selector {
        /// `namespaceSelectors` or `serviceSelectors`.
        field: &'static str,
        /// Position in the list.
        index: usize,
        /// What is wrong with it.
        message: String,
    },
    /// No address is left.
    #[error("spec.exclude and spec.avoidBuggyIPs leave no address of spec.addresses: add some that stay")]
    NoAddresses,
}

/// How many pools a message names. A condition's message holds 32 KiB, and nobody reads more than a few names.
const SHOWN: usize = 8;

impl PoolFault {
    /// Returns whether the pool gives nothing until it is mended. An entry of `addresses` that cannot be read leaves the
    /// others usable; without one of `exclude`, or a selector, it would give what it is not to give.
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
