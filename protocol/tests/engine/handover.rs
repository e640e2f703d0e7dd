//! Hand-over by way of the API, where Hellos do not pass.

use std::time::Duration;

use herald_protocol::{
    Event, Input, Withdrawal,
    api_view::{GivenUp, Packet},
    claim::Reason,
};

use crate::bus::{Bus, address, mac, ms, name};

const SECOND: Duration = Duration::from_secs(1);

/// Node 1 announces an address on a network that drops the protocol; no speaker ever heard another.
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

/// The edge of node 1 writes what it has done, and every watch shows it a little later.
fn relay_hand_over(bus: &mut Bus, since: Duration) -> Duration {
    let took = bus.until(5 * SECOND, |bus| handed_over(bus, since));
    bus.run(ms(20));
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    took
}

/// Runs, and sees at each millisecond that no two nodes are reached.
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

/// All had heard each other before: the fitter node knows the owner's claim, and takes the address as from any silent owner
/// that is less fit.
#[test]
fn silent_owner_whose_claim_is_known_is_succeeded_at_once() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.publish_announced(address(1), 1, &[(1, 0), (2, 0), (3, 0)], Some(1));
    bus.drops_protocol = true;
    bus.run(10 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(1), "nothing moves for a network that drops the protocol");
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0), (3, 0)], Some(1));
    bus.refresh();
    // The former owner judges what it overhears after 100 ms.
    bus.until(ms(110), |bus| bus.reached(address(1)) == Some(2));
    assert_eq!(bus.claims_since(begun), [(2, Reason::Class)]);
    bus.publish_announced(address(1), 1, &[(2, 0), (3, 0)], Some(2));
    run_with_one_mac(&mut bus, 90 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
    // Hellos pass again: everybody hears how it stands.
    bus.drops_protocol = false;
    run_with_one_mac(&mut bus, 5 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// All had heard each other before, and two watches are late: the owner knows first that another is fitter. When that one
/// knows as well, the third node still covers for the former owner, until it overhears the new one.
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
    assert_eq!(bus.reached(address(1)), Some(1), "others cover for it, by what they know");
    bus.late_views.remove(&2);
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    bus.until(ms(250), |bus| bus.answers(address(1)).iter().any(|answer| *answer == (2, mac(2))));
    assert_eq!(bus.claims_since(begun), [(2, Reason::Vacant)]);
    // An announcement is judged after 100 ms.
    bus.run(ms(110));
    run_with_one_mac(&mut bus, 20 * SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// Nobody has ever heard a claim, but by the API all know the owner: two cover for it. The watch of one of them shows the
/// hand-over after that of the successor.
#[test]
fn successor_waits_for_those_who_cover() {
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
    assert_eq!(bus.reached(address(1)), Some(1), "node 3 covers for it");
    bus.late_views.remove(&3);
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    run_with_one_mac(&mut bus, SECOND);
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// The API server has gone since: nobody learns of it.
#[test]
fn what_nobody_takes_is_taken_back_and_not_offered_again_at_once() {
    let mut bus = without_hellos(2);
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0)], Some(1));
    bus.refresh();
    bus.until(5 * SECOND, |bus| handed_over(bus, begun));
    // The other speaker's view still names the owner: it covers for it.
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

/// With two nodes nobody else is heard while a speaker restarts.
#[test]
fn nothing_is_handed_over_to_a_speaker_that_restarts() {
    let mut bus = Bus::with_addresses(2, &[1]);
    let begun = bus.now;
    let saved = bus.kill(2);
    bus.run(ms(500));
    bus.publish_announced(address(1), 1, &[(2, 0), (1, 50)], Some(1));
    bus.run(ms(1000));
    bus.start(2, Some((saved, true)));
    bus.run(10 * SECOND);
    assert!(!handed_over(&bus, begun));
    assert_eq!(bus.reached(address(1)), Some(2), "it claims by itself");
}

#[test]
fn nothing_is_handed_over_to_a_dead_node() {
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
fn nothing_is_handed_over_by_an_old_view() {
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

/// The link of the owner is away until another node has taken the address. The owner cannot hear that, but the API says so.
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

/// The kernel of node 3 announces the address for a moment. Its speaker does not know of it; the owner's says by the API that
/// it has yielded.
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
