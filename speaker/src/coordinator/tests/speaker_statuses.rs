//! SpeakerStatuses that a person deletes or edits: nothing moves, and each speaker writes its own again.

use super::*;

/// Lets time pass, and asserts at each moment that this node and no other answers for the address.
fn pass_answered_by(lan: &mut Lan, node: &str, ms: u64) {
    for _ in 0..ms / 100 {
        lan.pass(100);
        assert_eq!(lan.who_has(VIP), only(mac(node)), "at {} ms", lan.now);
    }
}

/// Returns three nodes of which the first announces the address, and whose views are fresh enough for a move.
fn fresh() -> Lan {
    let mut lan = announced();
    lan.pass(10_000);
    lan.refresh();
    lan.written.clear();
    lan
}

#[test]
fn deleted_status_is_written_again_and_moves_nothing() {
    let mut lan = fresh();
    lan.delete_speaker_status("a");
    pass_answered_by(&mut lan, "a", 1000);
    assert_eq!(lan.speaker_statuses(), ["a", "b", "c"]);
    pass_answered_by(&mut lan, "a", 30_000);
    assert_eq!(lan.written, []);
}

#[test]
fn deleted_status_of_a_speaker_whose_api_server_is_away_moves_nothing() {
    let mut lan = fresh();
    lan.disconnect("a");
    lan.delete_speaker_status("a");
    for _ in 0..6 {
        lan.refresh();
        pass_answered_by(&mut lan, "a", 10_000);
    }
    assert_eq!(lan.speaker_statuses(), ["b", "c"]);
    assert_eq!(lan.written, []);
}

#[test]
fn emptied_status_is_written_again_and_moves_nothing() {
    let mut lan = fresh();
    for _ in 0..3 {
        lan.empty_speaker_status("a");
        pass_answered_by(&mut lan, "a", 2000);
    }
    assert_eq!(lan.written, []);
}

/// Deletes the kind for a minute. The watches of the speakers then notice one after the other that the kind is back:
/// 10 s lie between two attempts.
fn without_the_kind_for_a_minute(mut lan: Lan) -> Lan {
    lan.delete_speaker_kind();
    pass_answered_by(&mut lan, "a", 60_000);
    lan.restore_speaker_kind();
    for name in ["c", "b", "a"] {
        lan.list_speaker_statuses(name);
        pass_answered_by(&mut lan, "a", 5000);
    }
    lan.refresh();
    pass_answered_by(&mut lan, "a", 30_000);
    assert_eq!(lan.speaker_statuses(), ["a", "b", "c"]);
    assert_eq!(lan.written, []);
    lan
}

#[test]
fn deleted_definition_silences_no_speaker_and_moves_nothing() {
    let mut lan = without_the_kind_for_a_minute(fresh());
    lan.power_off("a");
    lan.pass(2000);
    assert_ne!(lan.announcer(VIP).as_deref(), Some("a"), "failover works as before");
    assert_eq!(lan.who_has(VIP).len(), 1);
}

/// No node hears another, and the API alone shows which nodes are on the segment. Each status is written again before
/// the time of the kept one ends.
#[test]
fn deleted_status_moves_nothing_where_hellos_do_not_pass() {
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
    lan.refresh();
    lan.written.clear();
    lan.disconnect("a");
    lan.delete_speaker_status("a");
    pass_answered_by(&mut lan, "a", 10_000);
    lan.reconnect("a");
    lan.list_speaker_statuses("a");
    pass_answered_by(&mut lan, "a", 60_000);
    assert_eq!(lan.speaker_statuses(), ["a", "b"]);
    assert_eq!(lan.written, []);
}

#[test]
fn node_that_has_left_the_cluster_is_forgotten_with_its_status() {
    let mut lan = fresh();
    lan.power_off("b");
    lan.pass(2000);
    lan.delete_speaker_status("b");
    assert_eq!(lan.counted_by("a"), ["a", "b", "c"]);
    lan.remove_node("b");
    assert_eq!(lan.counted_by("a"), ["a", "c"]);
    lan.power_off("c");
    lan.remove_node("c");
    lan.delete_speaker_status("c");
    assert_eq!(lan.counted_by("a"), ["a"]);
    pass_answered_by(&mut lan, "a", 5000);
}

/// The controller deletes the SpeakerStatus of a node that has had no speaker pod for an hour.
#[test]
fn node_whose_speaker_is_silent_is_forgotten_after_a_while() {
    let mut lan = fresh();
    lan.kill("b");
    lan.pass(2000);
    lan.delete_speaker_status("b");
    lan.pass(14_000);
    assert_eq!(lan.counted_by("a"), ["a", "b", "c"]);
    lan.pass(1000);
    assert_eq!(lan.counted_by("a"), ["a", "c"]);
}

/// The pods of all speakers are replaced while the API server does not know the kind: a new one knows no view of an
/// earlier run, cannot tell which addresses it may announce, and must hold the roll-out up.
#[test]
fn new_speaker_that_cannot_list_a_kind_is_not_ready() {
    let mut lan = fresh();
    lan.delete_speaker_kind();
    lan.kill("c");
    lan.start("c");
    lan.pass(3000);
    assert!(lan.readiness("c").is_ok(), "a container that restarts knows the view of the one before");
    lan.kill("c");
    lan.delete_pod("c");
    lan.start("c");
    pass_answered_by(&mut lan, "a", 60_000);
    let reason = lan.readiness("c").unwrap_err();
    assert!(reason.contains("SpeakerStatus") && !reason.contains("VirtualIP"), "{reason}");
    lan.restore_speaker_kind();
    lan.list_speaker_statuses("c");
    pass_answered_by(&mut lan, "a", 3000);
    assert!(lan.readiness("c").is_ok());
}

/// The announcer's interface gets an address of another network, on the same wire, where its speaker goes on to be heard.
#[test]
fn node_that_is_renumbered_hands_its_addresses_over_at_once() {
    let mut lan = fresh();
    lan.change_port("a", ETH0, |port| port.net = [198, 51, 100]);
    let begun = lan.now;
    while lan.who_has(VIP).is_empty() || lan.who_has(VIP) == only(mac("a")) {
        lan.pass(50);
        assert!(lan.now < begun + 10_000, "nobody took it over");
    }
    assert!(lan.now - begun <= 500, "taken over after {} ms", lan.now - begun);
}

/// The SpeakerStatus of the announcer is missing when a new speaker starts, which has never seen it.
#[test]
fn new_speaker_takes_nothing_from_a_node_whose_status_it_has_never_seen() {
    let mut lan = fresh();
    for name in ["a", "b"] {
        lan.disconnect(name);
    }
    for name in ["a", "b", "c"] {
        lan.delete_speaker_status(name);
    }
    lan.kill("c");
    lan.delete_pod("c");
    lan.start("c");
    pass_answered_by(&mut lan, "a", 10_000);
    for name in ["b", "a"] {
        lan.reconnect(name);
        lan.list_speaker_statuses(name);
        pass_answered_by(&mut lan, "a", 1000);
    }
    pass_answered_by(&mut lan, "a", 30_000);
    assert_eq!(lan.written, []);
}
