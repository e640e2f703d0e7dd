//! A report as tables. Pure.

use herald_crds::speaker_status::LinkStatus;
use herald_protocol::inspect::{Address, KernelState, KeyUse, Peer, SpeakerState, Waiting};

use super::{Report, SegmentReport};

/// The cell of an absent value.
const NOTHING: &str = "-";

/// Renders a report.
pub fn render(report: &Report) -> String {
    let Report { version, node, uptime_ms, segments, links, links_left_out } = report;
    let mut text = format!("{node}: herald-speaker {version}, up {}\n", age(*uptime_ms));
    if segments.is_empty() {
        text += "\nno segment: no interface on which anything could be announced\n";
    }
    for segment in segments {
        text += "\n";
        text += &render_segment(segment);
    }
    if !links.is_empty() {
        text += "\n";
        text += &columns(&["LINK", "KIND", "USE", "ADDRESSES", "WHY"], links.iter().map(link_row));
    }
    if *links_left_out > 0 {
        text += &format!("and {links_left_out} more links with addresses\n");
    }
    text
}

fn link_row(link: &LinkStatus) -> Vec<String> {
    let LinkStatus { interface, kind, addresses, addresses_left_out, link_use, message } = link;
    let mut addresses = addresses.clone();
    if *addresses_left_out > 0 {
        addresses.push(format!("+{addresses_left_out}"));
    }
    vec![
        interface.clone(),
        kind.clone().unwrap_or_else(nothing),
        format!("{link_use:?}"),
        if addresses.is_empty() { nothing() } else { addresses.join(",") },
        message.clone().unwrap_or_else(nothing),
    ]
}

fn render_segment(segment: &SegmentReport) -> String {
    let SegmentReport { interface, snapshot } = segment;
    let totals = &snapshot.totals;
    let mut state = vec![state_word(snapshot.state)];
    if !snapshot.carrier {
        state.push("no carrier");
    }
    if !snapshot.hearing {
        state.push("hears nothing");
    }
    state.push(if snapshot.answering { "answers" } else { "does not answer" });
    let mut text = format!(
        "{interface} ({}): {}; a Hello every {}; {} heard, {} owned, {} covered\n",
        snapshot.mac,
        state.join(", "),
        age(snapshot.interval_ms),
        count(totals.peers, "peer"),
        count(totals.owned, "address"),
        totals.covered,
    );
    text += &columns(&["KEY", "SIGNS", "PEERS SIGNING", "PEERS ACCEPTING"], snapshot.keys.iter().map(key_row));
    if !snapshot.peers.is_empty() {
        let header = ["PEER", "STATE", "HEARD", "INCARNATION", "MAC", "CLAIMS", "KERNEL", "COVERED BY", "SIGNS WITH"];
        text += &columns(&header, snapshot.peers.iter().map(peer_row));
    }
    if !snapshot.addresses.is_empty() {
        let header = ["ADDRESS", "OWNER", "SINCE", "EPOCH", "REASON", "ANSWER", "NEXT", "CANDIDATES", "WAITS FOR"];
        text += &columns(&header, snapshot.addresses.iter().map(address_row));
    }
    text
}

fn key_row(key: &KeyUse) -> Vec<String> {
    let KeyUse { id, signs, peers_signing, peers_accepting } = key;
    let signs = if *signs { "yes" } else { "no" };
    vec![id.clone(), signs.to_owned(), peers_signing.to_string(), peers_accepting.to_string()]
}

fn peer_row(peer: &Peer) -> Vec<String> {
    let kernel = match peer.kernel {
        None => NOTHING,
        Some(KernelState::Answers) => "answers",
        Some(KernelState::Asked) => "asked",
        Some(KernelState::Silent) => "silent",
    };
    let lacking = if peer.lacking { " and more" } else { "" };
    vec![
        peer.name.clone(),
        state_word(peer.state).to_owned(),
        peer.heard_ms.map(age).unwrap_or_else(nothing),
        peer.incarnation.clone().unwrap_or_else(nothing),
        peer.mac.clone().unwrap_or_else(nothing),
        format!("{}{lacking}", peer.claims),
        kernel.to_owned(),
        if peer.covered_by.is_empty() { nothing() } else { peer.covered_by.join(",") },
        peer.signs_with.clone().unwrap_or_else(nothing),
    ]
}

