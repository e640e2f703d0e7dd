//! A report that fits one screen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use super::analysis::{
    AnnouncementReport, Answers, FlowReport, Gaps, NeighbourReport, Report, StreamReport, TargetReport,
};
use super::sample::AnnouncementKind;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s; witness stalled {:.1} ms at most", self.duration_ms / 1000.0, self.witness_max_stall_ms)?;
        writeln!(f, "{}", if self.void { ": VOID, the machine was too busy; repeat" } else { "" })?;
        for target in &self.targets {
            write!(f, "{target}")?;
        }
        for announcement in &self.announcements {
            writeln!(f, "{announcement}")?;
        }
        Ok(())
    }
}

impl Display for TargetReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { address, neighbour, udp, stream, connections } = self;
        writeln!(f, "{address}")?;
        if let Some(neighbour) = neighbour {
            row(f, if address.is_ipv4() { "ARP" } else { "ND" }, &neighbour.answers)?;
            macs(f, neighbour)?;
        }
        if let Some(udp) = udp {
            row(f, "UDP", &udp.answers)?;
            flow(f, udp)?;
        }
        if let Some(stream) = stream {
            row(f, "TCP, one", &stream.answers)?;
            let StreamReport { resets, connections, failures, pods, clients_seen, answers: _ } = stream;
            detail(f, &format!("{resets} resets, established {connections} times"))?;
            answered_by(f, failures, pods, clients_seen)?;
        }
        if let Some(connections) = connections {
            row(f, "TCP, new", &connections.answers)?;
            flow(f, connections)?;
        }
        Ok(())
    }
}

impl Display for Gaps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { count, min_ms, median_ms, max_ms, largest } = self;
        let open = if largest.iter().any(|gap| gap.open) { ", no answer at the end" } else { "" };
        match count {
            0 => write!(f, "no gap"),
            1 => write!(f, "1 gap of {max_ms:.0} ms{open}"),
            _ => write!(f, "{count} gaps, {min_ms:.0}/{median_ms:.0}/{max_ms:.0} ms min/median/max{open}"),
        }
    }
}

impl Display for AnnouncementReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { address, kind, mac, source, count, first_ms, last_ms } = self;
        let kind = match kind {
            AnnouncementKind::ArpRequest => "ARP request",
            AnnouncementKind::ArpReply => "ARP reply",
            AnnouncementKind::AdvertisementOverride => "NA, override",
            AnnouncementKind::Advertisement => "NA",
        };
        write!(f, "announced: {address} is at {mac}, {count} x {kind}, {first_ms:.0} to {last_ms:.0} ms")?;
        if source == mac { Ok(()) } else { write!(f, ", sent by {source}") }
    }
}

fn row(f: &mut Formatter<'_>, what: &str, answers: &Answers) -> fmt::Result {
    let Answers { sent, answered, lost, first_answer_ms, gaps } = answers;
    write!(f, "  {what:<9}{sent:>6} sent {answered:>6} answered {lost:>5} lost   ")?;
    match first_answer_ms {
        Some(_) => writeln!(f, "{gaps}"),
        None => writeln!(f, "never answered"),
    }
}

fn detail(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    writeln!(f, "           {text}")
}

fn macs(f: &mut Formatter<'_>, report: &NeighbourReport) -> fmt::Result {
    for seen in &report.macs {
        let mut text =
            format!("{} gave {} answers, {:.0} to {:.0} ms", seen.mac, seen.answers, seen.first_ms, seen.last_ms);
        if seen.covered > 0 {
            text += &format!(", {} of them sent by another node", seen.covered);
        }
        detail(f, &text)?;
    }
    if report.macs.len() > 1 {
        let NeighbourReport { two_macs_ms, contested, .. } = report;
        detail(f, &format!("two MACs at once for {two_macs_ms:.0} ms, {contested} questions got both"))?;
    }
    Ok(())
}

fn flow(f: &mut Formatter<'_>, report: &FlowReport) -> fmt::Result {
    let FlowReport { duplicates, failures, pods, clients_seen, resets: _, answers: _ } = report;
    if *duplicates > 0 {
        detail(f, &format!("{duplicates} answered twice"))?;
    }
    answered_by(f, failures, pods, clients_seen)
}

fn answered_by(
    f: &mut Formatter<'_>,
    failures: &BTreeMap<String, usize>,
    pods: &BTreeMap<String, usize>,
    clients: &BTreeSet<String>,
) -> fmt::Result {
    if !failures.is_empty() {
        detail(f, &format!("failed: {}", counted(failures)))?;
    }
    if !pods.is_empty() {
        let clients: Vec<&str> = clients.iter().map(String::as_str).collect();
        detail(f, &format!("by {}; client seen as {}", counted(pods), clients.join(", ")))?;
    }
    Ok(())
}

fn counted(counts: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} ({count})")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::analysis::Gap;
    use crate::probe::sample::{At, Mac, NeighbourAnswer, NeighbourSamples, Samples, TargetSamples, WitnessSamples};

    #[test]
    fn gaps_are_summarised_in_words() {
        let gap = |length_ms, open| Gap { from_ms: 0.0, length_ms, open };
        let table = [
            (Gaps::default(), "no gap"),
            (
                Gaps { count: 1, min_ms: 120.4, median_ms: 120.4, max_ms: 120.4, largest: vec![gap(120.4, false)] },
                "1 gap of 120 ms",
            ),
            (
                Gaps {
                    count: 2,
                    min_ms: 40.0,
                    median_ms: 500.0,
                    max_ms: 500.0,
                    largest: vec![gap(500.0, true), gap(40.0, false)],
                },
                "2 gaps, 40/500/500 ms min/median/max, no answer at the end",
            ),
        ];
        for (gaps, words) in table {
            assert_eq!(gaps.to_string(), words);
        }
    }

    #[test]
    fn move_is_summarised() {
        let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let answer = |ms: u64, mac, source| NeighbourAnswer { at: At(ms * 1000), mac, source };
        let neighbour = NeighbourSamples {
            sent: (0..10).map(|n| At(n * 10_000)).collect(),
            answers: vec![answer(1, a, a), answer(11, a, b), answer(61, b, b), answer(71, b, b), answer(81, b, b)],
        };
        let samples = Samples {
            ended: At(100_000),
            targets: vec![TargetSamples {
                address: [192, 0, 2, 10].into(),
                neighbour: Some(neighbour),
                udp: None,
                stream: None,
                connections: None,
            }],
            witness: WitnessSamples { max_us: 31_000, stalls: Vec::new() },
            ..Samples::default()
        };
        let text = Report::of(&samples).to_string();
        let expected = "\
0.1 s; witness stalled 31.0 ms at most: VOID, the machine was too busy; repeat
192.0.2.10
  ARP          10 sent      5 answered     5 lost   1 gap of 50 ms
           02:00:00:00:00:01 gave 2 answers, 1 to 11 ms, 1 of them sent by another node
           02:00:00:00:00:02 gave 3 answers, 61 to 81 ms
           two MACs at once for 0 ms, 0 questions got both
";
        assert_eq!(text, expected);
    }
}
