//! The controller's use of the speakers' reports, and its writes to the same statuses.

use herald_crds::{names::CONDITION_CONFLICT, virtual_ip::VirtualIPStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

/// Returns the status as the controller writes it where the announcer's pod is not Ready
/// (controller/src/writer/patch.rs).
fn taken_back(lan: &Lan) -> Vip {
    let vip = lan.vip(VIP);
    let not_ready =
        AnnouncedReason::SpeakerNotReady.condition(String::new(), vip.generation, Time(Timestamp::UNIX_EPOCH));
    let others = vip.status.conditions.iter().filter(|condition| condition.type_ == CONDITION_CONFLICT).cloned();
    let conditions = others.chain([not_ready]).collect();
    let (node, interface, mac_address, since) = (None, None, None, None);
    Vip { status: VirtualIPStatus { node, interface, mac_address, since, conditions, ..vip.status.clone() }, ..vip }
}

/// The announcer answers, whatever its pod's probes report. The announcer restores the status with one write, whose
/// announcement the controller has corrected already and does not correct again.
#[test]
fn announcer_restores_a_status_that_the_controller_took_back() {
    let mut lan = announced();
    let since = lan.status(VIP).since;
    for _ in 0..3 {
        let written = lan.written.len();
        lan.apply(taken_back(&lan));
        lan.pass(1000);
        let writes: Vec<_> = lan.written[written..].iter().map(|(_, by, _)| *by).collect();
        assert_eq!(writes, ["a"]);
        let status = lan.status(VIP);
        assert_eq!((lan.announcer(VIP).as_deref(), &status.since, status.transitions), (Some("a"), &since, 0));
    }
}

/// Lets time pass while clients ask for the address again and again: a node that is alone knows by these frames that it
/// hears.
fn pass_with_clients(lan: &mut Lan, seconds: u32) {
    for _ in 0..2 * seconds {
        lan.who_has(VIP);
        lan.pass(500);
    }
}

/// No other speaker could restore the status where there is one node.
#[test]
fn single_speaker_that_was_away_restores_its_status() {
    let mut lan = Lan::of(&["a"]);
    lan.apply(home("a"));
    pass_with_clients(&mut lan, 10);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
    lan.kill("a");
    lan.delete_pod("a");
    pass_with_clients(&mut lan, 15);
    lan.apply(taken_back(&lan));
    pass_with_clients(&mut lan, 5);
    assert_eq!(lan.reason(VIP).as_deref(), Some(AnnouncedReason::SpeakerNotReady.as_str()));
    lan.start("a");
    pass_with_clients(&mut lan, 10);
    assert_eq!(lan.announcer(VIP).as_deref(), Some("a"));
}

/// The controller must not report that no node answers for the addresses of a speaker that is covered; a speaker that
/// is away for a second does not concern it.
#[test]
fn coverers_name_a_speaker_that_stays_away() {
    let mut lan = announced();
    lan.pass(10_000);
    lan.kill("a");
    lan.pass(2000);
    lan.start("a");
    lan.pass(10_000);
    for name in ["b", "c"] {
        assert_eq!(lan.covering(name), [[] as [String; 0]], "a restart is not reported");
    }
    lan.kill("a");
    lan.pass(10_000);
    let covers = |lan: &Lan| ["b", "c"].iter().any(|name| lan.covering(name).last().unwrap() == &["a".to_owned()]);
    assert!(covers(&lan));
    lan.start("a");
    lan.pass(10_000);
    assert!(!covers(&lan));
}
