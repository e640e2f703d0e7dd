//! Short histories of a few nodes: what the protocol promises, one fault at a time.

use crate::bus::{Bus, Losses, address, mac, ms, name, stations};
use std::time::Duration;

use herald_protocol::{Event, Input, api_view::Shutdown, claim::Reason, mac::MacAddr, wire::FrameLimit};

/// The type of a frame, its second byte, that says claims.
const CLAIMS: u8 = 2;

#[test]
fn the_first_candidate_announces_after_asking_whether_the_address_is_free() {
    let mut bus = Bus::new(3);
    bus.run(ms(1000));
    let published = bus.now;
    bus.publish(address(1), 1, &[(2, 0), (1, 0), (3, 0)]);
    bus.run(ms(5000));
    assert_eq!(bus.claims_since(published), [(2, Reason::Vacant)]);
    let rounds: Vec<_> = bus.announced.iter().map(|(at, node, _)| (*node, (*at - published).as_millis())).collect();
    assert_eq!(rounds, [200, 300, 500, 1200, 3200].map(|at| (2, at)));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
}

#[test]
fn a_killed_speaker_is_covered_and_comes_back_to_what_it_had() {
    for restored in [true, false] {
        let mut bus = Bus::with_addresses(3, &[1, 2]);
        let killed = bus.now;
        let saved = bus.kill(1);
        let gap = bus.until(ms(200), |bus| bus.reached(address(1)) == Some(1));
        assert!(gap <= ms(155), "covered after {gap:?}");
        bus.run(ms(5000));
        assert_eq!(bus.answers(address(1)).iter().map(|(_, mac)| *mac).collect::<Vec<_>>(), [mac(1); 2]);
        bus.start(1, restored.then_some((saved, true)));
        bus.until(ms(2000), |bus| bus.answers(address(1)) == [(1, mac(1))]);
        bus.run(ms(2000));
        assert_eq!(bus.answers(address(2)), [(1, mac(1))]);
        let claims = bus.claims_since(killed);
        assert_eq!(claims, [(1, Reason::Resumed); 2], "restored: {restored}");
    }
}

#[test]
fn a_dead_node_is_succeeded_within_half_a_second() {
    for nodes in [2, 3, 10] {
        let mut bus = Bus::with_addresses(nodes, &[1, 2, 3]);
        let died = bus.now;
        bus.power_off(1);
        let gap = bus.until(ms(500), |bus| bus.reached(address(1)) == Some(2));
        bus.run(ms(5000));
        assert_eq!(bus.claims_since(died), [(2, Reason::Dead); 3], "{nodes} nodes, {gap:?}");
        // It comes back, and gets nothing back.
        let returned = bus.now;
        bus.kernels.insert(1);
        bus.start(1, None);
        bus.run(ms(5000));
        assert_eq!(bus.claims_since(returned), []);
        assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
    }
}

#[test]
fn a_node_that_dies_while_it_is_covered_is_succeeded_as_well() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.kill(1);
    bus.run(ms(3000));
    bus.power_off_kernel(1);
    bus.until(ms(500), |bus| bus.reached(address(1)) == Some(2));
}

#[test]
fn who_is_gone_and_holds_nothing_is_suspected_no_more() {
    let mut bus = Bus::with_addresses(4, &[1]);
    // Nobody asks for the address of the one, and so nobody finds it dead; what the other holds is covered.
    bus.power_off(3);
    bus.kill(1);
    bus.run(ms(1000));
    let since = bus.now;
    bus.run(ms(2000));
    let about = |node| bus.suspicions.iter().filter(|(at, _, about)| *at > since && *about == name(node).id()).count();
    assert_eq!(about(3), 0);
    assert!(about(1) > 0, "whether it is heard matters to those that cover for it");
}

