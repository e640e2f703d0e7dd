//! The reports of an engine: the events of a take-over, the snapshot, the counters.

use std::time::Duration;

use crate::bus::{self, Bus, address, mac, ms, name};
use herald_protocol::{
    Event, Input,
    api_view::Shutdown,
    claim::Reason,
    inspect::{KernelState, Snapshot, SpeakerState, Waiting},
    node::NodeId,
};

fn snapshot(bus: &Bus, node: usize) -> Snapshot {
    bus.speakers[&node].snapshot(bus.now)
}

/// Returns the take-overs since a moment: the new owner, the previous owner, and for how long the previous owner was
/// silent.
fn taken_over(bus: &Bus, since: Duration) -> Vec<(usize, Option<NodeId>, Option<Duration>)> {
    let take_over = |(_, node, event): &&(Duration, usize, Event)| match event {
        Event::Owned { from, silent_for, .. } => Some((*node, *from, *silent_for)),
        _ => None,
    };
    bus.events_since(since).iter().filter_map(take_over).collect()
}

#[test]
fn first_claim_has_no_previous_owner() {
    let bus = Bus::with_addresses(3, &[1]);
    assert_eq!(taken_over(&bus, ms(0)), [(1, None, None)]);
}

#[test]
fn successor_of_a_dead_node_reports_the_node_and_its_silence() {
    let mut bus = Bus::with_addresses(3, &[1, 2]);
    let died = bus.now;
    bus.power_off(1);
    bus.until(ms(500), |bus| bus.reached(address(1)) == Some(2));
    let claimed = bus.now;
    bus.run(ms(1000));
    let told = taken_over(&bus, died);
    assert_eq!(told.len(), 2);
    for (node, from, silent_for) in told {
        assert_eq!((node, from), (2, Some(name(1).id())));
        // The last Hello of node 1 went out at most an interval before the power was cut, and silence counts from the
        // arrival of that Hello.
        let silent_for = silent_for.unwrap();
        assert!(silent_for + ms(2) >= claimed - died && silent_for <= claimed - died + ms(101), "{silent_for:?}");
    }
}

#[test]
fn successor_of_a_leaving_node_reports_the_node_and_no_silence() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.tell(1, Input::Shutdown(Shutdown::Leaving));
    bus.run(ms(1000));
    assert_eq!(taken_over(&bus, since), [(2, Some(name(1).id()), None)]);
}

#[test]
fn resumed_claim_has_no_previous_owner() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let saved = bus.kill(1);
    bus.run(ms(500));
    let since = bus.now;
    bus.start(1, Some((saved, true)));
    bus.run(ms(2000));
    assert_eq!(taken_over(&bus, since), [(1, None, None)]);
}

#[test]
fn snapshot_shows_owner_peers_and_next_owner() {
    let bus = Bus::with_addresses(3, &[1, 2]);
    let owner = snapshot(&bus, 1);
    assert_eq!((owner.node.as_str(), owner.state, owner.answering), ("node1", SpeakerState::Active, true));
    assert_eq!((owner.totals.peers, owner.totals.owned, owner.totals.covered), (2, 2, 0));
    let peers: Vec<_> = owner.peers.iter().map(|peer| (peer.name.as_str(), peer.state, peer.claims)).collect();
    assert_eq!(peers, [("node2", SpeakerState::Active, 0), ("node3", SpeakerState::Active, 0)]);
    assert!(owner.peers.iter().all(|peer| peer.heard_ms.unwrap() <= 101 && peer.covered_by.is_empty()));
    let [first, second] = &owner.addresses[..] else { panic!("{:?}", owner.addresses) };
    assert_eq!((first.address, second.address), (address(1), address(2)));
    let claim = first.owner.as_ref().unwrap();
    assert_eq!((claim.node.as_str(), claim.epoch, claim.reason), ("node1", 1, Reason::Vacant));
    assert!(claim.since_ms.is_some());
    assert_eq!(first.answer, Some(mac(1).to_string()));
    let other = snapshot(&bus, 3);
    let seen = &other.addresses[0];
    assert_eq!((seen.owner.as_ref().unwrap().since_ms, seen.answer.as_deref()), (None, None));
    assert_eq!((first.next.as_deref(), seen.next.as_deref()), (Some("node2"), Some("node2")));
    assert_eq!(seen.candidates.iter().map(|candidate| candidate.able).collect::<Vec<_>>(), [true; 3]);
}

