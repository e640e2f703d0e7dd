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

/// Number of frames that a stopped speaker's sockets hold (a PACKET socket's default of 208 KiB holds about as many
/// small frames).
pub const INBOX: usize = 256;

/// A frame that waits in a socket.
#[derive(Clone, Debug)]
pub enum Received {
    /// A frame of the protocol.
    Frame(Arc<Carried>),
    /// An ARP packet, with its sender.
    Packet(HostIx, Packet),
    /// The answer to a ping: the address that was asked, and the Ethernet source.
    Pong(IpAddr, MacAddr),
    /// Some other frame.
    Evidence,
}

/// The process of a speaker.
#[derive(Debug)]
pub struct Speaker {
    /// The machine.
    pub machine: Machine,
    /// The incarnation of this run.
    pub incarnation: Incarnation,
    /// The frames that wait while the process does not run.
    pub inbox: Vec<Received>,
    /// The wake-up that is in the queue (simulation time).
    pub wake: Option<Duration>,
    /// Whether it answered when last asked.
    pub answering: bool,
    /// The addresses for which it answers, with the MAC.
    pub answers: BTreeMap<AddrIx, MacAddr>,
    /// The addresses that it reports to own.
    pub owns: BTreeSet<AddrIx>,
    /// When it took back an address that it had handed over and that no other node had claimed.
    pub took_back: BTreeMap<AddrIx, Duration>,
    /// The addresses that it has given up to a node which it does not hear.
    pub given_up: BTreeMap<AddrIx, GivenUp>,
    /// Since when it has been running again after a long stop without having heard a peer.
    pub listens_since: Option<Duration>,
    /// The last interval during which it did not run.
    pub waited: Option<(Duration, Duration)>,
    /// When it started.
    pub started: Duration,
    /// Whether it was told to stop for good.
    pub leaving: bool,
    /// Whether the API has told it which nodes are on the segment.
    pub told_of_stations: bool,
}

/// A virtual machine as it was at some time: the part of its node that lies in its memory.
#[derive(Debug)]
pub struct Memory {
    machine: Snapshot,
    incarnation: Incarnation,
    answers: BTreeMap<AddrIx, MacAddr>,
    owns: BTreeSet<AddrIx>,
    started: Duration,
    saved: Option<(SavedState, u64)>,
    taken: Duration,
    /// The time that its clock showed.
    clock: Duration,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Whether the node has two interfaces on the wire, of which this is one.
    pub has_two_interfaces: bool,
    /// Its name in frames.
    pub id: NodeId,
    /// Its NIC's address.
    pub mac: MacAddr,
    /// Number of machines that had its name before this one.
    pub machine: u8,
    /// Its own address on the segment by which the others know it, if it has one.
    pub address: Option<IpAddr>,
    /// Number of conditions that changed its own address.
    pub renumbered: u32,
    /// Number of conditions that leave it without an address of its own on the segment.
    pub without_prefix: u32,
    /// The other nodes on the segment, as the API last told it.
    pub stations: Arc<[ExpectedPeer]>,
    /// Whether it may be reverted to a snapshot.
    pub is_virtual: bool,
    /// When the snapshot from which it last went on was taken, and when it went on.
    pub reverted: Option<(Duration, Duration)>,
    /// The snapshots to which it may be reverted, the oldest first.
    pub snapshots: Vec<Option<Memory>>,
    /// Number of conditions that hold it without power.
    pub off: u32,
    /// Number of conditions that keep it from running.
    pub paused: u32,
    /// Number of conditions that keep its speaker from running.
    pub stalled: u32,
    /// Number of conditions that keep its speaker from being started.
    pub down: u32,
    /// Number of conditions that cut it off from the API.
    pub cut: u32,
    /// Since when its process has not been running.
    pub stopped_at: Option<Duration>,
    /// Difference between its monotonic clock and the simulation's time.
    pub clock: Duration,
    /// The simulation's time at which it was paused without its clock going on.
    pub frozen_at: Option<Duration>,
    /// When it last went on after such a pause.
    pub thawed_at: Option<Duration>,
    /// Number of power-ups.
    pub boot: u64,
    /// Number of starts of its speaker.
    pub starts: u64,
    /// The state file, and the boot in which it was written.
    pub saved: Option<(SavedState, u64)>,
    /// The process, if there is one.
    pub speaker: Option<Speaker>,
    /// Number of keys that it has dropped. The keys with which it signs and which it accepts follow from it.
    pub dropped_keys: usize,
    /// Number of conditions that make it accept the next key too.
    pub next_keys: usize,
    /// The objects that its watches last delivered, by address.
    pub view: Vec<Option<Arc<Vip>>>,
    /// Index of its watches' delay.
    pub watch: usize,
    /// The interval that it last promised.
    pub interval: Duration,
}

impl Node {
    /// Returns a running node without a speaker, with the name that belongs to this index.
    pub fn new(index: usize, addresses: usize, clock: Duration, watch: usize) -> Self {
        Self::named(NodeName::new(&format!("node-{index:04}")), index, addresses, clock, watch)
    }

    /// Returns a running node without a speaker.
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

    /// Returns whether the node's kernel runs.
    pub fn runs(&self) -> bool {
        self.off == 0 && self.paused == 0
    }

    /// Returns whether the node's speaker runs.
    pub fn speaks(&self) -> bool {
        self.runs() && self.stalled == 0 && self.speaker.is_some()
    }

    /// A frame of the protocol arrives. If the node runs, its speaker takes the frame in, or its socket holds it.
    /// Returns whether anything may follow.
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
        // The frame may be its own, from its other interface.
        self.has_two_interfaces
            || segment.has_output()
            || segment.is_answering() != speaker.answering
            || due.is_some_and(|due| speaker.wake.is_none_or(|wake| due < wake))
    }

    /// Returns the node's monotonic clock.
    pub fn local(&self, now: Duration) -> Duration {
        now + self.clock
    }

    /// Returns the simulation's time at which the node's clock will show this.
    pub fn global(&self, local: Duration) -> Duration {
        local.saturating_sub(self.clock)
    }

    /// The hypervisor stops running the node.
    pub fn freeze(&mut self, now: Duration, clock_goes_on: bool) {
        if !clock_goes_on && self.frozen_at.is_none() {
            self.frozen_at = Some(now);
        }
    }

    /// The hypervisor runs the node again. Returns whether its clock has stood still.
    pub fn thaw(&mut self, now: Duration) -> bool {
        let Some(since) = self.frozen_at.take() else { return false };
        self.thawed_at = Some(now);
        // The clock shows the same time as when it stopped. It started far from zero, so it cannot fall below.
        self.clock = self.clock.saturating_sub(now.saturating_sub(since));
        true
    }

    /// Takes a snapshot of the node. (There is none of a speaker that does not run.)
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

    /// The node goes on from a snapshot: memory, file and clock are as they were then.
    pub fn revert(&mut self, now: Duration, memory: Memory) {
        self.clock = memory.clock.saturating_sub(now);
        // A node that the hypervisor does not run at the moment stands still from here on.
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
    /// Returns a process with this machine.
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

    /// A frame arrived while the process does not run.
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
    fn pause_shows_on_a_clock_that_goes_on_only() {
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