#[test]
fn an_owner_that_hears_again_announces_what_a_lost_successor_had() {
    let mut bus = Bus::new(3);
    bus.run(ms(1000));
    bus.publish(address(1), 1, &[(1, 0), (2, 0)]);
    bus.run(ms(5000));
    let deaf = bus.now;
    bus.deaf.insert(1);
    bus.run(ms(5000));
    assert_eq!(bus.claims_since(deaf), [(2, Reason::Deaf)]);
    bus.power_off(2);
    bus.run(ms(3000));
    let hears = bus.now;
    bus.deaf.clear();
    bus.run(ms(1000));
    assert_eq!(bus.claims_since(hears), [], "its claim is the best, and old");
    let told: Vec<_> = bus.announced.iter().filter(|(at, ..)| *at > hears).map(|(_, node, _)| *node).collect();
    assert_eq!(told, [1]);
}

#[test]
fn a_successor_whose_first_claim_is_lost_is_not_claimed_against() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let died = bus.now;
    // Nothing else tells of the claim before the next candidate's turn, two intervals later.
    bus.loses = Some(Losses::new(2, ms(210)));
    bus.power_off(1);
    bus.run(ms(2000));
    assert_eq!(bus.claims_since(died), [(2, Reason::Dead)]);
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
}

#[test]
fn a_deaf_node_takes_nothing_and_loses_what_it_held() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.deaf.insert(1);
    bus.run(ms(3000));
    assert_eq!(bus.claims_since(since), [(2, Reason::Deaf)]);
    let since = bus.now;
    bus.deaf.insert(3);
    bus.run(ms(3000));
    assert_eq!(bus.claims_since(since), []);
    bus.deaf.clear();
    bus.run(ms(3000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
    assert_eq!(bus.claims_since(since), []);
}

#[test]
fn who_falls_deaf_while_it_waits_for_its_turn_claims_nothing() {
    // The owner loses power, the first candidate soon after, and the second is deaf before it knows that: when its turn
    // comes it is the first.
    for (off, deaf) in (0..100).step_by(20).flat_map(|off| (200..340).step_by(20).map(move |deaf| (off, deaf))) {
        let mut bus = Bus::with_addresses(3, &[1]);
        let begun = bus.now;
        bus.power_off(1);
        bus.run(ms(off));
        bus.power_off(2);
        bus.run(ms(deaf).saturating_sub(ms(off)));
        bus.deaf.insert(3);
        bus.run(ms(2000));
        assert_eq!(bus.claims_since(begun), [], "first candidate dead after {off} ms, deaf after {deaf} ms");
        bus.deaf.clear();
        bus.run(ms(1000));
        assert_eq!(bus.claims_since(begun), [(3, Reason::Dead)]);
    }
}

#[test]
fn a_node_that_falls_deaf_leaves_its_last_rounds_to_its_successor() {
    let mut bus = Bus::new(3);
    bus.publish(address(1), 1, &[(1, 0), (2, 0), (3, 0)]);
    bus.until(ms(1000), |bus| bus.answers(address(1)) == [(1, mac(1))]);
    bus.deaf.insert(1);
    let since = bus.now;
    bus.run(ms(5000));
    let taken = bus.announced.iter().find(|(at, node, _)| *at > since && *node == 2).unwrap().0;
    let late = bus.announced.iter().filter(|(at, node, _)| *at > taken && *node == 1).count();
    assert_eq!(late, 0, "{:?}", bus.announced);
}

#[test]
fn an_owner_that_hears_nothing_does_not_claim_for_a_new_object() {
    let mut bus = Bus::with_addresses(1, &[1]);
    let since = bus.now;
    bus.deaf.insert(1);
    bus.publish(address(1), 2, &[(1, 0)]);
    bus.run(ms(5000));
    assert_eq!(bus.claims_since(since), []);
    bus.deaf.clear();
    bus.run(ms(2000));
    assert_eq!(bus.claims_since(since), [(1, Reason::Recreated)]);
}

#[test]
fn what_was_deleted_while_a_lone_node_restarted_is_not_resumed() {
    let mut bus = Bus::with_addresses(1, &[1, 2]);
    let saved = bus.kill(1);
    bus.unpublish(address(1));
    bus.run(ms(500));
    let since = bus.now;
    bus.start(1, Some((saved, true)));
    bus.tell(1, Input::Vip(address(1), None));
    bus.run(ms(3000));
    assert_eq!(bus.claims_since(since), [(1, Reason::Resumed)]);
    assert_eq!((bus.reached(address(1)), bus.reached(address(2))), (None, Some(1)));
}

#[test]
fn a_mute_owner_is_succeeded_and_stops() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.mute.insert(1);
    bus.run(ms(1000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
}

#[test]
fn who_leaves_is_succeeded_while_it_answers() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.tell(1, Input::Shutdown(Shutdown::Leaving));
    bus.until(ms(500), |bus| {
        assert!(!bus.answers(address(1)).is_empty());
        bus.answers(address(1)) == [(2, mac(2))]
    });
    bus.run(ms(100));
    assert_eq!(bus.claims_since(since), [(2, Reason::Leaving)]);
    assert!(bus.events_since(since).iter().any(|(_, node, event)| (*node, event) == (1, &Event::Finished)));
}

#[test]
fn who_restarts_is_covered_at_once() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.tell(1, Input::Shutdown(Shutdown::Restarting));
    bus.run(ms(21));
    assert!(bus.events_since(since).iter().any(|(_, node, event)| (*node, event) == (1, &Event::Finished)));
    let saved = bus.kill(1);
    assert_eq!(bus.reached(address(1)), Some(1));
    bus.run(ms(500));
    bus.start(1, Some((saved, true)));
    bus.run(ms(2000));
    assert_eq!(bus.claims_since(since), [(1, Reason::Resumed)]);
}

