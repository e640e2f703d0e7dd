//! The other speakers of the segment: who they are, when they were heard, what their kernels say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{
    claim::Digest,
    kernel::{KernelWatch, Reports},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeMap, NodeName},
    timers,
    view::Station,
    wire::{Heard, Hello, KeyId, Sender, State},
};

/// How often a run that has just been found to hear this node is echoed: one may be lost. What is lost then costs it the
/// end of its join barrier, no more. A run that has not got that far is echoed in answer to each of its Hellos.
const ECHOES: u8 = 2;

/// A node on the segment that is not this one.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name, once a Hello or the API has said it.
    pub(crate) name: NodeName,
    /// Where the API says that it is.
    pub(crate) station: Option<(MacAddr, IpAddr)>,
    /// The run that is heard both ways.
    pub(crate) run: Option<Run>,
    /// Since when it has not been heard, however it has stood since; `None`: it is heard, or never was.
    pub(crate) absent_since: Option<Duration>,
    /// A run that has not yet shown that it hears this node.
    pub(crate) pending: Option<Pending>,
    presence: Presence,
    /// What its kernel says.
    pub(crate) kernel: KernelWatch,
    /// What others say about it.
    pub(crate) reports: Reports,
    /// Hellos in which it is still to be echoed.
    pub(crate) echoes: u8,
    /// Somebody suspects it, and this node hears it: to be said in the next Hello.
    pub(crate) vouch: bool,
}

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Never heard both ways, or dead and forgotten.
    Unheard,
    /// Heard.
    Speaking,
    /// Not heard for one and a half intervals, or it said that it restarts.
    Silent {
        /// Since when.
        since: Duration,
        /// Has it been reported that the cover lasts long?
        reported: bool,
    },
    /// Silent, and so is its kernel.
    Dead,
}

/// A run of a peer that is heard both ways.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Which.
    pub(crate) incarnation: Incarnation,
    /// Of its last frame.
    pub(crate) sequence: u64,
    /// When its last frame came.
    pub(crate) heard: Duration,
    /// When its last Hello came.
    hello_at: Duration,
    /// From its last Hello.
    pub(crate) state: State,
    /// From its last Hello.
    pub(crate) deaf: bool,
    /// When its next Hello was due.
    pub(crate) interval: Duration,
    /// From its last Hello.
    uptime: Duration,
    /// From its last Hello.
    pub(crate) digest: Digest,
    /// From its last Hello.
    pub(crate) mac: MacAddr,
    /// From its last Hello.
    pub(crate) address: Option<IpAddr>,
    /// From its last Hello.
    pub(crate) keys: Vec<KeyId>,
    /// From its last Hello.
    pub(crate) highest_version: u8,
    /// The number of peers it hears.
    pub(crate) hears: u16,
    /// Has it said that this run of this node counts with it?
    pub(crate) counts_me: bool,
    /// The run before, until it cannot be heard any more but by replay.
    pub(crate) before: Option<Incarnation>,
}

/// A run that is heard, but has not shown that it hears.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Which.
    pub(crate) incarnation: Incarnation,
    /// Of its last frame.
    pub(crate) sequence: u64,
    /// When it was heard.
    pub(crate) heard: Duration,
    /// When its next Hello was due.
    pub(crate) interval: Duration,
    /// The keys it accepts.
    pub(crate) keys: Vec<KeyId>,
    /// The highest version it reads.
    pub(crate) highest_version: u8,
}

impl Peer {
    fn new(name: NodeName) -> Self {
        Self {
            name,
            station: None,
            run: None,
            absent_since: None,
            pending: None,
            presence: Presence::Unheard,
            kernel: KernelWatch::default(),
            reports: Reports::default(),
            echoes: 0,
            vouch: false,
        }
    }