#[test]
fn snapshot_shows_coverers_of_a_silent_node() {
    // Two of the four nodes cover, and one does not.
    let mut bus = Bus::with_addresses(4, &[1]);
    bus.kill(1);
    bus.run(ms(1000));
    let answering: Vec<String> = bus.answers(address(1)).iter().map(|(node, _)| format!("node{node}")).collect();
    assert_eq!(answering.len(), 2);
    for node in 2..=4 {
        let shown = snapshot(&bus, node);
        let silent = &shown.peers[0];
        assert_eq!((silent.name.as_str(), silent.state), ("node1", SpeakerState::Silent));
        let mut covered_by = silent.covered_by.clone();
        covered_by.sort();
        assert_eq!(covered_by, answering);
        let covers = answering.contains(&shown.node);
        assert_eq!(shown.totals.covered, usize::from(covers));
        assert_eq!(shown.addresses[0].answer, covers.then(|| mac(1).to_string()));
        assert!(!covers || silent.kernel == Some(KernelState::Answers));
    }
    bus.power_off_kernel(1);
    bus.run(ms(1000));
    let dead = &snapshot(&bus, 2).peers[0];
    assert_eq!((dead.state, dead.claims, dead.covered_by.len()), (SpeakerState::Dead, 0, 0));
}

#[test]
fn snapshot_shows_why_no_node_announces() {
    let mut bus = Bus::new(2);
    let stranger = herald_protocol::mac::MacAddr([2, 0, 0, 0, 0, 0x99]);
    bus.run(ms(1000));
    bus.stranger(address(1), stranger);
    bus.publish(address(1), 1, &[(1, 0), (2, 0)]);
    bus.run(ms(1000));
    let shown = snapshot(&bus, 1);
    assert_eq!(shown.addresses[0].owner, None);
    assert_eq!(shown.addresses[0].waiting, Some(Waiting::Conflict { mac: stranger.to_string() }));
}

#[test]
fn hellos_are_counted() {
    let mut bus = Bus::new(3);
    bus.run(ms(2000));
    let before = bus.speakers[&1].counters();
    bus.run(ms(1000));
    let after = bus.speakers[&1].counters();
    // A speaker sends a Hello every 80 to 100 ms, and two peers do the same.
    let (sent, received) = (after.hellos_sent - before.hellos_sent, after.hellos_accepted - before.hellos_accepted);
    assert!((10..=13).contains(&sent) && (19..=26).contains(&received), "{sent} sent, {received} received");
}

/// Returns, of each key that a node shows, whether the node signs with it, and how many peers sign with it and accept
/// it.
fn keys(bus: &Bus, node: usize) -> Vec<(bool, usize, usize)> {
    snapshot(bus, node).keys.iter().map(|key| (key.signs, key.peers_signing, key.peers_accepting)).collect()
}

fn tell_keys(bus: &mut Bus, node: usize, bytes: &[u8]) {
    bus.tell(node, Input::Keys(bus::keys(bytes).into()));
    bus.run(ms(500));
}

#[test]
fn snapshot_shows_the_progress_of_a_key_rotation() {
    let mut bus = Bus::new(3);
    bus.run(ms(1000));
    assert_eq!(keys(&bus, 1), [(true, 2, 2)]);
    tell_keys(&mut bus, 1, &[7, 8]);
    tell_keys(&mut bus, 2, &[7, 8]);
    // Step 1: node 3 does not accept the new key yet.
    assert_eq!(keys(&bus, 1), [(true, 2, 2), (false, 0, 1)]);
    tell_keys(&mut bus, 3, &[7, 8]);
    // Step 2: the old key may be dropped, for no node signs with it.
    for node in 1..=3 {
        assert_eq!(keys(&bus, node), [(false, 0, 2), (true, 2, 2)]);
    }
    let new = bus::keys(&[8]).ids()[0].to_string();
    let signs_with: Vec<_> = snapshot(&bus, 1).peers.into_iter().map(|peer| peer.signs_with).collect();
    assert_eq!(signs_with, [Some(new.clone()), Some(new)]);
    for node in 1..=3 {
        tell_keys(&mut bus, node, &[8]);
    }
    assert_eq!(keys(&bus, 1), [(true, 2, 2)]);
}