#[test]
fn every_speaker_at_once_comes_back_to_what_it_had() {
    let mut bus = Bus::with_addresses(3, &[1, 2]);
    bus.publish(address(3), 1, &[(3, 0), (1, 0), (2, 0)]);
    bus.run(ms(1000));
    let saved: Vec<_> = (1..=3).map(|node| bus.kill(node)).collect();
    bus.run(ms(700));
    let since = bus.now;
    for (node, saved) in (1..=3).zip(saved) {
        bus.start(node, Some((saved, true)));
    }
    let gap = bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(1) && bus.reached(address(3)) == Some(3));
    assert!(gap <= ms(300), "{gap:?}");
    bus.run(ms(2000));
    let mut claims = bus.claims_since(since);
    claims.sort();
    assert_eq!(claims, [(1, Reason::Resumed), (1, Reason::Resumed), (3, Reason::Resumed)]);
}

#[test]
fn a_better_class_takes_over_and_the_deposed_one_stays_down() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.publish(address(1), 1, &[(2, 0), (3, 0), (1, 1)]);
    bus.run(ms(1000));
    assert_eq!(bus.claims_since(since), [(2, Reason::Class)]);
    // Now 2 is worse than 1 and 3: 1 is first in rank, but was deposed.
    bus.publish(address(1), 1, &[(1, 0), (3, 0), (2, 1)]);
    bus.run(ms(1000));
    assert_eq!(bus.claims_since(since), [(2, Reason::Class), (3, Reason::Class)]);
}

#[test]
fn nothing_moves_by_an_old_view() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.run(ms(31_000));
    let since = bus.now;
    bus.publish(address(1), 1, &[(2, 0), (3, 0), (1, 1)]);
    bus.run(ms(5000));
    assert_eq!(bus.claims_since(since), []);
    bus.refresh();
    bus.run(ms(1000));
    assert_eq!(bus.claims_since(since), [(2, Reason::Class)]);
}

#[test]
fn a_strangers_address_is_not_claimed() {
    let mut bus = Bus::new(3);
    bus.run(ms(1000));
    let stranger = MacAddr([2, 9, 9, 9, 9, 9]);
    bus.stranger(address(1), stranger);
    bus.publish(address(1), 1, &[(1, 0), (2, 0), (3, 0)]);
    bus.run(ms(20_000));
    assert_eq!(bus.announced, []);
    let conflict = Event::Conflict { address: address(1), mac: stranger };
    assert!(bus.events.iter().any(|(_, node, event)| (*node, event) == (1, &conflict)));
}

