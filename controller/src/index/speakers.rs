//! The speakers: the report of each, and the time since which a node has had no speaker's pod, or none that is Ready.
//!
//! These times are by the controller's own clock, from its first observation: after a restart of the controller they
//! count again from zero, and another machine's clock does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use super::{Index, Kind, VirtualIpEntry};
use crate::{
    action::{Action, Subject},
    speaker_pod::SpeakerPodView,
    view::SpeakerView,
};

/// Time without a Ready pod after which a speaker counts as silent: twice the 5 s after which its peers report that
/// they cover for it, and far above the second or two in which a roll-out replaces a pod.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(10);

/// Time for which a deleted SpeakerStatus counts where its node exists and has no Ready pod of the speaker. (While it
/// has one, the speaker writes the object again as soon as its watch reports the deletion: within 10 s where the watch
/// has to start again.)
const DELETED_COUNTS: Duration = Duration::from_secs(15);

/// A SpeakerStatus.
#[derive(Clone, Debug)]
pub(super) struct SpeakerEntry {
    pub(super) view: SpeakerView,
    /// The time at which the SpeakerStatus was first seen without a pod.
    seen: Option<Duration>,
    /// Whether the API no longer lists it, and the time since then as far as that has been noticed.
    deleted: Option<Deleted>,
}

/// The state of a SpeakerStatus that the API no longer lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deleted {
    /// No decision about it has been made since.
    Unnoticed,
    /// The first decision about it was at this time.
    Since(Duration),
}

/// The pods of the speakers. Until they have been listed, nothing follows from them.
#[derive(Debug, Default)]
pub(super) struct SpeakerPods {
    /// The pods, by name.
    pods: BTreeMap<String, SpeakerPodView>,
    /// The state of each node's pods when the node was last looked at.
    nodes: BTreeMap<String, Lack>,
    /// The nodes whose pods have changed since.
    changed: BTreeSet<String>,
    listed_at: Option<Duration>,
}

/// The times since which a node has lacked a pod, and a Ready pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lack {
    pod: Option<Duration>,
    ready_pod: Option<Duration>,
}

impl SpeakerPods {
    pub(super) fn pods(&self) -> &BTreeMap<String, SpeakerPodView> {
        &self.pods
    }

    pub(super) fn apply(&mut self, name: String, pod: SpeakerPodView) {
        let node = pod.node.clone();
        let before = self.pods.insert(name, pod);
        self.changed.extend(before.map(|before| before.node));
        self.changed.insert(node);
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.changed.extend(self.pods.remove(name).map(|pod| pod.node));
    }

    /// Forgets a node that has left the cluster. Its pod may outlive its Node, and exist when that is registered again.
    pub(super) fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
        if self.pods.values().any(|pod| pod.node == node) {
            self.changed.insert(node.to_owned());
        }
    }

    /// Applies the changes of pods, at this time, and returns the nodes for which they matter.
    fn observe(&mut self, now: Duration) -> Vec<String> {
        self.listed_at.get_or_insert(now);
        let mut differ = Vec::new();
        for node in std::mem::take(&mut self.changed) {
            let mut pods = self.pods.values().filter(|pod| pod.node == node).peekable();
            let (has_pod, has_ready) = (pods.peek().is_some(), pods.any(|pod| pod.ready));
            let before = self.nodes.get(&node).copied().unwrap_or_default();
            let lack = Lack {
                pod: (!has_pod).then_some(before.pod.unwrap_or(now)),
                ready_pod: (!has_ready).then_some(before.ready_pod.unwrap_or(now)),
            };
            if self.nodes.insert(node.clone(), lack) != Some(lack) {
                differ.push(node);
            }
        }
        differ
    }

    /// Returns the time since which the node has had no pod; `None` if it has one, or if that is not known.
    pub(super) fn absent_since(&self, node: &str) -> Option<Duration> {
        self.nodes.get(node).map_or(self.listed_at, |lack| lack.pod)
    }

    /// Returns the time since which the node has had no Ready pod; `None` if it has one, or if that is not known.
    pub(super) fn unready_since(&self, node: &str) -> Option<Duration> {
        self.nodes.get(node).map_or(self.listed_at, |lack| lack.ready_pod)
    }
}

fn prefixes_of(entry: Option<&SpeakerEntry>) -> BTreeSet<IpNet> {
    entry.map(|entry| entry.view.on_link_prefixes()).unwrap_or_default()
}

impl Index {
    pub(super) fn apply_speaker(&mut self, name: String, view: SpeakerView) {
        if let Some(entry) = self.speakers.get_mut(&name) {
            entry.deleted = None;
        }
        let before = self.speakers.get(&name);
        if before.is_some_and(|entry| entry.view == view) {
            return;
        }
        let same_segments = before.is_some_and(|entry| entry.view.segments == view.segments);
        let same_object = before.is_some_and(|entry| entry.view.uid == view.uid);
        let only_links = same_segments && same_object && before.is_some_and(|e| e.view.covering == view.covering);
        let seen = before.filter(|_| same_object).and_then(|entry| entry.seen);
        let prefixes = view.on_link_prefixes();
        let before = self.speakers.insert(name.clone(), SpeakerEntry { view, seen, deleted: None });
        self.reserve_for_prefixes(&prefixes_of(before.as_ref()), &prefixes);
        self.reserve_for_node(&name);
        if only_links {
            return; // nothing else follows from them
        }
        if same_segments {
            self.mark_answered_by(&name, before.iter().flat_map(|entry| &entry.view.covering));
        } else {
            self.mark_vips();
        }
        self.mark(Subject::SpeakerStatus(name));
    }

