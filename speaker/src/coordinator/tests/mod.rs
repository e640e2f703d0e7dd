//! The coordinators of a few nodes, in histories.

mod controller;
mod lan;
mod large;
mod one_segment;
mod speaker_statuses;
mod truth;

use std::collections::BTreeSet;

use herald_crds::{node::Exclusion, speaker_status::WarningKind, virtual_ip::AnnouncedReason};
use herald_protocol::{mac::MacAddr, wire::KeyError};
use test_case::test_case;

use super::*;
use crate::{
    api_objects::{Change, Vip},
    keys::ClusterError,
    rank::tests::{LOCAL, node, slice, vip},
};
use lan::{ETH0, HOST, Lan, key, mac};

const VIP: &str = "192.0.2.10";

fn home(name: &str) -> Vip {
    Vip { home_node: Some(name.to_owned()), ..vip(VIP) }
}

fn address() -> IpAddr {
    VIP.parse().unwrap()
}

fn only(mac: MacAddr) -> BTreeSet<MacAddr> {
    BTreeSet::from([mac])
}

/// Returns the input of an API that does not answer: neither the Secret nor the identity of the cluster is known.
fn api_is_away() -> Input {
    Input::Keys(Err(KeysError::Cluster(ClusterError::Unreached("connection refused".to_owned()))))
}

/// Returns three nodes of which the first announces the address, with its status written.
fn announced() -> Lan {
    let mut lan = Lan::of(&["a", "b", "c"]);
    lan.apply(home("a"));
    lan.pass(1000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    lan
}

#[test]
fn new_address_is_probed_then_announced_and_written_once() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    let begun = lan.now;
    lan.apply(home("b"));
    lan.pass(150);
    assert_eq!(lan.announced, [], "two probes come first");
    lan.pass(350);
    let (at, by, what) = lan.announced[0];
    assert_eq!((by, what), ("b", address()));
    assert!(at - begun <= 300, "{} ms", at - begun);
    assert_eq!(lan.who_has(VIP), only(mac("b")));
    let status = lan.status(VIP);
    assert_eq!(status.node.as_deref(), Some("b"));
    assert_eq!(status.interface.as_deref(), Some("eth0"));
    assert_eq!(status.mac_address, Some(mac("b").to_string()));
    assert_eq!(status.transitions, 0);
    assert_eq!(status.first_announced, status.since);
    lan.pass(5000);
    assert_eq!(lan.written.len(), 1, "{:?}", lan.written);
}

#[test]
fn killed_speaker_is_covered_with_its_own_mac_and_keeps_its_address() {
    let mut lan = announced();
    let (written, since) = (lan.written.len(), lan.status(VIP).since);
    lan.kill("a");
    lan.pass(200);
    assert_eq!(lan.who_has(VIP), only(mac("a")), "others answer for it");
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    lan.start("a");
    lan.pass(3000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.written.len(), written, "nothing is written: {:?}", lan.written);
    assert_eq!(lan.status(VIP).since, since);
}

