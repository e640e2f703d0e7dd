//! Machines that bear the name, or the link-layer address, of another: a Node is deleted, and another machine registers
//! with its name; or a machine is installed again with another name.

use std::time::Duration;

use herald_protocol::{
    Event, Input,
    api_view::{ExpectedPeer, Packet},
    mac::MacAddr,
};

use crate::bus::{Bus, address, mac, ms, name};

/// The link-layer address of the machine that bears node 1's name now.
const NEW: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);

fn own_address(node: u8) -> std::net::IpAddr {
    [10, 0, 0, node].into()
}

/// Returns three nodes, of which node 1 owned an address and has lost its power. The API lists another machine with the
/// name of node 1.
fn replaced() -> Bus {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.power_off(1);
    bus.until(ms(500), |bus| bus.reached(address(1)) == Some(2));
    let station = |node: usize, mac| ExpectedPeer { node: name(node), mac, address: own_address(node as u8) };
    bus.tell(2, Input::Stations([station(1, NEW), station(3, mac(3))].into()));
    bus.run(ms(1000));
    bus
}

fn hears(bus: &mut Bus, source: MacAddr, address: std::net::IpAddr) {
    let now = bus.now;
    let packet = Packet { source, binding: Some((address, source)), asks: Some(address) };
    bus.speakers.get_mut(&2).unwrap().handle_packet(now, &packet);
    bus.run(ms(1));
}

/// Returns the number of conflicts with hosts outside the cluster that were reported since a moment.
fn conflicts(bus: &Bus, since: Duration) -> usize {
    bus.events_since(since).iter().filter(|(_, _, event)| matches!(event, Event::Conflict { .. })).count()
}

/// The new machine has joined elsewhere while the segment was partitioned, and its announcement arrives before its
/// first Hello.
#[test]
fn announcement_of_the_new_machine_does_not_conflict() {
    let mut bus = replaced();
    let since = bus.now;
    hears(&mut bus, NEW, address(1));
    bus.run(Duration::from_secs(1));
    assert_eq!(conflicts(&bus, since), 0);
}

/// The previous machine may still be there, and announce: it counts as the node as well until the new machine is heard.
#[test]
fn announcement_of_the_previous_machine_does_not_conflict() {
    let mut bus = replaced();
    let since = bus.now;
    hears(&mut bus, mac(1), address(1));
    bus.run(Duration::from_secs(1));
    assert_eq!(conflicts(&bus, since), 0);
}

/// The kernel of the new machine has the node's own address. The machine that claimed has another kernel, and is dead
/// all the same.
#[test]
fn kernel_of_the_new_machine_does_not_keep_the_previous_one_alive() {
    let mut bus = Bus::with_addresses(3, &[1]);
    let station = |node: usize, mac| ExpectedPeer { node: name(node), mac, address: own_address(node as u8) };
    for (node, other) in [(2, 3), (3, 2)] {
        bus.tell(node, Input::Stations([station(1, NEW), station(other, mac(other))].into()));
    }
    bus.power_off(1);
    for _ in 0..25 {
        hears(&mut bus, NEW, own_address(1));
        bus.run(ms(20));
    }
    assert_eq!(bus.reached(address(1)), Some(2));
}

/// The network drops the protocol, so the new machine is not heard. The new machine announces an address, and is probed
/// at its own link-layer address, not at that of the dead machine: its kernel answers, and no node takes the address
/// from it.
#[test]
fn unheard_machine_with_a_dead_name_is_probed_at_its_own_mac() {
    let mut bus = replaced();
    bus.drops_protocol = true;
    bus.run(ms(500));
    let since = bus.now;
    for _ in 0..100 {
        hears(&mut bus, NEW, address(1));
        hears(&mut bus, NEW, own_address(1));
        bus.run(ms(30));
    }
    let found_dead = |event: &Event| *event == Event::PeerDead(name(1).id());
    assert!(!bus.events_since(since).iter().any(|(_, node, event)| *node == 2 && found_dead(event)));
    assert_eq!(bus.claims_since(since), []);
}

/// The machine of node 3 was installed again as node 4. Node 3 is forgotten, the machine is not.
#[test]
fn renamed_machine_outlives_its_previous_name() {
    let mut bus = Bus::with_addresses(3, &[1]);
    bus.kill(3);
    bus.power_off_kernel(3);
    bus.run(ms(1000));
    let owner = bus.speakers.get_mut(&1).unwrap();
    let now = bus.now;
    owner.handle(now, Input::Stations([].into()));
    let renamed = ExpectedPeer { node: name(4), mac: mac(3), address: own_address(3) };
    owner.handle(now, Input::Stations([renamed].into()));
    // Node 3 has no claims, and the API does not list it, so node 3 is forgotten after 10 minutes.
    bus.run(Duration::from_secs(660));
    let since = bus.now;
    let packet = Packet { source: mac(3), binding: Some((address(1), mac(3))), asks: Some(address(1)) };
    bus.speakers.get_mut(&1).unwrap().handle_packet(since, &packet);
    bus.run(Duration::from_secs(1));
    assert_eq!(conflicts(&bus, since), 0);
}
