//! The machine of one segment.
//!
//! What it knows is in [`Peers`], the [`ClaimTable`] and the API's view; what it does follows from them address by address
//! (`ownership`, by way of the pure [`election`](crate::election::decide)) and peer by peer (`liveness`).

mod announcements;
mod arp_nd;
mod claim_sync;
mod deletion;
mod failure_detector;
mod handover;
mod hello;
mod inspect;
mod isolation;
mod join;
mod ownership;
mod pings;
mod shutdown;
mod viewed;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    announce::Announcer,
    claim::{Birth, Claim, Epoch, Reason},
    claim_table::ClaimTable,
    conflict_detection::{ConflictDetection, Step},
    hold_down::{HoldDown, Takes},
    incarnation::PeerIncarnation,
    io::{Config, Counters, Deletion, Event, Input, Neighbour, Output, SavedState, Sibling},
    mac::MacAddr,
    mutation::Mutation,
    node::{Incarnation, NodeId},
    peer::Peer,
    peers::Peers,
    ping::PingClock,
    timer_queue::TimerQueue,
    timers::{self, VIEW_FRESH},
    twins::FAILED_INTERVALS,
    wire::{Body, Change, Frame, FrameLimit, Keyring, Rejected, Sender, State},
};
use arp_nd::Overheard;
use claim_sync::FullList;
use handover::HandOvers;
use hello::{FrameEncoding, HelloClock};
use isolation::Hearing;
use join::{Barrier, Stall};
use shutdown::Stopping;
use viewed::Viewed;

/// One layer-2 segment, as one node's speaker sees it.
///
/// After each call to a `handle_` method, take what [`Engine::poll_output`] gives until it gives nothing, then ask
/// [`Engine::poll_timeout`]. `now` is the time since any moment of the past; it never goes back.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    id: NodeId,
    keys: Arc<Keyring>,
    rng: fastrand::Rng,
    started: Duration,
    /// When it last joined the segment: at the end of a barrier.
    joined: Duration,
    /// When this was called last.
    called: Duration,
    state: State,
    carrier: bool,
    /// What its link carries.
    frame_limit: FrameLimit,
    /// The peers that ask for lists.
    asked: BTreeMap<NodeId, claim_sync::Asked>,

    peers: Peers,
    book: ClaimTable,
    /// Peers some of whose claims this node does not know, and since when.
    lacking: BTreeMap<NodeId, Duration>,
    vips: BTreeMap<IpAddr, Viewed>,
    /// Has the API (or the saved state) said which nodes are on the segment?
    stations_known: bool,
    neighbours: Arc<[Neighbour]>,
    view_fresh_at: Option<Duration>,
    /// The highest birth and epoch seen of each address.
    floors: BTreeMap<IpAddr, (Birth, Epoch)>,
    /// Objects known to be deleted.
    deleted: TimerQueue<Deletion>,
    /// Those of them that the other runs of this speaker have yet to be told of.
    unshared_deletions: BTreeSet<IpAddr>,
    /// Who took an address by the evidence of an announcement, though it is not heard.
    announced_unheard: BTreeMap<IpAddr, NodeId>,

    hello: HelloClock,
    /// What its last frame was written in, until a peer or the keys change.
    voice: Option<FrameEncoding>,
    hearing: Hearing,
    /// When to ask peers whether they answer pings.
    pings: PingClock,
    barrier: Option<Barrier>,
    stall: Option<Stall>,
    stopping: Option<Stopping>,
    /// When a peer next needs attention.
    peers_at: Duration,
    /// What this node claimed before it restarted.
    resume: BTreeMap<IpAddr, Claim>,
    /// The silent nodes this one answers for.
    covers: BTreeSet<NodeId>,
    contending: BTreeMap<IpAddr, Contention>,
    /// When contended addresses are to be looked at again.
    turns: TimerQueue<()>,
    answers: BTreeMap<IpAddr, MacAddr>,
    /// When this node came to own what it owns.
    gained: BTreeMap<IpAddr, Duration>,
    announcer: Announcer,
    first_claims: ConflictDetection,
    /// Nodes that hold addresses which they have not claimed, by what was overheard, and when that is to be believed.
    overheard: TimerQueue<Overheard>,
    /// Addresses of this node's that another was asked for, because it seems to have them, and until when it may answer.
    asked_kernels: TimerQueue<()>,
    hold_down: HoldDown,
    takes: Takes,
    handovers: HandOvers,
    /// When an address was last defended against a stranger.
    defended: BTreeMap<IpAddr, Duration>,
    /// Changes of this node's claims that are to be sent.
    changes: BTreeMap<IpAddr, Change>,
    /// New claims that are to be said once more, and when.
    repeats: TimerQueue<()>,
    /// Addresses that two nodes claim, and when that is to be looked into.
    disputes: TimerQueue<()>,
    /// Claims of other nodes that are to be sent, because somebody does not know them.
    covered_changes: BTreeMap<NodeId, BTreeMap<IpAddr, Change>>,
    full_list: Option<FullList>,
    /// When a part of the last one was sent.
    full_list_sent: Duration,
    outputs: VecDeque<Output>,
    /// What was told within the last minute and would be told with every frame.
    told: VecDeque<(Duration, Event)>,
    /// The runs that this speaker has on other interfaces.
    siblings: BTreeMap<Incarnation, MacAddr>,
    /// What peers said that an earlier run claimed, since this was last asked for.
    reminded_of: BTreeSet<IpAddr>,
    /// The frame of such a run that was heard last.
    sibling_heard: Option<Sibling>,
    state_changed: bool,
    counters: Counters,
}

