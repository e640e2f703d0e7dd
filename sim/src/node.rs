//! A node: power, kernel, NIC, clock, and the process of its speaker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use herald_protocol::{
    SavedState,
    api_view::{ExpectedPeer, GivenUp, Packet, Vip},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
};

use crate::{
    carried::Carried,
    machine::{Machine, Snapshot},
    names::{self, AddrIx, HostIx},
};

/// What a stopped speaker's sockets hold (a PACKET socket's default of 208 KiB holds about as many small frames).
pub const INBOX: usize = 256;

/// Something that waits in a socket.
#[derive(Clone, Debug)]
pub enum Received {
    /// A frame of the protocol.
    Frame(Arc<Carried>),
    /// An ARP packet, and who sent it.
    Packet(HostIx, Packet),
    /// The answer to a ping: the address that was asked, and the Ethernet source.
    Pong(IpAddr, MacAddr),
    /// Some other frame.
    Evidence,
}

/// The process.
#[derive(Debug)]
pub struct Speaker {
    /// The machine.
    pub machine: Machine,
    /// This run of it.
    pub incarnation: Incarnation,
    /// What waits while the process does not run.
    pub inbox: Vec<Received>,
    /// The wake-up that is in the queue (simulation time).
    pub wake: Option<Duration>,
    /// Did it answer when last asked?
    pub answering: bool,
    /// What it answers for: address and MAC.
    pub answers: BTreeMap<AddrIx, MacAddr>,
    /// The addresses it says it owns.
    pub owns: BTreeSet<AddrIx>,
    /// When it took an address back that it had handed over and nobody had claimed.
    pub took_back: BTreeMap<AddrIx, Duration>,
    /// The addresses it has given up where it does not hear who takes them.
    pub given_up: BTreeMap<AddrIx, GivenUp>,
    /// Was stopped for long, goes on since then, and has heard no peer yet.
    pub listens_since: Option<Duration>,
    /// From when to when it last did not run.
    pub waited: Option<(Duration, Duration)>,
    /// When it started.
    pub started: Duration,
    /// It was told to stop for good.
    pub leaving: bool,
    /// It was told who is on the segment by the API.
    pub told_of_stations: bool,
}

/// A virtual machine as it was at some time: what of its node lies in its memory.
#[derive(Debug)]
pub struct Memory {
    machine: Snapshot,
    incarnation: Incarnation,
    answers: BTreeMap<AddrIx, MacAddr>,
    owns: BTreeSet<AddrIx>,
    started: Duration,
    saved: Option<(SavedState, u64)>,
    taken: Duration,
    /// What its clock showed.
    clock: Duration,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Has it two interfaces on the wire? Then this is one of them.
    pub has_two_interfaces: bool,
    /// Its name in frames.
    pub id: NodeId,
    /// Its NIC's address.
    pub mac: MacAddr,
    /// Counts the machines that bore its name before this one.
    pub machine: u8,
    /// Its own address on the segment by which the others know it, if it has one.
    pub address: Option<IpAddr>,
    /// Conditions that changed its own address.
    pub renumbered: u32,
    /// Conditions that leave it without an address of its own on the segment.
    pub without_prefix: u32,
    /// What the API last told it of the other nodes on the segment.
    pub stations: Arc<[ExpectedPeer]>,
    /// May it be reverted to a snapshot?
    pub is_virtual: bool,
    /// When the snapshot was taken from which it last went on, and when it did.
    pub reverted: Option<(Duration, Duration)>,
    /// The snapshots it may be reverted to, the oldest first.
    pub snapshots: Vec<Option<Memory>>,
    /// Conditions that hold it without power.
    pub off: u32,
    /// Conditions that keep it from running.
    pub paused: u32,
    /// Conditions that keep its speaker from running.
    pub stalled: u32,
    /// Conditions that keep its speaker from being started.
    pub down: u32,
    /// Conditions that cut it from the API.
    pub cut: u32,
    /// Since when its process does not run.
    pub stopped_at: Option<Duration>,
    /// Its monotonic clock is the simulation's time plus this.
    pub clock: Duration,
    /// The simulation's time at which it was paused without its clock going on.
    pub frozen_at: Option<Duration>,
    /// When it last went on after such a pause.
    pub thawed_at: Option<Duration>,
    /// Counts power-ups.
    pub boot: u64,
    /// Counts starts of its speaker.
    pub starts: u64,
    /// The state file, and the boot in which it was written.
    pub saved: Option<(SavedState, u64)>,
    /// The process, if there is one.
    pub speaker: Option<Speaker>,
    /// How many keys it has dropped: what it signs and accepts follows from it.
    pub dropped_keys: usize,
    /// Conditions that make it accept the next key too.
    pub next_keys: usize,
    /// What its watches last told it, by address.
    pub view: Vec<Option<Arc<Vip>>>,
    /// The class of its watches' delay.
    pub watch: usize,
    /// The interval which it last promised.
    pub interval: Duration,
}

impl Node {
    /// A node that runs, without a speaker, with the name that belongs to this index.
    pub fn new(index: usize, addresses: usize, clock: Duration, watch: usize) -> Self {
        Self::named(NodeName::new(&format!("node-{index:04}")), index, addresses, clock, watch)
    }

