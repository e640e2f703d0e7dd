//! A roll-out to the next version of the protocol, and back: speakers of two builds on one segment.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use herald_protocol::{
    Event, Input, SavedState, api_view::Shutdown, claim::Reason, inspect::SpeakerState, wire::VERSION,
};
use test_case::test_case;

use crate::{
    bus::{Bus, address, mac, ms, name},
    next_build::{ALL_OF_NEXT, Build, NEXT, RESUMED},
};

/// Three nodes, and six addresses that stay with their owners for as long as they live.
struct Rollout {
    bus: Bus,
    since: Duration,
    /// Time in milliseconds for which each address has been unanswered.
    unanswered: BTreeMap<IpAddr, u32>,
}

/// Longest time in milliseconds for which an address may be unanswered: a speaker that ends is covered within one and a
/// half intervals (150 ms), and the frame of its cover takes its time.
const LONGEST_GAP_MS: u32 = 155;

impl Rollout {
    fn of(builds: [Build; 3]) -> Self {
        let mut bus = Bus::of(3, (1..).zip(builds).collect());
        bus.run(ms(1500));
        for last in 1..=6 {
            let order: Vec<_> = (0..3).map(|rank| ((owner(last) - 1 + rank) % 3 + 1, 0)).collect();
            bus.publish(address(last), 1, &order);
        }
        bus.run(ms(4000));
        let since = bus.now;
        let mut rollout = Self { bus, since, unanswered: BTreeMap::new() };
        rollout.run(ms(1));
        assert!(rollout.unanswered.is_empty());
        rollout
    }

    /// Lets time pass, and asserts at each millisecond that each address is answered for with the MAC of its owner
    /// alone, or is unanswered for [`LONGEST_GAP_MS`] at most.
    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() {
            self.bus.run(ms(1));
            for last in 1..=6 {
                let answers = self.bus.answers(address(last));
                assert!(
                    answers.iter().all(|(_, given)| *given == mac(owner(last))),
                    "{} is answered for by {answers:?}; events: {:#?}",
                    address(last),
                    self.bus.events_since(self.since)
                );
                if !answers.is_empty() {
                    self.unanswered.remove(&address(last));
                    continue;
                }
                let gap = self.unanswered.entry(address(last)).or_default();
                *gap += 1;
                assert!(*gap <= LONGEST_GAP_MS, "{} is unanswered for {gap} ms", address(last));
            }
        }
    }

    /// Replaces the pod of a node's speaker by one of this build, as a DaemonSet does: no state of the old pod is left.
    fn replace(&mut self, node: usize, build: Build) {
        self.bus.tell(node, Input::Shutdown(Shutdown::Restarting));
        self.run(ms(30));
        self.bus.kill(node);
        self.run(ms(700));
        self.bus.builds.insert(node, build);
        self.bus.start(node, None);
        self.run(ms(3000));
    }

    /// Restarts the container of a node's speaker, whose saved state stays.
    fn restart(&mut self, node: usize) {
        let saved: SavedState = self.bus.kill(node);
        self.run(ms(400));
        self.bus.start(node, Some((saved, true)));
        self.run(ms(2000));
    }

    /// Asserts that all nodes write this version after a second in which no node lacks claims or suspects a peer, that
    /// each node counts both peers, and that no owner has changed.
    fn settled(&mut self, version: u8) {
        let since = self.bus.now;
        self.run(ms(1000));
        assert_eq!(self.written(), [version; 3]);
        let late = |noted: &[(Duration, usize, _)]| noted.iter().any(|(at, ..)| *at > since);
        assert!(!late(&self.bus.requests) && !late(&self.bus.suspicions));
        for (node, speaker) in &self.bus.speakers {
            assert_eq!(speaker.snapshot(self.bus.now).totals.peers, 2, "node{node}");
        }
        self.no_owner_has_changed();
    }

    /// Returns the version of each node's last frame.
    fn written(&self) -> [u8; 3] {
        let last = |node| self.bus.sent.iter().rev().find(|(sender, _)| *sender == node).unwrap();
        [1, 2, 3].map(|node| last(node).1[0])
    }

    fn no_owner_has_changed(&self) {
        for (at, node, event) in self.bus.events_since(self.since) {
            match event {
                Event::Owned { claim, .. } => {
                    let back = claim.reason == Reason::Resumed && owner_of(claim.address) == *node;
                    assert!(back, "node{node} claims {claim:?} at {at:?}");
                }
                Event::Lost { .. } | Event::Withdrawn { .. } | Event::PeerDead(_) | Event::DuplicateNode(_) => {
                    panic!("{event:?} at node{node}, {at:?}")
                }
                _ => {}
            }
        }
    }
}

