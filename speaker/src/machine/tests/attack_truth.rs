//! What the status says of an interface that comes back, and of one that has another name.

use super::*;

/// The cable is plugged in again, and the switch's port forwards nothing for 15 s (spanning tree: listening and learning).
/// The node does not answer meanwhile, and another has taken the address over. Its API server is elsewhere.
#[test]
fn link_that_is_back_is_no_announcement() {
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

/// The node's only link was its link to the API server as well: nobody else could take the address.
#[test]
fn outage_that_is_over_is_not_written_any_more() {
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
fn interface_with_another_name_is_told_by_that() {
    let mut lan = announced();
    lan.rename("a", "lan0");
    lan.pass(5000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    assert_eq!(lan.status(VIP).interface.as_deref(), Some("lan0"));
}

/// A speaker learns which cluster this is after it has listed everything, or its link comes up later: its segment goes by a
/// fresh view like any other. (While nothing happens a watch says a minute later that it is current.)
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
