//! The SpeakerStatuses that count, which are not always those that the API lists.
//!
//! A SpeakerStatus that is deleted or emptied does not prove that a speaker is gone: a person may have deleted it, or the
//! whole CustomResourceDefinition, while every speaker runs. So what such a change takes away counts a little longer: a
//! speaker that lives writes its status again within a second of noticing, and nothing has moved. A node whose Node is gone
//! as well is forgotten at once.

use std::{collections::BTreeMap, time::Duration};

use herald_segment::node::{NodeId, NodeName};

use super::{Machine, Now, cluster_view::Own, local::Local};
use crate::{
    cluster::{Change, Collection, Node, Speaker},
    interfaces::Segment,
};

/// How long a deleted SpeakerStatus counts where its speaker is not heard. A watch that broke begins again after 10 s at
/// most; its speaker then finds that the object is missing, and needs a second or two to write it.
const DELETED_COUNTS: Duration = Duration::from_secs(15);
/// How long a segment that a status no longer lists counts while its speaker is heard there: several times the second
/// within which a speaker corrects its status.
const EMPTIED_COUNTS: Duration = Duration::from_secs(5);
/// How often a node with something kept is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A segment that this node takes part in, with the peers that it hears there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire<'a> {
    pub segment: &'a Segment,
    pub peers: &'a BTreeMap<NodeId, NodeName>,
}

/// The SpeakerStatuses.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    /// What the API lists, and what is kept.
    counted: Collection<Speaker>,
    /// What is kept, by node.
    kept: BTreeMap<String, Kept>,
}

/// What the API no longer lists of a node and still counts.
#[derive(Debug)]
struct Kept {
    what: What,
    since: Duration,
    /// When it is looked at next.
    look_at: Duration,
}

#[derive(Debug, PartialEq)]
enum What {
    /// The whole object.
    Object,
    /// Segments that the object lacks.
    Segments(Vec<Segment>),
}

/// The objects that changed, as they were before.
pub(super) type Changed = Vec<(String, Option<Speaker>)>;

impl Wire<'_> {
    /// The segments that this node takes part in.
    pub(super) fn of<'a>(locals: impl Iterator<Item = &'a Local>) -> Vec<Wire<'a>> {
        let speaking = locals.filter(|local| local.speaks);
        speaking.map(|local| Wire { segment: &local.interface.segment, peers: &local.peers }).collect()
    }
}

impl Own<'_> {
    /// The segments of this node on which a node is heard. A node hears itself on all of them.
    fn hears(&self, node: &str) -> impl Iterator<Item = &Segment> {
        let id = NodeName::new(node).id();
        let is_own = node == self.node;
        self.wires.iter().filter(move |wire| is_own || wire.peers.contains_key(&id)).map(|wire| wire.segment)
    }
}

impl Speakers {
    /// The objects as an earlier run knew them.
    pub(super) fn restored(speakers: Vec<Speaker>) -> Self {
        Self { counted: Collection::restored(speakers), kept: BTreeMap::new() }
    }

    /// Every SpeakerStatus that counts.
    pub(super) fn counted(&self) -> &Collection<Speaker> {
        &self.counted
    }

    /// The SpeakerStatus of a node as the API lists it.
    pub(super) fn written(&self, node: &str) -> Option<&Speaker> {
        let is_missing = self.kept.get(node).is_some_and(|kept| kept.what == What::Object);
        self.counted.get(&node.to_owned()).filter(|_| !is_missing)
    }

    /// Takes one step of the watch. Returns what counts otherwise than before.
    pub(super) fn apply(
        &mut self,
        now: Duration,
        change: Change<Speaker>,
        own: Own<'_>,
        nodes: &Collection<Node>,
    ) -> Changed {
        let change = match change {
            Change::Applied(speaker) => Change::Applied(self.with_kept_segments(now, speaker, own)),
            other => other,
        };
        let changed = self.counted.apply(change);
        let mut counts_otherwise = Vec::new();
        for (node, before) in changed {
            let is_gone = self.counted.get(&node).is_none();
            match before {
                Some(before) if is_gone && nodes.get(&node).is_some() => self.keep_object(now, before),
                before => {
                    if is_gone {
                        self.kept.remove(&node);
                    }
                    counts_otherwise.push((node, before));
                }
            }
        }
        counts_otherwise
    }

