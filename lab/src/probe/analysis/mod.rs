//! From samples to results, as pure functions, so that the definitions of the figures can be read and tested here.

mod gaps;
mod macs;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::gaps::{Gap, Gaps};
pub use self::macs::MacSeen;
use super::sample::{
    Announcement, AnnouncementKind, Answerer, At, Connection, Failure, Mac, NeighbourSamples, Outcome, Reason, Samples,
    StreamSamples, TargetSamples, UdpSamples,
};
use super::spec::{CONNECT_INTERVAL, INTERVAL};

/// Milliseconds of a witness stall above which the run is void: a gap could be caused by the machine.
pub const VOID_STALL_MS: f64 = 30.0;

/// The results of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether the witness stalled for more than 30 ms, so that the run must be repeated.
    pub void: bool,
    /// The longest stall of the witness, in milliseconds.
    pub witness_max_stall_ms: f64,
    /// Length of the run in milliseconds.
    pub duration_ms: f64,
    /// CLOCK_MONOTONIC of the machine, in nanoseconds, at the run's zero.
    pub origin_ns: u64,
    /// One entry per address, in the order of the request.
    pub targets: Vec<TargetReport>,
    /// The announcements on the segment, grouped.
    pub announcements: Vec<AnnouncementReport>,
}

/// The results for one address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReport {
    /// The address.
    pub address: IpAddr,
    /// The results of ARP or neighbour discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<NeighbourReport>,
    /// The results of the UDP echo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<FlowReport>,
    /// The results of the long TCP connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamReport>,
    /// The results of the new TCP connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<FlowReport>,
}

/// Probes, answers and the times without an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// Probes sent.
    pub sent: usize,
    /// Probes answered.
    pub answered: usize,
    /// Probes never answered, including those before the first answer.
    pub lost: usize,
    /// Milliseconds from the start to the first answer.
    pub first_answer_ms: Option<f64>,
    /// The times without an answer.
    pub gaps: Gaps,
}

impl Answers {
    fn of(sent: usize, answered: usize, times: &[At], ended: At, interval: Duration) -> Self {
        Self {
            sent,
            answered,
            lost: sent.saturating_sub(answered),
            first_answer_ms: times.iter().min().map(|at| at.ms()),
            gaps: Gaps::between(times, ended, interval),
        }
    }
}

/// The answers for an address on the segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeighbourReport {
    /// Solicitations and answers.
    #[serde(flatten)]
    pub answers: Answers,
    /// The MACs given for the address, in the order of their first answers.
    pub macs: Vec<MacSeen>,
    /// The longest time, in milliseconds, in which two MACs both answered.
    pub two_macs_ms: f64,
    /// Solicitations answered with more than one MAC.
    pub contested: usize,
    /// Number of times the address moved from one MAC to another.
    pub moves: usize,
}

/// The results of datagrams or of new connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowReport {
    /// Probes and answers.
    #[serde(flatten)]
    pub answers: Answers,
    /// Datagrams answered more than once.
    pub duplicates: usize,
    /// Failures by reason, in words; for connections these are the ones that `lost` counts.
    pub failures: BTreeMap<String, usize>,
    /// Established connections that were reset.
    pub resets: usize,
    /// Answers by pod.
    pub pods: BTreeMap<String, usize>,
    /// The client addresses seen by the pods.
    pub clients_seen: BTreeSet<String>,
}

/// The results of the long TCP connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamReport {
    /// Lines sent and lines that came back.
    #[serde(flatten)]
    pub answers: Answers,
    /// Number of resets of the established connection.
    pub resets: usize,
    /// Number of times the connection was established; 1 without failures.
    pub connections: usize,
    /// Failures by reason, resets included, in words.
    pub failures: BTreeMap<String, usize>,
    /// Connections by pod.
    pub pods: BTreeMap<String, usize>,
    /// The client addresses seen by the pods.
    pub clients_seen: BTreeSet<String>,
}

/// A group of equal announcements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnnouncementReport {
    /// The announced address.
    pub address: IpAddr,
    /// The form of the announcement.
    pub kind: AnnouncementKind,
    /// The announced MAC.
    pub mac: Mac,
    /// The Ethernet source.
    pub source: Mac,
    /// Number of announcements.
    pub count: usize,
    /// Milliseconds from the start of the run to the first one.
    pub first_ms: f64,
    /// Milliseconds from the start of the run to the last one.
    pub last_ms: f64,
}

impl Report {
    /// Computes the results of an agent's samples.
    #[must_use]
    pub fn of(samples: &Samples) -> Self {
        let Samples { origin_ns, ended, targets, announcements, witness } = samples;
        let witness_max_stall_ms = At(witness.max_us).ms();
        Self {
            void: witness_max_stall_ms > VOID_STALL_MS,
            witness_max_stall_ms,
            duration_ms: ended.ms(),
            origin_ns: *origin_ns,
            targets: targets.iter().map(|target| TargetReport::of(target, *ended)).collect(),
            announcements: grouped(announcements),
        }
    }

