//! The speakers' actions, and their pods.

use std::net::IpAddr;

use herald_crds::virtual_ip::{AnnouncedReason, VirtualIPStatus};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{STRANGER, World, address};
use crate::{
    index::{Identity, Object},
    speaker_pod::SpeakerPodView,
    view::{NodeView, SpeakerView},
};

impl World {
    /// Makes a host outside the cluster hold the address.
    pub(in crate::index) fn stranger(&mut self, at: &str) {
        let sentence = format!("a host with the link-layer address {STRANGER} answered node a's probe for it");
        self.held_by_others.insert(address(at), (AnnouncedReason::Conflict, sentence));
    }

    /// Returns whether the address has ever been announced.
    pub(in crate::index) fn was_announced(&self, at: &IpAddr) -> bool {
        self.vips.get(at).is_some_and(|v| v.status.as_ref().is_some_and(VirtualIPStatus::was_ever_announced))
    }

    /// Makes the speakers announce the addresses that they may announce, and withdraw the deleted ones.
    pub(in crate::index) fn speakers_act(&mut self) {
        for mut vip in self.vips.values().cloned().collect::<Vec<_>>() {
            let mut status = vip.status.clone().unwrap_or_default();
            let at = address(&vip.spec.address);
            let held = self.held_by_others.get(&at).filter(|_| status.first_announced.is_none());
            let (reason, message) = match (vip.metadata.deletion_timestamp.is_some(), held) {
                (true, _) => (AnnouncedReason::Withdrawn, String::new()),
                (false, Some((reason, sentence))) => (*reason, sentence.clone()),
                (false, None) => (AnnouncedReason::Announcing, String::new()),
            };
            if status.conditions.iter().any(|c| c.reason == reason.as_str())
                || (status.node.is_none() && vip.metadata.deletion_timestamp.is_some())
            {
                continue;
            }
            status.node = (reason == AnnouncedReason::Announcing).then(|| "a".to_owned());
            if reason == AnnouncedReason::Announcing {
                status.first_announced.get_or_insert(Time(Timestamp::UNIX_EPOCH));
            }
            status.conflicting_mac_address = (reason == AnnouncedReason::Conflict).then(|| STRANGER.to_owned());
            status.conditions = vec![reason.condition(message, None, Time(Timestamp::UNIX_EPOCH))];
            vip.status = Some(status);
            self.store_vip(vip);
        }
    }

    /// Makes the last announcer report that it may no longer announce the address.
    pub(in crate::index) fn nobody_announces(&mut self, at: &str) {
        let mut vip = self.vips[&address(at)].clone();
        let status = vip.status.get_or_insert_default();
        status.node = None;
        status.conditions =
            vec![AnnouncedReason::Ineligible.condition(String::new(), None, Time(Timestamp::UNIX_EPOCH))];
        self.store_vip(vip);
    }

    /// Adds or updates the pod of a node's speaker, which is Ready or not.
    pub(in crate::index) fn pod(&mut self, node: &str, ready: bool) {
        let name = format!("speaker-{node}");
        self.pods.insert(name.clone(), pod_on(node, ready));
        self.index.apply(Object::SpeakerPod(name, pod_on(node, ready)));
    }

    /// Deletes the pod of a node's speaker.
    pub(in crate::index) fn delete_pod(&mut self, node: &str) {
        let name = format!("speaker-{node}");
        self.pods.remove(&name).unwrap();
        self.index.delete(&Identity::SpeakerPod(name));
    }

    /// Makes the Node list these addresses as its own.
    pub(in crate::index) fn node_lists(&mut self, name: &str, addresses: Vec<IpAddr>) {
        let node = NodeView { addresses, ..self.nodes[name].clone() };
        self.nodes.insert(name.to_owned(), node.clone());
        self.index.apply(Object::Node(name.to_owned(), node));
    }

    /// Makes a speaker report these addresses of its node's own links.
    pub(in crate::index) fn links(&mut self, node: &str, addresses: &[&str]) {
        let link_addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let before = self.speakers.get(node).or(self.speakers.values().next()).cloned().unwrap_or_default();
        let uid = format!("speaker-{node}");
        let view = SpeakerView { uid, link_addresses, ..before };
        self.report(node, view);
    }

    /// Replaces the SpeakerStatus of a node.
    pub(in crate::index) fn report(&mut self, node: &str, view: SpeakerView) {
        self.speakers.insert(node.to_owned(), view.clone());
        self.index.apply(Object::Speaker(node.to_owned(), view));
    }

    /// Deletes the SpeakerStatus of a node.
    pub(in crate::index) fn delete_report(&mut self, node: &str) {
        if self.speakers.remove(node).is_some() {
            self.index.delete(&Identity::Speaker(node.to_owned()));
        }
    }

    /// Makes a speaker report the nodes that it covers.
    pub(in crate::index) fn covers(&mut self, node: &str, covered: &[&str]) {
        let covering = covered.iter().map(|node| (*node).to_owned()).collect();
        let view = SpeakerView { covering, ..self.speakers[node].clone() };
        self.report(node, view);
    }
}

pub(super) fn pod_on(node: &str, ready: bool) -> SpeakerPodView {
    SpeakerPodView { namespace: "herald-system".to_owned(), node: node.to_owned(), ready }
}
