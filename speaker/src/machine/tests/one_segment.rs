//! Two interfaces of a node on one wire.

use herald_crds::speaker_status::WarningKind;
use test_case::test_case;

use super::*;

fn warns(lan: &Lan, name: &str) -> bool {
    lan.reported(name).1.contains(&WarningKind::InterfacesOnOneSegment)
}

/// A cable is plugged into the node that announces, or into another: nothing moves, and one link-layer address answers all the
/// time.
#[test_case("a"; "the announcer")]
#[test_case("b"; "another")]
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

/// Every node has two from the start, and speakers are restarted one after another.
#[test]
fn two_interfaces_everywhere_and_a_rollout() {
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

/// The one in use loses its cable: a peer answers within half a second, and the address stays where it is afterwards.
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

/// A node that is alone: its second interface answers, soon.
#[test]
fn second_interface_of_a_node_that_is_alone_follows_the_first() {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.set_second("a", true);
    lan.pass(10_000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    lan.set_carrier("a", false);
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(lan::second_mac("a")));
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    assert_eq!(lan.status(VIP).interface.as_deref(), Some("eth1"));
}