#[test]
fn a_deleted_address_is_not_covered() {
    let mut bus = Bus::with_addresses(3, &[1, 2]);
    bus.kill(1);
    bus.until(ms(500), |bus| bus.reached(address(1)) == Some(1) && bus.reached(address(2)) == Some(1));
    bus.unpublish(address(1));
    assert_eq!(bus.answers(address(1)), []);
    bus.run(ms(5000));
    assert_eq!((bus.reached(address(1)), bus.reached(address(2))), (None, Some(1)));
}

#[test]
fn a_deleted_address_is_not_resurrected_by_those_who_have_not_heard() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.tell(1, Input::Vip(address(1), None));
    bus.run(ms(5000));
    assert_eq!(bus.answers(address(1)), []);
    assert_eq!(bus.claims_since(since), []);
    bus.publish(address(1), 2, &[(3, 0), (1, 0), (2, 0)]);
    bus.run(ms(1000));
    assert_eq!(bus.answers(address(1)), [(3, mac(3))]);
}

#[test]
fn an_owner_that_missed_the_deletion_is_superseded_by_the_new_object() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.speakers.remove(&1).map(|cut_off| {
        bus.publish(address(1), 2, &[(3, 0), (1, 0), (2, 0)]);
        bus.speakers.insert(1, cut_off)
    });
    bus.run(ms(1000));
    assert_eq!(bus.answers(address(1)), [(3, mac(3))]);
}

#[test]
fn a_stalled_owner_listens_before_it_answers() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let stalled = bus.speakers.remove(&1).unwrap();
    bus.power_off_kernel(1);
    bus.run(ms(2000));
    bus.kernels.insert(1);
    bus.speakers.insert(1, stalled);
    // It is run, and finds out.
    bus.run(ms(1));
    bus.until(ms(300), |bus| {
        assert!(bus.answers(address(1)).iter().all(|(_, given)| *given == mac(2)), "{:?}", bus.answers(address(1)));
        bus.events.iter().any(|(_, node, event)| *node == 1 && matches!(event, Event::Lost { .. }))
    });
    assert_eq!(bus.reached(address(1)), Some(2), "{}", name(2));
}

#[test]
fn without_a_single_hello_there_is_one_owner_and_failover_works() {
    let mut bus = Bus::new(3);
    bus.drops_protocol = true;
    bus.run(ms(3000));
    let since = bus.now;
    // The API says that node 1 announces the first, and nobody the second.
    bus.publish_announced(address(1), 1, &[(1, 0), (2, 0), (3, 0)], Some(1));
    bus.publish(address(2), 1, &[(2, 0), (1, 0), (3, 0)]);
    for _ in 0..100 {
        bus.run(ms(100));
        assert!(bus.answers(address(1)).iter().all(|(_, given)| *given == mac(1)), "{:?}", bus.answers(address(1)));
        assert!(bus.answers(address(2)).iter().all(|(_, given)| *given == mac(2)), "{:?}", bus.answers(address(2)));
    }
    assert_eq!(bus.claims_since(since), [(1, Reason::Vacant), (2, Reason::Vacant)]);
    assert!(bus.events.iter().any(|(_, node, event)| *node == 2 && *event == Event::PeerUnheard(name(1))));
    // The speaker stops: covered. Then its node dies: succeeded.
    bus.kill(1);
    bus.run(ms(1000));
    assert_eq!(bus.reached(address(1)), Some(1));
    bus.power_off_kernel(1);
    bus.until(ms(1500), |bus| bus.reached(address(1)) == Some(2));
    bus.run(ms(10_000));
    assert_eq!(bus.reached(address(1)), Some(2));
}

