//! The protocol's state machine of one segment.
//!
//! [`Engine`] keeps what it knows in parts that own their state: nobody else can write their fields. What it does
//! follows from them address by address ([`decision`] gathers the facts, [`decide`](crate::election::decide) judges,
//! [`ownership`] acts) and peer by peer ([`failure_detector`]). [`timer`] lists all that it does at a moment of its
//! own.

mod announcements;
mod arp_nd;
mod claim_exchange;
mod claim_sync;
mod contest;
mod cover;
mod decision;
mod deletion;
mod failure_detector;
mod handover_by_api;
mod hello;
mod inspect;
mod isolation;
mod join;
mod local;
mod objects;
mod outbox;
mod overhearing;
mod ownership;
mod participation;
mod pings;
mod shutdown;
mod siblings;
mod timer;
mod transmitter;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    claim_table::ClaimTable,
    conflict_detection::ConflictDetection,
    incarnation::PeerIncarnation,
    io::{Config, Counters, Input, Output, SavedState, Sibling},
    mac::MacAddr,
    mutation::Mutation,
    node::{Incarnation, NodeId},
    peer::Peer,
    peers::Peers,
    timers,
    twins::FAILED_INTERVALS,
    wire::{Body, Frame, Keyring, Rejected, Sender, State},
};
use announcements::Announcements;
use claim_sync::ClaimSync;
use contest::Contest;
use cover::Covers;
use failure_detector::FailureDetector;
use handover_by_api::HandOvers;
use isolation::Hearing;
use local::Local;
use objects::ApiObjects;
use outbox::Outbox;
use overhearing::Overhearing;
use participation::Participation;
use shutdown::Stopping;
use siblings::Siblings;
use timer::Timer;
use transmitter::Transmitter;

/// One layer-2 segment, as one node's speaker sees it.
///
/// There are three kinds of methods. The `handle_` methods take in facts, frames and the passing of time. After each of
/// them the caller takes the outputs ([`Engine::poll_output`]) until there is none, and then asks when the engine needs
/// to be called next ([`Engine::poll_timeout`]). All others only read, but for the `take_` methods, which hand out what
/// was kept for the caller. `now` is the time since any fixed moment; it never goes back.
#[derive(Debug)]
pub struct Engine {
    /// When a method was last called.
    called: Duration,
    local: Local,
    participation: Participation,
    siblings: Siblings,

    peers: Peers,
    detector: FailureDetector,
    hearing: Hearing,
    covers: Covers,

    claims: ClaimTable,
    sync: ClaimSync,
    objects: ApiObjects,

    contest: Contest,
    conflict_detection: ConflictDetection,
    handovers: HandOvers,
    overhearing: Overhearing,
    announcements: Announcements,

    transmitter: Transmitter,
    stopping: Option<Stopping>,
    outbox: Outbox,
    counters: Counters,
}

impl Engine {
    /// Returns the engine of a node that has just come to the segment. `restored`: what an earlier run of this speaker
    /// saved, and whether the machine has not been rebooted since (same boot id).
    pub fn new(now: Duration, config: Config, keys: Arc<Keyring>, restored: Option<(SavedState, bool)>) -> Self {
        let (saved, same_boot) = restored.unwrap_or_default();
        let mut engine = Self {
            called: now,
            participation: Participation::new(now),
            siblings: Siblings::default(),
            peers: Peers::default(),
            detector: FailureDetector::new(now),
            hearing: Hearing::new(now),
            covers: Covers::default(),
            claims: ClaimTable::default(),
            sync: ClaimSync::default(),
            objects: ApiObjects::with_floors(saved.floors),
            contest: Contest::default(),
            conflict_detection: ConflictDetection::default(),
            handovers: HandOvers::default(),
            overhearing: Overhearing::default(),
            announcements: Announcements::new(config.pace),
            transmitter: Transmitter::new(now, config.timers, keys),
            stopping: None,
            outbox: Outbox::default(),
            counters: Counters::default(),
            local: Local::new(config),
        };
        for claim in saved.claims {
            engine.objects.note_floor(&claim);
            // After a reboot the address may have changed hands: only the floor is still of use.
            if same_boot || engine.local.breaks(Mutation::TrustRememberedClaims) {
                engine.participation.remember(claim);
            }
        }
        engine.restore_deletions(now, saved.deletions);
        if engine.local.breaks(Mutation::SkipBarrier) || engine.local.breaks(Mutation::TrustRememberedClaims) {
            engine.activate(now);
            engine.settle(now);
        }
        engine
    }

