//! The MACs that answered for an address, and the overlaps of their answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::probe::sample::{At, Mac, NeighbourAnswer};

/// Silence in microseconds after which a MAC has stopped answering; later answers form a new span. The value is
/// deliberately large: two nodes that answer in turn count as two answering nodes.
const SILENCE_US: u64 = 200_000;

/// Microseconds of two Hello intervals of 100 ms, for which two nodes may own an address (P4).
const CONTEST_US: u64 = 200_000;

/// One MAC that answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MacSeen {
    /// The MAC given for the address.
    pub mac: Mac,
    /// Milliseconds to its first answer.
    pub first_ms: f64,
    /// Milliseconds to its last answer.
    pub last_ms: f64,
    /// Number of answers with this MAC.
    pub answers: usize,
    /// Number of answers from another Ethernet source: one node answered for another.
    pub covered: usize,
}

/// Returns the MACs that answered, in the order of their first answers.
pub(super) fn seen(answers: &[NeighbourAnswer]) -> Vec<MacSeen> {
    let mut seen: Vec<MacSeen> = Vec::new();
    for &NeighbourAnswer { at, mac, source } in answers {
        let covered = usize::from(source != mac);
        match seen.iter_mut().find(|entry| entry.mac == mac) {
            Some(entry) => {
                entry.last_ms = at.ms();
                entry.answers += 1;
                entry.covered += covered;
            }
            None => seen.push(MacSeen { mac, first_ms: at.ms(), last_ms: at.ms(), answers: 1, covered }),
        }
    }
    seen
}

/// Returns the spans in which one MAC answered without a longer silence, ordered by their beginnings.
fn spans(answers: &[NeighbourAnswer]) -> Vec<(Mac, At, At)> {
    let mut spans: Vec<(Mac, At, At)> = Vec::new();
    for &NeighbourAnswer { at, mac, .. } in answers {
        let last = spans.iter_mut().rev().find(|span| span.0 == mac);
        match last {
            Some((_, _, end)) if at.0 - end.0 <= SILENCE_US => *end = at,
            _ => spans.push((mac, at, at)),
        }
    }
    spans
}

/// Returns how often the address moved from one MAC to another. Two MACs that answer in turn count as one move. A MAC
/// that answers while another one does and stops within [`CONTEST_US`] does not count as a new owner.
pub(super) fn moves(answers: &[NeighbourAnswer]) -> usize {
    let mut all = spans(answers);
    let whole = all.clone();
    let gave_way = |&(mac, start, end): &(Mac, At, At)| {
        let within = |&(other, from, to): &(Mac, At, At)| other != mac && from <= start && end <= to;
        end.0 - start.0 <= CONTEST_US && whole.iter().any(within)
    };
    all.retain(|span| !gave_way(span));
    all.windows(2).filter(|pair| pair[0].0 != pair[1].0).count()
}

/// Returns the longest time, in milliseconds, in which two MACs both answered.
pub(super) fn longest_overlap_ms(answers: &[NeighbourAnswer]) -> f64 {
    let spans = spans(answers);
    let mut longest: f64 = 0.0;
    for (index, &(mac, start, end)) in spans.iter().enumerate() {
        for &(other, other_start, other_end) in &spans[index + 1..] {
            if other != mac {
                longest = longest.max(end.min(other_end).ms_since(start.max(other_start)));
            }
        }
    }
    longest
}

/// Returns the number of solicitations that were answered with more than one MAC. An answer belongs to the last
/// solicitation sent before it.
pub(super) fn contested(sent: &[At], answers: &[NeighbourAnswer]) -> usize {
    let mut first: BTreeMap<usize, Mac> = BTreeMap::new();
    let mut contested = std::collections::BTreeSet::new();
    for &NeighbourAnswer { at, mac, .. } in answers {
        let solicitation = sent.partition_point(|&sent| sent <= at);
        if *first.entry(solicitation).or_insert(mac) != mac {
            contested.insert(solicitation);
        }
    }
    contested.len()
}

