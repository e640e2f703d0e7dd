//! The controller's decisions: values that can be compared, queued and written.

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

/// The object that a decision is about. The index has at most one write under way per object, which orders the writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A VirtualIP, by its address.
    VirtualIp(IpAddr),
    /// A Service, by namespace and name.
    Service(ServiceKey),
    /// A pool, by its name.
    Pool(String),
    /// An advertisement, by its name.
    Advertisement(String),
    /// A VirtualIP that is named after another address than its own, by its name.
    StrayVirtualIp(String),
    /// A SpeakerStatus, by its node.
    SpeakerStatus(String),
}

/// A condition without its time, which the writer adds: decisions use no clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionValue {
    /// The type of the condition.
    pub type_: &'static str,
    /// The status: "True" or "False".
    pub status: &'static str,
    /// The reason: a CamelCase word.
    pub reason: String,
    /// A sentence that a person can act on.
    pub message: String,
    /// Generation of the object that the condition is about; Services have none.
    pub generation: Option<i64>,
    /// The time of the last transition, where this write leaves the status as it is.
    pub since: Option<Time>,
}

impl ConditionValue {
    /// Returns the value with the time of the observed condition, if the status stays.
    #[must_use]
    pub fn following(mut self, observed: Option<&Condition>) -> Self {
        self.since = observed.filter(|c| c.status == self.status).map(|c| c.last_transition_time.clone());
        self
    }

    /// Returns whether the observed condition has the same content.
    pub fn is(&self, observed: Option<&Condition>) -> bool {
        observed.is_some_and(|c| {
            c.type_ == self.type_
                && c.status == self.status
                && c.reason == self.reason
                && c.message == bounded(&self.message)
                && c.observed_generation == self.generation
        })
    }

    /// Returns the condition in the form of the API.
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

/// The change of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// The field stays as it is.
    #[default]
    Keep,
    /// The field gets this value.
    Set(T),
    /// The field is removed.
    Remove,
}

/// One strategic-merge patch on the status subresource of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePatch {
    /// `status.loadBalancer.ingress`, in order.
    pub ingress: Change<Vec<IpAddr>>,
    /// The condition `heraldlb.io/AddressAssigned`.
    pub condition: Change<ConditionValue>,
    /// Our annotation that names the pools of the addresses.
    pub allocated_from: Change<String>,
    /// A finalizer to add.
    pub add_finalizer: Option<&'static str>,
    /// A finalizer to remove.
    pub remove_finalizer: Option<&'static str>,
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regarding {
    /// A Service, by namespace and name.
    Service(ServiceReference),
    /// An object of one of Herald's kinds, all of which are cluster-scoped.
    Object {
        /// The kind of the object.
        kind: &'static str,
        /// The name of the object.
        name: String,
        /// The UID of the object.
        uid: String,
    },
}

/// An event to post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventValue {
    /// The object that the event is about.
    pub regarding: Regarding,
    /// Whether the event is a Warning instead of Normal.
    pub warning: bool,
    /// The reason: a CamelCase word; upstream's where one fits.
    pub reason: &'static str,
    /// The action that was done.
    pub action: &'static str,
    /// The note: a sentence for people.
    pub note: String,
}

/// An announcement of an address, as the status of its VirtualIP reports it: a new one has a new time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The announcing node.
    pub node: String,
    /// The time since which the node announces the address.
    pub since: Option<Time>,
}

/// The content of a pool's status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolReport {
    /// The generation of the pool that the report is about.
    pub generation: Option<i64>,
    /// The counts of its IPv4 addresses; `None` if it has none.
    pub ipv4: Option<FamilyUsage>,
    /// The counts of its IPv6 addresses; `None` if it has none.
    pub ipv6: Option<FamilyUsage>,
    /// The addresses in its quarantine.
    pub quarantined: Vec<QuarantinedAddress>,
    /// All conditions of the status.
    pub conditions: Vec<ConditionValue>,
}

/// The content of an advertisement's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisementReport {
    /// The generation of the advertisement that the report is about.
    pub generation: Option<i64>,
    /// All conditions of the status.
    pub conditions: Vec<ConditionValue>,
}

