//! Does this node hear the segment at all? Who hears nothing takes nothing: otherwise the node whose receiver fails would
//! find every other node silent, and steal every address.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::Engine;
use crate::{
    io::{Neighbour, Output},
    mac::MacAddr,
    peer::{Peer, Presence},
    timers,
};

/// Hosts asked for a sign of life at once, at most.
const ASKED: usize = 8;

/// Where nobody is heard, the dead are asked for a sign of life after this, and then each time after twice as long: no Hello
/// says that they are back. Soon enough for a hand-over to what is back within ten seconds.
const DEAD_ASKED_AFTER: Duration = Duration::from_secs(5);
/// And at last this often. A switch may answer the probes of a dead node that never answered pings, which is then taken to be
/// alive: once a minute at most, as everything that goes on is told.
const DEAD_ASKED_EVERY: Duration = Duration::from_secs(60);

/// After the first three, solicitations go out this far apart.
const SOLICIT_CALM: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Debug)]
pub(super) struct Hearing {
    /// The last frame from another host since the silence, or the carrier, began.
    evidence: Option<Duration>,
    /// When somebody last showed that it hears this node: an answer to a probe, a mention in a Hello.
    replied: Option<Duration>,
    /// When somebody last answered a ping.
    ponged: Option<Duration>,
    /// The last host seen that is no node: it can be asked for an answer.
    witness: Option<(IpAddr, MacAddr)>,
    /// Since when none of them does; the start, if none ever did.
    silence_began: Duration,
    /// Was any peer ever heard?
    had_peers: bool,
    next_solicit: Option<Duration>,
    solicited: u32,
    /// When the dead were last asked whether they are back, and how long it is to the next time.
    dead_asked: Duration,
    dead_pause: Duration,
    /// Hosts whose link-layer address the kernel knows, to be asked for a sign of life.
    neighbours: Arc<[Neighbour]>,
}

impl Hearing {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            evidence: None,
            replied: None,
            ponged: None,
            witness: None,
            silence_began: now,
            had_peers: false,
            next_solicit: Some(now),
            solicited: 0,
            dead_asked: now,
            dead_pause: DEAD_ASKED_AFTER,
            neighbours: Arc::from([]),
        }
    }

    pub(super) fn set_neighbours(&mut self, neighbours: Arc<[Neighbour]>) {
        self.neighbours = neighbours;
    }

    /// Returns whether this is a host whose link-layer address the kernel knows.
    pub(super) fn is_neighbour(&self, address: IpAddr, mac: MacAddr) -> bool {
        self.neighbours.contains(&Neighbour { address, mac })
    }

    /// When a solicitation is due.
    pub(super) fn solicit_at(&self) -> Option<Duration> {
        self.next_solicit
    }

    /// The last frame from another host.
    pub(super) fn evidence(&self) -> Option<Duration> {
        self.evidence
    }

    /// Since when nobody is heard; the start, if nobody ever was.
    pub(super) fn silence_began(&self) -> Duration {
        self.silence_began
    }

    /// Has somebody shown since then that it hears this node?
    pub(super) fn is_heard_since(&self, since: Duration) -> bool {
        self.replied.is_some_and(|replied| replied > since)
    }

    /// Somebody hears this node.
    pub(super) fn replied(&mut self, now: Duration) {
        self.replied = Some(now);
    }

    /// When somebody last answered a ping of this node.
    pub(super) fn last_pong(&self) -> Option<Duration> {
        self.ponged
    }

    /// Somebody has answered a ping of this node.
    pub(super) fn ponged(&mut self, now: Duration) {
        self.replied(now);
        self.ponged = Some(now);
    }

    /// Is this the host seen last?
    pub(super) fn is_witness(&self, address: IpAddr, mac: MacAddr) -> bool {
        self.witness == Some((address, mac))
    }

    /// A host has been seen.
    pub(super) fn seen(&mut self, address: IpAddr, mac: MacAddr) {
        self.witness = Some((address, mac));
    }

    /// Anything heard so far says nothing any more.
    pub(super) fn restart(&mut self, now: Duration) {
        self.evidence = None;
        self.silence_began = now;
        self.next_solicit = Some(now);
        self.solicited = 0;
    }

    /// A node has been found dead: whether it is back is asked no sooner than after a pause.
    pub(super) fn found_dead(&mut self, now: Duration) {
        self.dead_asked = now;
    }

    /// Was any peer ever heard?
    pub(super) fn had_peers(&self) -> bool {
        self.had_peers
    }

    /// A peer was heard.
    pub(super) fn peer_speaks(&mut self) {
        self.had_peers = true;
    }
}

impl Engine {
    /// Is there a sign that this node hears?
    pub fn is_hearing(&self) -> bool {
        self.peers.speaking() > 0 || self.hearing.evidence.is_some()
    }