/// Returns the number of solicitations that were answered.
pub(super) fn answered(sent: &[At], answers: &[NeighbourAnswer]) -> usize {
    let mut solicitations: Vec<usize> =
        answers.iter().map(|answer| sent.partition_point(|&sent| sent <= answer.at)).filter(|&n| n > 0).collect();
    solicitations.sort_unstable();
    solicitations.dedup();
    solicitations.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
    const C: Mac = Mac([2, 0, 0, 0, 0, 0xc]);

    fn answer(ms: u64, mac: Mac) -> NeighbourAnswer {
        NeighbourAnswer { at: At(ms * 1000), mac, source: mac }
    }

    /// Returns answers of one MAC every 10 ms.
    fn span(mac: Mac, from: u64, to: u64) -> Vec<NeighbourAnswer> {
        (from..=to).step_by(10).map(|ms| answer(ms, mac)).collect()
    }

    fn merged(mut spans: Vec<NeighbourAnswer>) -> Vec<NeighbourAnswer> {
        spans.sort_by_key(|answer| answer.at);
        spans
    }

    #[test_case(vec![span(A, 0, 500)], 0.0; "one MAC")]
    #[test_case(vec![], 0.0; "no answer")]
    #[test_case(vec![span(A, 0, 200), span(B, 210, 500)], 0.0; "a clean move")]
    #[test_case(vec![span(A, 0, 250), span(B, 210, 500)], 40.0; "make before break")]
    #[test_case(vec![span(A, 0, 500), span(B, 0, 500)], 500.0; "split brain")]
    #[test_case(vec![span(A, 0, 100), span(B, 110, 200), span(A, 210, 300)], 90.0; "answers in turn")]
    #[test_case(vec![span(A, 0, 100), span(B, 150, 400), span(A, 450, 500)], 0.0; "back after a silence")]
    #[test_case(vec![span(A, 0, 100), span(A, 500, 600), span(B, 200, 400)], 0.0; "two spans do not bridge a silence")]
    fn overlap_of_two_macs_is_measured(spans: Vec<Vec<NeighbourAnswer>>, expected: f64) {
        assert_eq!(longest_overlap_ms(&merged(spans.concat())), expected);
    }

    #[test_case(vec![span(A, 0, 500)], 0; "one MAC")]
    #[test_case(vec![span(A, 0, 100), span(A, 900, 1200)], 0; "silence without a move")]
    #[test_case(vec![span(A, 0, 250), span(B, 210, 500)], 1; "make before break")]
    #[test_case(vec![span(A, 0, 100), span(B, 400, 600), span(A, 900, 1200)], 2; "there and back")]
    #[test_case(vec![span(A, 0, 500), span(B, 0, 500)], 1; "split brain")]
    #[test_case(vec![span(A, 0, 340), span(B, 320, 900), span(C, 490, 500)], 1; "one of two successors gives way")]
    #[test_case(vec![span(A, 0, 340), span(B, 320, 900), span(C, 490, 700)], 2; "one of two successors gives way late")]
    #[test_case(vec![span(A, 0, 340), span(B, 350, 400), span(C, 410, 900)], 2; "one after the other")]
    fn moves_are_counted(spans: Vec<Vec<NeighbourAnswer>>, expected: usize) {
        assert_eq!(moves(&merged(spans.concat())), expected);
    }

    #[test]
    fn each_solicitation_counts_once() {
        let sent = [At(0), At(10_000), At(20_000), At(30_000)];
        let answers = [answer(1, A), answer(2, A), answer(11, A), answer(12, B), answer(13, A), answer(31, B)];
        assert_eq!(answered(&sent, &answers), 3);
        assert_eq!(contested(&sent, &answers), 1);
    }

    #[test]
    fn covered_answers_are_counted_apart() {
        let covered = NeighbourAnswer { source: B, ..answer(20, A) };
        let seen = seen(&[answer(0, A), answer(10, A), covered, answer(30, B)]);
        let expected = [
            MacSeen { mac: A, first_ms: 0.0, last_ms: 20.0, answers: 3, covered: 1 },
            MacSeen { mac: B, first_ms: 30.0, last_ms: 30.0, answers: 1, covered: 0 },
        ];
        assert_eq!(seen, expected);
    }
}
