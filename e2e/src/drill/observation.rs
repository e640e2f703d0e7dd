//! The observations of one address by two clients during one phase, from their two reports.

use std::net::IpAddr;

use super::{Family, Target};
use herald_lab::probe::analysis::{Answers, TargetReport};
use herald_lab::probe::{Mac, Report};

/// The observation of a probed address.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The probed address.
    pub target: Target,
    /// Datagrams and lines of the long connection that the client did not get back.
    pub lost: usize,
    /// Connections that were reset.
    pub resets: usize,
    /// New connections that were never established. (A connection that was established when the address moved and was
    /// then reset by a node that does not know it is counted among the resets.)
    pub failed_connections: usize,
    /// Number of times the address moved from one MAC to another.
    pub moves: usize,
    /// The longest time, in milliseconds, in which two MACs both answered.
    pub two_macs_ms: f64,
    /// The longest time without an answer to a broadcast or multicast solicitation, in milliseconds; 0 without a gap.
    pub answer_gap_ms: f64,
    /// The longest time without an answered datagram, or without an answered new connection, in milliseconds; 0 without
    /// a gap.
    pub data_gap_ms: f64,
    /// The MACs that answered, in the order of their first answers.
    pub macs: Vec<Mac>,
    /// Milliseconds from the fault until the last of these MACs first answered; `None` if only one answered.
    pub moved_after_ms: Option<f64>,
    /// Whether something was still unanswered at the end.
    pub unanswered_at_the_end: bool,
}

/// The first announcement of an address that was not probed, by its new owner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FirstAnnouncement {
    /// Its family.
    pub family: Family,
    /// Milliseconds from the fault to the first announcement.
    pub announced_after_ms: f64,
}

impl Observation {
    /// Joins the reports of the watching and the talking client on a fault at `struck_ns`; returns `None` if one of
    /// them did not probe the address.
    #[must_use]
    pub fn of(target: Target, watch: &Report, traffic: &Report, struck_ns: u64) -> Option<Self> {
        let neighbour = watch.target(target.address)?.neighbour.as_ref()?;
        let TargetReport { udp, stream, connections, .. } = traffic.target(target.address)?;
        let (udp, stream, connections) = (udp.as_ref()?, stream.as_ref()?, connections.as_ref()?);
        let all = [&neighbour.answers, &udp.answers, &stream.answers, &connections.answers];
        let next_owner = neighbour.macs.get(1..).and_then(<[_]>::last);
        Some(Self {
            target,
            lost: udp.answers.lost + stream.answers.lost,
            resets: stream.resets + connections.resets,
            failed_connections: connections.answers.lost - connections.resets,
            moves: neighbour.moves,
            two_macs_ms: neighbour.two_macs_ms,
            answer_gap_ms: neighbour.answers.gaps.max_ms,
            data_gap_ms: udp.answers.gaps.max_ms.max(connections.answers.gaps.max_ms),
            macs: neighbour.macs.iter().map(|seen| seen.mac).collect(),
            moved_after_ms: next_owner.map(|owner| owner.first_ms - struck_ms(watch, struck_ns)),
            unanswered_at_the_end: all.into_iter().any(is_open),
        })
    }
}

fn is_open(answers: &Answers) -> bool {
    answers.gaps.largest.iter().any(|gap| gap.open)
}

/// Returns the fault's moment in the time of a report.
fn struck_ms(watch: &Report, struck_ns: u64) -> f64 {
    struck_ns.saturating_sub(watch.origin_ns) as f64 / 1e6
}