    /// Takes in a Hello that says what the last one said, as nearly all of them do; `false` if it says more.
    pub(crate) fn says_nothing_new(&mut self, now: Duration, sender: Sender, hello: &Hello) -> bool {
        let speaks = self.speaks();
        let Some(run) = self.run.as_mut().filter(|run| speaks && run.incarnation == sender.incarnation) else {
            return false;
        };
        let same = run.sequence < sender.sequence
            && (run.state, run.deaf, run.digest, run.mac) == (hello.state, hello.deaf, hello.claims, hello.mac)
            && hello.heard.is_empty()
            && run.paused_for(now, hello) <= timers::silent_after(run.interval);
        if same {
            run.update(now, sender.sequence, hello);
        }
        same
    }

    /// It is to be told that it is heard.
    pub(crate) fn echo(&mut self) {
        self.echoes = self.echoes.max(1);
    }

    /// It is to be told that it counts.
    pub(crate) fn echo_well(&mut self) {
        self.echoes = ECHOES;
    }

    /// How it stands.
    pub(crate) fn presence(&self) -> Presence {
        self.presence
    }

    /// Is it heard?
    pub(crate) fn speaks(&self) -> bool {
        self.presence == Presence::Speaking
    }

    /// Since when it is silent.
    pub(crate) fn silent_since(&self) -> Option<Duration> {
        match self.presence {
            Presence::Silent { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Could it claim something now?
    pub(crate) fn takes_part(&self) -> bool {
        self.speaks() && self.takes_part_when_heard()
    }

    /// Could it claim something when it was last heard?
    pub(crate) fn takes_part_when_heard(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.state == State::Active && !run.deaf)
    }

    /// Has its speaker restarted, and not yet got to the point where it answers?
    pub(crate) fn listens(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.state == State::Listening)
    }

    /// Was it never heard both ways, but the API lists it, or it is heard one way? Not if its kernel is silent.
    pub(crate) fn may_be_there(&self) -> bool {
        self.presence == Presence::Unheard && (self.station.is_some() || self.pending.is_some())
    }

    /// Was it never heard, and is its kernel asked for a sign of life?
    pub(crate) fn is_asked_for(&self) -> bool {
        self.presence == Presence::Unheard && self.kernel.is_watched()
    }

    /// Was it not heard for so long that it need not be remembered?
    pub(crate) fn is_forgettable(&self, now: Duration, after: Duration) -> bool {
        self.station.is_none() && self.pending.is_none() && self.last_sign().is_none_or(|sign| now >= sign + after)
    }

    /// Time during which this node could not hear is no silence of the peer.
    pub(crate) fn postpone(&mut self, now: Duration, gap: Duration) {
        if let Some(run) = self.run.as_mut().filter(|_| self.presence == Presence::Speaking) {
            run.heard = now.min(run.heard + gap);
        }
        self.kernel.recount(now);
    }

    /// Its link-layer address, by its own account or else the API's.
    pub(crate) fn mac(&self) -> Option<MacAddr> {
        self.run.as_ref().map(|run| run.mac).or(self.station.map(|(mac, _)| mac))
    }

    /// The keys it accepts, if it is heard at all.
    pub(crate) fn accepted_keys(&self) -> Option<&[KeyId]> {
        let pending = self.pending.as_ref().map(|pending| pending.keys.as_slice());
        pending.or_else(|| self.run.as_ref().filter(|_| self.speaks()).map(|run| run.keys.as_slice()))
    }

    /// The highest protocol version it reads, if it is heard at all.
    pub(crate) fn reads_version(&self) -> Option<u8> {
        let pending = self.pending.as_ref().map(|pending| pending.highest_version);
        pending.or_else(|| self.run.as_ref().filter(|_| self.speaks()).map(|run| run.highest_version))
    }

    /// Where its kernel can be asked for a sign of life.
    pub(crate) fn probe_target(&self) -> Option<(IpAddr, MacAddr)> {
        let said = self.run.as_ref().and_then(|run| Some((run.address?, run.mac)));
        said.or(self.station.map(|(mac, address)| (address, mac)))
    }

    /// The last sign of its speaker: heard here, or by somebody who is heard here.
    pub(crate) fn last_sign(&self) -> Option<Duration> {
        self.run.as_ref().map(|run| run.heard).max(self.reports.heard)
    }

    /// When it becomes silent unless it is heard.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        self.run.as_ref().map(|run| run.heard + timers::silent_after(run.interval))
    }

