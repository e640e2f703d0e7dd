//! VirtualIP statuses that are not true and that no speaker is there to take back.

use std::{net::IpAddr, time::Duration};

use herald_crds::{
    names::CONDITION_ANNOUNCED,
    virtual_ip::{AnnouncedReason, ServiceReference, TrafficPolicy},
};

use super::{Index, virtual_ip::Concern};
use crate::action::{Action, Announcement, ConditionValue, EventValue, Regarding, Subject};

/// How long the speakers have to take an address over from a lost node before the status is corrected: several times
/// the 500 ms a takeover takes, so that a failover costs no write of ours.
const TAKEOVER_GRACE: Duration = Duration::from_secs(3);
/// How long an address may have no announcer before the status says why: speakers report within seconds of their start.
const NOBODY_GRACE: Duration = Duration::from_secs(10);

/// Why an address may never have been announced although nodes could: the controller does not read EndpointSlices.
const NO_ENDPOINT: &str = "no node has announced it yet: with spec.externalTrafficPolicy Local only a node with a usable \
                           endpoint of the Service does: look at its EndpointSlices";

impl Index {
    /// Takes back a status that is not true and that nobody is there to take back.
    pub(super) fn correct(&mut self, address: IpAddr, now: Duration) -> Option<Action> {
        let entry = self.vips.get(&address)?;
        let (concern, grace) = match entry.announcement() {
            Some(announcement) if self.nodes.get(&announcement.node).is_none_or(|n| !n.ready) => {
                (Concern::Lost(announcement), TAKEOVER_GRACE)
            }
            None => (Concern::Nobody, NOBODY_GRACE),
            Some(_) => {
                self.vips.get_mut(&address)?.concern = None;
                return None;
            }
        };
        let due = self.concerned(address, concern.clone(), now) + grace;
        if now < due {
            self.queue.mark_at(due, Subject::VirtualIp(address));
            return None;
        }
        match concern {
            Concern::Lost(announcement) => {
                let node = &announcement.node;
                let gone = if self.nodes.contains_key(node) { "is not Ready" } else { "is gone" };
                let message = format!("node {node} {gone}, and no other node has claimed the address yet");
                self.correction(address, AnnouncedReason::NodeLost, message, Some(announcement))
            }
            _ => self.explain(address),
        }
    }

    /// Says why nobody announces an address.
    fn explain(&self, address: IpAddr) -> Option<Action> {
        let entry = self.vips.get(&address)?;
        // Speakers say why they stop to announce an address, and nothing before they start.
        let unsaid = entry.vip.announced().is_none_or(|c| c.reason == AnnouncedReason::NoEligibleNode.as_str());
        let local = entry.vip.spec.external_traffic_policy == TrafficPolicy::Local;
        let why = match self.place(address, &entry.vip.spec.advertisements) {
            Err(why) => why.to_string(),
            Ok(_) if local && unsaid => NO_ENDPOINT.to_owned(),
            Ok(_) => return None,
        };
        self.correction(address, AnnouncedReason::NoEligibleNode, why, None)
    }

    /// The write that corrects a status, unless it says so already or the same announcement has been corrected before.
    fn correction(
        &self,
        address: IpAddr,
        reason: AnnouncedReason,
        message: String,
        corrects: Option<Announcement>,
    ) -> Option<Action> {
        let entry = self.vips.get(&address)?;
        if corrects.is_some() && corrects == entry.corrected {
            return None;
        }
        let condition = ConditionValue {
            type_: CONDITION_ANNOUNCED,
            status: reason.status(),
            reason: reason.as_str().to_owned(),
            message,
            generation: entry.vip.metadata.generation,
            since: None,
        };
        let observed = entry.vip.announced();
        let all = entry.vip.status.iter().flat_map(|s| &s.conditions);
        // A Service may well be there before its pods.
        let news = reason == AnnouncedReason::NoEligibleNode
            && condition.message != NO_ENDPOINT
            && observed.is_none_or(|c| c.reason != reason.as_str() || c.message == NO_ENDPOINT);
        let told = entry.vip.spec.services.iter().filter(|_| news);
        (!condition.is(observed)).then(|| Action::CorrectVirtualIpStatus {
            address,
            resource_version: entry.resource_version(),
            reason,
            corrects,
            events: told.map(|service| unavailable(service, address, &condition.message)).collect(),
            condition: condition.following(observed),
            others: all.filter(|c| c.type_ != CONDITION_ANNOUNCED).cloned().collect(),
        })
    }

    /// Remembers that the status of an announcement has been corrected: it is once the write has succeeded, and not when
    /// it is decided, so that a write that fails is decided again.
    pub(super) fn note_corrected(&mut self, address: IpAddr, corrects: &Announcement) {
        if let Some(entry) = self.vips.get_mut(&address) {
            entry.corrected = Some(corrects.clone());
        }
    }
}

/// Upstream's event for a cluster without nodes behind a load balancer.
fn unavailable(service: &ServiceReference, address: IpAddr, why: &str) -> EventValue {
    EventValue {
        regarding: Regarding::Service(service.clone()),
        warning: true,
        reason: "UnAvailableLoadBalancer",
        action: "Announce",
        note: format!("nobody announces {address}, which the Service keeps: {why}"),
    }
}
