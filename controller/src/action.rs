//! What the controller decides: values that can be compared, queued and written.

use std::{collections::BTreeMap, net::IpAddr};

use herald_crds::{
    AddressPool, L2Advertisement, VirtualIP, VirtualIPSpec,
    condition::bounded,
    pool::{FamilyUsage, QuarantinedAddress},
    virtual_ip::{AnnouncedReason, ServiceReference},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::view::{ServiceKey, ServiceView};

/// The object a decision is about. The index has at most one write under way per object, which orders them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A VirtualIP, by its address.
    VirtualIp(IpAddr),
    /// A Service.
    Service(ServiceKey),
    /// A pool.
    Pool(String),
    /// An advertisement.
    Advertisement(String),
    /// A VirtualIP that is named after another address than its own, by its name.
    StrayVirtualIp(String),
    /// A SpeakerStatus, by its node.
    SpeakerStatus(String),
}

/// A condition without its time, which the writer adds: decisions know no clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionValue {
    /// Type of the condition.
    pub type_: &'static str,
    /// "True" or "False".
    pub status: &'static str,
    /// CamelCase word.
    pub reason: String,
    /// A sentence a person can act on.
    pub message: String,
    /// Generation of the object it speaks about; Services have none.
    pub generation: Option<i64>,
    /// The time of the last transition, where the status does not change with this write.
    pub since: Option<Time>,
}

impl ConditionValue {
    /// The value as it follows on the observed condition: keeps its time where the status stays.
    #[must_use]
    pub fn following(mut self, observed: Option<&Condition>) -> Self {
        self.since = observed.filter(|c| c.status == self.status).map(|c| c.last_transition_time.clone());
        self
    }

    /// Does the observed condition say the same?
    pub fn is(&self, observed: Option<&Condition>) -> bool {
        observed.is_some_and(|c| {
            c.type_ == self.type_
                && c.status == self.status
                && c.reason == self.reason
                && c.message == bounded(&self.message)
                && c.observed_generation == self.generation
        })
    }

    /// The condition as the API takes it.
    pub fn at(&self, now: &Time) -> Condition {
        Condition {
            type_: self.type_.to_owned(),
            status: self.status.to_owned(),
            reason: self.reason.clone(),
            message: bounded(&self.message).to_owned(),
            observed_generation: self.generation,
            last_transition_time: self.since.clone().unwrap_or_else(|| now.clone()),
        }
    }
}

/// What becomes of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays as it is.
    #[default]
    Keep,
    /// It gets this value.
    Set(T),
    /// It is taken away.
    Remove,
}

/// One strategic-merge patch on the status subresource of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePatch {
    /// `status.loadBalancer.ingress`, in order.
    pub ingress: Change<Vec<IpAddr>>,
    /// Our condition.
    pub condition: Change<ConditionValue>,
    /// Our annotation that names the pools of its addresses.
    pub allocated_from: Change<String>,
    /// A finalizer to add.
    pub add_finalizer: Option<&'static str>,
    /// A finalizer to take away.
    pub remove_finalizer: Option<&'static str>,
}

/// The object an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regarding {
    /// A Service.
    Service(ServiceReference),
    /// An object of Herald's, all of which are cluster-scoped.
    Object {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
        /// UID.
        uid: String,
    },
}

/// An event to post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventValue {
    /// The object.
    pub regarding: Regarding,
    /// Warning instead of Normal.
    pub warning: bool,
    /// CamelCase word; upstream's where one fits.
    pub reason: &'static str,
    /// What was done.
    pub action: &'static str,
    /// The sentence.
    pub note: String,
}

/// An announcement of an address, as the status of its VirtualIP tells of it: a new one has a new time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The announcing node.
    pub node: String,
    /// Since when it announces the address.
    pub since: Option<Time>,
}

