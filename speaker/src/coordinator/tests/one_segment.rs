//! Two interfaces of a node on one wire.

use herald_crds::speaker_status::WarningKind;
use test_case::test_case;

use super::{
    lan::{
        ETH0, ETH1, ETH2,
        ports::{LAN, Port, WIRE, mac_of},
        second_mac,
    },
    *,
};

/// Another wire.
const OTHER: u8 = 1;
/// The network of the interfaces on the other wire.
const OTHER_NET: [u8; 3] = [198, 51, 100];
/// An address in the other network.
const OTHER_VIP: &str = "198.51.100.10";

fn warns(lan: &Lan, name: &str) -> bool {
    lan.reported(name).1.contains(&WarningKind::InterfacesOnOneSegment)
}

/// A cable is plugged into the node that announces, or into another node: nothing moves, and one link-layer address
/// answers all the time.
#[test_case("a"; "the announcer")]
#[test_case("b"; "another node")]
fn second_interface_that_is_plugged_in_disturbs_nothing(plugged: &'static str) {
    let mut lan = announced();
    // The rounds of announcements are over.
    lan.pass(60_000);
    lan.written.clear();
    lan.announced.clear();
    lan.set_second(plugged, true);
    for _ in 0..100 {
        lan.pass(50);
        assert_eq!(lan.who_has(VIP), only(mac("a")));
    }
    lan.pass(10_000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.written, []);
    assert_eq!(lan.announced, []);
    assert!(lan.ever_reported(plugged).iter().all(|interfaces| *interfaces == ["eth0"]), "not for a moment");
    assert!(warns(&lan, plugged));
    lan.set_second(plugged, false);
    lan.pass(10_000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.written, []);
    assert!(!warns(&lan, plugged));
}

/// Every node has two interfaces from the start, and speakers are restarted one after another.
#[test]
fn rollout_with_two_interfaces_on_each_node_moves_nothing() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        lan.set_second(name, true);
    }
    lan.apply(home("a"));
    lan.pass(10_000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    for name in ["a", "b", "c"] {
        lan.kill(name);
        lan.delete_pod(name);
        lan.pass(1000);
        lan.start(name);
        for _ in 0..100 {
            lan.pass(50);
            assert!(lan.who_has(VIP).len() <= 1, "{:?}", lan.who_has(VIP));
        }
        lan.pass(5000);
        assert_eq!(lan.who_has(VIP), only(mac("a")), "after {name}");
        assert!(warns(&lan, name));
    }
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
}

/// The interface in use loses its cable: a peer answers within half a second, and the address stays with that peer
/// afterwards.
#[test]
fn interface_in_use_that_fails_is_followed() {
    let mut lan = announced();
    lan.set_second("a", true);
    lan.pass(10_000);
    lan.set_carrier("a", false);
    lan.pass(500);
    let now = lan.who_has(VIP);
    assert!(now == only(mac("b")) || now == only(mac("c")), "{now:?}");
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), now);
    lan.set_carrier("a", true);
    lan.pass(10_000);
    assert_eq!(lan.who_has(VIP), now, "nothing moves back");
}