    /// Has nobody heard it for three intervals? `interval`: this node's, if the peer's is not known.
    pub(crate) fn is_lost(&self, now: Duration, interval: Duration) -> bool {
        self.lost_at(interval).is_none_or(|at| at <= now)
    }

    /// When it counts as lost unless somebody hears it; `None` if nobody ever did.
    pub(crate) fn lost_at(&self, interval: Duration) -> Option<Duration> {
        let interval = self.run.as_ref().map_or(interval, |run| run.interval);
        let known = self.last_sign().max(self.silent_since().filter(|_| self.run.is_none()));
        Some(known? + timers::lost_after(interval))
    }

    /// What to say about it in a Hello at `now`, if anything. `evidence`: when this node last heard anything.
    pub(crate) fn mention(
        &self,
        id: NodeId,
        now: Duration,
        wants_claims: bool,
        evidence: Option<Duration>,
    ) -> Option<Heard> {
        let pending = self.pending.as_ref().filter(|_| self.echoes > 0);
        let asked_for = self.is_asked_for();
        let silent = self.silent_since().is_some() && !self.listens() || asked_for;
        if pending.is_none() && self.echoes == 0 && !self.vouch && !wants_claims && !silent {
            return None;
        }
        // What is pending is what matters: it is the run that speaks now.
        let (incarnation, sequence, heard) = match (&pending, &self.run) {
            (Some(pending), _) => (pending.incarnation, pending.sequence, pending.heard),
            (None, Some(run)) => (run.incarnation, run.sequence, run.heard),
            // Never heard: others may know its runs.
            (None, None) => (Incarnation(0), 0, Duration::ZERO),
        };
        Some(Heard {
            node: id,
            incarnation,
            sequence,
            age: now.saturating_sub(heard),
            kernel: self.kernel.report(now, evidence),
            wants_echo: pending.is_some(),
            wants_claims,
            suspect: pending.is_none() && silent,
        })
    }
}

impl Run {
    /// A run as its first accepted Hello shows it.
    pub(crate) fn new(
        now: Duration,
        incarnation: Incarnation,
        sequence: u64,
        hello: &Hello,
        before: Option<Incarnation>,
    ) -> Self {
        Self {
            incarnation,
            sequence,
            heard: now,
            hello_at: now,
            state: hello.state,
            deaf: hello.deaf,
            interval: hello.interval,
            uptime: hello.uptime,
            digest: hello.claims,
            mac: hello.mac,
            address: hello.address,
            keys: hello.keys.clone(),
            highest_version: hello.highest_version,
            hears: hello.peers,
            counts_me: false,
            before,
        }
    }

    /// How much longer it took there than here since its last Hello: for so long this machine was paused, and its clock
    /// with it.
    pub(crate) fn paused_for(&self, now: Duration, hello: &Hello) -> Duration {
        let there = hello.uptime.saturating_sub(self.uptime);
        there.saturating_sub(now.saturating_sub(self.hello_at))
    }

    /// Takes in a later Hello of the same run.
    pub(crate) fn update(&mut self, now: Duration, sequence: u64, hello: &Hello) {
        self.sequence = sequence;
        self.heard = now;
        self.hello_at = now;
        self.state = hello.state;
        self.deaf = hello.deaf;
        self.interval = hello.interval;
        self.uptime = hello.uptime;
        self.digest = hello.claims;
        self.mac = hello.mac;
        self.address = hello.address;
        self.highest_version = hello.highest_version;
        self.hears = hello.peers;
        if self.keys != hello.keys {
            self.keys.clone_from(&hello.keys);
        }
    }
}