/// An address that this node is about to claim unless another does.
#[derive(Clone, Copy, Debug)]
struct Contention {
    reason: Reason,
    /// Since when nobody holds it as it should be held, and this node could claim.
    since: Duration,
    /// The node that held it and is dead.
    left_by: Option<NodeId>,
}

impl Engine {
    /// A segment that has just been joined. `restored`: what an earlier run of this speaker saved, and whether the
    /// machine has not been rebooted since (same boot id).
    pub fn new(now: Duration, config: Config, keys: Arc<Keyring>, restored: Option<(SavedState, bool)>) -> Self {
        let (saved, same_boot) = restored.unwrap_or_default();
        let mut segment = Self {
            id: config.node.id(),
            keys,
            rng: fastrand::Rng::with_seed(config.seed),
            started: now,
            joined: now,
            called: now,
            state: State::Listening,
            carrier: true,
            frame_limit: FrameLimit::LARGEST,
            asked: BTreeMap::new(),
            peers: Peers::default(),
            book: ClaimTable::default(),
            lacking: BTreeMap::new(),
            vips: BTreeMap::new(),
            stations_known: false,
            neighbours: Arc::from([]),
            view_fresh_at: None,
            floors: saved.floors.into_iter().map(|(address, birth, epoch)| (address, (birth, epoch))).collect(),
            deleted: TimerQueue::default(),
            unshared_deletions: BTreeSet::new(),
            announced_unheard: BTreeMap::new(),
            hello: HelloClock::new(now, config.timers),
            voice: None,
            hearing: Hearing::new(now),
            pings: PingClock::default(),
            barrier: Some(Barrier::new(now)),
            stall: None,
            stopping: None,
            peers_at: now,
            resume: BTreeMap::new(),
            covers: BTreeSet::new(),
            contending: BTreeMap::new(),
            turns: TimerQueue::default(),
            answers: BTreeMap::new(),
            gained: BTreeMap::new(),
            announcer: Announcer::new(config.pace),
            first_claims: ConflictDetection::default(),
            overheard: TimerQueue::default(),
            asked_kernels: TimerQueue::default(),
            hold_down: HoldDown::default(),
            takes: Takes::default(),
            handovers: HandOvers::default(),
            defended: BTreeMap::new(),
            changes: BTreeMap::new(),
            repeats: TimerQueue::default(),
            disputes: TimerQueue::default(),
            covered_changes: BTreeMap::new(),
            full_list: None,
            full_list_sent: Duration::ZERO,
            outputs: VecDeque::new(),
            told: VecDeque::new(),
            siblings: BTreeMap::new(),
            reminded_of: BTreeSet::new(),
            sibling_heard: None,
            state_changed: false,
            counters: Counters::default(),
            config,
        };
        for claim in saved.claims {
            segment.note_floor(&claim);
            // On another boot something else may have happened to the address: only the floor is worth anything.
            if same_boot || segment.breaks(Mutation::TrustRememberedClaims) {
                segment.resume.insert(claim.address, claim);
            }
        }
        segment.restore_deletions(now, saved.deletions);
        if segment.breaks(Mutation::SkipBarrier) || segment.breaks(Mutation::TrustRememberedClaims) {
            segment.activate(now);
            segment.settle(now);
        }
        segment
    }

