//! Hand-overs by way of the API that are repeated, or whose end the owner does not see.

use std::time::Duration;

use herald_protocol::{Event, Input, Withdrawal, api_view::GivenUp};

use crate::bus::{Bus, address, ms, name};

const SECOND: Duration = Duration::from_secs(1);

/// Returns two nodes on a network that drops the protocol; node 1 announces an address.
fn without_hellos() -> Bus {
    let mut bus = Bus::new(2);
    bus.drops_protocol = true;
    bus.run(ms(3000));
    bus.publish(address(1), 1, &[(1, 0)]);
    bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(1));
    bus.run(ms(4000));
    bus
}

/// Lets only the node `to` announce the address from now on, by every view, and asserts that `from` hands the address
/// over within `limit`.
fn moves(bus: &mut Bus, from: usize, to: usize, limit: Duration) {
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(to, 0)], Some(from));
    bus.refresh();
    bus.until(limit, |bus| {
        bus.events.iter().any(|(at, node, event)| {
            let why = Withdrawal::HandedOver(name(to).id());
            *at >= begun && *node == from && *event == Event::Withdrawn { address: address(1), why }
        })
    });
    bus.run(ms(20));
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(from).id()));
    bus.until(SECOND, |bus| bus.reached(address(1)) == Some(to));
    bus.publish_announced(address(1), 1, &[(to, 0)], Some(to));
}

/// The pods of a Local Service are replaced time after time. An earlier move does not delay the next one: the owner has
/// no endpoint, so all that reaches it is dropped.
#[test]
fn address_that_was_taken_is_handed_over_again_at_once() {
    let mut bus = without_hellos();
    for (from, to) in [(1, 2), (2, 1), (1, 2), (2, 1), (1, 2)] {
        moves(&mut bus, from, to, 5 * SECOND);
        bus.run(10 * SECOND);
        assert_eq!(bus.reached(address(1)), Some(to));
    }
}

/// The machine of the former owner stalls just after the hand-over. The successor takes the address meanwhile, and the
/// former owner hears of that from its socket's buffer only after it goes on.
#[test]
fn address_is_not_taken_back_while_the_former_owner_catches_up_with_a_stall() {
    let mut bus = without_hellos();
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0)], Some(1));
    bus.refresh();
    bus.until(5 * SECOND, |bus| {
        bus.events.iter().any(|(at, node, event)| {
            *at >= begun && *node == 1 && matches!(event, Event::Withdrawn { why: Withdrawal::HandedOver(_), .. })
        })
    });
    let mut paused = bus.speakers.remove(&1).unwrap();
    bus.publish_given_up(address(1), GivenUp::HandedOver(name(1).id()));
    bus.until(SECOND, |bus| bus.reached(address(1)) == Some(2));
    bus.run(8 * SECOND);
    let resumed = bus.now;
    paused.handle_timeout(resumed);
    bus.speakers.insert(1, paused);
    bus.run(ms(60));
    let taken: Vec<_> = bus.claims_since(resumed).into_iter().filter(|(node, _)| *node == 1).collect();
    assert_eq!(taken, [], "a node that catches up with a stall claims nothing");
}

/// The link of the former owner goes down just after it has handed over.
#[test]
fn address_is_not_taken_back_without_a_carrier() {
    let mut bus = without_hellos();
    let begun = bus.now;
    bus.publish_announced(address(1), 1, &[(2, 0)], Some(1));
    bus.refresh();
    bus.until(5 * SECOND, |bus| {
        bus.events.iter().any(|(at, node, event)| {
            *at >= begun && *node == 1 && matches!(event, Event::Withdrawn { why: Withdrawal::HandedOver(_), .. })
        })
    });
    bus.deaf.insert(1);
    bus.mute.insert(1);
    bus.tell(1, Input::Carrier(false));
    let lost = bus.now;
    bus.run(5 * SECOND);
    assert_eq!(bus.claims_since(lost).into_iter().filter(|(node, _)| *node == 1).count(), 0);
    // The link comes back while the API server is away: the address does not stay lost.
    bus.deaf.clear();
    bus.mute.clear();
    bus.power_off(2);
    bus.tell(1, Input::Carrier(true));
    bus.until(5 * SECOND, |bus| bus.reached(address(1)) == Some(1));
}

/// The cable of an owner is pulled, another node takes the address over, and the cable is plugged in again. Neither
/// node hears the other's Hellos. If the API names the other node, the address stays there. If the API was away, the
/// address stays there as well: the other node announces it as soon as that node hears that the former owner is back,
/// and the former owner yields.
#[test]
fn owner_whose_link_comes_back_makes_no_second_link_layer_address() {
    for named in [2, 1] {
        let mut bus = without_hellos();
        bus.publish_announced(address(1), 1, &[(1, 0), (2, 0)], Some(1));
        bus.refresh();
        bus.run(SECOND);
        bus.deaf.insert(1);
        bus.mute.insert(1);
        bus.tell(1, Input::Carrier(false));
        bus.until(5 * SECOND, |bus| bus.reached(address(1)) == Some(2));
        bus.publish_announced(address(1), 1, &[(1, 0), (2, 0)], Some(named));
        bus.run(10 * SECOND);
        bus.deaf.clear();
        bus.mute.clear();
        bus.tell(1, Input::Carrier(true));
        bus.run(5 * SECOND);
        // Node 1 covers for node 2, and gives the same link-layer address.
        assert_eq!(bus.reached(address(1)), Some(2), "named {named}: {:?}", bus.answers(address(1)));
    }
}

/// The owner is not a candidate. The two candidates are NotReady in turn, a second each, so that the fitter one changes
/// before three seconds are over each time.
#[test]
fn address_is_handed_over_though_the_best_successor_alternates() {
    let mut bus = Bus::new(3);
    bus.drops_protocol = true;
    bus.run(ms(3000));
    bus.publish(address(1), 1, &[(1, 0)]);
    bus.until(ms(1000), |bus| bus.reached(address(1)) == Some(1));
    bus.run(ms(4000));
    for round in 0..5 {
        let order = if round % 2 == 0 { [(2, 0), (3, 1)] } else { [(3, 0), (2, 1)] };
        bus.publish_announced(address(1), 1, &order, Some(1));
        bus.refresh();
        bus.run(ms(1000));
    }
    let handed_over = |(_, node, event): &(Duration, usize, Event)| {
        *node == 1 && matches!(event, Event::Withdrawn { why: Withdrawal::HandedOver(_), .. })
    };
    assert_eq!(bus.events.iter().filter(|event| handed_over(event)).count(), 1);
}
