//! What this node writes into its SpeakerStatus.
//!
//! What the kernel says goes in at once. What the wire says (who is heard, who is covered, what is wrong there) goes in once it has
//! held for a while: a restarted speaker hears nobody at first, and its peers lose and find it within a second. Neither
//! is worth a write.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use herald_crds::speaker_status::{SpeakerStatusStatus, SpeakerWarning, WarningKind};

use super::types::{Interfaces, SpeakerWrite};
use crate::cluster::{Node, Speaker};

/// What the wire says is reported once it has held for this long: twice what a restarted speaker needs to be started,
/// to hear its peers and to be heard (the join barrier lasts 1 s at most).
pub const HELD: Duration = Duration::from_secs(5);

/// What the wire says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WireFacts {
    /// How many nodes are heard, by interface name.
    pub peers: BTreeMap<String, usize>,
    /// The nodes this one answers for, since their speakers are silent.
    pub covering: BTreeSet<String>,
    /// What is wrong.
    pub warnings: Vec<SpeakerWarning>,
}

/// Kinds of warnings that come from the wire.
const WIRE_WARNINGS: [WarningKind; 7] = [
    WarningKind::PeersUnheard,
    WarningKind::ClaimsLacking,
    WarningKind::SegmentLoop,
    WarningKind::InterfacesOnOneSegment,
    WarningKind::DuplicateNode,
    WarningKind::ClusterKey,
    WarningKind::SocketRefused,
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

/// The report.
#[derive(Debug, Default)]
pub(super) struct SpeakerReport {
    /// What is reported of the wire; before the first, what an earlier run reported is.
    held: Option<WireFacts>,
    /// What differs from it, and since when.
    pending: Option<(WireFacts, Duration)>,
    /// The last status emitted, and what was written then: emitted once.
    emitted: Option<(Option<Speaker>, SpeakerStatusStatus)>,
}

impl SpeakerReport {
    /// What the wire says now.
    pub(super) fn observe(&mut self, now: Duration, written: Option<&SpeakerStatusStatus>, facts: WireFacts) {
        let held = self.held.get_or_insert_with(|| written.map(WireFacts::written).unwrap_or_default());
        match &self.pending {
            _ if *held == facts => self.pending = None,
            Some((pending, since)) if *pending == facts => {
                if now >= *since + HELD {
                    self.held = Some(facts);
                    self.pending = None;
                }
            }
            _ => self.pending = Some((facts, now)),
        }
    }

    /// When there may be something to report.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.pending.as_ref().map(|(_, since)| *since + HELD)
    }

    /// The write that is due, if any.
    pub(super) fn write(
        &mut self,
        version: &str,
        node: &Node,
        interfaces: &Interfaces,
        held_addresses: Vec<String>,
        written: Option<&Speaker>,
    ) -> Option<SpeakerWrite> {
        let wire = self.held.as_ref()?;
        let peers = |interface: &str| wire.peers.get(interface).copied().unwrap_or_default();
        let segments = interfaces.segments.iter();
        let status = SpeakerStatusStatus {
            version: version.to_owned(),
            segments: segments.map(|s| s.segment.to_status(peers(&s.segment.interface))).collect(),
            links: interfaces.links.clone(),
            links_left_out: i64::try_from(interfaces.links_left_out).unwrap_or(i64::MAX),
            held_addresses,
            covering: wire.covering.iter().cloned().collect(),
            warnings: interfaces.warnings.iter().chain(&wire.warnings).cloned().collect(),
        };
        if written.and_then(|speaker| speaker.own.as_ref()) == Some(&status) {
            // Arrived: should it get lost, it is emitted again.
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

    #[test]
    fn a_restart_and_a_flap_report_nothing() {
        let written = SpeakerStatusStatus {
            segments: vec![herald_crds::speaker_status::SegmentStatus {
                interface: "eth0".to_owned(),
                peers: 2,
                ..Default::default()
            }],
            ..SpeakerStatusStatus::default()
        };
        let mut report = SpeakerReport::default();
        report.observe(s(0), Some(&written), peers(0));
        assert_eq!(report.poll_timeout(), Some(HELD));
        report.observe(s(1), Some(&written), peers(1));
        report.observe(s(2), Some(&written), peers(2));
        assert_eq!(report.poll_timeout(), None);
        assert_eq!(report.held, Some(peers(2)));
    }

    /// A speaker that restarts is covered for a second, and its peers write nothing. One that stays away is named, and not
    /// taken back by a coverer that restarts itself.
    #[test]
    fn cover_is_reported_once_it_has_held() {
        let covering = |nodes: &[&str]| WireFacts {
            covering: nodes.iter().map(|node| (*node).to_owned()).collect(),
            ..WireFacts::default()
        };
        let mut report = SpeakerReport::default();
        report.observe(s(0), None, covering(&[]));
        report.observe(s(1), None, covering(&["b"]));
        report.observe(s(2), None, covering(&[]));
        assert_eq!((&report.held, report.poll_timeout()), (&Some(covering(&[])), None));
        report.observe(s(10), None, covering(&["b"]));
        report.observe(s(15), None, covering(&["b"]));
        assert_eq!(report.held, Some(covering(&["b"])));
        let written = SpeakerStatusStatus { covering: vec!["b".to_owned()], ..SpeakerStatusStatus::default() };
        let mut restarted = SpeakerReport::default();
        restarted.observe(s(20), Some(&written), covering(&[]));
        assert_eq!(restarted.held, Some(covering(&["b"])));
    }

    #[test]
    fn what_holds_is_reported() {
        let mut report = SpeakerReport::default();
        report.observe(s(0), None, peers(2));
        report.observe(s(4), None, peers(2));
        assert_eq!(report.held, Some(WireFacts::default()));
        report.observe(s(5), None, peers(2));
        assert_eq!(report.held, Some(peers(2)));
    }

    #[test]
    fn a_warning_of_the_kernels_is_none_of_the_wire() {
        let warning = |kind| SpeakerWarning { kind, message: String::new() };
        let status = SpeakerStatusStatus {
            warnings: vec![warning(WarningKind::RpFilter), warning(WarningKind::SegmentLoop)],
            ..SpeakerStatusStatus::default()
        };
        assert_eq!(WireFacts::written(&status).warnings, [warning(WarningKind::SegmentLoop)]);
    }
}