    /// Takes in a fact.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.wake(now);
        match input {
            Input::Vip(address, vip) => self.view_changed(now, address, vip),
            Input::Fresh(at) => {
                let was_fresh = self.view_is_fresh(now);
                self.view_fresh_at = self.view_fresh_at.max(Some(at.min(now)));
                if was_fresh {
                    self.evaluate_recreated(now);
                } else {
                    self.evaluate_all(now);
                }
            }
            Input::Stations(stations) => self.stations_listed(now, &stations),
            Input::Keys(keys) => {
                self.keys = keys;
                self.voice = None;
                self.peers.iter_mut().for_each(|(_, peer)| peer.rest.signed_with = None);
            }
            Input::Carrier(carrier) => self.carrier_changed(now, carrier),
            Input::FrameLimit(limit) => self.frame_limit = limit,
            Input::Interface { mac, address } => self.interface_changed(now, mac, address),
            Input::Neighbours(neighbours) => self.neighbours = neighbours,
            Input::Siblings(siblings) => self.siblings = siblings,
            Input::LiesElsewhere(address) => {
                self.resume.remove(&address);
            }
            Input::Deletions(deletions) => self.deletions_told(now, deletions),
            Input::Superseded => self.say_last_word(now),
            Input::Evidence => self.evidence(now),
            Input::Pong { address, mac } => self.ponged(now, address, mac),
            Input::Shutdown(shutdown) => self.shut_down(now, shutdown),
        }
        self.settle(now);
    }

    /// Takes in a frame of the protocol (without its Ethernet header), as it was received.
    pub fn handle_frame(&mut self, now: Duration, bytes: &[u8]) {
        let rejected = match self.keys.open(bytes) {
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
        // Whoever sent it: something is heard.
        self.wake(now);
        self.evidence(now);
        self.settle(now);
    }

    /// Notes what a peer signs with, to be shown. With one key there is nothing to note.
    fn note_signing_key(&mut self, node: NodeId, bytes: &[u8]) {
        if self.keys.ids().len() > 1
            && let Some(peer) = self.peers.get_for_note(node)
        {
            peer.rest.signed_with = crate::wire::signing_key_of(bytes);
        }
    }

    /// Takes in a frame that was opened before with the keys this segment holds: several segments in one process can
    /// share the work.
    pub fn handle_opened(&mut self, now: Duration, frame: &Frame) {
        self.wake(now);
        if frame.sender.node == self.id {
            self.own_frame(now, frame);
        } else {
            // First of all: what follows from hearing again has to follow before a death does.
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

    /// Takes a frame of a peer that is no Hello as the sign of life that it is, and returns whether it is one: it is of
    /// the run that counts, and later than all that was heard of that.
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
        self.step_barrier(now);
        self.step_stall(now);
        // Before the turns that wait for it.
        self.judge_overheard(now);
        while let Some((_, address, ())) = self.turns.pop_due(now) {
            self.evaluate(now, address);
        }
        self.attend_due_peers(now);
        self.judge_disputes(now);
        self.repeat_claims(now);
        while let Some(step) = self.first_claims.poll(now) {
            match step {
                Step::Enquire(address) => self.outputs.push_back(Output::Enquire(address)),
                Step::Free(address) => self.evaluate(now, address),
            }
        }
        self.solicit(now);
        self.ask_the_dead(now);
        self.ask_who_answers_pings(now);
        if self.may_announce() {
            while let Some(address) = self.announcer.poll(now) {
                self.send_announcement(address);
            }
        }
        self.settle(now);
        self.continue_full_list(now);
        self.step_shutdown(now);
        if self.hello.next <= now {
            self.send_hellos(now);
        }
    }

    /// When [`Engine::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let announcer = self.announcer.poll_timeout().filter(|_| self.may_announce());
        [
            Some(self.hello.next),
            Some(self.peers_at),
            self.barrier.as_ref().map(Barrier::next),
            self.stall.as_ref().map(Stall::next),
            self.turns.next(),
            self.first_claims.poll_timeout(),
            self.overheard.next(),
            self.repeats.next(),
            self.disputes.next(),
            self.hearing.solicit_at(),
            self.pings.next(),
            announcer,
            self.full_list.as_ref().map(FullList::next),
            self.stopping.as_ref().and_then(Stopping::next),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Is there anything to do?
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What a solicitation for an address would be answered with now.
    pub fn answer(&self, address: IpAddr) -> Option<MacAddr> {
        self.answers.get(&address).copied().filter(|_| self.is_answering())
    }

    /// Does it answer at all? Not while it listens after a start, a lost link or a stall.
    pub fn is_answering(&self) -> bool {
        self.carrier
            && self.barrier.is_none()
            && self.state != State::Listening
            && (self.stall.is_none() || self.breaks(Mutation::AnswerAfterStall))
    }

    /// Returns since when it listens before it takes part; `None` once it takes part.
    pub fn joining_since(&self) -> Option<Duration> {
        self.barrier.as_ref().map(Barrier::since)
    }

    /// May it announce again what it owns? Not while it hears nobody any more: it would not hear of a successor either,
    /// and its last rounds would lead clients back to it.
    fn may_announce(&self) -> bool {
        self.is_answering() && (self.is_hearing() || !self.hearing.had_peers())
    }

    /// What a later run should know.
    pub fn saved_state(&self) -> SavedState {
        SavedState {
            claims: self.book.range(self.id, ..).copied().collect(),
            floors: self.floors.iter().map(|(address, (birth, epoch))| (*address, *birth, *epoch)).collect(),
            deletions: self.deletions().cloned().collect(),
        }
    }

    /// Counts a frame that the kernel refused to send.
    pub fn count_unsent(&mut self) {
        self.counters.unsent += 1;
    }

    /// Frames sent, taken in and dropped.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns whether a claim on the address is known, this node's own or a peer's.
    pub fn is_claimed(&self, address: IpAddr) -> bool {
        self.best_claim(address).is_some()
    }

    /// Returns the frame that was heard last of a run of this speaker's on another interface, once.
    pub fn take_sibling(&mut self) -> Option<Sibling> {
        self.sibling_heard.take()
    }

    /// Returns the addresses of which peers have said that an earlier run of this node claimed them, since this was last
    /// asked; none, if this speaker has no other interface.
    pub fn take_reminded(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.reminded_of)
    }

    /// Was this frame sent here, lately? What was recorded and is played back on another segment was not.
    pub fn has_sent(&self, Sibling { incarnation, sequence }: Sibling) -> bool {
        incarnation == self.config.incarnation && self.hello.is_recent(sequence)
    }

    /// When another host was last heard. What was heard before the last silence does not count: then it is when that began;
    /// and where this node takes no part, the start of time.
    pub fn last_evidence(&self) -> Duration {
        let silence = self.hearing.silence_began();
        self.hearing.evidence().unwrap_or(if self.carrier { silence } else { Duration::ZERO })
    }

    /// The runs of other nodes of which a frame was heard lately.
    pub fn heard_runs(&self, now: Duration) -> BTreeSet<Incarnation> {
        let recent = self.interval() * FAILED_INTERVALS;
        let counted = |peer: &Peer| peer.run.as_ref().map(|run| (run.incarnation, run.heard()));
        let pending = |peer: &Peer| peer.pending.as_ref().map(|run| (run.incarnation, run.heard));
        let all = self.peers.iter().flat_map(|(_, peer)| [counted(peer), pending(peer)]).flatten();
        all.filter(|(_, heard)| *heard + recent > now).map(|(run, _)| run).collect()
    }

    /// This run.
    pub fn incarnation(&self) -> Incarnation {
        self.config.incarnation
    }

    /// Will this node claim the address when it has joined, unless another has taken it?
    pub fn resumes(&self, address: IpAddr) -> bool {
        self.resume.contains_key(&address)
    }

    /// Does this node claim the address here, or will it when it has joined, unless another has taken it?
    pub fn claims_or_resumes(&self, address: IpAddr) -> bool {
        self.resume.contains_key(&address) || self.book.of(self.id, address).is_some()
    }

    /// When a peer was last heard; `None` if it is not heard.
    pub fn last_heard(&self, node: NodeId) -> Option<Duration> {
        let peer = self.peers.get(node).filter(|peer| peer.speaks())?;
        peer.run.as_ref().map(PeerIncarnation::heard)
    }

    /// The time between two Hellos, as last promised.
    pub fn interval(&self) -> Duration {
        self.hello.interval
    }

    fn view_is_fresh(&self, now: Duration) -> bool {
        self.view_fresh_at.is_some_and(|at| now.saturating_sub(at) <= VIEW_FRESH)
            || self.breaks(Mutation::MoveWithStaleView)
    }

    /// Each call begins here: was this process run in time?
    fn wake(&mut self, now: Duration) {
        // Of what has come in the meantime only the first can be late.
        let late = self.poll_timeout().map(|due| now.saturating_sub(due.max(self.called))).unwrap_or_default();
        self.called = now;
        if late > timers::lost_after(self.interval()) {
            self.stalled(now, late);
        }
    }

    /// Each call ends here: sends what has changed.
    fn settle(&mut self, now: Duration) {
        self.send_changes(now);
        if std::mem::take(&mut self.state_changed) {
            self.tell(Event::StateChanged);
        }
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Tells what every frame would tell again.
    fn report_once_a_minute(&mut self, now: Duration, event: Event) {
        while self.told.front().is_some_and(|(at, _)| now >= *at + Duration::from_secs(60)) {
            self.told.pop_front();
        }
        if self.told.iter().all(|(_, told)| *told != event) {
            self.told.push_back((now, event.clone()));
            self.tell(event);
        }
    }

    #[cfg(feature = "mutations")]
    fn breaks(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }

    #[cfg(not(feature = "mutations"))]
    #[expect(clippy::unused_self, reason = "the same call with and without the feature")]
    const fn breaks(&self, _: Mutation) -> bool {
        false
    }
}