/// The first interface of a node that is alone fails, and the second one answers soon after.
#[test]
fn second_interface_of_a_node_that_is_alone_follows_the_first() {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.set_second("a", true);
    lan.pass(10_000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    lan.set_carrier("a", false);
    lan.pass(500);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    assert_eq!(lan.status(VIP).interface.as_deref(), Some("eth1"));
}

/// Returns a node that is alone, on its second interface.
fn on_the_second() -> Lan {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.set_second("a", true);
    lan.pass(5000);
    lan.set_carrier("a", false);
    lan.pass(5000);
    lan.set_carrier("a", true);
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    lan
}

/// Lets time pass, and asserts that an address is never answered with two link-layer addresses, nor with one that is
/// not among `allowed`.
fn pass(lan: &mut Lan, ms: u64, allowed: &[MacAddr]) {
    for _ in 0..ms / 10 {
        lan.pass(10);
        let told = lan.who_has(VIP);
        assert!(told.len() <= 1 && told.iter().all(|mac| allowed.contains(mac)), "at {}: {told:?}", lan.now);
    }
}

/// A restart moves nothing, whichever interface is in use.
#[test]
fn speaker_that_is_restarted_goes_on_with_the_interface_in_use() {
    let mut lan = on_the_second();
    lan.kill("a");
    lan.pass(500);
    lan.start("a");
    pass(&mut lan, 5000, &[second_mac("a")]);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
}

/// A switch forwards nothing for a while after a cable is plugged in: the interface hears no host, not even the node's
/// other interface, which is in use.
#[test_case(&["a"]; "a lone node")]
#[test_case(&["a", "b", "c"]; "with peers")]
fn interface_that_is_plugged_into_a_silent_port_moves_nothing(names: &[&'static str]) {
    let mut lan = Lan::of(names);
    lan.set_second("a", true);
    lan.change_port("a", ETH0, |port| port.default_route = true);
    lan.pass(5000);
    lan.set_carrier("a", false);
    lan.pass(5000);
    lan.apply(home("a"));
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    lan.change_port("a", ETH0, |port| (port.carrier, port.mute, port.deaf) = (true, true, true));
    pass(&mut lan, 30_000, &[second_mac("a")]);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")), "the port is silent");
    lan.change_port("a", ETH0, |port| (port.mute, port.deaf) = (false, false));
    pass(&mut lan, 10_000, &[second_mac("a")]);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")), "nothing moves back");
}

/// The peers cover for the node while its speaker is away.
#[test]
fn node_with_peers_goes_on_with_the_interface_in_use_after_a_restart() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    lan.set_second("a", true);
    lan.pass(5000);
    lan.set_carrier("a", false);
    lan.pass(5000);
    lan.set_carrier("a", true);
    lan.pass(5000);
    lan.apply(home("a"));
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    lan.kill("a");
    pass(&mut lan, 1000, &[second_mac("a")]);
    lan.start("a");
    pass(&mut lan, 5000, &[second_mac("a")]);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
}

/// A cable is loose for a moment: shorter than peers take to follow.
#[test_case(false; "the first is in use")]
#[test_case(true; "the second is in use")]
fn interface_in_use_that_flaps_goes_on(is_second: bool) {
    let mut lan = Lan::of(&["a", "b", "c"]);
    lan.set_second("a", true);
    lan.pass(5000);
    if is_second {
        lan.set_carrier("a", false);
        lan.pass(5000);
        lan.set_carrier("a", true);
        lan.pass(5000);
    }
    lan.apply(home("a"));
    lan.pass(5000);
    let (index, mac) = if is_second { (ETH1, second_mac("a")) } else { (ETH0, mac("a")) };
    assert_eq!(lan.who_has(VIP), only(mac));
    lan.written.clear();
    lan.change_port("a", index, |port| port.carrier = false);
    lan.pass(100);
    lan.change_port("a", index, |port| port.carrier = true);
    pass(&mut lan, 5000, &[mac]);
    assert_eq!(lan.who_has(VIP), only(mac));
    assert_eq!(lan.written, []);
}

/// A switch restarts: all its ports lose their carrier, and the interface in use stays in use afterwards.
#[test]
fn node_that_is_alone_keeps_what_it_has_while_its_switch_restarts() {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.set_second("a", true);
    lan.pass(5000);
    lan.change_port("a", ETH0, |port| port.carrier = false);
    lan.change_port("a", ETH1, |port| port.carrier = false);
    lan.pass(30_000);
    lan.change_port("a", ETH1, |port| port.carrier = true);
    lan.pass(100);
    lan.change_port("a", ETH0, |port| port.carrier = true);
    pass(&mut lan, 5000, &[mac("a")]);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
}

#[test]
fn second_and_third_interface_follow_in_turn() {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.set_second("a", true);
    lan.set_port("a", ETH2, Some(Port::on(WIRE)));
    lan.pass(5000);
    lan.set_carrier("a", false);
    pass(&mut lan, 5000, &[mac("a"), second_mac("a")]);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    lan.change_port("a", ETH1, |port| port.carrier = false);
    lan.pass(500);
    assert_eq!(lan.who_has(VIP), only(mac_of("a", ETH2)));
}

/// The switch port passes nothing any longer, and the link stays up. No other node may announce the address.
#[test_case(|port| { port.mute = true; port.deaf = true; }; "in either direction")]
#[test_case(|port| port.deaf = true; "the port passes no frames to it")]
#[test_case(|port| port.mute = true; "the port passes no frames of it")]
fn interface_that_fails_with_its_carrier_up_is_followed(fails: fn(&mut Port)) {
    let mut lan = Lan::of(&["a", "b"]);
    lan.apply_node(Node { excluded: Some(Exclusion::Label), ..node("b") });
    lan.apply(home("a"));
    lan.set_second("a", true);
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    lan.change_port("a", ETH0, fails);
    lan.pass(8000);
    for _ in 0..100 {
        lan.pass(100);
        assert_eq!(lan.who_has(VIP), only(second_mac("a")), "at {}", lan.now);
    }
    lan.change_port("a", ETH0, |port| (port.mute, port.deaf) = (false, false));
    pass(&mut lan, 10_000, &[second_mac("a")]);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")), "nothing moves back");
}

fn named(address: &str, interface: &str) -> Vip {
    let mut vip = Vip { home_node: Some("a".to_owned()), ..vip(address) };
    vip.rules[0].interfaces = vec![herald_crds::advertisement::InterfacePattern(interface.to_owned())];
    vip
}

/// Both interfaces of each node are on one wire, and each has an advertisement: one of them speaks for both.
#[test]
fn address_of_an_advertisement_that_names_the_interface_that_yields_is_announced() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        lan.set_second(name, true);
    }
    lan.apply(named(VIP, "eth0"));
    lan.apply(named("192.0.2.11", "eth1"));
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.who_has("192.0.2.11"), only(mac("a")));
    assert_eq!(lan.announcer("192.0.2.11").as_deref(), Some("a"));
}

