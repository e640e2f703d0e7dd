//! The distinction between a dead node and a silent speaker: answers of a node's kernel, and answers of a switch in the
//! node's name.

use std::time::Duration;

use crate::bus::{Bus, GATEWAY, address, mac, ms, name, stations};
use herald_protocol::{
    claim::Reason,
    inspect::SpeakerState,
    mac::MacAddr,
    timers::{PING_HABIT_EVERY, PING_HABIT_GAP},
};

const BOUND: Duration = ms(2000);

/// A third speaker stalls while a node loses power, and goes on when the other speakers have begun to miss the node.
#[test]
fn stalled_speaker_does_not_delay_a_succession() {
    for (before, lasts) in (0..400).step_by(20).flat_map(|before| [400, 450, 500, 600].map(|lasts| (before, lasts))) {
        let mut bus = Bus::with_addresses(4, &[1]);
        let stands_still = bus.speakers.remove(&3).unwrap();
        bus.run(ms(before));
        let died = bus.now;
        bus.power_off(1);
        bus.run(ms(lasts - before));
        bus.speakers.insert(3, stands_still);
        bus.until(ms(500), |bus| bus.answers(address(1)).contains(&(2, mac(2))));
        assert!(
            bus.now - died <= ms(500).max(ms(lasts - before)),
            "{before} ms before, {lasts} ms: {:?}",
            bus.now - died
        );
    }
}

/// Returns nodes that have been up for long enough to know which peers answer pings. The switch answers ARP in the name
/// of node 1.
fn suppressed(nodes: usize) -> Bus {
    let mut bus = Bus::with_addresses(nodes, &[1, 2]);
    bus.run(ms(10_000));
    bus.suppressed.insert(1);
    bus
}

/// Asserts that node 2 takes the addresses of node 1, which is dead, within [`BOUND`].
fn is_succeeded(bus: &mut Bus, died: Duration) {
    bus.until(BOUND, |bus| bus.reached(address(1)) == Some(2));
    bus.run(ms(5000));
    assert_eq!(bus.claims_since(died), [(2, Reason::Dead); 2]);
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
}

/// Asserts that the addresses of node 1, which lives, stay with it, covered, for this time.
fn is_covered(bus: &mut Bus, lasts: Duration) {
    let since = bus.now;
    let end = since + lasts;
    while bus.now < end {
        bus.run(ms(1000));
        assert_eq!(bus.reached(address(1)), Some(1), "{:?}", bus.events_since(since));
    }
    assert_eq!(bus.claims_since(since), []);
}

#[test]
fn suppressed_power_off_is_succeeded_within_two_seconds() {
    for nodes in [2, 3, 10] {
        for phase in (0..100).step_by(10) {
            let mut bus = suppressed(nodes);
            bus.run(ms(phase));
            let died = bus.now;
            bus.power_off(1);
            is_succeeded(&mut bus, died);
        }
    }
}

#[test]
fn suppressed_power_off_of_a_covered_node_is_succeeded_within_two_seconds() {
    for phase in (0..110).step_by(10) {
        let mut bus = suppressed(3);
        bus.kill(1);
        is_covered(&mut bus, ms(20_000));
        bus.run(ms(phase));
        let died = bus.now;
        bus.power_off_kernel(1);
        is_succeeded(&mut bus, died);
    }
}

#[test]
fn node_behind_a_firewall_that_drops_pings_is_covered() {
    for (suppresses, lasts) in [(true, ms(590_000)), (false, ms(60_000))] {
        let mut bus = Bus::new(3);
        bus.drop_pings_to([mac(1)]);
        bus.run(ms(1000));
        bus.publish(address(1), 1, &[(1, 0), (2, 0), (3, 0)]);
        bus.run(ms(10_000));
        bus.suppressed.extend(suppresses.then_some(1));
        bus.kill(1);
        is_covered(&mut bus, lasts);
    }
}

#[test]
fn firewall_that_came_later_is_noticed() {
    let mut bus = suppressed(3);
    bus.drop_pings_to([mac(1)]);
    bus.run(PING_HABIT_EVERY + ms(5000));
    bus.kill(1);
    is_covered(&mut bus, ms(60_000));
}

