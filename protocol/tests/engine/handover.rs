//! Hand-over by way of the API, where Hellos do not pass.

use std::time::Duration;

use herald_protocol::{
    Event, Input, Withdrawal,
    api_view::{GivenUp, Packet},
    claim::Reason,
};

use crate::bus::{Bus, address, mac, ms, name};

const SECOND: Duration = Duration::from_secs(1);

/// Returns nodes on a network that drops the protocol, of which node 1 announces an address; no speaker has ever heard
/// another.
fn without_hellos(nodes: usize) -> Bus {
    let mut bus = Bus::new(nodes);
    bus.drops_protocol = true;
    bus.run(ms(3000));
    bus.publish(address(1), 1, &[(1, 0)]);
    bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(1));
    bus.run(ms(4000));
    bus
}

fn handed_over(bus: &Bus, since: Duration) -> bool {
    let handed = |(at, node, event): &(Duration, usize, Event)| {
        *at >= since
            && *node == 1
            && matches!(event, Event::Withdrawn { why: Withdrawal::HandedOver(to), .. } if *to == name(2).id())
    };
    bus.events.iter().any(handed)
}

/// Waits until node 1 has handed the address over, and shows that in every view 20 ms later, as a write of the status
/// does. Returns the time until the hand-over.
fn relay_hand_over(bus: &mut Bus, since: Duration) -> Duration {
    let took = bus.until(5 * SECOND, |bus| handed_over(bus, since));
    bus.run(ms(20));
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    took
}

/// Lets time pass, and asserts at each millisecond that no two nodes are reached.
fn run_with_one_mac(bus: &mut Bus, time: Duration) {
    let end = bus.now + time;
    while bus.now < end {
        bus.run(ms(1));
        let given: std::collections::BTreeSet<_> = bus.answers(address(1)).into_iter().map(|(_, mac)| mac).collect();
        assert!(given.len() <= 1, "{given:?} at {:?}", bus.now);
    }
}

/// The endpoint of a Local address moves; a node is drained; a node is NotReady.
#[test]
fn unfit_owner_hands_over_to_a_node_it_never_heard() {
    for candidates in [&[(2, 0)][..], &[(2, 0), (3, 0)], &[(2, 0), (3, 0), (1, 50)]] {
        let mut bus = without_hellos(3);
        let begun = bus.now;
        bus.publish_announced(address(1), 1, candidates, Some(1));
        bus.refresh();
        relay_hand_over(&mut bus, begun);
        let unanswered = bus.until(SECOND, |bus| bus.reached(address(1)) == Some(2));
        assert!((ms(200)..ms(300)).contains(&unanswered), "{unanswered:?}");
        assert!(bus.now < begun + 5 * SECOND);
        bus.publish_announced(address(1), 1, candidates, Some(2));
        run_with_one_mac(&mut bus, 90 * SECOND);
        assert_eq!(bus.reached(address(1)), Some(2), "{candidates:?}");
    }
}

/// All nodes had heard each other before: the fitter node knows the owner's claim, and takes the address as from any
/// silent owner that is less fit.
#[test]
fn silent_owner_whose_claim_is_known_is_succeeded_at_once() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.publish_announced(address(1), 1, &[(1, 0), (2, 0), (3, 0)], Some(1));
    bus.drops_protocol = true;
    bus.run(10 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(1), "a network that drops the protocol moves nothing");
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0), (3, 0)], Some(1));
    bus.refresh();
    // The former owner judges overheard announcements after 100 ms.
    bus.until(ms(110), |bus| bus.reached(address(1)) == Some(2));
    assert_eq!(bus.claims_since(begun), [(2, Reason::Class)]);
    bus.publish_announced(address(1), 1, &[(2, 0), (3, 0)], Some(2));
    run_with_one_mac(&mut bus, 90 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
    // Hellos pass again, and every node learns the claims.
    bus.drops_protocol = false;
    run_with_one_mac(&mut bus, 5 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// All nodes had heard each other before, and two watches are late: the owner knows first that another node is fitter.
/// When the fitter node knows as well, the third node still covers for the former owner, until the third node overhears
/// the new one.
#[test]
fn late_watches_make_no_second_link_layer_address() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.drops_protocol = true;
    bus.run(10 * SECOND);
    let begun = bus.now;
    bus.late_views.extend([2, 3]);
    bus.publish_announced(address(1), 1, &[(2, 0)], Some(1));
    bus.refresh();
    bus.until(5 * SECOND, |bus| handed_over(bus, begun));
    assert_eq!(bus.reached(address(1)), Some(1), "others cover for node 1, by their views");
    bus.late_views.remove(&2);
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    bus.until(ms(250), |bus| bus.answers(address(1)).iter().any(|answer| *answer == (2, mac(2))));
    assert_eq!(bus.claims_since(begun), [(2, Reason::Vacant)]);
    // An announcement is judged after 100 ms.
    bus.run(ms(110));
    run_with_one_mac(&mut bus, 20 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// No node has ever heard a claim, but all know the owner by the API, and two nodes cover for the owner. The watch of
/// one coverer shows the hand-over after the watch of the successor does.
#[test]
fn successor_waits_for_the_coverers() {
    let mut bus = without_hellos(3);
    bus.publish_announced(address(1), 1, &[(1, 0)], Some(1));
    bus.until(SECOND, |bus| bus.answers(address(1)).len() == 3);
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0), (3, 0)], Some(1));
    bus.refresh();
    bus.until(5 * SECOND, |bus| handed_over(bus, begun));
    bus.late_views.insert(3);
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    run_with_one_mac(&mut bus, ms(100));
    assert_eq!(bus.reached(address(1)), Some(1), "node 3 covers for node 1");
    bus.late_views.remove(&3);
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    run_with_one_mac(&mut bus, SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// The API server has gone since, so no other node learns of the hand-over.
#[test]
fn address_that_no_node_takes_is_taken_back_and_not_offered_again_at_once() {
    let mut bus = without_hellos(2);
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0)], Some(1));
    bus.refresh();
    bus.until(5 * SECOND, |bus| handed_over(bus, begun));
    // The view of the other speaker still names the owner, so that speaker covers for the owner.
    let taken_back = bus.until(2 * SECOND, |bus| bus.answers(address(1)).iter().any(|(node, _)| *node == 1));
    assert!(taken_back >= ms(900) && taken_back <= ms(1100), "{taken_back:?}");
    assert_eq!(bus.claims_since(begun), [(1, Reason::Vacant)]);
    let again = bus.now;
    for _ in 0..5 {
        bus.refresh();
        bus.run(11 * SECOND);
    }
    assert!(!handed_over(&bus, again));
    assert_eq!(bus.reached(address(1)), Some(1));
}

