//! How this node's frames are written, and when its Hellos go out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    node::{Incarnation, NodeId},
    peer::Peer,
    peers::Peers,
    timers::{TRIGGERED_GAP_DIVISOR, Timers},
    wire::{Body, Frame, FrameLimit, KeyId, Keyring, SealError, Sender},
};

/// An echo proves that a peer hears this node now if it is of one of so many of the last Hellos.
const RECENT_HELLOS: usize = 16;

/// The keys and the sequence of this node's frames, and the clock of its Hellos.
#[derive(Debug)]
pub(super) struct Transmitter {
    keys: Arc<Keyring>,
    /// What every peer can read; absent when a peer or the keys have changed since it was determined.
    encoding: Option<FrameEncoding>,
    /// How long a frame may be on this node's link.
    frame_limit: FrameLimit,
    /// The sequence of the last frame.
    sequence: u64,
    /// When the next Hello is due.
    next: Duration,
    /// When the next Hello would be due if nothing brought it forward.
    regular: Duration,
    /// When the last Hello went out.
    last: Duration,
    /// The interval that the last Hello promised.
    interval: Duration,
    /// How often Hellos went out; several that go out together count once.
    rounds: u64,
    /// The sequences of the last Hellos, the oldest first.
    recent: VecDeque<u64>,
}

/// How a frame is written.
#[derive(Clone, Copy, Debug)]
struct FrameEncoding {
    key: KeyId,
    version: u8,
}

impl Transmitter {
    pub(super) fn new(now: Duration, timers: Timers, keys: Arc<Keyring>) -> Self {
        Self {
            keys,
            encoding: None,
            frame_limit: FrameLimit::LARGEST,
            sequence: 0,
            next: now,
            regular: now,
            last: now,
            interval: timers.interval(0),
            rounds: 0,
            recent: VecDeque::new(),
        }
    }

    pub(super) fn keys(&self) -> &Keyring {
        &self.keys
    }

    pub(super) fn set_keys(&mut self, keys: Arc<Keyring>) {
        self.keys = keys;
        self.encoding = None;
    }

    pub(super) fn frame_limit(&self) -> FrameLimit {
        self.frame_limit
    }

    pub(super) fn set_frame_limit(&mut self, limit: FrameLimit) {
        self.frame_limit = limit;
    }

    /// Returns the interval that the last Hello promised.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Returns when the next Hello is due.
    pub(super) fn next_hello(&self) -> Duration {
        self.next
    }

    /// Returns whether the next Hello would be due without having been brought forward.
    pub(super) fn is_regular(&self, now: Duration) -> bool {
        now >= self.regular
    }

    /// Brings the next Hello forward to `at`, but no closer to the last one than a quarter of an interval.
    pub(super) fn hasten(&mut self, at: Duration) {
        let earliest = self.last + self.interval / TRIGGERED_GAP_DIVISOR;
        self.next = self.next.min(at.max(earliest));
    }

    /// Notes that the last frame was a Hello.
    pub(super) fn note_hello(&mut self) {
        self.recent.push_back(self.sequence);
    }

    /// Notes that all Hellos of this time went out, and that the next is due after `pause`.
    pub(super) fn end_round(&mut self, now: Duration, pause: Duration) {
        let surplus = self.recent.len().saturating_sub(RECENT_HELLOS);
        self.recent.drain(..surplus);
        self.rounds += 1;
        self.last = now;
        self.regular = now + pause;
        self.next = self.regular;
    }

    /// Returns whether this is the sequence of a frame that was sent lately.
    pub(super) fn is_recent(&self, sequence: u64) -> bool {
        self.recent.front().is_some_and(|oldest| sequence >= *oldest) && sequence <= self.sequence
    }

    /// Returns whether no frame with this sequence was sent yet.
    pub(super) fn is_yet_to_come(&self, sequence: u64) -> bool {
        sequence > self.sequence
    }

    /// Writes a frame, signed with a key and in a version that every peer reads.
    ///
    /// # Errors
    ///
    /// If no peer would accept the node's name or address. The sequence is used up all the same.
    pub(super) fn seal(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        peers: &mut Peers,
        body: Body,
    ) -> Result<Vec<u8>, SealError> {
        let FrameEncoding { key, version } = self.encoding(peers);
        self.sequence += 1;
        let sender = Sender { node, incarnation, sequence: self.sequence };
        self.keys.seal(key, version, &Frame { sender, body })
    }

    /// Returns what every peer can read. Determining it takes a look at every peer; it changes seldom.
    fn encoding(&mut self, peers: &mut Peers) -> FrameEncoding {
        if peers.take_changed() {
            self.encoding = None;
        }
        if let Some(encoding) = self.encoding {
            return encoding;
        }
        let accepted = || peers.iter().filter_map(|(_, peer)| peer.accepted_keys());
        let key = self.keys.signing_key(accepted(), self.rounds);
        // Newcomers count as well, for keys and versions: a newcomer that cannot read this node cannot echo it.
        let version = self.keys.versions().to_write(peers.iter().filter_map(|(_, peer)| Peer::reads_version(peer)));
        let encoding = FrameEncoding { key, version };
        // While no peer is heard, the keys take turns.
        self.encoding = accepted().next().map(|_| encoding);
        encoding
    }
}
