//! Corrections of VirtualIP statuses that are not true and that no speaker can correct.

use std::{net::IpAddr, time::Duration};

use herald_crds::{
    names::{CONDITION_ANNOUNCED, SPEAKER_POD_SELECTOR},
    virtual_ip::{AnnouncedReason, ServiceReference, TrafficPolicy},
};

use super::{Index, speakers::SILENT_AFTER, virtual_ip::Concern};
use crate::{
    action::{Action, Announcement, ConditionValue, EventValue, Regarding, Subject},
    placement::NoCandidate,
    speaker_pod::SpeakerPodView,
};

/// Time that the speakers have to take an address over from a lost node before the status is corrected: several times
/// the 500 ms that a takeover takes, so that a failover costs no write of ours.
const TAKEOVER_GRACE: Duration = Duration::from_secs(3);
/// Time that an address may have no announcer before the status says why: speakers report within seconds of their
/// start.
const NOBODY_GRACE: Duration = Duration::from_secs(10);

/// The sentence for an address that was never announced although nodes could announce it: the controller does not read
/// EndpointSlices.
const NO_ENDPOINT: &str = "no node has announced it yet: with spec.externalTrafficPolicy Local only a node with a usable \
                           endpoint of the Service does: look at its EndpointSlices";

impl Index {
    /// Corrects a status that is not true and that no speaker can correct.
    pub(super) fn correct(&mut self, address: IpAddr, now: Duration) -> Option<Action> {
        let Some((concern, since, grace)) = self.concern(address) else {
            self.vips.get_mut(&address)?.concern = None;
            return None;
        };
        let due = self.concerned(address, concern.clone(), now).max(since) + grace;
        if now < due {
            self.queue.mark_at(due, Subject::VirtualIp(address));
            return None;
        }
        match concern {
            // The node, or the pod, may be well by now; the end of blindness asks again.
            Concern::Lost(_) | Concern::Unanswered(_) if self.blind => None,
            Concern::Lost(announcement) => {
                let node = &announcement.node;
                let gone = if self.nodes.contains_key(node) { "is not Ready" } else { "is gone" };
                let message = format!("node {node} {gone}, and no other node has claimed the address yet");
                self.correction(address, AnnouncedReason::NodeLost, message, Some(announcement))
            }
            Concern::Unanswered(announcement) => {
                let message = self.unanswered(&announcement.node);
                self.correction(address, AnnouncedReason::SpeakerNotReady, message, Some(announcement))
            }
            Concern::Nobody | Concern::Deleted => self.explain(address, now),
        }
    }

    /// Returns the fault in the announcement of an address, the earliest time of its beginning, and the time to wait.
    fn concern(&self, address: IpAddr) -> Option<(Concern, Duration, Duration)> {
        let entry = self.vips.get(&address)?;
        let Some(announcement) = entry.announcement() else {
            return Some((Concern::Nobody, Duration::ZERO, NOBODY_GRACE));
        };
        if self.nodes.get(&announcement.node).is_none_or(|node| !node.ready) {
            return Some((Concern::Lost(announcement), Duration::ZERO, TAKEOVER_GRACE));
        }
        // The rule is that of the speakers: one advertisement that forbids cover is enough.
        let may_be_covered = entry.vip.spec.advertisements.iter().all(|rule| rule.cover);
        let since = self.unanswered_since(&announcement.node, may_be_covered)?;
        Some((Concern::Unanswered(announcement), since, SILENT_AFTER))
    }

    /// Returns why no node answers for the addresses of a node, and the remedy.
    fn unanswered(&self, node: &str) -> String {
        let seconds = SILENT_AFTER.as_secs();
        match self.speaker_pods.pods().iter().find(|(_, pod)| pod.node == node) {
            Some((name, SpeakerPodView { namespace, .. })) => format!(
                "pod {name}, the speaker of node {node}, has not been Ready for {seconds} s, and no other node covers \
                 for it: see kubectl -n {namespace} describe pod {name}, and kubectl -n {namespace} logs {name}"
            ),
            None => format!(
                "node {node} has had no speaker pod for {seconds} s, and no other node covers for it: see kubectl get \
                 daemonset,pod -A -l {SPEAKER_POD_SELECTOR} -o wide"
            ),
        }
    }

    /// Reports why no node announces an address.
    fn explain(&self, address: IpAddr, now: Duration) -> Option<Action> {
        let entry = self.vips.get(&address)?;
        let unanswered = entry.vip.announced().is_some_and(|c| c.reason == AnnouncedReason::SpeakerNotReady.as_str());
        // Speakers report why they stop announcing an address, but report nothing before they start.
        let ours = [AnnouncedReason::NoEligibleNode, AnnouncedReason::NoEndpoint].map(AnnouncedReason::as_str);
        let unsaid = entry.vip.announced().is_none_or(|c| ours.contains(&c.reason.as_str()));
        let local = entry.vip.spec.external_traffic_policy == TrafficPolicy::Local;
        match self.place(address, &entry.vip.spec.advertisements, now) {
            // The status says that already, with the node and the pod.
            Err(NoCandidate::NoSpeaker) if unanswered => None,
            Err(why) => self.correction(address, AnnouncedReason::NoEligibleNode, why.to_string(), None),
            Ok(_) if local && unsaid => {
                self.correction(address, AnnouncedReason::NoEndpoint, NO_ENDPOINT.to_owned(), None)
            }
            Ok(_) => None,
        }
    }

    /// Returns the write that corrects a status, unless the status is correct already or the same announcement has been
    /// corrected before.
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
        // A Service may well exist before its pods; and other nodes take over a lost node's addresses in most cases.
        let news = !matches!(reason, AnnouncedReason::NodeLost | AnnouncedReason::NoEndpoint)
            && observed.is_none_or(|c| c.reason != reason.as_str());
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

    /// Remembers that the status of an announcement has been corrected. The caller does so when the write has
    /// succeeded, and not when it is decided, so that a failed write is decided again.
    pub(super) fn note_corrected(&mut self, address: IpAddr, corrects: &Announcement) {
        if let Some(entry) = self.vips.get_mut(&address) {
            entry.corrected = Some(corrects.clone());
        }
    }
}

/// Returns upstream's event for a load balancer without nodes.
fn unavailable(service: &ServiceReference, address: IpAddr, why: &str) -> EventValue {
    EventValue {
        regarding: Regarding::Service(service.clone()),
        warning: true,
        reason: "UnAvailableLoadBalancer",
        action: "Announce",
        note: format!("no node announces {address}, which the Service keeps: {why}"),
    }
}