/// The last habitual pings were answered just before: only pings to other hosts show that pings are no longer answered.
#[test]
fn node_is_not_found_dead_when_the_network_stops_passing_pings() {
    let mut bus = suppressed(3);
    bus.drop_pings_to([mac(1), mac(2), mac(3), GATEWAY.mac]);
    bus.kill(1);
    is_covered(&mut bus, ms(60_000));
}

/// A leaf switch that lost its uplinks answers ARP for all hosts that it knows.
#[test]
fn node_cut_off_with_its_switch_takes_nothing() {
    let mut bus = suppressed(3);
    bus.suppressed.extend([1, 2, 3]);
    bus.drop_pings_to([mac(1), mac(2), GATEWAY.mac]);
    let since = bus.now;
    bus.drops_protocol = true;
    bus.run(ms(60_000));
    assert_eq!(bus.claims_since(since), []);
}

#[test]
fn living_node_is_not_found_dead_by_lost_pings() {
    for seed in 0..2 {
        let mut bus = suppressed(3);
        bus.lose_pings(30, seed);
        bus.kill(1);
        is_covered(&mut bus, ms(590_000));
    }
}

/// Two nodes: no third node sends pings as well.
#[test]
fn living_node_of_two_is_not_found_dead_by_lost_pings() {
    for seed in 0..4 {
        let mut bus = suppressed(2);
        bus.lose_pings(30, seed);
        bus.kill(1);
        is_covered(&mut bus, ms(590_000));
    }
}

#[test]
fn slow_answer_proves_life() {
    for delay in [150, 500, 1000] {
        let mut bus = suppressed(3);
        bus.pong_delay = ms(delay);
        bus.kill(1);
        is_covered(&mut bus, ms(60_000));
        let died = bus.now;
        bus.power_off_kernel(1);
        // Answers that are on their way arrive; later ones take 1 ms.
        bus.pong_delay = ms(1);
        bus.run(ms(delay));
        is_succeeded(&mut bus, died);
    }
}

#[test]
fn restarted_speaker_learns_again_who_answers_pings() {
    let mut bus = suppressed(3);
    bus.kill(1);
    bus.run(ms(5000));
    for node in [2, 3] {
        let saved = bus.kill(node);
        bus.run(ms(1000));
        bus.start(node, Some((saved, true)));
        bus.run(ms(3000));
    }
    is_covered(&mut bus, ms(20_000));
    let died = bus.now;
    bus.power_off_kernel(1);
    is_succeeded(&mut bus, died);
}

/// The successor itself never had an answer to a ping, since a firewall drops its pings. Its ARP requests are answered.
#[test]
fn successor_without_answers_relies_on_a_peer_that_had_them() {
    for phase in (0..100).step_by(10) {
        let mut bus = Bus::new(3);
        bus.drops_pings.insert((mac(1), mac(2)));
        bus.run(ms(1000));
        for last in [1, 2] {
            bus.publish(address(last), 1, &[(1, 0), (2, 0), (3, 0)]);
        }
        bus.run(ms(10_000 + phase));
        bus.suppressed.insert(1);
        let died = bus.now;
        bus.power_off(1);
        is_succeeded(&mut bus, died);
    }
}

/// Nodes 2 and 3 cannot ping node 1, and node 4 can: the reports of node 4 keep node 1 alive.
#[test]
fn answer_to_one_peer_outweighs_unanswered_pings_of_others() {
    let mut bus = suppressed(4);
    bus.drops_pings.extend([2, 3].map(|node| (mac(1), mac(node))));
    bus.kill(1);
    is_covered(&mut bus, ms(60_000));
    let died = bus.now;
    bus.power_off_kernel(1);
    bus.run(ms(100));
    is_succeeded(&mut bus, died);
}

#[test]
fn node_that_was_taken_for_dead_comes_back() {
    let mut bus = suppressed(3);
    bus.power_off(1);
    bus.run(ms(5000));
    let since = bus.now;
    bus.kernels.insert(1);
    bus.start(1, None);
    bus.run(ms(10_000));
    assert_eq!((bus.claims_since(since), bus.answers(address(1))), (vec![], vec![(2, mac(2))]));
    // Answers of node 1 from before its power was cut do not count.
    bus.power_off(2);
    bus.run(ms(5000));
    assert_eq!(bus.reached(address(1)), Some(1));
    let died = bus.now;
    bus.power_off(1);
    bus.until(BOUND, |bus| bus.reached(address(1)) == Some(3));
    assert_eq!(bus.claims_since(died), [(3, Reason::Dead); 2]);
}