/// Returns the node that owns an address with this last byte.
fn owner(last: u8) -> usize {
    usize::from(last) % 3 + 1
}

fn owner_of(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => owner(v4.octets()[3]),
        IpAddr::V6(_) => panic!("{address}"),
    }
}

#[test]
fn roll_out_to_the_next_version_and_back_moves_nothing() {
    use Build::{Next, Today};
    let mut rollout = Rollout::of([Today; 3]);
    rollout.settled(VERSION);
    rollout.replace(1, Next);
    rollout.settled(VERSION);
    rollout.replace(2, Next);
    rollout.settled(VERSION);
    // A speaker of each build restarts in the middle of the roll-out.
    rollout.restart(2);
    rollout.settled(VERSION);
    rollout.restart(3);
    rollout.settled(VERSION);
    rollout.replace(3, Next);
    rollout.settled(NEXT);
    let everything = (1..=3).flat_map(|node| ALL_OF_NEXT.map(|what| (node, what)));
    assert!(rollout.bus.read_of_next.iter().copied().eq(everything), "{:?}", rollout.bus.read_of_next);
    rollout.restart(1);
    rollout.settled(NEXT);

    for (node, version) in [(3, VERSION), (1, VERSION), (2, VERSION)] {
        rollout.replace(node, Today);
        rollout.settled(version);
    }
}

/// Additions of the next build within today's version do not disturb today's build.
#[test]
fn next_build_is_understood_in_the_version_of_today() {
    use Build::{Next, Today};
    let mut rollout = Rollout::of([Today, Next, Next]);
    rollout.settled(VERSION);
    rollout.restart(2);
    rollout.settled(VERSION);
    let today = &rollout.bus.speakers[&1];
    assert_eq!(today.counters().malformed, 0);
    assert!(today.counters().unknown > 20, "frames of the new type");
    let shown = today.snapshot(rollout.bus.now);
    let reasons =
        shown.addresses.iter().filter_map(|shown| shown.owner.as_ref()).map(|owner| (&owner.node, owner.reason));
    let claimed: Vec<_> = reasons.filter(|(node, _)| node.as_str() == "node2").collect();
    assert!(claimed.len() == 2 && claimed.iter().all(|(_, reason)| *reason == RESUMED), "{claimed:?}");
    // Today's build states what it knows of the claims of a silent node in that node's place.
    rollout.restart(3);
    rollout.bus.kill(2);
    rollout.run(ms(3000));
    rollout.restart(3);
    rollout.no_owner_has_changed();
}

/// A pending peer, which does not hear yet, reads only today's version, and keeps its peers at that version.
#[test]
fn pending_peer_is_spoken_to_in_its_version() {
    use Build::{Next, Today};
    let mut rollout = Rollout::of([Next; 3]);
    rollout.settled(NEXT);
    rollout.bus.tell(3, Input::Shutdown(Shutdown::Restarting));
    rollout.run(ms(30));
    rollout.bus.kill(3);
    rollout.bus.builds.insert(3, Today);
    rollout.bus.start(3, None);
    // Frames of node 3 get out, and frames of the others are lost on their way to node 3, for less time than its join
    // barrier lasts.
    rollout.bus.loses_frames_to = Some(3);
    rollout.run(ms(700));
    assert_eq!(rollout.written(), [VERSION; 3]);
    let shown = rollout.bus.speakers[&1].snapshot(rollout.bus.now);
    let pending = shown.peers.iter().find(|peer| peer.name == name(3).as_str()).unwrap();
    assert_eq!(pending.state, SpeakerState::OneWay);
    rollout.bus.loses_frames_to = None;
    rollout.run(ms(3000));
    rollout.settled(VERSION);
}

/// A speaker that was paused can read the frames of its peers at once.
#[test_case(2000)]
#[test_case(20_000)]
fn paused_speaker_of_today_comes_back_to_speakers_of_the_next(pause: u64) {
    use Build::{Next, Today};
    let mut rollout = Rollout::of([Next, Next, Today]);
    rollout.settled(VERSION);
    let paused = rollout.bus.speakers.remove(&3).unwrap();
    rollout.run(ms(pause));
    rollout.bus.speakers.insert(3, paused);
    rollout.run(ms(1500));
    rollout.settled(VERSION);
}