fn address_row(address: &Address) -> Vec<String> {
    let owner = address.owner.as_ref();
    let disputed = if address.claims > 1 { format!(" (of {})", address.claims) } else { String::new() };
    let mut candidates: Vec<String> =
        address.candidates.iter().map(|candidate| format!("{}:{}", candidate.node, candidate.class)).collect();
    if address.candidates_total > candidates.len() {
        candidates.push(format!("+{}", address.candidates_total - candidates.len()));
    }
    vec![
        address.address.to_string(),
        owner.map_or_else(nothing, |owner| format!("{}{disputed}", owner.node)),
        owner.and_then(|owner| owner.since_ms).map_or_else(nothing, age),
        owner.map_or_else(nothing, |owner| owner.epoch.to_string()),
        owner.map_or_else(nothing, |owner| format!("{:?}", owner.reason)),
        address.answer.clone().unwrap_or_else(nothing),
        address.next.clone().unwrap_or_else(nothing),
        if candidates.is_empty() { nothing() } else { candidates.join(",") },
        address.waiting.as_ref().map_or_else(nothing, waiting),
    ]
}

fn waiting(waiting: &Waiting) -> String {
    match waiting {
        Waiting::Turn { reason } => format!("its turn ({reason:?})"),
        Waiting::Enquiry => "answers to its enquiry".to_owned(),
        Waiting::Conflict { mac } => format!("{mac}, a host outside the cluster, to let it go"),
        Waiting::AnsweredByClusterNode { node } => format!("{node} to stop answering without a claim"),
        Waiting::Presumed { node } => format!("{node}, which is not heard and may own it"),
    }
}

fn state_word(state: SpeakerState) -> &'static str {
    match state {
        SpeakerState::Listening => "listening",
        SpeakerState::Active => "active",
        SpeakerState::Restarting => "restarting",
        SpeakerState::Leaving => "leaving",
        SpeakerState::Deaf => "deaf",
        SpeakerState::Silent => "silent",
        SpeakerState::Dead => "dead",
        SpeakerState::OneWay => "one-way",
        SpeakerState::Unheard => "unheard",
    }
}

fn nothing() -> String {
    NOTHING.to_owned()
}

fn count(number: usize, what: &str) -> String {
    let ending = match (number, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {what}{ending}")
}

/// Returns a time in milliseconds as text, in its two largest units.
fn age(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..10_000 => format!("{seconds}.{}s", ms % 1000 / 100),
        10_000..60_000 => format!("{seconds}s"),
        60_000..3_600_000 => format!("{minutes}m{}s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{}d{}h", hours / 24, hours % 24),
    }
}

