//! Isolation: whether this node hears the segment at all.
//!
//! A node that hears nothing takes nothing: otherwise a node whose receiver fails would find every other node silent,
//! and take every address.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::Engine;
use crate::{
    io::{Neighbour, Output},
    mac::MacAddr,
    peer::{Peer, Presence},
    timers,
};

/// The most hosts asked for a sign of life at once.
const ASKED: usize = 8;

/// Where no peer is heard, dead nodes are asked for a sign of life after this, and then each time after twice as long:
/// no Hello shows that they are back. This is soon enough for a hand-over to a returned node within ten seconds.
const DEAD_ASKED_AFTER: Duration = Duration::from_secs(5);
/// The longest time between two such questions. A switch may answer the probes of a dead node that never answered
/// pings, which is then taken to be alive: this happens once a minute at most, since everything that follows is
/// reported.
const DEAD_ASKED_EVERY: Duration = Duration::from_secs(60);

/// The time between two solicitations after the first three.
const SOLICIT_CALM: Duration = Duration::from_secs(1);

/// What this node has heard of other hosts.
#[derive(Debug)]
pub(super) struct Hearing {
    /// When the last frame came from another host since the silence, or the carrier, began.
    evidence: Option<Duration>,
    /// When a host last showed that it hears this node: by an answer to a probe, or a mention in a Hello.
    replied: Option<Duration>,
    /// When a host last answered a ping.
    ponged: Option<Duration>,
    /// The last host seen that is no node: it can be asked for an answer.
    witness: Option<(IpAddr, MacAddr)>,
    /// Since when no peer is heard; the start, if none ever was.
    silence_began: Duration,
    /// Was any peer ever heard?
    had_peers: bool,
    next_solicit: Option<Duration>,
    solicited: u32,
    /// When dead nodes were last asked whether they are back, and the time until the next question.
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

    /// Returns when a solicitation is due.
    pub(super) fn solicit_at(&self) -> Option<Duration> {
        self.next_solicit
    }

    /// Returns when the last frame came from another host since the silence began.
    pub(super) fn evidence(&self) -> Option<Duration> {
        self.evidence
    }

    /// Returns since when no peer is heard; the start, if none ever was.
    pub(super) fn silence_began(&self) -> Duration {
        self.silence_began
    }

    /// Returns whether a host has shown since then that it hears this node.
    pub(super) fn is_heard_since(&self, since: Duration) -> bool {
        self.replied.is_some_and(|replied| replied > since)
    }

    /// Notes that a host hears this node.
    pub(super) fn replied(&mut self, now: Duration) {
        self.replied = Some(now);
    }

    /// Returns when a host last answered a ping of this node.
    pub(super) fn last_pong(&self) -> Option<Duration> {
        self.ponged
    }

    /// Notes that a host has answered a ping of this node.
    pub(super) fn ponged(&mut self, now: Duration) {
        self.replied(now);
        self.ponged = Some(now);
    }

    /// Returns whether this is the last host seen that is no node.
    pub(super) fn is_witness(&self, address: IpAddr, mac: MacAddr) -> bool {
        self.witness == Some((address, mac))
    }

    /// Notes that a host was seen that is no node.
    pub(super) fn seen(&mut self, address: IpAddr, mac: MacAddr) {
        self.witness = Some((address, mac));
    }

    /// Discards the evidence so far, and asks for new evidence.
    pub(super) fn restart(&mut self, now: Duration) {
        self.evidence = None;
        self.silence_began = now;
        self.next_solicit = Some(now);
        self.solicited = 0;
    }

    /// Notes that a node has been found dead: it is asked whether it is back after a pause.
    pub(super) fn found_dead(&mut self, now: Duration) {
        self.dead_asked = now;
    }

    /// Was any peer ever heard?
    pub(super) fn had_peers(&self) -> bool {
        self.had_peers
    }

    /// Notes that a peer was heard.
    pub(super) fn peer_speaks(&mut self) {
        self.had_peers = true;
    }
}

impl Engine {
    /// Returns whether there is a sign that this node hears.
    pub fn is_hearing(&self) -> bool {
        self.peers.speaking() > 0 || self.hearing.evidence.is_some()
    }

    /// Returns whether this node has heard peers and hears nothing now: no peer for three intervals, and no other host
    /// since.
    pub(super) fn is_deaf(&self, now: Duration) -> bool {
        // Silence is noticed half way through the three intervals.
        let noticed = timers::lost_after(self.interval()) - timers::silent_after(self.interval());
        self.participation.has_carrier()
            && self.hearing.had_peers
            && !self.is_hearing()
            && now >= self.hearing.silence_began + noticed
    }

    /// Takes in that a frame came from another host.
    pub(super) fn evidence(&mut self, now: Duration) {
        let was_hearing = self.is_hearing();
        let was_deaf = self.is_deaf(now);
        self.hearing.evidence = Some(now);
        self.hearing.next_solicit = None;
        self.participation.note_evidence(now);
        if !was_hearing {
            // Probes that were not answered while this node may have been deaf prove nothing.
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

    /// Asks nodes that were found dead, and that the API lists, whether they are back, where the network drops the
    /// protocol.
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

    /// Asks hosts other than the silent node for an answer: if none answers, this node cannot be heard.
    pub(super) fn ask_witnesses(&mut self) {
        for (address, mac) in self.witnesses(|_| true) {
            self.outbox.push(Output::Probe { address, mac });
        }
    }

    /// Pings hosts other than the silent node: if none answers, the network passes no pings, or this node is cut off
    /// together with a switch that answers ARP and ND in the name of every host.
    pub(super) fn ask_controls(&mut self) {
        for (address, mac) in self.witnesses(|peer| peer.rest.kernel.answers_pings()) {
            self.outbox.push(Output::Ping { address, mac });
        }
    }

    /// Returns the first neighbour, the witness, and of the speaking peers that are of use the one with the lowest id.
    fn witnesses(&self, is_of_use: impl Fn(&Peer) -> bool) -> Vec<(IpAddr, MacAddr)> {
        let neighbour = self.hearing.neighbours.first().map(|host| (host.address, host.mac));
        let speaking = self.peers.iter().filter(|(_, peer)| peer.speaks() && is_of_use(peer));
        let peer = speaking.min_by_key(|(id, _)| *id).and_then(|(_, peer)| peer.probe_target());
        let mut asked: Vec<_> = [neighbour, peer, self.hearing.witness].into_iter().flatten().collect();
        asked.dedup();
        asked
    }

    /// Asks for a sign of life while there is none: the neighbours that the kernel knows, the peers, then every host.
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