#[test]
fn a_switch_that_begins_to_drop_the_protocol_moves_nothing() {
    let mut bus = Bus::with_addresses(3, &[1, 2]);
    let since = bus.now;
    bus.drops_protocol = true;
    for _ in 0..9000 {
        bus.run(ms(100));
        assert_eq!(bus.reached(address(1)), Some(1));
    }
    assert_eq!(bus.claims_since(since), []);
    bus.power_off(1);
    bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(2));
    bus.run(ms(2000));
    assert_eq!(bus.reached(address(2)), Some(2));
    bus.drops_protocol = false;
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
}

#[test]
fn cover_ends_with_a_move_after_ten_minutes() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.kill(1);
    let since = bus.now;
    bus.run(ms(599_000));
    assert_eq!((bus.reached(address(1)), bus.claims_since(since)), (Some(1), vec![]));
    bus.run(ms(3000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
    assert_eq!(bus.claims_since(since), [(2, Reason::CoverExpired)]);
    assert!(bus.events_since(since).iter().any(|(.., event)| *event == Event::CoveringLong(name(1).id())));
}

#[test]
fn a_better_node_that_returns_takes_its_place_only_when_it_has_settled() {
    let mut bus = Bus::new(3);
    bus.publish(address(1), 1, &[(1, 0), (2, 1), (3, 1)]);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(1)), [(1, mac(1))]);
    bus.tell(1, Input::Carrier(false));
    bus.deaf.insert(1);
    bus.mute.insert(1);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
    bus.deaf.clear();
    bus.mute.clear();
    bus.refresh();
    bus.tell(1, Input::Carrier(true));
    let taken = bus.until(ms(10_000), |bus| bus.answers(address(1)) == [(1, mac(1))]);
    assert!(taken >= herald_protocol::timers::SETTLED, "after {taken:?}");
}

#[test]
fn who_lost_its_endpoint_is_succeeded_by_one_that_is_held_down() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.run(ms(5000));
    // An endpoint on one node after the other, as in a rolling update: each move deposes the one before.
    for node in [2, 3, 1] {
        bus.publish(address(1), 1, &[(node, 0)]);
        bus.refresh();
        bus.run(ms(1000));
        assert_eq!(bus.answers(address(1)), [(node, mac(node))]);
    }
}

#[test]
fn of_two_runs_of_a_node_the_one_that_goes_on_speaking_is_heard_again() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let earlier = bus.speakers.remove(&1).unwrap();
    // As if a second interface of the node had been plugged into the segment, and pulled out again.
    bus.start(1, None);
    bus.run(ms(2000));
    bus.speakers.insert(1, earlier);
    bus.run(ms(5000));
    assert_eq!(bus.answers(address(1)).len(), 1);
    bus.publish(address(2), 1, &[(1, 0), (2, 0), (3, 0)]);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(2)), [(1, mac(1))], "it takes part again");
}

/// `kubectl delete node` of a node whose speaker is silent and whose kernel answers: the API lists it no longer, so that
/// nobody knows where to ask for it.
#[test]
fn silent_node_that_leaves_the_api_is_asked_for_nothing() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.kill(1);
    bus.run(ms(2000));
    // This speaker knows node1 from what others say of it, and from the API.
    bus.kill(2);
    bus.run(ms(500));
    bus.start(2, None);
    bus.run(ms(3000));
    assert_eq!(bus.reached(address(1)), Some(1), "node1 is covered");
    for node in [2, 3] {
        bus.tell(node, stations([5 - node]));
    }
    // `run` fails if a timer stays due.
    bus.run(ms(5000));
    let told = |node| {
        bus.events.iter().filter(move |(_, by, event)| *by == node && *event == Event::CannotBeAsked(name(1).id()))
    };
    assert_eq!(told(2).count(), 1, "it never heard an address of node1");
    assert_eq!(told(3).count(), 0, "node1 said its address when it was heard");
    bus.publish(address(2), 1, &[(2, 0), (3, 0)]);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(2)), [(2, mac(2))], "the others are at work");
}