    /// Takes in a fact.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.wake(now);
        match input {
            Input::Vip(address, vip) => self.view_changed(now, address, vip),
            Input::Fresh(at) => {
                let was_fresh = self.view_is_fresh(now);
                self.objects.refreshed(at.min(now));
                if was_fresh {
                    self.evaluate_recreated(now);
                } else {
                    self.evaluate_all(now);
                }
            }
            Input::Stations(stations) => self.stations_listed(now, &stations),
            Input::Keys(keys) => {
                self.transmitter.set_keys(keys);
                self.peers.iter_mut().for_each(|(_, peer)| peer.rest.signed_with = None);
            }
            Input::Carrier(carrier) => self.carrier_changed(now, carrier),
            Input::FrameLimit(limit) => self.transmitter.set_frame_limit(limit),
            Input::Interface { mac, address } => self.interface_changed(now, mac, address),
            Input::Neighbours(neighbours) => self.hearing.set_neighbours(neighbours),
            Input::Siblings(siblings) => self.siblings.set(siblings),
            Input::LiesElsewhere(address) => self.participation.forget_remembered(address),
            Input::Deletions(deletions) => self.deletions_told(now, deletions),
            Input::Superseded => self.send_last_hellos(now),
            Input::Evidence => self.evidence(now),
            Input::Pong { address, mac } => self.ponged(now, address, mac),
            Input::Shutdown(shutdown) => self.shut_down(now, shutdown),
        }
        self.settle(now);
    }

    /// Takes in a frame of the protocol (without its Ethernet header), as it was received.
    pub fn handle_frame(&mut self, now: Duration, bytes: &[u8]) {
        let rejected = match self.transmitter.keys().open(bytes) {
            Ok(frame) => {
                let accepted = self.counters.accepted;
                self.handle_opened(now, &frame);
                if self.counters.accepted > accepted {
                    self.note_signing_key(frame.sender.node, bytes);
                }
                return;
            }
            Err(rejected) => rejected,
        };
        match rejected {
            Rejected::Foreign(_) => self.counters.foreign += 1,
            Rejected::Forged => self.counters.forged += 1,
            Rejected::Version(..) => self.counters.unknown += 1,
            Rejected::Truncated { .. } | Rejected::Malformed { .. } => self.counters.malformed += 1,
        }
        // A frame that is rejected still proves that this node hears.
        self.wake(now);
        self.evidence(now);
        self.settle(now);
    }

    /// Notes the key with which a peer signs, to be shown. With one key there is nothing to note.
    fn note_signing_key(&mut self, node: NodeId, bytes: &[u8]) {
        if self.transmitter.keys().ids().len() > 1
            && let Some(peer) = self.peers.get_for_note(node)
        {
            peer.rest.signed_with = crate::wire::signing_key_of(bytes);
        }
    }

    /// Takes in a frame that was opened with the keys of this segment: several segments in one process can share that
    /// work.
    pub fn handle_opened(&mut self, now: Duration, frame: &Frame) {
        self.wake(now);
        if frame.sender.node == self.local.id() {
            self.own_frame(now, frame);
        } else {
            // This comes first: the consequences of hearing again must precede the verdict that a peer is dead.
            self.evidence(now);
            match &frame.body {
                Body::Hello(hello) => self.hello_received(now, frame.sender, hello),
                Body::Claims(claims) => self.claims_received(now, frame.sender, claims),
                Body::Later(_) => {
                    if self.is_sign_of_life(now, frame.sender) {
                        self.counters.unknown += 1;
                    }
                }
            }
        }
        self.settle(now);
    }

    /// Takes in that a frame other than a Hello has come from a peer. Returns whether it is a sign of life: whether it
    /// belongs to the incarnation that counts and is later than all frames heard of that.
    fn is_sign_of_life(&mut self, now: Duration, sender: Sender) -> bool {
        let run = self.peers.get_mut(sender.node).and_then(|peer| peer.run.as_mut());
        let Some(run) = run.filter(|run| run.incarnation == sender.incarnation && run.sequence() < sender.sequence)
        else {
            self.counters.replayed += 1;
            return false;
        };
        run.frame_heard(now, sender.sequence);
        self.heard_from(now, sender.node);
        true
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.wake(now);
        for timer in Timer::ALL {
            self.fire(now, timer);
        }
    }

    /// Returns when [`Engine::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        Timer::ALL.into_iter().filter_map(|timer| self.due(timer)).min()
    }

    /// Returns whether there is an output to take.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Takes the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    /// Returns the link-layer address with which a solicitation for an address would be answered now.
    pub fn answer(&self, address: IpAddr) -> Option<MacAddr> {
        self.announcements.answer(address).filter(|_| self.is_answering())
    }

    /// Returns until when the answers hold if no method is called: called later, this engine would notice that its
    /// process was not run in time, and answer nothing. `None`: it answers nothing now.
    pub fn answers_until(&self) -> Option<Duration> {
        let due = self.poll_timeout().filter(|_| self.is_answering())?;
        Some(due.max(self.called) + timers::lost_after(self.interval()))
    }

    /// Returns whether this node answers solicitations. It does not while it listens after a start, a lost link or a
    /// stall.
    pub fn is_answering(&self) -> bool {
        self.participation.has_carrier()
            && self.participation.joining_since().is_none()
            && self.participation.state() != State::Listening
            && (!self.participation.is_stalled() || self.local.breaks(Mutation::AnswerAfterStall))
    }

    /// Returns since when this node listens before it takes part; `None` once it takes part.
    pub fn joining_since(&self) -> Option<Duration> {
        self.participation.joining_since()
    }

    /// Returns whether this node may repeat announcements of its addresses. A node that has ceased to hear its peers
    /// may not: it would not hear of a successor either, and its last rounds would lead clients back to it.
    fn may_announce(&self) -> bool {
        self.is_answering() && (self.is_hearing() || !self.hearing.had_peers())
    }

    /// Returns what a later run of this speaker should know.
    pub fn saved_state(&self) -> SavedState {
        SavedState {
            claims: self.claims.range(self.local.id(), ..).copied().collect(),
            floors: self.objects.floors().collect(),
            deletions: self.deletions().cloned().collect(),
        }
    }

    /// Counts a frame that the kernel refused to send.
    pub fn count_unsent(&mut self) {
        self.counters.unsent += 1;
    }

    /// Returns the counts of frames sent, taken in and dropped.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns whether a claim on the address is known, this node's own or a peer's.
    pub fn is_claimed(&self, address: IpAddr) -> bool {
        self.best_claim(address).is_some()
    }

    /// Returns the last frame that was heard of a run of this speaker on another interface, once.
    pub fn take_sibling(&mut self) -> Option<Sibling> {
        self.siblings.take_heard()
    }

    /// Returns the addresses that an earlier run of this node claimed by the account of peers, as far as the account
    /// has come since the last call; none, if this speaker has no other interface.
    pub fn take_reminded(&mut self) -> BTreeSet<IpAddr> {
        self.siblings.take_reminded()
    }

    /// Returns whether this run sent the frame lately. A frame that was recorded and is played back on another segment
    /// was not.
    pub fn has_sent(&self, Sibling { incarnation, sequence }: Sibling) -> bool {
        incarnation == self.local.incarnation() && self.transmitter.is_recent(sequence)
    }

    /// Returns when another host was last heard. Frames from before the last silence do not count: then this is when
    /// the silence began; and where this node takes no part, the start of time.
    pub fn last_evidence(&self) -> Duration {
        let silence = self.hearing.silence_began();
        self.hearing.evidence().unwrap_or(if self.participation.has_carrier() { silence } else { Duration::ZERO })
    }

    /// Returns the incarnations of other nodes of which a frame was heard lately.
    pub fn heard_runs(&self, now: Duration) -> BTreeSet<Incarnation> {
        let recent = self.interval() * FAILED_INTERVALS;
        let counted = |peer: &Peer| peer.run.as_ref().map(|run| (run.incarnation, run.heard()));
        let pending = |peer: &Peer| peer.pending.as_ref().map(|run| (run.incarnation, run.heard));
        let all = self.peers.iter().flat_map(|(_, peer)| [counted(peer), pending(peer)]).flatten();
        all.filter(|(_, heard)| *heard + recent > now).map(|(run, _)| run).collect()
    }

    /// Returns this incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.local.incarnation()
    }

    /// Returns whether this node will claim the address when it has joined, unless another has taken it.
    pub fn resumes(&self, address: IpAddr) -> bool {
        self.participation.remembered(address).is_some()
    }

    /// Returns whether this node claims the address here, or will claim it when it has joined, unless another has taken
    /// it.
    pub fn claims_or_resumes(&self, address: IpAddr) -> bool {
        self.resumes(address) || self.claims.of(self.local.id(), address).is_some()
    }

    /// Returns when a peer was last heard; `None` if it is not heard.
    pub fn last_heard(&self, node: NodeId) -> Option<Duration> {
        let peer = self.peers.get(node).filter(|peer| peer.speaks())?;
        peer.run.as_ref().map(PeerIncarnation::heard)
    }

    /// Returns the time between two Hellos, as the last Hello promised it.
    pub fn interval(&self) -> Duration {
        self.transmitter.interval()
    }

    fn view_is_fresh(&self, now: Duration) -> bool {
        self.objects.is_fresh(now) || self.local.breaks(Mutation::MoveWithStaleView)
    }

    /// Notices, at the beginning of each call, that this process was not run in time.
    fn wake(&mut self, now: Duration) {
        // Of the timers that became due in the meantime only the first can be late.
        let late = self.poll_timeout().map(|due| now.saturating_sub(due.max(self.called))).unwrap_or_default();
        self.called = now;
        if late > timers::lost_after(self.interval()) {
            self.stalled(now, late);
        }
    }

    /// Sends what has changed, at the end of each call.
    fn settle(&mut self, now: Duration) {
        self.send_changes(now);
        self.outbox.report_saved_state();
    }
}
