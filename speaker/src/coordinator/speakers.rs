//! The SpeakerStatuses that count, which are not always those that the API lists.
//!
//! A SpeakerStatus that is deleted or emptied does not prove that a speaker is gone: a person may have deleted it, or
//! the whole CustomResourceDefinition, while every speaker runs. The object or the segments that such a change takes
//! away therefore count a little longer: a speaker that lives writes its status again within a second of noticing, and
//! nothing has moved. A node whose Node is gone as well is forgotten at once.
//!
//! The same holds for a speaker that starts while such an object is missing, and has never seen it: a peer that it hears
//! counts as if its SpeakerStatus listed the segment on which it is heard. A new speaker would otherwise take the
//! addresses of every peer without one for those of a node that may not announce them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use herald_crds::placement::Interface;
use herald_protocol::{
    mac::MacAddr,
    node::{NodeId, NodeName},
};

use super::{Coordinator, Now, active_segment::ActiveSegment, io::ApiFact};
use crate::{
    api_objects::{Change, Collection, Node, Speaker},
    interfaces::Segment,
};

/// Time for which a deleted SpeakerStatus counts where its speaker is not heard. A watch that broke begins again after
/// 10 s at most; its speaker then finds that the object is missing, and needs a second or two to write it.
const DELETED_COUNTS: Duration = Duration::from_secs(15);
/// Time for which a segment that a status no longer lists counts while its speaker is heard there: several times the
/// second within which a speaker corrects its status.
const EMPTIED_COUNTS: Duration = Duration::from_secs(5);
/// Time between two looks at a node of which an object or segments are kept.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A segment that this node takes part in, with the peers that it hears there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire<'a> {
    pub segment: &'a Segment,
    pub peers: &'a BTreeMap<NodeId, NodeName>,
}

/// This speaker's own node, with its segments by its own account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    pub node: &'a str,
    pub segments: &'a [&'a Segment],
    /// The segments on which the node takes part.
    pub wires: &'a [Wire<'a>],
}

/// The SpeakerStatuses of all nodes.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    /// The objects that count: those that the API lists, and those that are kept.
    counted: Collection<Speaker>,
    /// The objects and segments that are kept, by node.
    kept: BTreeMap<String, Kept>,
}

/// The object or the segments of a node that the API no longer lists and that still count.
#[derive(Debug)]
struct Kept {
    what: What,
    since: Duration,
    /// The time of the next look.
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
    fn of<'a>(locals: impl Iterator<Item = &'a ActiveSegment>) -> Vec<Wire<'a>> {
        let speaking = locals.filter(|local| local.speaks);
        speaking.map(|local| Wire { segment: &local.interface.segment, peers: &local.peers }).collect()
    }
}

impl Own<'_> {
    /// Returns the segments of this node on which a node is heard. A node hears itself on all of them.
    fn hears(&self, node: &str) -> impl Iterator<Item = &Segment> {
        let id = NodeName::new(node).id();
        let is_own = node == self.node;
        self.wires.iter().filter(move |wire| is_own || wire.peers.contains_key(&id)).map(|wire| wire.segment)
    }
}

impl Speakers {
    /// Returns the objects that an earlier run knew.
    pub(super) fn restored(speakers: Vec<Speaker>) -> Self {
        Self { counted: Collection::restored(speakers), kept: BTreeMap::new() }
    }

    /// Returns every SpeakerStatus that counts.
    pub(super) fn counted(&self) -> &Collection<Speaker> {
        &self.counted
    }

    /// Returns the SpeakerStatus of a node as the API lists it.
    pub(super) fn written(&self, node: &str) -> Option<&Speaker> {
        let is_missing = self.kept.get(node).is_some_and(|kept| kept.what == What::Object);
        self.counted.get(&node.to_owned()).filter(|_| !is_missing)
    }