/// A node that is heard one way only is asked by way of the API's list, and then leaves that list.
#[test]
fn node_heard_one_way_that_leaves_the_api_is_asked_for_nothing() {
    let mut bus = Bus::new(3);
    bus.deaf.insert(1);
    bus.run(ms(3000));
    bus.publish_announced(address(1), 1, &[(1, 0), (2, 0), (3, 0)], Some(1));
    bus.run(ms(3000));
    for node in [2, 3] {
        bus.tell(node, stations([5 - node]));
    }
    bus.run(ms(5000));
    bus.publish(address(2), 1, &[(3, 0), (2, 0)]);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(2)), [(3, mac(3))], "the others are at work");
}

/// Sixty addresses on node1, all announced; then node2 restarts as a new pod, on links that carry so many bytes.
fn replaced_on_short_links(carries: usize, limit: Option<FrameLimit>) -> Bus {
    let mut bus = Bus::new(3);
    bus.run(ms(1000));
    let order: Vec<_> = (1..=3).map(|node| (node, 0)).collect();
    for last in 1..=60 {
        bus.publish(address(last), 1, &order);
    }
    bus.run(ms(5000));
    for last in 1..=60 {
        bus.publish_announced(address(last), 1, &order, Some(1));
    }
    bus.carries = carries;
    for (node, limit) in (1..=3).filter_map(|node| Some((node, limit?))) {
        bus.tell(node, Input::FrameLimit(limit));
    }
    bus.kill(2);
    bus.run(ms(500));
    bus.start(2, None);
    if let Some(limit) = limit {
        bus.tell(2, Input::FrameLimit(limit));
    }
    bus.run(ms(60_000));
    bus
}

fn addresses_of_node1(bus: &Bus) -> usize {
    (1..=60).filter(|last| bus.answers(address(*last)) == [(1, mac(1))]).count()
}

#[test]
fn claims_fit_the_frames_of_a_short_link() {
    let bus = replaced_on_short_links(1300, Some(FrameLimit::of_mtu(1300)));
    assert_eq!(addresses_of_node1(&bus), 60);
    are_covered(bus);
}

/// Sixty addresses of node1, which node2 has learned if it covers for them as node3 does.
fn are_covered(mut bus: Bus) {
    bus.kill(1);
    bus.run(ms(1000));
    let covered = (1..=60).filter(|last| bus.reached(address(*last)) == Some(1)).count();
    assert_eq!(covered, 60, "node2 has learned all of them, and covers as node3 does");
}

/// A port or a tunnel on the way carries less than the node's own link: the lists are sent in shorter frames then, and nobody
/// has to be told.
#[test]
fn claims_that_are_asked_for_in_vain_come_in_short_frames() {
    let bus = replaced_on_short_links(1300, None);
    assert_eq!(addresses_of_node1(&bus), 60, "claims: {:?}", bus.claims_since(ms(7000)));
    assert_eq!(told_lacking(&bus), []);
    are_covered(bus);
}

/// When node2 told that the claims of node1 do not come through.
fn told_lacking(bus: &Bus) -> Vec<Duration> {
    let lacks = |node: usize, event: &Event| node == 2 && *event == Event::ClaimsLacking(name(1).id());
    bus.events.iter().filter(|(_, node, event)| lacks(*node, event)).map(|(at, ..)| *at).collect()
}

/// The links carry not even the shortest frames of a list: a peer's claims that do not come through are taken to be on what
/// seems vacant.
#[test]
fn claims_that_do_not_come_through_make_nothing_vacant() {
    let mut bus = replaced_on_short_links(500, None);
    assert_eq!(addresses_of_node1(&bus), 60, "claims: {:?}", bus.claims_since(ms(7000)));
    assert_eq!(told_lacking(&bus).len(), 1, "once a minute");
    bus.sent.clear();
    bus.run(ms(10_000));
    let lists = bus.sent.iter().filter(|(node, frame)| *node == 1 && frame[1] == CLAIMS).count();
    assert!((10..=60).contains(&lists), "sixty claims are five short frames, a list a second: {lists} frames");
}
