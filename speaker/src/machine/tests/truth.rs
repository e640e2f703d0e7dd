//! What the status says where an address is silent, contradicted or handed over.

use super::*;

const ANNOUNCED: &str = "Announced";
const CONFLICT: &str = "Conflict";

/// One node, which announces the address: nobody else can write anything.
fn alone() -> Lan {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.pass(5000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    lan
}

#[test]
fn interface_that_is_lost_is_told_within_seconds_and_so_is_its_return() {
    let mut lan = alone();
    let since = lan.status(VIP).first_announced;
    lan.set_link("a", false);
    lan.pass(3000);
    let (status, reason, message) = lan.condition(VIP, ANNOUNCED).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "InterfaceLost"));
    assert!(message.contains("node a") && message.contains("eth0"), "{message}");
    assert_eq!(lan.status(VIP).node, None);
    assert_eq!(lan.posted.iter().map(|(.., reason)| *reason).collect::<Vec<_>>(), ["AddressNotAnnounced"]);
    lan.pass(20_000);
    let written = lan.written.len();
    lan.set_link("a", true);
    lan.pass(3000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.written.len(), written + 1, "{:?}", lan.written);
    assert_eq!(lan.status(VIP).first_announced, since);
}

#[test]
fn cable_that_is_pulled_is_told_within_seconds() {
    let mut lan = alone();
    lan.set_carrier("a", false);
    lan.pass(3000);
    let (_, reason, message) = lan.condition(VIP, ANNOUNCED).unwrap();
    assert_eq!(reason, "InterfaceLost");
    assert!(message.contains("no carrier"), "{message}");
    lan.set_carrier("a", true);
    lan.pass(3000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
}

#[test]
fn cable_that_is_plugged_in_at_once_and_an_address_that_is_taken_over_are_no_outage() {
    let mut lan = alone();
    let written = lan.written.len();
    lan.set_carrier("a", false);
    lan.pass(1500);
    lan.set_carrier("a", true);
    lan.pass(5000);
    assert_eq!(lan.written.len(), written, "{:?}", lan.written);

    let mut lan = announced();
    lan.written.clear();
    lan.power_off("a");
    lan.pass(5000);
    assert_eq!(lan.written.len(), 1, "its successor's: {:?}", lan.written);
}

#[test]
fn kernel_of_another_node_that_takes_an_address_is_told_once_with_its_name() {
    let mut lan = announced();
    lan.written.clear();
    lan.hold("b", VIP, true);
    lan.pass(5000);
    let (status, reason, message) = lan.condition(VIP, CONFLICT).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "AnsweredByClusterNode"));
    assert!(message.contains("node b"), "{message}");
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"), "it goes on");
    lan.pass(120_000);
    assert_eq!(lan.written.len(), 1, "{:?}", lan.written);
    let told = lan.posted.iter().filter(|(.., reason)| *reason == "AnsweredByClusterNode").count();
    assert_eq!(told, 1, "{:?}", lan.posted);
    lan.hold("b", VIP, false);
    lan.pass(5000);
    assert_eq!(lan.condition(VIP, CONFLICT).unwrap().0, "False");
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
}

/// It says so itself on the wire; its speaker knows nothing of the interface.
#[test]
fn kernel_that_announces_an_address_is_asked_and_told() {
    let mut lan = announced();
    let gratuitous = crate::packet::announcement(address(), mac("b"), mac("b"));
    lan.frame("b", &gratuitous);
    lan.pass(3000);
    assert_eq!(lan.condition(VIP, CONFLICT), None, "it does not answer: a claim that lost may have been announced");
    lan.answer_for("b", VIP);
    lan.frame("b", &gratuitous);
    lan.pass(3000);
    let (status, reason, message) = lan.condition(VIP, CONFLICT).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "AnsweredByClusterNode"));
    assert!(message.contains("node b"), "{message}");
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
}

#[test]
fn address_that_a_node_has_itself_is_not_announced_for_the_first_time() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    lan.hold("a", VIP, true);
    lan.apply(home("a"));
    lan.pass(5000);
    assert_eq!(lan.announced, []);
    let (status, reason, message) = lan.condition(VIP, ANNOUNCED).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("False", "AnsweredByClusterNode"));
    assert!(message.contains("node a"), "{message}");
    lan.hold("a", VIP, false);
    lan.pass(90_000);
    assert!(lan.announcer(VIP).is_some(), "{:?}", lan.condition(VIP, ANNOUNCED));
}

/// The network drops the protocol, and the node that announces is to be drained.
#[test]
fn drained_node_hands_over_where_hellos_do_not_pass() {
    let mut lan = Lan::of(&["a", "b"]);
    lan.drops_protocol = true;
    for name in ["a", "b"] {
        lan.kill(name);
        lan.delete_pod(name);
        lan.start(name);
    }
    lan.pass(3000);
    lan.apply(home("a"));
    lan.pass(5000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    lan.refresh();
    lan.apply_node(Node { excluded: Some(Exclusion::DrainTaint), ..node("a") });
    lan.pass(5000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("b"), "{:?}", lan.condition(VIP, ANNOUNCED));
    assert_eq!(lan.who_has(VIP), only(mac("b")));
    assert_eq!(lan.status(VIP).transitions, 1);
    assert_eq!(lan.status(VIP).handed_over_by, None);
    let written = lan.written.len();
    lan.pass(120_000);
    assert_eq!(lan.written.len(), written, "{:?}", lan.written);
    assert_eq!(lan.who_has(VIP), only(mac("b")));
}
