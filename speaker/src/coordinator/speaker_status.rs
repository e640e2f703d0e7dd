//! The content of this node's SpeakerStatus.
//!
//! Facts of the kernel are reported at once. Facts of the wire (the peers heard, the nodes covered, the warnings) are
//! reported once they have held for a while: a restarted speaker hears no peer at first, and its peers lose and find it
//! within a second. Neither deserves a write.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use herald_crds::speaker_status::{SpeakerStatusStatus, SpeakerSummary, SpeakerWarning, WarningKind};

use super::io::{Interfaces, SpeakerWrite};
use crate::api_objects::{Node, Speaker};

/// Time for which a fact of the wire has to hold before it is reported: twice the time that a restarted speaker needs
/// to be started, to hear its peers and to be heard (the join barrier lasts 1 s at most).
pub const HELD: Duration = Duration::from_secs(5);

/// The facts of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WireFacts {
    /// Number of nodes heard, by interface name.
    pub peers: BTreeMap<String, usize>,
    /// The nodes with silent speakers that this node answers for.
    pub covering: BTreeSet<String>,
    /// The warnings.
    pub warnings: Vec<SpeakerWarning>,
}

/// Kinds of warnings that come from the wire, in the order in which they are reported.
const WIRE_WARNINGS: [WarningKind; 7] = [
    WarningKind::ClusterKey,
    WarningKind::SocketRefused,
    WarningKind::DuplicateNode,
    WarningKind::SegmentLoop,
    WarningKind::ClaimsLacking,
    WarningKind::PeersUnheard,
    WarningKind::InterfacesOnOneSegment,
];

impl WireFacts {
    fn written(status: &SpeakerStatusStatus) -> Self {
        Self {
            peers: status
                .segments
                .iter()
                .map(|s| (s.interface.clone(), usize::try_from(s.peers).unwrap_or_default()))
                .collect(),
            covering: status.covering.iter().cloned().collect(),
            warnings: status.warnings.iter().filter(|w| WIRE_WARNINGS.contains(&w.kind)).cloned().collect(),
        }
    }
}

/// Facts of one kind, each by its key. Each is reported once it has held, whatever the others do: a fact that changes
/// all the time does not keep another from being reported.
#[derive(Debug)]
struct Held<K, V> {
    /// The facts that are reported.
    reported: BTreeMap<K, V>,
    /// The facts that differ from `reported` (`None`: the fact has ended), and since when.
    pending: BTreeMap<K, (Option<V>, Duration)>,
}

impl<K: Ord + Clone, V: PartialEq + Clone> Held<K, V> {
    fn new(reported: BTreeMap<K, V>) -> Self {
        Self { reported, pending: BTreeMap::new() }
    }