/// An advertisement that names the other interface moves the node there, and one that names none or both moves nothing.
#[test]
fn advertisement_that_names_the_other_interface_alone_moves_the_node() {
    let mut lan = announced();
    lan.set_second("a", true);
    lan.pass(5000);
    let rules = |lan: &mut Lan, names: &[&str]| {
        let mut vip = lan.vip(VIP);
        let pattern = |name: &&str| herald_crds::advertisement::InterfacePattern((*name).to_owned());
        vip.rules[0].interfaces = names.iter().map(pattern).collect();
        lan.apply(vip);
    };
    // The other nodes have an eth0 alone, which is in the subnet.
    rules(&mut lan, &["eth1"]);
    pass(&mut lan, 5000, &[mac("a"), second_mac("a")]);
    assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    for names in [&[][..], &["eth0", "eth1"][..]] {
        rules(&mut lan, names);
        pass(&mut lan, 5000, &[second_mac("a")]);
        assert_eq!(lan.who_has(VIP), only(second_mac("a")));
    }
}

/// Two networks, each with its addresses, are joined by a cable, and parted again.
#[test]
fn addresses_survive_wires_that_are_joined_and_parted() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    let second = |wire: u8| Port { net: OTHER_NET, ..Port::on(wire) };
    for name in ["a", "b", "c"] {
        lan.set_port(name, ETH1, Some(second(OTHER)));
    }
    lan.pass(2000);
    lan.apply(home("a"));
    lan.apply(Vip { home_node: Some("b".to_owned()), ..vip(OTHER_VIP) });
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.who_has_on(OTHER, OTHER_VIP), only(second_mac("b")));
    for _ in 0..3 {
        for name in ["a", "b", "c"] {
            lan.set_port(name, ETH1, Some(second(WIRE)));
        }
        lan.pass(5000);
        for _ in 0..50 {
            lan.pass(100);
            assert_eq!(lan.who_has(VIP), only(mac("a")));
            assert_eq!(lan.who_has(OTHER_VIP).len(), 1, "{:?}", lan.who_has(OTHER_VIP));
        }
        for name in ["a", "b", "c"] {
            lan.set_port(name, ETH1, Some(second(OTHER)));
        }
        lan.pass(8000);
        for _ in 0..50 {
            lan.pass(100);
            assert_eq!(lan.who_has(VIP), only(mac("a")));
            assert_eq!(lan.who_has_on(OTHER, OTHER_VIP).len(), 1, "{:?}", lan.who_has_on(OTHER, OTHER_VIP));
            assert_eq!(lan.who_has(OTHER_VIP), BTreeSet::new());
        }
    }
}