    /// Removes a SpeakerStatus that is gone. It still counts for a while if its node exists: a person may have deleted
    /// it, or the whole CustomResourceDefinition, while the speaker runs and answers.
    pub(super) fn delete_speaker(&mut self, name: &str) {
        if !self.nodes.contains_key(name) {
            self.forget_speaker(name);
        } else if let Some(entry) = self.speakers.get_mut(name) {
            entry.deleted.get_or_insert(Deleted::Unnoticed);
            self.mark(Subject::SpeakerStatus(name.to_owned()));
        }
    }

    /// Forgets the SpeakerStatus of a node that has left the cluster, unless the API still lists the object.
    pub(super) fn forget_deleted_speaker(&mut self, name: &str) {
        if self.speakers.get(name).is_some_and(|entry| entry.deleted.is_some()) {
            self.forget_speaker(name);
        }
    }

    /// Forgets a deleted SpeakerStatus once it has counted for long enough.
    fn expire_deleted_speaker(&mut self, name: &str, since: Duration, now: Duration) {
        let unready = if self.listed.contains(&Kind::SpeakerPod) {
            // A pod that is no longer Ready requests another decision.
            let Some(unready) = self.speaker_pods.unready_since(name) else { return };
            unready
        } else {
            since
        };
        let due = since.max(unready) + DELETED_COUNTS;
        if now < due {
            self.queue.mark_at(due, Subject::SpeakerStatus(name.to_owned()));
        } else {
            self.forget_speaker(name);
        }
    }

    fn forget_speaker(&mut self, name: &str) {
        let gone = self.speakers.remove(name);
        self.reserve_for_prefixes(&prefixes_of(gone.as_ref()), &BTreeSet::new());
        self.reserve_for_node(name);
        self.queue.forget(&Subject::SpeakerStatus(name.to_owned()));
        self.mark_vips();
    }

    /// Applies the changes of the speakers' pods.
    pub(super) fn observe_speaker_pods(&mut self, now: Duration) {
        if !self.listed.contains(&Kind::SpeakerPod) {
            return;
        }
        let first = self.speaker_pods.listed_at.is_none();
        for node in self.speaker_pods.observe(now) {
            self.mark_answered_by(&node, []);
            self.mark(Subject::SpeakerStatus(node));
        }
        if first {
            // A node without a pod is not in the list of pods.
            self.mark_vips();
            for name in self.speakers.keys().cloned().collect::<Vec<_>>() {
                self.mark(Subject::SpeakerStatus(name));
            }
        }
    }

    /// Requests a decision on every address that the speaker of this node announces, covers or has covered, and on
    /// those that no node announces.
    fn mark_answered_by<'a>(&mut self, speaker: &'a str, covered: impl IntoIterator<Item = &'a String>) {
        let covers = self.speakers.get(speaker).into_iter().flat_map(|entry| &entry.view.covering);
        let mut nodes: BTreeSet<&str> = covers.map(String::as_str).collect();
        for name in covered {
            nodes.insert(name);
        }
        nodes.insert(speaker);
        let concerned = |entry: &VirtualIpEntry| entry.announcer().is_none_or(|node| nodes.contains(node));
        let addresses: Vec<IpAddr> = self.vips.iter().filter(|(_, e)| concerned(e)).map(|(a, _)| *a).collect();
        for address in addresses {
            self.mark(Subject::VirtualIp(address));
        }
    }

    /// Returns the time since which no speaker is known to answer for the addresses of a node, if no other node takes
    /// them over: its speaker has no Ready pod, and no speaker that covers for it has one. `None` if a speaker answers.
    pub(super) fn unanswered_since(&self, node: &str, may_be_covered: bool) -> Option<Duration> {
        let covers = |(name, entry): &(&String, &SpeakerEntry)| {
            may_be_covered && name.as_str() != node && entry.view.covering.iter().any(|covered| covered == node)
        };
        let coverers = self.speakers.iter().filter(covers).map(|(name, _)| name.as_str());
        let mut since = Duration::ZERO;
        for speaker in std::iter::once(node).chain(coverers) {
            since = since.max(self.speaker_pods.unready_since(speaker)?);
        }
        Some(since)
    }

    /// Forgets a SpeakerStatus that was deleted, and deletes that of a node that has had no speaker's pod for long: the
    /// node would stay a candidate for every address, and all its peers would report that it is not heard.
    pub(super) fn decide_speaker(&mut self, name: &str, now: Duration) -> Option<Action> {
        if let Some(deleted) = self.speakers.get_mut(name)?.deleted.as_mut() {
            let since = if let Deleted::Since(since) = *deleted { since } else { now };
            *deleted = Deleted::Since(since);
            self.expire_deleted_speaker(name, since, now);
            return None;
        }
        let absent = self.speaker_pods.absent_since(name)?;
        let entry = self.speakers.get_mut(name)?;
        // A speaker may write although no pod is seen (a pod with other labels). Its status is then deleted at most
        // once in that time.
        let seen = *entry.seen.get_or_insert(now);
        let due = absent.max(seen) + self.forget_speakers_after;
        if now < due {
            self.queue.mark_at(due, Subject::SpeakerStatus(name.to_owned()));
            return None;
        }
        if self.blind {
            return None; // the pod may be there; the end of blindness asks again
        }
        Some(Action::DeleteSpeakerStatus { node: name.to_owned(), uid: entry.view.uid.clone() })
    }
}
