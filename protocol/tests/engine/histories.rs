//! Short histories of a few nodes: the promises of the protocol, one fault at a time.

use crate::bus::{Bus, Losses, address, mac, ms, name};

use herald_protocol::{Event, Input, api_view::Shutdown, claim::Reason, mac::MacAddr};

#[test]
fn first_candidate_announces_after_conflict_detection() {
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
fn killed_speaker_is_covered_and_resumes_its_addresses() {
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
fn dead_node_is_succeeded_within_half_a_second() {
    for nodes in [2, 3, 10] {
        let mut bus = Bus::with_addresses(nodes, &[1, 2, 3]);
        let died = bus.now;
        bus.power_off(1);
        let gap = bus.until(ms(500), |bus| bus.reached(address(1)) == Some(2));
        bus.run(ms(5000));
        assert_eq!(bus.claims_since(died), [(2, Reason::Dead); 3], "{nodes} nodes, {gap:?}");
        // The node comes back, and does not get its addresses back.
        let returned = bus.now;
        bus.kernels.insert(1);
        bus.start(1, None);
        bus.run(ms(5000));
        assert_eq!(bus.claims_since(returned), []);
        assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
    }
}

#[test]
fn node_that_dies_while_it_is_covered_is_succeeded() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.kill(1);
    bus.run(ms(3000));
    bus.power_off_kernel(1);
    bus.until(ms(500), |bus| bus.reached(address(1)) == Some(2));
}

#[test]
fn gone_node_without_claims_is_no_longer_suspected() {
    let mut bus = Bus::with_addresses(4, &[1]);
    // No node probes node 3, which owns nothing, so no node finds it dead; the address of node 1 is covered.
    bus.power_off(3);
    bus.kill(1);
    bus.run(ms(1000));
    let since = bus.now;
    bus.run(ms(2000));
    let about = |node| bus.suspicions.iter().filter(|(at, _, about)| *at > since && *about == name(node).id()).count();
    assert_eq!(about(3), 0);
    assert!(about(1) > 0, "the coverers of node 1 need to know whether it is heard");
}

#[test]
fn successor_whose_first_claim_is_lost_keeps_the_address() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let died = bus.now;
    // No other frame shows the claim before the next candidate's turn, two intervals later.
    bus.loses = Some(Losses::new(2, ms(210)));
    bus.power_off(1);
    bus.run(ms(2000));
    assert_eq!(bus.claims_since(died), [(2, Reason::Dead)]);
    assert_eq!(bus.answers(address(1)), [(2, mac(2))]);
}

#[test]
fn leaving_node_is_succeeded_while_it_answers() {
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
fn restarting_speaker_is_covered_at_once() {
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
fn speakers_that_restart_together_resume_their_addresses() {
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
fn better_class_takes_over_and_the_deposed_owner_is_held_down() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let since = bus.now;
    bus.publish(address(1), 1, &[(2, 0), (3, 0), (1, 1)]);
    bus.run(ms(1000));
    assert_eq!(bus.claims_since(since), [(2, Reason::Class)]);
    // Node 2 is now less fit than nodes 1 and 3; node 1 is first in rank, but was deposed.
    bus.publish(address(1), 1, &[(1, 0), (3, 0), (2, 1)]);
    bus.run(ms(1000));
    assert_eq!(bus.claims_since(since), [(2, Reason::Class), (3, Reason::Class)]);
}

#[test]
fn address_is_not_moved_by_an_old_view() {
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
fn address_of_a_stranger_is_not_claimed() {
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
fn owner_without_an_endpoint_is_succeeded_by_a_node_in_hold_down() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.run(ms(5000));
    // The endpoint is on one node after the other, as in a rolling update: each move deposes the previous owner.
    for node in [2, 3, 1] {
        bus.publish(address(1), 1, &[(node, 0)]);
        bus.refresh();
        bus.run(ms(1000));
        assert_eq!(bus.answers(address(1)), [(node, mac(node))]);
    }
}

#[test]
fn incarnation_that_goes_on_speaking_is_heard_again() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let earlier = bus.speakers.remove(&1).unwrap();
    // The second speaker stands for a second interface of the node that is plugged into the segment and pulled out
    // again.
    bus.start(1, None);
    bus.run(ms(2000));
    bus.speakers.insert(1, earlier);
    bus.run(ms(5000));
    assert_eq!(bus.answers(address(1)).len(), 1);
    bus.publish(address(2), 1, &[(1, 0), (2, 0), (3, 0)]);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(2)), [(1, mac(1))], "the earlier incarnation takes part again");
}