#[test]
fn peers_are_pinged_seldom() {
    let nodes = 16;
    let mut bus = Bus::new(nodes);
    bus.drop_pings_to((1..=8).map(mac));
    bus.run(ms(100_000));
    for node in 1..=nodes {
        let sent: Vec<_> = bus.pings.iter().filter(|(_, by, _)| *by == node).map(|(at, ..)| *at).collect();
        assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= PING_HABIT_GAP), "node{node}: {sent:?}");
        for other in (1..=nodes).filter(|other| *other != node) {
            let to = bus.pings.iter().filter(|(_, by, to)| (*by, *to) == (node, mac(other))).count();
            assert_eq!(to, 2, "node{node} pings node{other} within 9 s, and a minute later");
        }
    }
}

#[test]
fn only_a_node_found_dead_by_pings_is_still_pinged_and_seldom() {
    let mut bus = suppressed(3);
    bus.power_off(1);
    bus.power_off(3);
    bus.run(ms(5000));
    bus.tell(2, stations([1, 3, 9]));
    let since = bus.now;
    bus.run(ms(130_000));
    // Only the node that was found dead by pings is pinged, to see whether it is back, since no other node is heard:
    // after 5, 10, 20, 40 and 60 s.
    let (dead, others): (Vec<&(Duration, usize, MacAddr)>, Vec<_>) =
        bus.pings.iter().filter(|(at, ..)| *at > since).partition(|(_, _, to)| *to == mac(1));
    assert!(others.is_empty(), "{others:?}");
    assert!(dead.len() <= 5 && dead.windows(2).all(|pair| pair[1].0 - pair[0].0 >= ms(9900)), "{dead:?}");
}

/// Returns the state of node 1 that node 2 shows.
fn shown(bus: &Bus) -> SpeakerState {
    let peers = bus.speakers[&2].snapshot(bus.now).peers;
    peers.into_iter().find(|peer| peer.name == name(1).to_string()).unwrap().state
}

/// The switch answers host probes in the name of every node, and drops the protocol. A node that was found dead by
/// pings is pinged now and then to see whether it is back: the switch does not answer pings.
#[test]
fn switch_does_not_bring_a_dead_node_back() {
    let mut bus = suppressed(3);
    bus.suppressed.extend([2, 3]);
    bus.drops_protocol = true;
    bus.run(ms(5000));
    let died = bus.now;
    bus.power_off(1);
    is_succeeded(&mut bus, died);
    bus.run(ms(120_000));
    assert_eq!(shown(&bus), SpeakerState::Dead);
    // The API does not show the death yet, and ranks node 1 as the fittest.
    bus.publish_announced(address(1), 1, &[(1, 0), (2, 1), (3, 1)], Some(2));
    for _ in 0..100 {
        bus.refresh();
        bus.run(ms(100));
        assert_eq!(bus.reached(address(1)), Some(2), "the address is not handed over");
    }
    bus.kernels.insert(1);
    bus.until(ms(61_000), |bus| shown(bus) == SpeakerState::Silent);
}

/// The speaker of a node is killed and its machine loses power later: the node is found dead also by peers that neither
/// cover for it nor come first among its successors, and so have never asked its kernel themselves.
#[test]
fn covered_node_that_loses_power_is_found_dead_by_every_peer() {
    for drops_pings in [false, true] {
        let mut bus = Bus::new(7);
        if drops_pings {
            bus.drop_pings_to([mac(1)]);
        }
        bus.run(ms(1000));
        bus.publish(address(1), 1, &[(1, 0), (2, 0), (3, 0)]);
        bus.run(ms(10_000));
        bus.kill(1);
        is_covered(&mut bus, ms(5000));
        bus.power_off_kernel(1);
        bus.run(ms(5000));
        for (node, speaker) in &bus.speakers {
            let snapshot = speaker.snapshot(bus.now);
            let peer = snapshot.peers.iter().find(|peer| peer.name == name(1).to_string()).unwrap();
            assert_eq!(peer.state, SpeakerState::Dead, "node {node}, pings dropped: {drops_pings}");
        }
    }
}