/// The owner is one of two nodes, and hears no other node while the other speaker restarts.
#[test]
fn address_is_not_handed_over_to_a_speaker_that_restarts() {
    let mut bus = Bus::with_addresses(2, &[1]);
    let begun = bus.now;
    let saved = bus.kill(2);
    bus.run(ms(500));
    bus.publish_announced(address(1), 1, &[(2, 0), (1, 50)], Some(1));
    bus.run(ms(1000));
    bus.start(2, Some((saved, true)));
    bus.run(10 * SECOND);
    assert!(!handed_over(&bus, begun));
    assert_eq!(bus.reached(address(1)), Some(2), "node 2 claims without a hand-over");
}

#[test]
fn address_is_not_handed_over_to_a_dead_node() {
    let mut bus = without_hellos(3);
    bus.power_off(2);
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0), (1, 50)], Some(1));
    for _ in 0..3 {
        bus.refresh();
        run_with_one_mac(&mut bus, 10 * SECOND);
    }
    assert!(!handed_over(&bus, begun));
    assert_eq!(bus.reached(address(1)), Some(1));
}

#[test]
fn address_is_not_handed_over_by_an_old_view() {
    let mut bus = without_hellos(2);
    bus.run(31 * SECOND);
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0)], Some(1));
    bus.run(20 * SECOND);
    assert!(!handed_over(&bus, begun));
    bus.refresh();
    relay_hand_over(&mut bus, begun);
    bus.until(SECOND, |bus| bus.reached(address(1)) == Some(2));
}

/// The owner's link is down until another node has taken the address. The owner cannot hear the successor, but the API
/// names the successor.
#[test]
fn owner_whose_link_comes_back_leaves_the_address_to_its_successor() {
    let mut bus = without_hellos(3);
    bus.publish_announced(address(1), 1, &[(1, 0), (2, 0), (3, 0)], Some(1));
    bus.run(SECOND);
    bus.tell(1, Input::Carrier(false));
    bus.kernels.remove(&1);
    bus.until(2 * SECOND, |bus| bus.reached(address(1)) == Some(2));
    bus.publish_announced(address(1), 1, &[(2, 0), (1, 0), (3, 0)], Some(2));
    bus.run(5 * SECOND);
    let back = bus.now;
    bus.kernels.insert(1);
    bus.tell(1, Input::Carrier(true));
    bus.refresh();
    run_with_one_mac(&mut bus, 5 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
    assert_eq!(bus.claims_since(back), []);
}

/// The kernel of node 3 announces the address for a moment. The speaker of node 3 does not know of the announcement;
/// the owner's speaker shows by the API that it has yielded.
#[test]
fn address_that_a_kernel_took_and_let_go_is_claimed_again() {
    for candidates in [&[(1, 0), (2, 0), (3, 0)][..], &[(1, 0)]] {
        let mut bus = without_hellos(3);
        bus.publish_announced(address(1), 1, candidates, Some(1));
        bus.run(SECOND);
        let announcement = Packet { source: mac(3), binding: Some((address(1), mac(3))), asks: Some(address(1)) };
        for node in [1, 2] {
            let now = bus.now;
            bus.speakers.get_mut(&node).unwrap().handle_packet(now, &announcement);
        }
        let yielded = |bus: &Bus| {
            let why = Withdrawal::TakenByUnheard(name(3).id());
            bus.events.iter().any(|(_, node, event)| {
                *node == 1 && matches!(event, Event::Withdrawn { why: seen, .. } if *seen == why)
            })
        };
        bus.until(ms(200), yielded);
        bus.publish_given_up(address(1), GivenUp::Yielded(name(1).id()));
        bus.until(ms(1100), |bus| bus.reached(address(1)).is_some());
        let owner = bus.reached(address(1));
        bus.publish_announced(address(1), 1, candidates, owner);
        run_with_one_mac(&mut bus, 30 * SECOND);
        assert_eq!(bus.reached(address(1)), owner);
    }
}
