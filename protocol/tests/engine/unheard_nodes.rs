//! Nodes whose Hellos do not arrive: their kernels are probed, at the address that the API lists.

use herald_protocol::{Event, claim::Reason};

use crate::bus::{Bus, address, mac, ms, name, stations};

#[test]
fn one_owner_answers_and_is_succeeded_without_any_hello() {
    let mut bus = Bus::new(3);
    bus.drops_protocol = true;
    bus.run(ms(3000));
    let since = bus.now;
    // The API shows that node 1 announces the first address, and that no node announces the second.
    bus.publish_announced(address(1), 1, &[(1, 0), (2, 0), (3, 0)], Some(1));
    bus.publish(address(2), 1, &[(2, 0), (1, 0), (3, 0)]);
    for _ in 0..100 {
        bus.run(ms(100));
        assert!(bus.answers(address(1)).iter().all(|(_, given)| *given == mac(1)), "{:?}", bus.answers(address(1)));
        assert!(bus.answers(address(2)).iter().all(|(_, given)| *given == mac(2)), "{:?}", bus.answers(address(2)));
    }
    assert_eq!(bus.claims_since(since), [(1, Reason::Vacant), (2, Reason::Vacant)]);
    assert!(bus.events.iter().any(|(_, node, event)| *node == 2 && *event == Event::PeerUnheard(name(1))));
    // The speaker of node 1 stops and is covered. Then the node loses power and is succeeded.
    bus.kill(1);
    bus.run(ms(1000));
    assert_eq!(bus.reached(address(1)), Some(1));
    bus.power_off_kernel(1);
    bus.until(ms(1500), |bus| bus.reached(address(1)) == Some(2));
    bus.run(ms(10_000));
    assert_eq!(bus.reached(address(1)), Some(2));
}

#[test]
fn switch_that_begins_to_drop_the_protocol_moves_nothing() {
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

/// `kubectl delete node` removes a node whose speaker is silent and whose kernel answers. The API no longer lists that
/// node, so a node that has never heard it does not know where to probe it.
#[test]
fn silent_node_that_the_api_no_longer_lists_is_not_probed_without_an_address() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.kill(1);
    bus.run(ms(2000));
    // The new speaker of node 2 knows node1 from the frames of others and from the API.
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
    assert_eq!(told(2).count(), 1, "node2 never heard an address of node1");
    assert_eq!(told(3).count(), 0, "node1 sent its address when it was heard");
    bus.publish(address(2), 1, &[(2, 0), (3, 0)]);
    bus.run(ms(2000));
    assert_eq!(bus.answers(address(2)), [(2, mac(2))], "the other nodes work");
}

/// A node that is heard one way only is probed at the address that the API lists, and is then removed from the API's
/// list.
#[test]
fn node_heard_one_way_that_the_api_no_longer_lists_is_not_probed() {
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
    assert_eq!(bus.answers(address(2)), [(3, mac(3))], "the other nodes work");
}