/// All peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_id: NodeMap<Peer>,
    /// Whose link-layer address it is.
    by_mac: BTreeMap<MacAddr, NodeId>,
    silent: BTreeSet<NodeId>,
    speaking: usize,
}

impl Peers {
    /// More nodes than any segment has; more can only be forged by a holder of the key.
    const MAX: usize = 4096;

    /// A peer.
    pub(crate) fn get(&self, id: NodeId) -> Option<&Peer> {
        self.by_id.get(&id)
    }

    /// A peer.
    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.by_id.get_mut(&id)
    }

    /// Adds a peer, unless it is there; `false` if there is no room.
    pub(crate) fn add(&mut self, id: NodeId, name: &NodeName) -> bool {
        if self.by_id.len() >= Self::MAX {
            return self.by_id.contains_key(&id);
        }
        self.by_id.entry(id).or_insert_with(|| Peer::new(name.clone()));
        true
    }

    /// Does every one of them speak?
    pub(crate) fn all_speak(&self) -> bool {
        self.speaking == self.by_id.len()
    }

    /// A peer stands differently from now on.
    pub(crate) fn set_presence(&mut self, id: NodeId, presence: Presence) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        self.speaking -= usize::from(peer.speaks());
        self.silent.remove(&id);
        peer.presence = presence;
        self.speaking += usize::from(peer.speaks());
        if peer.silent_since().is_some() {
            self.silent.insert(id);
        }
    }

    /// How many speak.
    pub(crate) fn speaking(&self) -> usize {
        self.speaking
    }

    /// Those that are silent.
    pub(crate) fn silent(&self) -> impl Iterator<Item = NodeId> {
        self.silent.iter().copied()
    }

    /// Every peer, in an order that means nothing.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.by_id.iter().map(|(id, peer)| (*id, peer))
    }

    /// Every peer, in an order that means nothing.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Peer)> {
        self.by_id.iter_mut().map(|(id, peer)| (*id, peer))
    }

    /// The peer with this link-layer address.
    pub(crate) fn by_mac(&self, mac: MacAddr) -> Option<NodeId> {
        self.by_mac.get(&mac).copied()
    }

    /// A peer's link-layer address is as it now says.
    pub(crate) fn learn_mac(&mut self, id: NodeId, before: Option<MacAddr>) {
        let now = self.by_id.get(&id).and_then(Peer::mac);
        if now == before {
            return;
        }
        if let Some(before) = before
            && self.by_mac.get(&before) == Some(&id)
        {
            self.by_mac.remove(&before);
        }
        if let Some(mac) = now {
            self.by_mac.insert(mac, id);
        }
    }

    /// Takes in which nodes the API lists on the segment.
    pub(crate) fn list(&mut self, stations: &[Station]) {
        let mut listed: BTreeMap<NodeId, &Station> = stations.iter().map(|s| (s.node.id(), s)).collect();
        let ids: Vec<NodeId> = self.by_id.keys().copied().collect();
        for id in ids {
            self.relist(id, listed.remove(&id));
        }
        for (id, station) in listed {
            if self.add(id, &station.node) {
                self.relist(id, Some(station));
            }
        }
        let silent = &self.silent;
        self.by_id.retain(|id, peer| {
            peer.station.is_some() || peer.run.is_some() || peer.pending.is_some() || silent.contains(id)
        });
    }

    fn relist(&mut self, id: NodeId, station: Option<&Station>) {
        if let Some(peer) = self.by_id.get_mut(&id) {
            let before = peer.mac();
            peer.station = station.map(|station| (station.mac, station.address));
            if let Some(station) = station {
                peer.name = station.node.clone();
            }
            self.learn_mac(id, before);
        }
    }

    /// Forgets a peer.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.set_presence(id, Presence::Unheard);
        if let Some(mac) = self.by_id.remove(&id).and_then(|peer| peer.mac()) {
            self.by_mac.remove(&mac);
        }
    }
}