    /// A node that runs, without a speaker.
    pub fn named(name: NodeName, index: usize, addresses: usize, clock: Duration, watch: usize) -> Self {
        Self {
            id: name.id(),
            name,
            has_two_interfaces: false,
            mac: names::mac(index),
            machine: 0,
            address: Some(names::known_address(index)),
            renumbered: 0,
            without_prefix: 0,
            stations: Arc::from([]),
            is_virtual: false,
            reverted: None,
            snapshots: Vec::new(),
            off: 0,
            paused: 0,
            stalled: 0,
            down: 0,
            cut: 0,
            stopped_at: None,
            clock,
            frozen_at: None,
            thawed_at: None,
            boot: 0,
            starts: 0,
            saved: None,
            speaker: None,
            dropped_keys: 0,
            next_keys: 0,
            view: vec![None; addresses],
            watch,
            interval: Duration::from_millis(100),
        }
    }

    /// Does its kernel run?
    pub fn runs(&self) -> bool {
        self.off == 0 && self.paused == 0
    }

    /// Does its speaker run?
    pub fn speaks(&self) -> bool {
        self.runs() && self.stalled == 0 && self.speaker.is_some()
    }

    /// A frame of the protocol arrives, if the node runs: its speaker takes it in, or its socket holds it. Returns whether
    /// anything may follow.
    pub fn hear(&mut self, now: Duration, carried: &Arc<Carried>) -> bool {
        if !self.runs() {
            return false;
        }
        let at = self.local(now);
        let stalled = self.stalled > 0;
        let Some(speaker) = &mut self.speaker else { return false };
        if stalled {
            speaker.store(Received::Frame(carried.clone()));
            return false;
        }
        speaker.listens_since = None;
        speaker.machine.hear(at, carried);
        let segment = speaker.machine.segment();
        let due = segment.poll_timeout().map(|due| due.saturating_sub(self.clock).max(now));
        // What was heard may be its own, from its other interface.
        self.has_two_interfaces
            || segment.has_output()
            || segment.is_answering() != speaker.answering
            || due.is_some_and(|due| speaker.wake.is_none_or(|wake| due < wake))
    }

    /// Its monotonic clock.
    pub fn local(&self, now: Duration) -> Duration {
        now + self.clock
    }

    /// The simulation's time when its clock will show this.
    pub fn global(&self, local: Duration) -> Duration {
        local.saturating_sub(self.clock)
    }

    /// The hypervisor stops running it.
    pub fn freeze(&mut self, now: Duration, clock_goes_on: bool) {
        if !clock_goes_on && self.frozen_at.is_none() {
            self.frozen_at = Some(now);
        }
    }

    /// It runs again. Has its clock stood still?
    pub fn thaw(&mut self, now: Duration) -> bool {
        let Some(since) = self.frozen_at.take() else { return false };
        self.thawed_at = Some(now);
        // The clock shows now what it showed then. It started far from zero: it cannot fall below.
        self.clock = self.clock.saturating_sub(now.saturating_sub(since));
        true
    }

    /// A snapshot of it is taken. (Of a speaker that does not run there is none.)
    pub fn take_snapshot(&mut self, now: Duration) {
        let speaker = self.speaker.as_ref().filter(|_| self.off == 0);
        let memory = speaker.and_then(|speaker| {
            Some(Memory {
                machine: speaker.machine.snapshot()?,
                incarnation: speaker.incarnation,
                answers: speaker.answers.clone(),
                owns: speaker.owns.clone(),
                started: speaker.started,
                saved: self.saved.clone(),
                taken: now,
                clock: self.local(self.frozen_at.unwrap_or(now)),
            })
        });
        self.snapshots.push(memory);
    }

    /// It goes on from a snapshot: memory, file and clock are as they were then.
    pub fn revert(&mut self, now: Duration, memory: Memory) {
        self.clock = memory.clock.saturating_sub(now);
        // One that is not run at the moment stands still from here on.
        self.frozen_at = self.frozen_at.map(|_| now);
        self.saved = memory.saved;
        self.reverted = Some((memory.taken, now));
        let mut speaker = Speaker::new(memory.started, memory.incarnation, Machine::revert(memory.machine));
        speaker.answers = memory.answers;
        speaker.owns = memory.owns;
        self.speaker = Some(speaker);
        self.starts += 1;
        self.stopped_at = None;
    }
}

impl Speaker {
    /// A process with this machine.
    pub fn new(now: Duration, incarnation: Incarnation, machine: Machine) -> Self {
        Self {
            machine,
            incarnation,
            inbox: Vec::new(),
            wake: None,
            answering: false,
            answers: BTreeMap::new(),
            owns: BTreeSet::new(),
            took_back: BTreeMap::new(),
            given_up: BTreeMap::new(),
            listens_since: None,
            waited: None,
            started: now,
            leaving: false,
            told_of_stations: false,
        }
    }

    /// Something arrived while the process does not run.
    pub fn store(&mut self, received: Received) {
        if self.inbox.len() < INBOX {
            self.inbox.push(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_shows_on_the_clock_or_not() {
        let s = Duration::from_secs;
        for (goes_on, shown) in [(true, s(1020)), (false, s(1013))] {
            let mut node = Node::new(0, 1, s(1000), 0);
            node.freeze(s(10), goes_on);
            assert_eq!(node.thaw(s(17)), !goes_on);
            assert_eq!(node.local(s(20)), shown);
            assert_eq!(node.global(shown), s(20));
        }
    }
}