/// Returns rows under a header, each column as wide as its widest cell, three spaces apart, as kubectl prints.
fn columns(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![header.iter().map(|title| (*title).to_owned()).collect()];
    lines.extend(rows);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("   ").trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use herald_crds::speaker_status::LinkUse;
    use herald_protocol::{
        claim::Reason,
        inspect::{Candidate, Owner, Snapshot, Totals},
    };
    use test_case::test_case;

    use super::*;
    use crate::inspect::Format;

    fn peer(name: &str, state: SpeakerState) -> Peer {
        Peer {
            name: name.to_owned(),
            state,
            heard_ms: Some(31),
            incarnation: Some("00000000000000ab".to_owned()),
            mac: Some("02:00:00:00:00:02".to_owned()),
            claims: 1,
            lacking: false,
            kernel: None,
            covered_by: Vec::new(),
            signs_with: Some("00000000000000aa".to_owned()),
        }
    }

    fn key_use(id: &str, signs: bool, peers_signing: usize) -> KeyUse {
        KeyUse { id: id.to_owned(), signs, peers_signing, peers_accepting: 1 }
    }

    fn link(interface: &str, link_use: LinkUse, message: Option<&str>) -> LinkStatus {
        LinkStatus {
            interface: interface.to_owned(),
            kind: interface.starts_with("br").then(|| "bridge".to_owned()),
            addresses: vec!["192.0.2.11/24".to_owned(), "2001:db8::11/64".to_owned()],
            addresses_left_out: i64::from(message.is_some()),
            link_use,
            message: message.map(str::to_owned),
        }
    }

    fn report() -> Report {
        let candidate = |node: &str, class| Candidate { node: node.to_owned(), class, able: true };
        let owned = Address {
            address: [192, 0, 2, 1].into(),
            owner: Some(Owner { node: "node1".to_owned(), epoch: 2, reason: Reason::Dead, since_ms: Some(192_000) }),
            claims: 1,
            answer: Some("02:00:00:00:00:01".to_owned()),
            waiting: None,
            candidates: vec![candidate("node1", 0), candidate("node2", 1)],
            candidates_total: 7,
            next: Some("node2".to_owned()),
        };
        let free = Address {
            address: "2001:db8::1".parse().unwrap(),
            owner: None,
            claims: 0,
            answer: None,
            waiting: Some(Waiting::Conflict { mac: "02:00:5e:10:00:01".to_owned() }),
            candidates: vec![candidate("node1", 0)],
            candidates_total: 1,
            next: Some("node1".to_owned()),
        };
        let silent = Peer {
            kernel: Some(KernelState::Answers),
            covered_by: vec!["node1".to_owned(), "node2".to_owned()],
            signs_with: None,
            ..peer("node3", SpeakerState::Silent)
        };
        let snapshot = Snapshot {
            node: "node1".to_owned(),
            incarnation: "0000000000000001".to_owned(),
            state: SpeakerState::Active,
            answering: true,
            carrier: true,
            hearing: true,
            mac: "02:00:00:00:00:01".to_owned(),
            interval_ms: 100,
            totals: Totals { peers: 1, owned: 1, covered: 1 },
            keys: vec![key_use("00000000000000aa", false, 1), key_use("00000000000000bb", true, 0)],
            peers: vec![peer("node2", SpeakerState::Active), silent],
            addresses: vec![owned, free],
        };
        Report {
            version: "0.1.0".to_owned(),
            node: "node1".to_owned(),
            uptime_ms: 90_061_000,
            segments: vec![SegmentReport { interface: "eth0".to_owned(), snapshot }],
            links: vec![link("eth0", LinkUse::Segment, None), link("br-lan", LinkUse::Skipped, Some("it is down"))],
            links_left_out: 2,
        }
    }

    #[test]
    fn segment_is_rendered_as_tables() {
        let expected = "\
node1: herald-speaker 0.1.0, up 1d1h

eth0 (02:00:00:00:00:01): active, answers; a Hello every 100ms; 1 peer heard, 1 address owned, 1 covered
KEY                SIGNS   PEERS SIGNING   PEERS ACCEPTING
00000000000000aa   no      1               1
00000000000000bb   yes     0               1
PEER    STATE    HEARD   INCARNATION        MAC                 CLAIMS   KERNEL    COVERED BY    SIGNS WITH
node2   active   31ms    00000000000000ab   02:00:00:00:00:02   1        -         -             00000000000000aa
node3   silent   31ms    00000000000000ab   02:00:00:00:00:02   1        answers   node1,node2   -
ADDRESS       OWNER   SINCE   EPOCH   REASON   ANSWER              NEXT    CANDIDATES           WAITS FOR
192.0.2.1     node1   3m12s   2       Dead     02:00:00:00:00:01   node2   node1:0,node2:1,+5   -
2001:db8::1   -       -       -       -        -                   node1   node1:0              02:00:5e:10:00:01, a host outside the cluster, to let it go

LINK     KIND     USE       ADDRESSES                          WHY
eth0     -        Segment   192.0.2.11/24,2001:db8::11/64      -
br-lan   bridge   Skipped   192.0.2.11/24,2001:db8::11/64,+1   it is down
and 2 more links with addresses
";
        assert_eq!(report().render(Format::Table).unwrap(), expected);
    }

    #[test]
    fn trouble_is_in_the_first_line() {
        let mut report = report();
        let snapshot = &mut report.segments[0].snapshot;
        (snapshot.state, snapshot.carrier, snapshot.hearing, snapshot.answering) =
            (SpeakerState::Listening, false, false, false);
        let text = render(&report);
        assert!(text.contains("listening, no carrier, hears nothing, does not answer; "), "{text}");
        report.segments.clear();
        assert!(render(&report).contains("no segment"));
    }

    #[test]
    fn json_has_the_same_facts_in_fields() {
        let json: serde_json::Value = serde_json::from_str(&report().render(Format::Json).unwrap()).unwrap();
        let segment = &json["segments"][0];
        assert_eq!(segment["interface"], "eth0");
        assert_eq!(segment["peers"][1]["coveredBy"], serde_json::json!(["node1", "node2"]));
        assert_eq!(segment["addresses"][0]["owner"]["reason"], "Dead");
        assert_eq!(segment["addresses"][1]["waiting"]["conflict"]["mac"], "02:00:5e:10:00:01");
    }

    #[test_case(0, "0ms")]
    #[test_case(999, "999ms")]
    #[test_case(1_250, "1.2s")]
    #[test_case(59_999, "59s")]
    #[test_case(60_000, "1m0s")]
    #[test_case(3_600_000, "1h0m")]
    #[test_case(90_061_000, "1d1h")]
    fn age_has_the_two_largest_units(ms: u64, expected: &str) {
        assert_eq!(age(ms), expected);
    }
}