#[test]
fn node_that_rejoins_its_segment_is_covered_and_keeps_its_addresses() {
    let mut lan = announced();
    let written = lan.written.len();
    lan.revert("a");
    lan.pass(200);
    assert_eq!(lan.who_has(VIP), only(mac("a")), "others answer for it");
    lan.pass(3000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    lan.power_off("b");
    lan.power_off("c");
    lan.pass(2000);
    assert_eq!(lan.who_has(VIP), only(mac("a")), "it answers itself");
    assert_eq!(lan.written.len(), written, "nothing is written: {:?}", lan.written);
}

#[test]
fn speaker_restarts_while_the_api_is_away() {
    let mut lan = announced();
    for name in ["a", "b", "c"] {
        lan.disconnect(name);
    }
    lan.kill("a");
    lan.pass(500);
    // The speaker uses the keys that it kept: neither the Secret nor the identity of the cluster is known.
    lan.start_without_key("a");
    lan.tell("a", api_is_away());
    lan.pass(3000);
    assert_eq!(lan.readiness("a"), Ok("ready: it takes part on 1 segments".to_owned()));
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    lan.power_off("b");
    lan.power_off("c");
    lan.pass(2000);
    assert_eq!(lan.who_has(VIP), only(mac("a")), "with nobody to answer for it");
    lan.start("b");
    lan.pass(1000);
    lan.power_off("a");
    lan.pass(2000);
    assert_eq!(lan.who_has(VIP), only(mac("b")), "who restarted without the API takes over, too");
}

#[test]
fn dead_node_is_succeeded_and_the_move_is_counted() {
    let mut lan = announced();
    let died = lan.now;
    lan.announced.clear();
    lan.power_off("a");
    lan.pass(2000);
    let (at, by, _) = lan.announced[0];
    assert!(at - died <= 500, "{} ms", at - died);
    assert_ne!(by, "a");
    assert_eq!(lan.who_has(VIP), only(mac(by)));
    let status = lan.status(VIP);
    assert_eq!((status.node.as_deref(), status.transitions), (Some(by), 1));
}

/// An EVPN leaf answers even unicast ARP requests for a host that is gone, with the right link-layer address.
#[test]
fn dead_node_in_whose_name_the_switch_answers_arp_is_succeeded_within_two_seconds() {
    let mut lan = announced();
    lan.pass(5000);
    let died = lan.now;
    lan.announced.clear();
    lan.suppressed.insert("a");
    lan.power_off("a");
    lan.pass(5000);
    let (at, by, _) = lan.announced[0];
    assert!(at - died <= 2000, "{} ms", at - died);
    assert_eq!(lan.who_has(VIP), only(mac(by)));
}

#[test]
fn deleted_address_is_no_longer_answered_for_and_its_status_is_withdrawn() {
    let mut lan = announced();
    let deleting = Vip { deleting: true, ..lan.vip(VIP) };
    lan.apply(deleting);
    lan.pass(100);
    assert_eq!(lan.who_has(VIP), BTreeSet::new());
    assert_eq!(lan.reason(VIP).as_deref(), Some(AnnouncedReason::Withdrawn.as_str()));
    lan.remove(address());
    lan.pass(2000);
    assert_eq!(lan.who_has(VIP), BTreeSet::new());
}

#[test]
fn address_deleted_while_its_speaker_was_away_is_not_resumed() {
    let mut lan = announced();
    lan.kill("a");
    lan.pass(100);
    lan.remove(address());
    lan.pass(100);
    lan.start("a");
    lan.pass(3000);
    assert_eq!(lan.who_has(VIP), BTreeSet::new());
}

#[test_case(&Node { ready: false, ..node("a") }; "not ready")]
#[test_case(&Node { network_unavailable: true, ..node("a") }; "without a pod network")]
fn unfit_node_is_left_with_a_fresh_view_only(unfit: &Node) {
    let mut lan = announced();
    // The view is 40 s old: longer than a view is fresh.
    lan.pass(40_000);
    lan.apply_node(unfit.clone());
    lan.pass(1000);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    lan.refresh();
    lan.pass(1000);
    assert_ne!(lan.announcer(VIP).as_deref(), Some("a"));
    assert_eq!(lan.who_has(VIP).len(), 1);
}

#[test]
fn addresses_stay_where_no_node_is_ready() {
    let mut lan = announced();
    for name in ["a", "b", "c"] {
        lan.apply_node(Node { ready: false, ..node(name) });
    }
    // The order matters: for a moment only a is NotReady, but no view is fresh then.
    lan.refresh();
    lan.pass(3000);
    assert_eq!(lan.who_has(VIP).len(), 1);
    let owner = lan.who_has(VIP);
    lan.pass(60_000);
    lan.refresh();
    lan.pass(1000);
    assert_eq!(lan.who_has(VIP), owner);
}

#[test]
fn address_that_no_node_may_announce_is_withdrawn_with_a_reason() {
    let mut lan = announced();
    let vip = lan.vip(VIP);
    lan.apply(Vip { rules: vec![], ..vip });
    lan.pass(1000);
    assert_eq!(lan.who_has(VIP), BTreeSet::new());
    assert_eq!(lan.reason(VIP).as_deref(), Some(AnnouncedReason::Ineligible.as_str()));
    assert_eq!(lan.status(VIP).node, None);
    let vip = lan.vip(VIP);
    assert!(vip.status.first_announced.is_some(), "it was announced once");
    lan.apply(Vip { rules: home("a").rules, ..vip });
    lan.pass(3000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
}

/// Every node is excluded, one shortly after the other. The status names an earlier owner, whose write came last: the
/// node that withdrew the address replaces that status.
#[test]
fn last_owner_replaces_the_status_of_an_earlier_one() {
    let mut lan = announced();
    let earlier = lan.status(VIP);
    lan.refresh();
    for name in ["a", "b", "c"] {
        lan.apply_node(Node { excluded: Some(Exclusion::Label), ..node(name) });
        lan.pass(300);
    }
    assert_eq!((lan.who_has(VIP), lan.status(VIP).node), (BTreeSet::new(), None));
    let vip = lan.vip(VIP);
    lan.apply(Vip { status: earlier, ..vip });
    lan.pass(1000);
    assert_eq!(lan.status(VIP).node, None);
    assert_eq!(lan.reason(VIP).as_deref(), Some(AnnouncedReason::Ineligible.as_str()));
}

#[test]
fn drained_node_hands_over_without_a_moment_of_silence() {
    let mut lan = announced();
    lan.refresh();
    lan.apply_node(Node { excluded: Some(Exclusion::DrainTaint), ..node("a") });
    for _ in 0..100 {
        lan.pass(10);
        assert!(!lan.who_has(VIP).is_empty());
    }
    assert_ne!(lan.announcer(VIP).as_deref(), Some("a"));
    assert_eq!(lan.who_has(VIP).len(), 1);
}

#[test]
fn shutdown_of_a_cordoned_node_hands_over_and_of_another_does_not() {
    let mut lan = announced();
    lan.tell("a", Input::Terminate);
    lan.pass(1000);
    assert!(lan.finished.contains("a"));
    assert_eq!(lan.who_has(VIP), only(mac("a")), "covered");
    lan.start("a");
    lan.pass(3000);
    lan.apply_node(Node { cordoned: true, ..node("a") });
    lan.pass(3000);
    assert_eq!(lan.who_has(VIP), only(mac("a")), "cordon alone moves nothing");
    lan.finished.clear();
    lan.tell("a", Input::Terminate);
    lan.pass(3000);
    assert!(lan.finished.contains("a"));
    assert_ne!(lan.who_has(VIP), only(mac("a")));
    assert_eq!(lan.who_has(VIP).len(), 1);
}

#[test]
fn stranger_before_the_first_announcement_keeps_the_address_and_is_named() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    lan.strangers.insert(address());
    lan.apply(home("a"));
    lan.pass(2000);
    assert_eq!(lan.announced, []);
    assert_eq!(lan.who_has(VIP), BTreeSet::new());
    assert_eq!(lan.reason(VIP).as_deref(), Some(AnnouncedReason::Conflict.as_str()));
    let status = lan.status(VIP);
    assert!(status.conditions[0].message.contains(&HOST.to_string()), "{status:?}");
    assert_eq!((status.node, status.first_announced), (None, None));
    lan.strangers.clear();
    lan.pass(61_000);
    assert_eq!(lan.who_has(VIP).len(), 1, "it is asked for again");
}

#[test]
fn local_address_waits_for_kube_proxy_when_its_endpoint_is_new() {
    let mut lan = Lan::of(&["a", "b"]);
    lan.apply(Vip { local: LOCAL, ..home("a") });
    lan.apply_slice(slice(&[("b", Endpoint::Ready)]));
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(mac("b")));
    lan.asked_proxy.clear();
    lan.refresh();
    lan.apply_slice(slice(&[("a", Endpoint::Ready)]));
    lan.pass(500);
    assert_eq!(lan.asked_proxy, [("a", address())]);
    assert_eq!(lan.who_has(VIP), only(mac("b")), "it goes on answering until another can");
    lan.tell("a", Input::ProxySynced(address()));
    lan.pass(500);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
}