/// The second interface is taken out and put in again, under its old index, in another network.
#[test]
fn interface_that_returns_with_its_index_on_another_wire_takes_part() {
    let mut lan = announced();
    lan.set_second("a", true);
    lan.pass(10_000);
    assert!(warns(&lan, "a"));
    lan.set_port("a", ETH1, Some(Port { net: OTHER_NET, ..Port::on(OTHER) }));
    lan.pass(10_000);
    assert!(!warns(&lan, "a"));
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.ever_reported("a").last().unwrap(), &["eth0", "eth1"]);
    lan.set_port("a", ETH1, Some(Port { net: LAN, ..Port::on(WIRE) }));
    pass(&mut lan, 10_000, &[mac("a")]);
    assert!(warns(&lan, "a"));
    assert_eq!(lan.ever_reported("a").last().unwrap(), &["eth0"]);
}

/// `herald-speaker inspect` and SpeakerStatus agree about the links.
#[test]
fn interface_that_yields_is_reported_as_such() {
    let mut lan = announced();
    lan.set_second("a", true);
    lan.pass(10_000);
    assert_eq!(lan.inspected("a"), ["eth0"]);
    assert_eq!(lan.speaks_for("a"), ["eth1"]);
    assert_eq!(lan.readiness("a"), Ok("ready: it takes part on 1 segments".to_owned()));
}

/// Two interfaces have loose plugs, and one of them comes or goes all the time.
#[test]
fn report_is_written_while_interfaces_flap() {
    let mut lan = announced();
    lan.set_second("a", true);
    lan.set_port("a", ETH2, Some(Port::on(WIRE)));
    lan.pass(10_000);
    for round in 0..200 {
        let index = if round % 2 == 0 { ETH1 } else { ETH2 };
        for other in [ETH1, ETH2] {
            lan.change_port("a", other, |port| port.carrier = other == index);
        }
        // The time is shorter than a trial.
        lan.pass(250);
        if round == 100 {
            lan.kill("c");
            lan.power_off("c");
        }
    }
    assert_eq!(lan.reported("a").0, 1, "c is gone for 25 s, and a says so");
    assert_eq!(lan.who_has(VIP), only(mac("a")));
}

/// A report becomes due in the middle of a trial: its timer waits as the report does, or the loop would spin.
#[test]
fn report_that_is_due_while_an_interface_is_tried_waits() {
    let mut lan = announced();
    lan.pass(60_000);
    lan.power_off("c");
    for _ in 0..10 {
        lan.pass(1000);
        lan.set_second("a", true);
        lan.pass(250);
        lan.set_second("a", false);
    }
    lan.pass(1000);
    assert_eq!(lan.reported("a").0, 1);
}

/// The cluster's key is rotated while a cable is plugged in.
#[test]
fn key_is_rotated_while_an_interface_is_tried() {
    let mut lan = announced();
    lan.set_second("a", true);
    lan.pass(50);
    for name in ["a", "b", "c"] {
        lan.tell(name, Input::Keys(Ok(key(8))));
        pass(&mut lan, 100, &[mac("a")]);
    }
    pass(&mut lan, 5000, &[mac("a")]);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert!(!lan.ever_reported("a").iter().any(|interfaces| interfaces.len() > 1));
}