    /// Returns the results for an address; `None` if it was not a target.
    #[must_use]
    pub fn target(&self, address: IpAddr) -> Option<&TargetReport> {
        self.targets.iter().find(|target| target.address == address)
    }
}

impl TargetReport {
    fn of(samples: &TargetSamples, ended: At) -> Self {
        let TargetSamples { address, neighbour, udp, stream, connections } = samples;
        Self {
            address: *address,
            neighbour: neighbour.as_ref().map(|samples| NeighbourReport::of(samples, ended)),
            udp: udp.as_ref().map(|samples| FlowReport::of_udp(samples, ended)),
            stream: stream.as_ref().map(|samples| StreamReport::of(samples, ended)),
            connections: connections.as_ref().map(|samples| FlowReport::of_connections(samples, ended)),
        }
    }
}

impl NeighbourReport {
    fn of(NeighbourSamples { sent, answers }: &NeighbourSamples, ended: At) -> Self {
        let times: Vec<At> = answers.iter().map(|answer| answer.at).collect();
        Self {
            answers: Answers::of(sent.len(), macs::answered(sent, answers), &times, ended, INTERVAL),
            macs: macs::seen(answers),
            two_macs_ms: macs::longest_overlap_ms(answers),
            contested: macs::contested(sent, answers),
            moves: macs::moves(answers),
        }
    }
}

impl FlowReport {
    fn of_udp(UdpSamples { sent, answers, errors }: &UdpSamples, ended: At) -> Self {
        let times: Vec<At> = answers.iter().map(|answer| answer.at).collect();
        let answered: BTreeSet<usize> = answers.iter().map(|answer| answer.seq).collect();
        let (pods, clients_seen) = answerers(answers.iter().map(|answer| &answer.by));
        Self {
            answers: Answers::of(sent.len(), answered.len(), &times, ended, INTERVAL),
            duplicates: answers.len() - answered.len(),
            failures: by_reason(errors.iter().map(|failure| &failure.reason)),
            resets: 0,
            pods,
            clients_seen,
        }
    }

    fn of_connections(connections: &[Connection], ended: At) -> Self {
        let mut times = Vec::new();
        let mut by = Vec::new();
        let mut reasons = Vec::new();
        for connection in connections {
            match &connection.outcome {
                Outcome::Answered(answerer) => {
                    times.push(connection.ended);
                    by.push(answerer);
                }
                Outcome::Failed(reason) => reasons.push(reason),
            }
        }
        let (pods, clients_seen) = answerers(by.iter().copied());
        Self {
            answers: Answers::of(connections.len(), times.len(), &times, ended, CONNECT_INTERVAL),
            duplicates: 0,
            resets: reasons.iter().filter(|&&reason| *reason == Reason::Reset).count(),
            failures: by_reason(reasons),
            pods,
            clients_seen,
        }
    }
}

impl StreamReport {
    fn of(StreamSamples { sent, echoes, opened, breaks }: &StreamSamples, ended: At) -> Self {
        let times: Vec<At> = echoes.iter().map(|echo| echo.at).collect();
        let answered: BTreeSet<usize> = echoes.iter().map(|echo| echo.line).collect();
        let (pods, clients_seen) = answerers(opened.iter().map(|opened| &opened.by));
        Self {
            answers: Answers::of(sent.len(), answered.len(), &times, ended, INTERVAL),
            resets: breaks.iter().filter(|Failure { reason, .. }| *reason == Reason::Reset).count(),
            connections: opened.len(),
            failures: by_reason(breaks.iter().map(|failure| &failure.reason)),
            pods,
            clients_seen,
        }
    }
}

fn answerers<'a>(by: impl Iterator<Item = &'a Answerer>) -> (BTreeMap<String, usize>, BTreeSet<String>) {
    let mut pods = BTreeMap::new();
    let mut clients = BTreeSet::new();
    for Answerer { pod, client, .. } in by {
        *pods.entry(pod.clone()).or_default() += 1;
        clients.insert(client.clone());
    }
    (pods, clients)
}

fn by_reason<'a>(reasons: impl IntoIterator<Item = &'a Reason>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for reason in reasons {
        *counted.entry(reason.to_string()).or_default() += 1;
    }
    counted
}

fn grouped(announcements: &[Announcement]) -> Vec<AnnouncementReport> {
    let mut groups: Vec<AnnouncementReport> = Vec::new();
    for &Announcement { at, kind, address, mac, source } in announcements {
        let equal = |group: &&mut AnnouncementReport| {
            (group.address, group.kind, group.mac, group.source) == (address, kind, mac, source)
        };
        match groups.iter_mut().find(equal) {
            Some(group) => {
                group.count += 1;
                group.last_ms = at.ms();
            }
            None => {
                let (first_ms, last_ms) = (at.ms(), at.ms());
                groups.push(AnnouncementReport { address, kind, mac, source, count: 1, first_ms, last_ms });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests;