#[test]
fn local_address_without_an_endpoint_is_not_answered_for() {
    let mut lan = Lan::of(&["a", "b"]);
    lan.apply(Vip { local: LOCAL, ..home("a") });
    lan.apply_slice(slice(&[("a", Endpoint::Ready)]));
    lan.pass(5000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
    lan.refresh();
    lan.apply_slice(slice(&[]));
    lan.pass(1000);
    assert_eq!(lan.who_has(VIP), BTreeSet::new());
    assert_eq!(lan.reason(VIP).as_deref(), Some(AnnouncedReason::Ineligible.as_str()));
}

#[test]
fn empty_watch_withdraws_no_address_before_it_is_complete() {
    let mut lan = announced();
    lan.tell("a", Input::Api(ApiFact::Vip(Change::Listing)));
    lan.pass(2000);
    assert_eq!(lan.who_has(VIP), only(mac("a")));
}

#[test]
fn change_of_peers_is_reported_once_it_holds() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    lan.pass(10_000);
    assert_eq!(lan.reported("a"), (2, vec![]));
    lan.kill("b");
    lan.pass(1000);
    lan.start("b");
    lan.pass(20_000);
    assert_eq!(lan.reports("a"), 1, "a restart is not reported");
    lan.kill("b");
    lan.pass(10_000);
    let (peers, warnings) = lan.reported("a");
    assert_eq!((peers, warnings.as_slice()), (1, [WarningKind::PeersUnheard].as_slice()));
    lan.start("b");
    lan.pass(20_000);
    assert_eq!(lan.reported("a"), (2, vec![]));
}

#[test]
fn report_that_is_due_while_the_own_node_is_deleted_does_not_spin_the_loop() {
    let mut lan = Lan::of(&["a", "b", "c"]);
    lan.pass(10_000);
    lan.kill("b");
    lan.pass(1000);
    lan.remove_node("a");
    // `pass` fails if a timer stays due.
    lan.pass(20_000);
    assert_eq!(lan.reported("a"), (2, vec![]), "without its Node, nobody may own the object");
    lan.apply_node(node("a"));
    lan.pass(1000);
    assert_eq!(lan.reported("a").0, 1, "what held meanwhile is reported once the Node is back");
}