    fn observe(&mut self, now: Duration, facts: &BTreeMap<K, V>) {
        let keys: BTreeSet<K> = self.reported.keys().chain(facts.keys()).cloned().collect();
        self.pending.retain(|key, _| keys.contains(key));
        for key in keys {
            let fact = facts.get(&key);
            if fact == self.reported.get(&key) {
                self.pending.remove(&key);
                continue;
            }
            let pending = self.pending.entry(key.clone()).or_insert((fact.cloned(), now));
            if pending.0.as_ref() != fact {
                *pending = (fact.cloned(), now);
            } else if now >= pending.1 + HELD {
                self.pending.remove(&key);
                match fact {
                    Some(fact) => drop(self.reported.insert(key, fact.clone())),
                    None => drop(self.reported.remove(&key)),
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.pending.values().map(|(_, since)| *since + HELD).min()
    }
}

/// The facts of the wire that have held.
#[derive(Debug)]
struct HeldFacts {
    peers: Held<String, usize>,
    covering: Held<String, ()>,
    /// The warnings, by the place of the kind in [`WIRE_WARNINGS`], and by message.
    warnings: Held<(usize, String), ()>,
}

impl HeldFacts {
    fn new(facts: &WireFacts) -> Self {
        let WireFacts { peers, covering, warnings } = facts;
        Self {
            peers: Held::new(peers.clone()),
            covering: Held::new(by_name(covering)),
            warnings: Held::new(by_place(warnings)),
        }
    }

    fn facts(&self) -> WireFacts {
        let warning = |(place, message): &(usize, String)| {
            WIRE_WARNINGS.get(*place).map(|kind| SpeakerWarning { kind: *kind, message: message.clone() })
        };
        WireFacts {
            peers: self.peers.reported.clone(),
            covering: self.covering.reported.keys().cloned().collect(),
            warnings: self.warnings.reported.keys().filter_map(warning).collect(),
        }
    }
}

fn by_name(covering: &BTreeSet<String>) -> BTreeMap<String, ()> {
    covering.iter().map(|node| (node.clone(), ())).collect()
}

fn by_place(warnings: &[SpeakerWarning]) -> BTreeMap<(usize, String), ()> {
    let place = |kind: WarningKind| WIRE_WARNINGS.iter().position(|known| *known == kind);
    warnings.iter().filter_map(|warning| Some(((place(warning.kind)?, warning.message.clone()), ()))).collect()
}

/// The report.
#[derive(Debug, Default)]
pub(super) struct SpeakerReport {
    /// The facts of the wire that are reported; before the first observation, those that an earlier run reported.
    held: Option<HeldFacts>,
    /// The last status emitted, and the object that was there then: each is emitted once.
    emitted: Option<(Option<Speaker>, SpeakerStatusStatus)>,
}

impl SpeakerReport {
    /// Takes in the present facts of the wire.
    pub(super) fn observe(&mut self, now: Duration, written: Option<&SpeakerStatusStatus>, facts: &WireFacts) {
        let left = || HeldFacts::new(&written.map(WireFacts::written).unwrap_or_default());
        let HeldFacts { peers, covering, warnings } = self.held.get_or_insert_with(left);
        peers.observe(now, &facts.peers);
        covering.observe(now, &by_name(&facts.covering));
        warnings.observe(now, &by_place(&facts.warnings));
    }

    /// Returns the time at which there may be a fact to report.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let HeldFacts { peers, covering, warnings } = self.held.as_ref()?;
        [peers.poll_timeout(), covering.poll_timeout(), warnings.poll_timeout()].into_iter().flatten().min()
    }

    /// Lets the status be emitted again: the API does not list the one emitted last, which may have got lost.
    pub(super) fn write_again(&mut self) {
        self.emitted = None;
    }

    /// Returns the write that is due, if any.
    pub(super) fn write(
        &mut self,
        version: &str,
        node: &Node,
        interfaces: &Interfaces,
        held_addresses: Vec<String>,
        written: Option<&Speaker>,
    ) -> Option<SpeakerWrite> {
        let wire = self.held.as_ref()?.facts();
        let peers = |interface: &str| wire.peers.get(interface).copied().unwrap_or_default();
        let segments: Vec<_> =
            interfaces.segments.iter().map(|s| s.segment.to_status(peers(&s.segment.interface.name))).collect();
        let warnings: Vec<_> = interfaces.warnings.iter().chain(&wire.warnings).cloned().collect();
        let status = SpeakerStatusStatus {
            version: version.to_owned(),
            summary: SpeakerSummary::of(&segments, &warnings),
            segments,
            links: interfaces.links.clone(),
            links_left_out: i64::try_from(interfaces.links_left_out).unwrap_or(i64::MAX),
            held_addresses,
            covering: wire.covering.iter().cloned().collect(),
            warnings,
        };
        if written.and_then(|speaker| speaker.own.as_ref()) == Some(&status) {
            // The write has arrived: if the status gets lost later, it is emitted again.
            self.emitted = None;
            return None;
        }
        let emitted = (written.cloned(), status);
        if self.emitted.as_ref() == Some(&emitted) {
            return None;
        }
        let write = SpeakerWrite { node: node.name.clone(), node_uid: node.uid.clone(), status: emitted.1.clone() };
        self.emitted = Some(emitted);
        Some(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn peers(count: usize) -> WireFacts {
        WireFacts { peers: BTreeMap::from([("eth0".to_owned(), count)]), ..WireFacts::default() }
    }

    fn facts(report: &SpeakerReport) -> Option<WireFacts> {
        report.held.as_ref().map(HeldFacts::facts)
    }

    /// A peer is gone, while an interface with a loose plug turns out to be on the segment of another once a second.
    #[test]
    fn fact_that_changes_all_the_time_does_not_delay_others() {
        let twins = SpeakerWarning { kind: WarningKind::InterfacesOnOneSegment, message: "eth1 and eth0".to_owned() };
        let mut report = SpeakerReport::default();
        report.observe(s(0), None, &peers(0));
        for second in 1..=20 {
            let warnings = if second % 2 == 0 { vec![twins.clone()] } else { vec![] };
            report.observe(s(second), None, &WireFacts { warnings, ..peers(1) });
        }
        assert_eq!(facts(&report), Some(peers(1)));
        assert!(report.poll_timeout().is_none_or(|due| due > s(20)), "nothing stays due");
    }

    #[test]
    fn restart_and_flap_are_not_reported() {
        let written = SpeakerStatusStatus {
            segments: vec![herald_crds::speaker_status::SegmentStatus {
                interface: "eth0".to_owned(),
                peers: 2,
                ..Default::default()
            }],
            ..SpeakerStatusStatus::default()
        };
        let mut report = SpeakerReport::default();
        report.observe(s(0), Some(&written), &peers(0));
        assert_eq!(report.poll_timeout(), Some(HELD));
        report.observe(s(1), Some(&written), &peers(1));
        report.observe(s(2), Some(&written), &peers(2));
        assert_eq!(report.poll_timeout(), None);
        assert_eq!(facts(&report), Some(peers(2)));
    }

    /// A speaker that restarts is covered for a second, and its peers write nothing. A speaker that stays away is
    /// reported, and a coverer that restarts itself does not withdraw that report.
    #[test]
    fn cover_is_reported_once_it_has_held() {
        let covering = |nodes: &[&str]| WireFacts {
            covering: nodes.iter().map(|node| (*node).to_owned()).collect(),
            ..WireFacts::default()
        };
        let mut report = SpeakerReport::default();
        report.observe(s(0), None, &covering(&[]));
        report.observe(s(1), None, &covering(&["b"]));
        report.observe(s(2), None, &covering(&[]));
        assert_eq!((facts(&report), report.poll_timeout()), (Some(covering(&[])), None));
        report.observe(s(10), None, &covering(&["b"]));
        report.observe(s(15), None, &covering(&["b"]));
        assert_eq!(facts(&report), Some(covering(&["b"])));
        let written = SpeakerStatusStatus { covering: vec!["b".to_owned()], ..SpeakerStatusStatus::default() };
        let mut restarted = SpeakerReport::default();
        restarted.observe(s(20), Some(&written), &covering(&[]));
        assert_eq!(facts(&restarted), Some(covering(&["b"])));
    }

    #[test]
    fn fact_that_holds_is_reported() {
        let mut report = SpeakerReport::default();
        report.observe(s(0), None, &peers(2));
        report.observe(s(4), None, &peers(2));
        assert_eq!(facts(&report), Some(WireFacts::default()));
        report.observe(s(5), None, &peers(2));
        assert_eq!(facts(&report), Some(peers(2)));
    }

    #[test]
    fn warnings_of_the_kernel_are_not_facts_of_the_wire() {
        let warning = |kind| SpeakerWarning { kind, message: String::new() };
        let status = SpeakerStatusStatus {
            warnings: vec![warning(WarningKind::RpFilter), warning(WarningKind::SegmentLoop)],
            ..SpeakerStatusStatus::default()
        };
        assert_eq!(WireFacts::written(&status).warnings, [warning(WarningKind::SegmentLoop)]);
    }
}