/// What a pool's status is to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolReport {
    /// The generation of the pool that it is about.
    pub generation: Option<i64>,
    /// Counts of IPv4.
    pub ipv4: Option<FamilyUsage>,
    /// Counts of IPv6.
    pub ipv6: Option<FamilyUsage>,
    /// Its quarantine.
    pub quarantined: Vec<QuarantinedAddress>,
    /// All conditions.
    pub conditions: Vec<ConditionValue>,
}

/// What an advertisement's status is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisementReport {
    /// The generation of the advertisement that it is about.
    pub generation: Option<i64>,
    /// All conditions.
    pub conditions: Vec<ConditionValue>,
}

/// A write to the API server. Each carries what makes it fail where the decision is out of date: the resource version,
/// or the UID.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates a VirtualIP with our finalizer: the API server refuses a second one of the same address.
    CreateVirtualIp {
        /// Address; the name follows from it.
        address: IpAddr,
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Spec.
        spec: Box<VirtualIPSpec>,
    },
    /// Replaces spec and our labels.
    UpdateVirtualIpSpec {
        /// Address.
        address: IpAddr,
        /// Resource version decided upon.
        resource_version: String,
        /// Labels; `None`: it is taken away.
        labels: BTreeMap<String, Option<String>>,
        /// Spec.
        spec: Box<VirtualIPSpec>,
    },
    /// Deletes a VirtualIP; the finalizer holds it until its announcer is silent.
    DeleteVirtualIp {
        /// Address.
        address: IpAddr,
        /// UID decided upon.
        uid: String,
        /// The date of one that is to be created again, since it is not later than that of the one before.
        misdated: Option<Timestamp>,
    },
    /// Lets a deleted VirtualIP go.
    RemoveVirtualIpFinalizer {
        /// Address.
        address: IpAddr,
        /// Resource version decided upon.
        resource_version: String,
        /// The finalizers that stay.
        remaining: Vec<String>,
        /// Events to post once it is written.
        events: Vec<EventValue>,
    },
    /// Takes back a status nobody is there to take back.
    CorrectVirtualIpStatus {
        /// Address.
        address: IpAddr,
        /// Resource version decided upon.
        resource_version: String,
        /// Why.
        reason: AnnouncedReason,
        /// The announcement that is not true any more, if there was one.
        corrects: Option<Announcement>,
        /// The condition.
        condition: ConditionValue,
        /// The conditions of other types, which stay.
        others: Vec<Condition>,
        /// Events to post once it is written.
        events: Vec<EventValue>,
    },
    /// Asks for a Service that has the address and is not seen to want it: a GET, which decides nothing and writes
    /// nothing.
    LookUpService {
        /// The address.
        address: IpAddr,
        /// The Service that has it.
        service: ServiceReference,
    },
    /// Patches a Service's status, condition and finalizer at once.
    PatchServiceStatus {
        /// The Service.
        service: ServiceReference,
        /// Resource version decided upon.
        resource_version: String,
        /// The patch.
        patch: ServicePatch,
        /// Events to post once it is written.
        events: Vec<EventValue>,
    },
    /// Writes a pool's status.
    PatchPoolStatus {
        /// The pool.
        pool: String,
        /// Resource version decided upon.
        resource_version: String,
        /// The status.
        report: PoolReport,
    },
    /// Writes an advertisement's status.
    PatchAdvertisementStatus {
        /// The advertisement.
        advertisement: String,
        /// Resource version decided upon.
        resource_version: String,
        /// The status.
        report: AdvertisementReport,
    },
    /// Says what is wrong with a VirtualIP whose name is not that of its address.
    DescribeStrayVirtualIp {
        /// Its name.
        name: String,
        /// Resource version decided upon.
        resource_version: String,
        /// The condition.
        condition: ConditionValue,
        /// The conditions of other types, which stay.
        others: Vec<Condition>,
    },
    /// Lets such a VirtualIP go.
    ReleaseStrayVirtualIp {
        /// Its name.
        name: String,
        /// Resource version decided upon.
        resource_version: String,
        /// The finalizers that stay.
        remaining: Vec<String>,
    },
    /// Deletes what a speaker that is gone has left.
    DeleteSpeakerStatus {
        /// The node.
        node: String,
        /// UID decided upon.
        uid: String,
    },
    /// Posts an event.
    Event(EventValue),
}

