//! The claim exchange's state: what is out of step between this node's table of claims and those of its peers, and what
//! is to be sent for that.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use crate::{
    claim::Claim,
    node::NodeId,
    timer_queue::TimerQueue,
    timers::TRIGGERED_GAP_DIVISOR,
    wire::{Change, Claims, FrameLimit},
};

/// Frames of a full list sent at once: 32 of 1,400 bytes stay well below the 212,992 bytes of a socket's default
/// receive buffer (net.core.rmem_default), which counts 2,304 bytes for each.
pub(super) const FRAMES_AT_ONCE: usize = 32;

/// Between two parts: 3,200 frames/s at most, 10,000 addresses in a tenth of a second.
const PART_EVERY: Duration = Duration::from_millis(10);

/// A new claim is repeated after an interval divided by this: well before the next candidate steps in, two intervals
/// after it (docs/protocol/ownership.md#turn), and so late that what lost the first frame may be over.
const REPEAT_DIVISOR: u32 = 2;

/// Hello intervals after which two nodes that claim one address are looked into: the claim of one has not reached the
/// other.
const DISPUTED_INTERVALS: u32 = 2;
/// Hello intervals from one look at a dispute that goes on to the next.
const DISPUTE_EVERY_INTERVALS: u32 = 10;

/// Hello intervals for which a peer asks for lists without getting them until they are sent in the shortest frames: the
/// link of the peer, or a switch on the way, may carry no longer ones. With 30 % of frames lost, a peer asks for a list
/// of one frame six times in a row once in 60 requests, and a list in short frames costs three times as many.
const SHORT_FRAMES_AFTER_INTERVALS: u32 = 5;
/// Hello intervals after which not even short frames get through. From then on a list for this peer goes out once in
/// [`UNREACHABLE_GAP_INTERVALS`]: until somebody mends the network nobody reads it.
const UNREACHABLE_AFTER_INTERVALS: u32 = 50;
/// Hello intervals from one list to the next then.
const UNREACHABLE_GAP_INTERVALS: u32 = 10;
/// Hello intervals after which a peer that has not asked again has got its list.
const SERVED_AFTER_INTERVALS: u32 = 3;

/// What is out of step between this node's table of claims and those of its peers.
#[derive(Debug, Default)]
pub(super) struct ClaimSync {
    /// Speaking peers some of whose claims this node does not know, and since when.
    lacking: BTreeMap<NodeId, Duration>,
    /// Peers that ask for this node's list.
    requests: BTreeMap<NodeId, ListRequests>,
    /// Changes of this node's claims that are to be sent.
    changes: BTreeMap<IpAddr, Change>,
    /// Claims of other nodes that are to be sent, because a peer does not know them.
    covered_changes: BTreeMap<NodeId, BTreeMap<IpAddr, Change>>,
    /// New claims that are to be sent once more, and when.
    repeats: TimerQueue<()>,
    /// Addresses that two nodes claim, and when that is to be looked into.
    disputes: TimerQueue<()>,
    full_list: Option<FullList>,
    /// When a part of the last full list was sent.
    full_list_sent: Duration,
}

/// Since when a peer has asked for lists again and again, and when it last did.
#[derive(Debug)]
struct ListRequests {
    since: Duration,
    last: Duration,
}

impl ListRequests {
    /// Returns for how long the peer has asked.
    fn in_vain_for(&self) -> Duration {
        self.last.saturating_sub(self.since)
    }

    /// Returns whether the peer asks no longer.
    fn are_served(&self, now: Duration, interval: Duration) -> bool {
        now > self.last + interval * SERVED_AFTER_INTERVALS
    }
}

/// A full list on its way out.
#[derive(Debug)]
struct FullList {
    frames: VecDeque<Claims>,
    next: Duration,
}

impl ClaimSync {
    /// Notes whether this node's table differs from the claims of a speaking peer. Returns whether that was the last
    /// peer whose claims were lacking.
    pub(super) fn note_difference(&mut self, now: Duration, peer: NodeId, differs: bool) -> bool {
        if differs {
            self.lacking.entry(peer).or_insert(now);
            return false;
        }
        self.lacking.remove(&peer).is_some() && self.lacking.is_empty()
    }

    /// Notes that the claims of a peer are of no concern: it has fallen silent, or has no run.
    pub(super) fn forget_lacking(&mut self, peer: NodeId) {
        self.lacking.remove(&peer);
    }