    fn keep_object(&mut self, now: Duration, before: Speaker) {
        let kept = Kept { what: What::Object, since: now, look_at: now + DELETED_COUNTS };
        // A listing that lacks it again says nothing new.
        let kept = self.kept.remove(&before.node).filter(|kept| kept.what == What::Object).unwrap_or(kept);
        self.kept.insert(before.node.clone(), kept);
        self.counted.apply(Change::Applied(before));
    }

    /// A status as it counts: with each segment that it lacks from now on although its speaker is heard there.
    fn with_kept_segments(&mut self, now: Duration, mut speaker: Speaker, own: Own<'_>) -> Speaker {
        let before = self.counted.get(&speaker.node).map(|before| before.segments.as_slice()).unwrap_or_default();
        let lacking: Vec<Segment> = lacking(before, &speaker, own).cloned().collect();
        if lacking.is_empty() {
            self.kept.remove(&speaker.node);
            return speaker;
        }
        // A status that is written again and lacks them again says nothing new.
        let since = match self.kept.get(&speaker.node) {
            Some(Kept { what: What::Segments(_), since, .. }) => *since,
            _ => now,
        };
        speaker.segments.extend(lacking.iter().cloned());
        let kept = Kept { what: What::Segments(lacking), since, look_at: now + LOOK_EVERY };
        self.kept.insert(speaker.node.clone(), kept);
        speaker
    }

    /// Forgets what is kept of a node that is gone.
    pub(super) fn forget(&mut self, node: &str) -> Changed {
        match self.kept.remove(node) {
            Some(Kept { what: What::Object, .. }) => self.counted.apply(Change::Deleted(node.to_owned())),
            Some(Kept { what: What::Segments(_), .. }) | None => Vec::new(),
        }
    }

    /// Forgets what has been kept for long enough. Returns what counts otherwise than before.
    pub(super) fn expire(&mut self, now: Duration, own: Own<'_>) -> Changed {
        let mut changed = Vec::new();
        for (node, mut kept) in self.kept.extract_if(.., |_, kept| kept.look_at <= now).collect::<Vec<_>>() {
            let is_kept = match &kept.what {
                What::Object => own.hears(&node).next().is_some(),
                What::Segments(segments) => {
                    let is_heard = |segment: &Segment| own.hears(&node).any(|heard| segment.meets(heard));
                    now < kept.since + EMPTIED_COUNTS && segments.iter().any(is_heard)
                }
            };
            if is_kept {
                kept.look_at = now + LOOK_EVERY;
                self.kept.insert(node, kept);
                continue;
            }
            let Some(speaker) = self.counted.get(&node) else { continue };
            let change = match kept.what {
                What::Object => Change::Deleted(node),
                What::Segments(gone) => {
                    let mut speaker = speaker.clone();
                    speaker.segments.retain(|segment| !gone.contains(segment));
                    Change::Applied(speaker)
                }
            };
            changed.extend(self.counted.apply(change));
        }
        changed
    }

    /// When [`Speakers::expire`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.kept.values().map(|kept| kept.look_at).min()
    }
}

/// The segments that a status has lost although its speaker is heard there, and on no other segment that it lists.
fn lacking<'a>(before: &'a [Segment], speaker: &Speaker, own: Own<'_>) -> impl Iterator<Item = &'a Segment> {
    let lists = |wire: &Segment| speaker.segments.iter().any(|segment| segment.meets(wire));
    let unlisted: Vec<Segment> = own.hears(&speaker.node).filter(|wire| !lists(wire)).cloned().collect();
    before.iter().filter(move |segment| unlisted.iter().any(|wire| wire.meets(segment)))
}

impl Machine {
    /// Forgets SpeakerStatuses that have been gone for long enough.
    pub(super) fn expire_speakers(&mut self, now: Now) {
        let segments: Vec<_> = self.segments.values().map(|local| &local.interface.segment).collect();
        let wires = Wire::of(self.segments.values());
        let own = Own { node: &self.config.node, segments: &segments, wires: &wires };
        let effects = self.cluster.expire_speakers(now.monotonic, own);
        self.follow(now, effects, self.cluster.is_listed());
    }
}

#[cfg(test)]
mod tests;