#[test]
fn key_that_was_deleted_and_made_again_is_rotated() {
    let mut lan = announced();
    let claims = lan.written.len();
    // The new Secret reaches the speakers one by one.
    for name in ["a", "b", "c"] {
        lan.tell(name, Input::Keys(Err(KeysError::Missing)));
    }
    for name in ["a", "b", "c"] {
        lan.tell(name, Input::Keys(Ok(key(8))));
        lan.pass(15_000);
        assert_eq!(lan.who_has(VIP), only(mac("a")), "after {name} has it");
    }
    // The old key has been dropped: the nodes still hear each other.
    lan.pass(90_000);
    lan.kill("a");
    lan.pass(1000);
    assert_eq!(lan.who_has(VIP), only(mac("a")), "a is covered");
    assert_eq!(lan.written.len(), claims, "nothing moved");
}

#[test]
fn speaker_is_ready_when_it_takes_part() {
    let mut lan = Lan::of(&["a", "b"]);
    assert!(lan.readiness("a").is_ok());
    lan.kill("b");
    lan.delete_pod("b");
    lan.start_without_key("b");
    assert!(lan.readiness("b").unwrap_err().contains("no key"));
    lan.tell("b", Input::Keys(Ok(key(7))));
    assert!(lan.readiness("b").unwrap_err().contains("still listens"));
    lan.pass(2000);
    assert!(lan.readiness("b").is_ok());
}

#[test]
fn new_pod_while_the_api_is_away_has_no_key_and_reports_why() {
    let mut lan = Lan::of(&["a", "b"]);
    lan.disconnect("a");
    lan.kill("a");
    lan.delete_pod("a");
    lan.start_without_key("a");
    lan.tell("a", api_is_away());
    lan.pass(3000);
    let why = lan.readiness("a").unwrap_err();
    assert!(why.contains("no key to sign with") && why.contains("kube-system"), "{why}");
    lan.tell("a", Input::Keys(Ok(key(7))));
    lan.pass(3000);
    let why = lan.readiness("a").unwrap_err();
    assert!(why.contains("has not listed VirtualIP, Node, SpeakerStatus"), "{why}");
    lan.reconnect("a");
    lan.list("a");
    lan.pass(3000);
    assert!(lan.readiness("a").is_ok());
}

#[test]
fn fifth_key_does_not_silence_a_speaker_that_has_four() {
    let mut lan = announced();
    let claims = lan.written.len();
    for name in ["a", "b", "c"] {
        lan.tell(name, Input::Keys(Err(KeysError::Invalid(KeyError::Count(5)))));
    }
    lan.kill("a");
    lan.start_without_key("a");
    lan.tell("a", Input::Keys(Err(KeysError::Invalid(KeyError::Count(5)))));
    lan.pass(10_000);
    assert!(lan.readiness("a").is_ok());
    assert_eq!(lan.reported("a"), (2, vec![WarningKind::ClusterKey]));
    assert_eq!((lan.who_has(VIP), lan.written.len()), (only(mac("a")), claims));
    // A new pod stops the roll-out.
    lan.kill("b");
    lan.delete_pod("b");
    lan.start_without_key("b");
    lan.tell("b", Input::Keys(Err(KeysError::Invalid(KeyError::Count(5)))));
    let why = lan.readiness("b").unwrap_err();
    assert!(why.contains("there are 5 keys, but there must be 1 to 4"), "{why}");
}

#[test]
fn refused_socket_is_retried_and_reported_while_it_lasts() {
    let mut lan = announced();
    let refused = || Input::Sockets(ETH0, Err(SocketFailure::Open("ENOBUFS".to_owned())));
    let warned = |lan: &Lan| lan.reported("a").1.contains(&WarningKind::SocketRefused);
    let (begun, before) = (lan.now, lan.opened.len());
    for wait in [1000, 2000, 4000] {
        lan.tell("a", refused());
        lan.pass(wait);
    }
    let asked: Vec<u64> = lan.opened[before..].iter().map(|(at, _)| at - begun).collect();
    assert_eq!(asked, [1000, 3000, 7000], "the interfaces have not changed");
    assert!(lan.opened[before..].iter().all(|(_, by)| *by == "a"));
    assert!(warned(&lan));
    assert_eq!(lan.who_has(VIP), only(mac("a")), "others answer for it meanwhile");
    lan.tell("a", Input::Sockets(ETH0, Ok(())));
    lan.pass(10_000);
    assert!(!warned(&lan), "it is over");
    assert_eq!(lan.opened.len(), before + 3);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
}