    /// Returns whether claims of any peer are unknown here.
    pub(super) fn lacks_any(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Returns whether claims of this peer are unknown here.
    pub(super) fn lacks(&self, peer: NodeId) -> bool {
        // An emptied set keeps a node of its tree, which lies elsewhere in memory; this is asked at each Hello.
        !self.lacking.is_empty() && self.lacking.contains_key(&peer)
    }

    /// Returns the peers whose claims are not all known here, and since when.
    pub(super) fn lacking(&self) -> impl Iterator<Item = (NodeId, Duration)> {
        self.lacking.iter().map(|(peer, since)| (*peer, *since))
    }

    /// Notes that a peer asks for this node's list. Returns the least time from the last list to the next.
    pub(super) fn note_request(&mut self, now: Duration, by: NodeId, interval: Duration) -> Duration {
        self.requests.retain(|_, requests| !requests.are_served(now, interval));
        let requests = self.requests.entry(by).or_insert(ListRequests { since: now, last: now });
        requests.last = now;
        let is_reachable = requests.in_vain_for() < interval * UNREACHABLE_AFTER_INTERVALS;
        if is_reachable { list_gap(interval) } else { interval * UNREACHABLE_GAP_INTERVALS }
    }

    /// Returns how long a frame with claims may be: what this node's link carries, or less if lists do not get through.
    pub(super) fn frame_limit(&self, now: Duration, interval: Duration, link: FrameLimit) -> FrameLimit {
        let in_vain = |requests: &ListRequests| {
            !requests.are_served(now, interval) && requests.in_vain_for() >= interval * SHORT_FRAMES_AFTER_INTERVALS
        };
        if self.requests.values().any(in_vain) { FrameLimit::LEAST } else { link }
    }

    /// Sends a change of this node's claims with the next frame.
    pub(super) fn send_change(&mut self, change: Change) {
        self.changes.insert(change.address(), change);
    }

    /// Sends a claim of a silent node, in its stead, with the next frame.
    pub(super) fn send_for(&mut self, holder: NodeId, claim: Claim) {
        self.covered_changes.entry(holder).or_default().insert(claim.address, Change::Claimed(claim));
    }

    /// Takes the changes of this node's claims that are to be sent.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes).into_values().collect()
    }

    /// Takes the claims of silent nodes that are to be sent, by node.
    pub(super) fn take_covered_changes(&mut self) -> impl Iterator<Item = (NodeId, Vec<Change>)> + use<> {
        let changes = std::mem::take(&mut self.covered_changes);
        changes.into_iter().map(|(node, changes)| (node, changes.into_values().collect()))
    }

    /// Repeats a new claim after half an interval.
    pub(super) fn repeat_later(&mut self, now: Duration, address: IpAddr, interval: Duration) {
        self.repeats.set(now + interval / REPEAT_DIVISOR, address, ());
    }

    /// Takes an address whose claim is due to be repeated.
    pub(super) fn pop_repeat(&mut self, now: Duration) -> Option<IpAddr> {
        self.repeats.pop_due(now).map(|(_, address, ())| address)
    }

    pub(super) fn next_repeat(&self) -> Option<Duration> {
        self.repeats.next()
    }

    /// Notes that two nodes claim an address, to be looked into if it lasts.
    pub(super) fn note_dispute(&mut self, now: Duration, address: IpAddr, interval: Duration) {
        if self.disputes.get(address).is_none() {
            self.disputes.set(now + interval * DISPUTED_INTERVALS, address, ());
        }
    }

    /// Looks into a dispute again later.
    pub(super) fn keep_dispute(&mut self, now: Duration, address: IpAddr, interval: Duration) {
        self.disputes.set(now + interval * DISPUTE_EVERY_INTERVALS, address, ());
    }

    /// Takes a disputed address that is due to be looked into.
    pub(super) fn pop_dispute(&mut self, now: Duration) -> Option<IpAddr> {
        self.disputes.pop_due(now).map(|(_, address, ())| address)
    }

    pub(super) fn disputed(&self) -> impl Iterator<Item = IpAddr> {
        self.disputes.iter().map(|(address, ())| address)
    }

    pub(super) fn next_dispute(&self) -> Option<Duration> {
        self.disputes.next()
    }

    /// Brings the full list that is on its way forward, if there is one: its next part goes out when `gap` has passed
    /// since the last part. Returns whether there is one.
    pub(super) fn hasten_full_list(&mut self, now: Duration, gap: Duration) -> bool {
        let due = now.max(self.full_list_sent + gap);
        if let Some(list) = &mut self.full_list {
            list.next = list.next.min(due);
        }
        self.full_list.is_some()
    }

    /// Begins to send a full list when `gap` has passed since the last part of the list before. The list contains each
    /// new claim, so that none is repeated besides.
    pub(super) fn begin_full_list(&mut self, now: Duration, gap: Duration, frames: VecDeque<Claims>) {
        self.full_list = Some(FullList { frames, next: now.max(self.full_list_sent + gap) });
        self.repeats.clear();
    }

    /// Drops the rest of a full list, which is out of date. Returns when its next part was due.
    pub(super) fn drop_full_list(&mut self) -> Option<Duration> {
        self.full_list.take().map(|list| list.next)
    }

    /// Sends the next part of the full list at this moment.
    pub(super) fn set_next_part(&mut self, at: Duration) {
        if let Some(list) = &mut self.full_list {
            list.next = at;
        }
    }

    /// Takes the next part of the full list, if it is due.
    pub(super) fn take_part(&mut self, now: Duration) -> Vec<Claims> {
        let Some(list) = self.full_list.as_mut().filter(|list| list.next <= now) else { return Vec::new() };
        let part = list.frames.drain(..list.frames.len().min(FRAMES_AT_ONCE)).collect();
        list.next = now + PART_EVERY;
        if list.frames.is_empty() {
            self.full_list = None;
        }
        self.full_list_sent = now;
        part
    }

    pub(super) fn next_part(&self) -> Option<Duration> {
        self.full_list.as_ref().map(|list| list.next)
    }
}

/// Returns the least time from one list to the next: many peers ask at the same time, and one list is for all of them.
pub(super) fn list_gap(interval: Duration) -> Duration {
    interval / TRIGGERED_GAP_DIVISOR
}