    /// Has it heard peers, and now hears nothing: no peer for three intervals, and no other host since?
    pub(super) fn is_deaf(&self, now: Duration) -> bool {
        // Silence is noticed half way through the three intervals.
        let noticed = timers::lost_after(self.interval()) - timers::silent_after(self.interval());
        self.participation.has_carrier()
            && self.hearing.had_peers
            && !self.is_hearing()
            && now >= self.hearing.silence_began + noticed
    }

    /// A frame from another host was heard.
    pub(super) fn evidence(&mut self, now: Duration) {
        let was_hearing = self.is_hearing();
        let was_deaf = self.is_deaf(now);
        self.hearing.evidence = Some(now);
        self.hearing.next_solicit = None;
        self.participation.note_evidence(now);
        if !was_hearing {
            // What nobody answered while this node may have been deaf says nothing.
            for (_, peer) in self.peers.iter_mut() {
                peer.rest.kernel.recount(now);
            }
            self.detector.look_at(now);
            self.restart_turns(now);
        }
        if was_deaf {
            self.announce_after_deafness(now);
        }
    }

    /// Asks nodes that were found dead, and that the API lists, whether they are back, where the network drops the protocol.
    pub(super) fn ask_the_dead(&mut self, now: Duration) {
        if self.peers.speaking() > 0 {
            self.hearing.dead_pause = DEAD_ASKED_AFTER;
            return;
        }
        if !self.participation.has_carrier() || now < self.hearing.dead_asked + self.hearing.dead_pause {
            return;
        }
        let dead =
            self.peers.iter().filter(|(_, peer)| peer.presence() == Presence::Dead && peer.rest.station.is_some());
        let target = |peer: &Peer| Some((peer.probe_target()?, peer.rest.kernel.has_missed_pings()));
        let mut asked: Vec<_> = dead.filter_map(|(_, peer)| target(peer)).collect();
        if asked.is_empty() {
            self.hearing.dead_pause = DEAD_ASKED_AFTER;
            return;
        }
        self.hearing.dead_asked = now;
        self.hearing.dead_pause = (self.hearing.dead_pause * 2).min(DEAD_ASKED_EVERY);
        asked.sort_unstable();
        self.local.shuffle(&mut asked);
        for ((address, mac), by_ping) in asked.into_iter().take(ASKED) {
            let (probe, ping) = (Output::Probe { address, mac }, Output::Ping { address, mac });
            self.outbox.push(if by_ping { ping } else { probe });
        }
    }

    /// Asks others than the silent node itself for an answer: if nobody answers, it is this node that cannot be heard.
    pub(super) fn ask_witnesses(&mut self) {
        for (address, mac) in self.witnesses(|_| true) {
            self.outbox.push(Output::Probe { address, mac });
        }
    }

    /// Pings others than the silent node itself: if nobody answers, it is the network that passes no pings, or this node
    /// is cut off together with a switch that answers ARP and ND in everybody's name.
    pub(super) fn ask_controls(&mut self) {
        for (address, mac) in self.witnesses(|peer| peer.rest.kernel.answers_pings()) {
            self.outbox.push(Output::Ping { address, mac });
        }
    }

    /// The first neighbour, the witness, and of the speaking peers that are of use the one with the lowest id.
    fn witnesses(&self, is_of_use: impl Fn(&Peer) -> bool) -> Vec<(IpAddr, MacAddr)> {
        let neighbour = self.hearing.neighbours.first().map(|host| (host.address, host.mac));
        let speaking = self.peers.iter().filter(|(_, peer)| peer.speaks() && is_of_use(peer));
        let peer = speaking.min_by_key(|(id, _)| *id).and_then(|(_, peer)| peer.probe_target());
        let mut asked: Vec<_> = [neighbour, peer, self.hearing.witness].into_iter().flatten().collect();
        asked.dedup();
        asked
    }

    /// Asks for a sign of life while there is none: the neighbours the kernel knows, the peers, then everybody.
    pub(super) fn solicit(&mut self, now: Duration) {
        if self.hearing.next_solicit.is_none_or(|at| at > now) {
            return;
        }
        if self.is_hearing() || !self.participation.has_carrier() {
            self.hearing.next_solicit = None;
            return;
        }
        let mut asked: Vec<_> = self.hearing.neighbours.iter().map(|host| (host.address, host.mac)).collect();
        let mut peers: Vec<_> = self.peers.iter().filter_map(|(_, peer)| peer.probe_target()).collect();
        peers.sort_unstable();
        asked.extend(peers);
        for (address, mac) in asked.into_iter().take(ASKED) {
            self.outbox.push(Output::Probe { address, mac });
        }
        self.outbox.push(Output::EchoAll);
        self.hearing.solicited += 1;
        let pause = if self.hearing.solicited < 3 { timers::PROBE_EVERY } else { SOLICIT_CALM };
        self.hearing.next_solicit = Some(now + pause);
    }
}