impl Action {
    /// The events to post once it is written.
    pub fn events(&self) -> &[EventValue] {
        match self {
            Self::RemoveVirtualIpFinalizer { events, .. }
            | Self::CorrectVirtualIpStatus { events, .. }
            | Self::PatchServiceStatus { events, .. } => events,
            Self::CreateVirtualIp { .. }
            | Self::UpdateVirtualIpSpec { .. }
            | Self::DeleteVirtualIp { .. }
            | Self::LookUpService { .. }
            | Self::PatchPoolStatus { .. }
            | Self::PatchAdvertisementStatus { .. }
            | Self::DescribeStrayVirtualIp { .. }
            | Self::ReleaseStrayVirtualIp { .. }
            | Self::DeleteSpeakerStatus { .. }
            | Self::Event(_) => &[],
        }
    }

    /// The object it writes; `None` for an event.
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::CreateVirtualIp { address, .. }
            | Self::UpdateVirtualIpSpec { address, .. }
            | Self::DeleteVirtualIp { address, .. }
            | Self::RemoveVirtualIpFinalizer { address, .. }
            | Self::LookUpService { address, .. }
            | Self::CorrectVirtualIpStatus { address, .. } => Some(Subject::VirtualIp(*address)),
            Self::PatchServiceStatus { service, .. } => {
                Some(Subject::Service(ServiceKey { namespace: service.namespace.clone(), name: service.name.clone() }))
            }
            Self::PatchPoolStatus { pool, .. } => Some(Subject::Pool(pool.clone())),
            Self::PatchAdvertisementStatus { advertisement, .. } => Some(Subject::Advertisement(advertisement.clone())),
            Self::DescribeStrayVirtualIp { name, .. } | Self::ReleaseStrayVirtualIp { name, .. } => {
                Some(Subject::StrayVirtualIp(name.clone()))
            }
            Self::DeleteSpeakerStatus { node, .. } => Some(Subject::SpeakerStatus(node.clone())),
            Self::Event(_) => None,
        }
    }
}

/// What became of a write: an input to the index.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A VirtualIP was written.
    VirtualIp(Box<VirtualIP>),
    /// A Service was written, or found.
    Service(Box<ServiceView>),
    /// A pool was written.
    Pool(Box<AddressPool>),
    /// An advertisement was written.
    Advertisement(Box<L2Advertisement>),
    /// The object is gone (404): what was to be taken away from it has gone with it.
    Gone,
    /// Written; there is nothing to show.
    Done,
    /// Not written, for a reason of this object (conflict, there already, server error, refused): decide again, after a
    /// pause that grows. What is in the way comes by the watch.
    Failed,
    /// Not written, since the API server does not take this object; its sentence. Otherwise as [`Outcome::Failed`].
    Refused(String),
    /// Not written, since the API server takes no writes: decide again. The breaker says when.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use herald_crds::condition::MESSAGE_LIMIT;

    use super::*;

    /// A selector in a pool may hold a key of any length, and its condition names it.
    #[test]
    fn message_beyond_the_limit_is_cut_and_written_once() {
        let condition = ConditionValue {
            type_: "Accepted",
            status: "False",
            reason: "InvalidSelector".to_owned(),
            message: "k".repeat(MESSAGE_LIMIT + 1),
            generation: Some(1),
            since: None,
        };
        let written = condition.at(&Time(Timestamp::UNIX_EPOCH));
        assert_eq!(written.message.len(), MESSAGE_LIMIT);
        assert!(condition.is(Some(&written)));
    }
}