/// A write to the API server. Each carries a value that makes it fail where the decision is out of date: the resource
/// version, or the UID.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates a VirtualIP with our finalizer: the API server refuses a second one of the same address.
    CreateVirtualIp {
        /// Address; the name follows from it.
        address: IpAddr,
        /// The labels to set.
        labels: BTreeMap<String, String>,
        /// The complete spec.
        spec: Box<VirtualIPSpec>,
    },
    /// Replaces the spec and our labels.
    UpdateVirtualIpSpec {
        /// The address of the VirtualIP.
        address: IpAddr,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// Labels; `None` removes one.
        labels: BTreeMap<String, Option<String>>,
        /// The complete spec.
        spec: Box<VirtualIPSpec>,
    },
    /// Deletes a VirtualIP; the finalizer holds it until its announcer is silent.
    DeleteVirtualIp {
        /// The address of the VirtualIP.
        address: IpAddr,
        /// The UID that the decision is based on.
        uid: String,
        /// The date of a VirtualIP that has to be created again, since it is not later than that of the VirtualIP
        /// before.
        misdated: Option<Timestamp>,
    },
    /// Releases a deleted VirtualIP.
    RemoveVirtualIpFinalizer {
        /// The address of the VirtualIP.
        address: IpAddr,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// The finalizers that stay.
        remaining: Vec<String>,
        /// Events to post after the write.
        events: Vec<EventValue>,
    },
    /// Corrects a status whose author can no longer correct it.
    CorrectVirtualIpStatus {
        /// The address of the VirtualIP.
        address: IpAddr,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// The reason of the corrected condition.
        reason: AnnouncedReason,
        /// The announcement that is no longer true, if there was one.
        corrects: Option<Announcement>,
        /// The condition to write.
        condition: ConditionValue,
        /// The conditions of other types, which stay.
        others: Vec<Condition>,
        /// Events to post after the write.
        events: Vec<EventValue>,
    },
    /// Looks up a Service that has the address and, in this view, does not want it: a GET, which decides nothing and
    /// writes nothing.
    LookUpService {
        /// The address in question.
        address: IpAddr,
        /// The Service that has it.
        service: ServiceReference,
    },
    /// Patches the status, condition and finalizer of a Service in one request.
    PatchServiceStatus {
        /// The Service to patch.
        service: ServiceReference,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// The changes, in one patch.
        patch: ServicePatch,
        /// Events to post after the write.
        events: Vec<EventValue>,
    },
    /// Writes a pool's status.
    PatchPoolStatus {
        /// The name of the pool.
        pool: String,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// The status to write.
        report: PoolReport,
    },
    /// Writes an advertisement's status.
    PatchAdvertisementStatus {
        /// The name of the advertisement.
        advertisement: String,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// The status to write.
        report: AdvertisementReport,
    },
    /// Describes in the status of a VirtualIP that its name is not that of its address.
    DescribeStrayVirtualIp {
        /// The name of the VirtualIP.
        name: String,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// The condition to write.
        condition: ConditionValue,
        /// The conditions of other types, which stay.
        others: Vec<Condition>,
    },
    /// Releases such a VirtualIP.
    ReleaseStrayVirtualIp {
        /// The name of the VirtualIP.
        name: String,
        /// The resource version that the decision is based on.
        resource_version: String,
        /// The finalizers that stay.
        remaining: Vec<String>,
    },
    /// Deletes the SpeakerStatus of a speaker that is gone.
    DeleteSpeakerStatus {
        /// The name of the node, and of its SpeakerStatus.
        node: String,
        /// The UID that the decision is based on.
        uid: String,
    },
    /// Posts an event.
    Event(EventValue),
}

impl Action {
    /// Returns the events to post after the write.
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

    /// Returns the object that the action writes; `None` for an event.
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

/// The outcome of a write: an input to the index.
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
    /// The object is gone (404): the parts that the write would have removed are gone with it.
    Gone,
    /// The write succeeded, and returned no object to show.
    Done,
    /// The write failed for a reason of this object (conflict, existing already, server error, refused): the index
    /// decides again, after a pause that grows. The watch delivers the obstacle.
    Failed,
    /// The write failed, since the API server does not accept this object. Otherwise as [`Outcome::Failed`].
    Refused {
        /// The HTTP status of its answer.
        code: u16,
        /// Its sentence.
        sentence: String,
    },
    /// The write failed, since the API server takes no writes: the index decides again. The breaker decides when.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use herald_crds::condition::MESSAGE_LIMIT;

    use super::*;

    /// A selector in a pool may hold a key of any length, and its condition names the key.
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