    /// Takes one step of the watch. Returns the objects that count differently than before.
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
        // A second listing without the object does not restart its time.
        let kept = self.kept.remove(&before.node).filter(|kept| kept.what == What::Object).unwrap_or(kept);
        self.kept.insert(before.node.clone(), kept);
        self.counted.apply(Change::Applied(before));
    }

    /// Returns a status as it counts: with each segment that it lacks from now on although its speaker is heard there.
    ///
    /// An object is created before its status is written. Until then one that was deleted counts on: its speaker may be
    /// one that has just started, and is not heard yet.
    fn with_kept_segments(&mut self, now: Duration, mut speaker: Speaker, own: Own<'_>) -> Speaker {
        let counted = self.counted.get(&speaker.node);
        let was_deleted = self.kept.get(&speaker.node).is_some_and(|kept| kept.what == What::Object);
        let is_unwritten = speaker.node != own.node && speaker.segments.is_empty();
        if let Some(counted) = counted.filter(|_| was_deleted && is_unwritten) {
            return counted.clone();
        }
        let before = counted.map(|before| before.segments.as_slice()).unwrap_or_default();
        let lacking: Vec<Segment> = lacking(before, &speaker, own).cloned().collect();
        if lacking.is_empty() {
            self.kept.remove(&speaker.node);
            return speaker;
        }
        // A second write that lacks the segments does not restart their time.
        let since = match self.kept.get(&speaker.node) {
            Some(Kept { what: What::Segments(_), since, .. }) => *since,
            _ => now,
        };
        speaker.segments.extend(lacking.iter().cloned());
        let kept = Kept { what: What::Segments(lacking), since, look_at: now + LOOK_EVERY };
        self.kept.insert(speaker.node.clone(), kept);
        speaker
    }

    /// Lets each peer that is heard count on the segments where it is heard, if its Node exists and the API lists no
    /// SpeakerStatus of it. Returns the objects that count differently than before.
    pub(super) fn count_heard(&mut self, now: Duration, own: Own<'_>, nodes: &Collection<Node>) -> Changed {
        if !self.counted.is_listed() {
            return Vec::new();
        }
        let heard: BTreeSet<&str> =
            own.wires.iter().flat_map(|wire| wire.peers.values()).map(NodeName::as_str).collect();
        let mut changed = Vec::new();
        for name in heard {
            let node = name.to_owned();
            if self.counted.get(&node).is_some() || nodes.get(&node).is_none() {
                continue;
            }
            // Only the node itself knows the name and the addresses of its interface.
            let as_heard = |here: &Segment| Segment {
                interface: Interface { speaks_for: Vec::new(), ..here.interface.clone() },
                mac: MacAddr::ZERO,
                address: None,
            };
            let segments = own.hears(name).map(as_heard).collect();
            let speaker = Speaker { segments, ..Speaker::of_node(node.clone()) };
            changed.extend(self.counted.apply(Change::Applied(speaker)));
            self.kept.insert(node, Kept { what: What::Object, since: now, look_at: now + DELETED_COUNTS });
        }
        changed
    }

    /// Forgets the object or the segments that are kept of a node that is gone.
    pub(super) fn forget(&mut self, node: &str) -> Changed {
        match self.kept.remove(node) {
            Some(Kept { what: What::Object, .. }) => self.counted.apply(Change::Deleted(node.to_owned())),
            Some(Kept { what: What::Segments(_), .. }) | None => Vec::new(),
        }
    }

    /// Forgets the objects and segments that have been kept for long enough. Returns the objects that count differently
    /// than before.
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

    /// Returns the time at which [`Speakers::expire`] has a node to look at.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.kept.values().map(|kept| kept.look_at).min()
    }
}

/// Returns the segments that a status has lost although its speaker is heard there, and on no other segment that it
/// lists.
fn lacking<'a>(before: &'a [Segment], speaker: &Speaker, own: Own<'_>) -> impl Iterator<Item = &'a Segment> {
    let lists = |wire: &Segment| speaker.segments.iter().any(|segment| segment.meets(wire));
    let unlisted: Vec<Segment> = own.hears(&speaker.node).filter(|wire| !lists(wire)).cloned().collect();
    before.iter().filter(move |segment| unlisted.iter().any(|wire| wire.meets(segment)))
}

impl Coordinator {
    /// Takes in a fact of the API.
    pub(super) fn api_says(&mut self, now: Now, fact: ApiFact) {
        let was_listed = self.cluster.is_listed();
        let may_miss_own = matches!(&fact, ApiFact::Speaker(Change::Listed | Change::Deleted(_)));
        let segments: Vec<_> = self.segments.values().map(|local| &local.interface.segment).collect();
        let wires = Wire::of(self.segments.values());
        let own = Own { node: &self.config.node, segments: &segments, wires: &wires };
        self.peers_to_count |= matches!(&fact, ApiFact::Speaker(Change::Listed) | ApiFact::Node(_));
        let effects = self.cluster.take_in(now.monotonic, fact, own);
        if may_miss_own && self.cluster.speakers.written(&self.config.node).is_none() {
            self.report.write_again();
        }
        self.watch_slices(now);
        self.follow(now, effects, was_listed);
    }

    /// Lets the peers that are heard count, if that is due. Returns whether the segments have received anything.
    pub(super) fn count_heard_peers(&mut self, now: Now) -> bool {
        if !std::mem::take(&mut self.peers_to_count) {
            return false;
        }
        let segments: Vec<_> = self.segments.values().map(|local| &local.interface.segment).collect();
        let wires = Wire::of(self.segments.values());
        let own = Own { node: &self.config.node, segments: &segments, wires: &wires };
        let effects = self.cluster.count_heard(now.monotonic, own);
        let is_new = effects.stations;
        if is_new {
            self.follow(now, effects, self.cluster.is_listed());
        }
        is_new
    }

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
