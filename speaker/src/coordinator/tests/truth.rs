//! The status of an address that is silent, contradicted or handed over.

use super::*;

const ANNOUNCED: &str = "Announced";
const CONFLICT: &str = "Conflict";

/// Returns one node, which announces the address: no other node can write anything.
fn alone() -> Lan {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.pass(5000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    lan
}

#[test]
fn lost_interface_is_reported_within_seconds_and_so_is_its_return() {
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
fn pulled_cable_is_reported_within_seconds() {
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
fn short_cable_pull_and_take_over_are_not_reported_as_outages() {
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
fn kernel_of_another_node_that_takes_an_address_is_reported_once_with_its_name() {
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

/// The kernel of a node announces the address itself on the wire; the node's speaker does not know the interface.
#[test]
fn kernel_that_announces_an_address_is_probed_and_reported() {
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

/// The network drops the protocol, and the node that announces has to be drained.
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

/// The cable is plugged in again, and the switch's port forwards nothing for 15 s (spanning tree: listening and
/// learning). The node does not answer meanwhile, and another has taken the address over. The node's API server is on
/// another network.
#[test]
fn returned_link_does_not_count_as_an_announcement() {
    let mut lan = announced();
    lan.cut_off.insert("a");
    lan.set_carrier("a", false);
    lan.pass(5000);
    let successor = lan.announcer(VIP).unwrap();
    assert_ne!(successor, "a");
    lan.written.clear();
    lan.set_carrier("a", true);
    lan.pass(15_000);
    assert_eq!(lan.written, [], "nothing has changed");
    lan.cut_off.clear();
    lan.pass(5000);
    assert_eq!(lan.announcer(VIP), Some(successor));
    assert_eq!(lan.written, []);
}

/// The node's only link was its link to the API server as well, and no other node could take the address.
#[test]
fn outage_that_is_over_is_not_written() {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    lan.pass(5000);
    lan.written.clear();
    lan.disconnect("a");
    lan.set_carrier("a", false);
    lan.pass(5000);
    lan.set_carrier("a", true);
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    let events = lan.posted.len();
    lan.reconnect("a");
    assert_eq!(lan.reason(VIP).as_deref(), Some("Announcing"));
    lan.pass(5000);
    assert!(lan.written.len() <= 1, "what is written changes nothing: {:?}", lan.written);
    assert_eq!(lan.posted.len(), events);
}

/// `ip link set eth0 name lan0`, which kernels allow while a link is up (IFF_LIVE_RENAME_OK, net/core/dev.c).
#[test]
fn renamed_interface_is_reported_by_its_new_name() {
    let mut lan = announced();
    lan.rename("a", "lan0");
    lan.pass(5000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    assert_eq!(lan.status(VIP).interface.as_deref(), Some("lan0"));
}

/// A speaker learns which cluster this is after it has listed everything, or its link comes up later: its segment uses
/// a fresh view like any other. (While nothing happens, a watch reports a minute later that it is current.)
#[test]
fn segment_that_is_joined_after_the_lists_has_a_fresh_view() {
    let mut lan = announced();
    lan.set_link("b", false);
    lan.kill("c");
    lan.pass(5000);
    lan.refresh();
    lan.set_link("b", true);
    lan.pass(6000);
    lan.apply_node(Node { ready: false, ..node("a") });
    lan.pass(1000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("b"));
}

/// An interface is gone for a while, and meanwhile the Service is deleted. The address may belong to another Service by
/// now.
#[test]
fn returned_interface_does_not_announce_a_deleted_address() {
    let mut lan = announced();
    lan.set_link("a", false);
    lan.pass(5000);
    lan.remove(VIP.parse().unwrap());
    lan.pass(5000);
    lan.announced.clear();
    lan.set_link("a", true);
    lan.pass(5000);
    assert_eq!(lan.announced, []);
    assert_eq!(lan.who_has(VIP), BTreeSet::new());
}