/// Returns when each of `addresses` was first announced by another MAC than `old`, counted from the fault. An address
/// without such an announcement is missing from the result.
#[must_use]
pub fn bystanders(addresses: &[IpAddr], watch: &Report, struck_ns: u64, old: Mac) -> Vec<FirstAnnouncement> {
    let struck_ms = struck_ms(watch, struck_ns);
    let first = |address: &IpAddr| {
        let by_others = watch.announcements.iter().filter(|a| a.address == *address && a.mac != old);
        by_others.map(|a| a.first_ms - struck_ms).min_by(f64::total_cmp)
    };
    addresses
        .iter()
        .filter_map(|address| {
            Some(FirstAnnouncement { family: Family::of(*address), announced_after_ms: first(address)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::Policy;
    use herald_lab::probe::sample::{
        Announcement, AnnouncementKind, Answerer, At, Connection, NeighbourAnswer, NeighbourSamples, Outcome, Reason,
        Samples, StreamSamples, TargetSamples, UdpAnswer, UdpSamples,
    };

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    fn ms(ms: u64) -> At {
        At(ms * 1000)
    }

    fn address() -> IpAddr {
        [192, 0, 2, 10].into()
    }

    fn target() -> Target {
        Target { address: address(), policy: Policy::Local }
    }

    fn samples(neighbour: Option<NeighbourSamples>, talk: bool) -> Samples {
        let udp = UdpSamples {
            sent: vec![ms(0), ms(10), ms(100)],
            answers: [(0, 1), (2, 101)].map(|(seq, at)| UdpAnswer { seq, at: ms(at), by: Answerer::default() }).into(),
            errors: Vec::new(),
        };
        let connection = |at, outcome| Connection { started: ms(at), ended: ms(at + 1), outcome };
        let connections = vec![
            connection(0, Outcome::Answered(Answerer::default())),
            connection(20, Outcome::Failed(Reason::Reset)),
            connection(40, Outcome::Failed(Reason::TimedOut)),
            connection(95, Outcome::Answered(Answerer::default())),
        ];
        Samples {
            ended: ms(110),
            targets: vec![TargetSamples {
                address: address(),
                neighbour,
                udp: talk.then_some(udp),
                stream: talk.then(StreamSamples::default),
                connections: talk.then_some(connections),
            }],
            ..Samples::default()
        }
    }

    #[test]
    fn two_reports_are_joined() {
        let answer = |at, mac| NeighbourAnswer { at: ms(at), mac, source: mac };
        let neighbour = NeighbourSamples {
            sent: vec![ms(0), ms(10), ms(60)],
            answers: vec![answer(1, A), answer(11, A), answer(61, B), answer(100, B)],
        };
        let watch = Report::of(&samples(Some(neighbour), false));
        let traffic = Report::of(&samples(None, true));
        let seen = Observation::of(target(), &watch, &traffic, 20_000_000).unwrap();
        assert_eq!((seen.lost, seen.resets, seen.failed_connections, seen.moves), (1, 1, 1, 1), "{seen:?}");
        assert_eq!((seen.answer_gap_ms, seen.data_gap_ms), (50.0, 100.0));
        assert_eq!((seen.macs.as_slice(), seen.unanswered_at_the_end), (&[A, B][..], false));
        assert_eq!(seen.moved_after_ms, Some(41.0), "B answered first at 61 ms, and the fault came at 20");
        assert!(Observation::of(target(), &traffic, &traffic, 0).is_none(), "nobody watched");
        assert!(Observation::of(target(), &watch, &watch, 0).is_none(), "nobody talked");
    }

    #[test]
    fn bystanders_are_timed_by_their_new_owner() {
        let said = |at, mac| Announcement {
            at: ms(at),
            kind: AnnouncementKind::ArpRequest,
            address: address(),
            mac,
            source: mac,
        };
        let samples = Samples {
            origin_ns: 5_000_000_000,
            announcements: vec![said(10, A), said(400, B), said(500, B)],
            ..samples(None, false)
        };
        let silent: IpAddr = [192, 0, 2, 99].into();
        let found = bystanders(&[address(), silent], &Report::of(&samples), 5_100_000_000, A);
        assert_eq!(found, [FirstAnnouncement { family: Family::V4, announced_after_ms: 300.0 }]);
    }
}
