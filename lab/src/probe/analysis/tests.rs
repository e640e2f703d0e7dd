use super::*;
use crate::probe::sample::{LineEcho, NeighbourAnswer, Opened, Stall, UdpAnswer, WitnessSamples};
use test_case::test_case;

const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);

fn ms(ms: u64) -> At {
    At(ms * 1000)
}

fn by(pod: &str) -> Answerer {
    Answerer { pod: pod.into(), node: "node1".into(), client: "192.0.2.7".into() }
}

fn target() -> TargetSamples {
    TargetSamples {
        address: "192.0.2.10".parse().unwrap(),
        neighbour: None,
        udp: None,
        stream: None,
        connections: None,
    }
}

#[test_case(0, false; "quiet machine")]
#[test_case(30_000, false; "as long as allowed")]
#[test_case(30_001, true; "too long")]
fn long_witness_stall_voids_the_run(max_us: u64, void: bool) {
    let witness = WitnessSamples { max_us, stalls: vec![Stall { at: At(0), us: max_us }] };
    let report = Report::of(&Samples { witness, ..Samples::default() });
    assert_eq!((report.void, report.witness_max_stall_ms), (void, max_us as f64 / 1000.0));
}

#[test]
fn udp_counts_each_datagram_once() {
    let answer = |seq, at| UdpAnswer { seq, at: ms(at), by: by("web-1") };
    let samples = UdpSamples {
        sent: (0..10).map(|n| ms(n * 10)).collect(),
        // Datagram 2 is answered twice, 4 to 7 never, and 9 before 8.
        answers: vec![
            answer(0, 1),
            answer(1, 11),
            answer(2, 21),
            answer(2, 22),
            answer(3, 31),
            answer(9, 91),
            answer(8, 92),
        ],
        errors: vec![Failure { at: ms(40), reason: Reason::Refused }],
    };
    let report = FlowReport::of_udp(&samples, ms(100));
    assert_eq!((report.answers.sent, report.answers.answered, report.answers.lost), (10, 6, 4));
    assert_eq!(report.duplicates, 1);
    assert_eq!(report.answers.gaps.largest, [Gap { from_ms: 31.0, length_ms: 60.0, open: false }]);
    assert_eq!(report.answers.first_answer_ms, Some(1.0));
    assert_eq!(report.failures, BTreeMap::from([("refused".to_owned(), 1)]));
    assert_eq!(report.clients_seen, BTreeSet::from(["192.0.2.7".to_owned()]));
}

#[test]
fn failed_connections_are_counted_by_reason() {
    let connection = |start: u64, outcome| Connection { started: ms(start), ended: ms(start + 2), outcome };
    let samples = [
        connection(0, Outcome::Answered(by("web-1"))),
        connection(20, Outcome::Answered(by("web-2"))),
        connection(40, Outcome::Failed(Reason::TimedOut)),
        connection(60, Outcome::Failed(Reason::Reset)),
        connection(80, Outcome::Failed(Reason::TimedOut)),
        connection(100, Outcome::Answered(by("web-1"))),
    ];
    let report = FlowReport::of_connections(&samples, ms(110));
    assert_eq!((report.answers.sent, report.answers.answered, report.answers.lost), (6, 3, 3));
    assert_eq!(report.failures, BTreeMap::from([("timed out".to_owned(), 2), ("reset".to_owned(), 1)]));
    assert_eq!(report.resets, 1);
    assert_eq!(report.pods, BTreeMap::from([("web-1".to_owned(), 2), ("web-2".to_owned(), 1)]));
    assert_eq!(report.answers.gaps.largest, [Gap { from_ms: 22.0, length_ms: 80.0, open: false }]);
}

#[test]
fn stream_resets_are_counted_apart() {
    let samples = StreamSamples {
        sent: (0..4).map(|n| ms(n * 10)).collect(),
        echoes: vec![LineEcho { line: 0, at: ms(1) }, LineEcho { line: 3, at: ms(31) }],
        opened: vec![Opened { at: ms(0), by: by("web-1") }, Opened { at: ms(25), by: by("web-2") }],
        breaks: vec![Failure { at: ms(15), reason: Reason::Reset }, Failure { at: ms(20), reason: Reason::Refused }],
    };
    let report = StreamReport::of(&samples, ms(40));
    assert_eq!((report.resets, report.connections), (1, 2));
    assert_eq!((report.answers.answered, report.answers.lost), (2, 2));
    assert_eq!(report.failures, BTreeMap::from([("reset".to_owned(), 1), ("refused".to_owned(), 1)]));
}

#[test]
fn unanswered_solicitations_are_lost() {
    let neighbour = NeighbourSamples { sent: (0..5).map(|n| ms(n * 10)).collect(), answers: Vec::new() };
    let samples = Samples {
        ended: ms(50),
        targets: vec![TargetSamples { neighbour: Some(neighbour), ..target() }],
        ..Samples::default()
    };
    let report = Report::of(&samples);
    let neighbour = report.target("192.0.2.10".parse().unwrap()).unwrap().neighbour.as_ref().unwrap();
    assert_eq!((neighbour.answers.lost, neighbour.answers.first_answer_ms), (5, None));
    assert!(neighbour.macs.is_empty() && neighbour.answers.gaps.count == 0);
}

#[test]
fn equal_announcements_are_grouped() {
    let announcement =
        |at, kind| Announcement { at: ms(at), kind, address: "192.0.2.10".parse().unwrap(), mac: A, source: A };
    let request = AnnouncementKind::ArpRequest;
    let groups = grouped(&[
        announcement(0, request),
        announcement(100, request),
        announcement(100, AnnouncementKind::ArpReply),
        announcement(300, request),
    ]);
    let told: Vec<_> = groups.iter().map(|group| (group.kind, group.count, group.first_ms, group.last_ms)).collect();
    assert_eq!(told, [(request, 3, 0.0, 300.0), (AnnouncementKind::ArpReply, 1, 100.0, 100.0)]);
}

#[test]
fn report_survives_json() {
    let neighbour =
        NeighbourSamples { sent: vec![ms(0)], answers: vec![NeighbourAnswer { at: ms(1), mac: A, source: A }] };
    let samples = Samples {
        ended: ms(10),
        targets: vec![TargetSamples { neighbour: Some(neighbour), connections: Some(Vec::new()), ..target() }],
        ..Samples::default()
    };
    let report = Report::of(&samples);
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains(r#""twoMacsMs":0.0"#) && text.contains(r#""mac":"02:00:00:00:00:0a""#), "{text}");
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}
