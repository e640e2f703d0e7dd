//! Warnings about the wire, in sentences a person can act on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use herald_crds::{
    names::SECRET_CLUSTER_KEY,
    speaker_status::{SpeakerWarning, WarningKind},
};
use herald_protocol::node::NodeId;

use super::active_segment::ActiveSegment;
use crate::{keys::ClusterError, keys::KeysError};

/// Time after which a loop or a duplicate is over: twice the minute at which the engine reports one that lasts.
const OVER: Duration = Duration::from_secs(120);

/// Troubles that come and go, by interface.
#[derive(Debug, Default)]
pub(super) struct WireWarnings {
    seen: BTreeMap<(String, Trouble), Duration>,
}

/// A trouble on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// Two machines speak as one node.
    DuplicateNode(NodeId),
    /// This node's own frames come back.
    Loop,
    /// The claims of a node that is heard do not come through.
    ClaimsLacking(NodeId),
}

impl WireWarnings {
    /// Records a trouble that the engine reports.
    pub(super) fn saw(&mut self, now: Duration, interface: &str, trouble: Trouble) {
        self.seen.insert((interface.to_owned(), trouble), now);
    }

    /// Returns the time at which the next trouble is over.
    pub(super) fn expire_at(&self) -> Option<Duration> {
        self.seen.values().min().map(|seen| *seen + OVER)
    }

    /// Forgets the troubles that are over.
    pub(super) fn expire(&mut self, now: Duration) {
        self.seen.retain(|_, seen| *seen + OVER > now);
    }

    /// Returns the warnings that stand.
    pub(super) fn list(&self, name: impl Fn(NodeId) -> String) -> Vec<SpeakerWarning> {
        let warning = |(interface, trouble): &(String, Trouble)| match trouble {
            Trouble::DuplicateNode(node) => SpeakerWarning {
                kind: WarningKind::DuplicateNode,
                message: format!(
                    "{interface}: two machines speak as node {}: give each its own node name, or stop the speaker that \
                     was started by hand",
                    name(*node)
                ),
            },
            Trouble::Loop => SpeakerWarning {
                kind: WarningKind::SegmentLoop,
                message: format!("{interface}: this node's own frames come back: the segment has a loop"),
            },
            Trouble::ClaimsLacking(node) => SpeakerWarning {
                kind: WarningKind::ClaimsLacking,
                message: format!(
                    "{interface}: node {} is heard, but its longer frames are not, so this node does not know its \
                     addresses and takes none of them over: let frames of up to 1400 bytes pass between the nodes, or \
                     set the MTU of both interfaces to what the path carries",
                    name(*node)
                ),
            },
        };
        self.seen.keys().map(warning).collect()
    }
}

/// Returns the warning about the nodes that should be heard on a segment and are not. A node that is not Ready by
/// `is_ready` may be off, and a node that is known to be dead does not point to a fault of the network: the warning
/// names neither.
pub(super) fn unheard(local: &ActiveSegment, is_ready: impl Fn(&str) -> bool) -> Option<SpeakerWarning> {
    let missing: BTreeSet<&str> = local
        .stations
        .iter()
        .flat_map(|stations| stations.iter())
        .filter(|station| {
            let id = station.node.id();
            !local.peers.contains_key(&id) && !local.dead.contains(&id) && is_ready(station.node.as_str())
        })
        .map(|station| station.node.as_str())
        .collect();
    (!missing.is_empty()).then(|| SpeakerWarning {
        kind: WarningKind::PeersUnheard,
        message: format!(
            "{}: not heard: {}; either their speakers do not run, or the network drops Herald's frames: let multicast \
             frames of EtherType 0x88b5 pass between the nodes",
            local.interface.segment.interface.name,
            missing.into_iter().collect::<Vec<_>>().join(", ")
        ),
    })
}

/// Returns the warning that the cluster's keys cannot be used. An API server that is away does not make a warning while
/// there are keys: the speaker does not report other outages of the API server either, and the write would arrive after
/// the outage.
pub(super) fn keys(error: Option<&KeysError>, in_use: bool) -> Option<SpeakerWarning> {
    let warning = |message| SpeakerWarning { kind: WarningKind::ClusterKey, message };
    match (error, in_use) {
        (Some(KeysError::Cluster(ClusterError::Unreached(_))), true) => None,
        (Some(error), true) => Some(warning(format!("{error}; the former keys stay in use"))),
        (Some(error), false) => Some(warning(format!("{error}; until there are keys, no address is announced"))),
        (None, true) => None,
        (None, false) => Some(warning(format!(
            "Secret {SECRET_CLUSTER_KEY} has not been read yet, and until then no address is announced: check that the \
             controller, which fills it, runs"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_ends_when_it_is_not_reported_again() {
        let mut warnings = WireWarnings::default();
        warnings.saw(Duration::from_secs(10), "eth0", Trouble::Loop);
        warnings.saw(Duration::from_secs(70), "eth0", Trouble::Loop);
        assert_eq!(warnings.expire_at(), Some(Duration::from_secs(190)));
        warnings.expire(Duration::from_secs(189));
        assert_eq!(warnings.list(|_| String::new())[0].kind, WarningKind::SegmentLoop);
        warnings.expire(Duration::from_secs(190));
        assert_eq!(warnings.list(|_| String::new()), []);
    }

    #[test]
    fn missing_key_is_reported() {
        assert!(keys(None, false).is_some());
        assert!(keys(None, true).is_none());
    }

    #[test]
    fn unknown_cluster_is_reported_unless_the_api_is_away_and_there_is_a_key() {
        let away = KeysError::Cluster(ClusterError::Unreached("connection refused".to_owned()));
        let refused = KeysError::Cluster(ClusterError::Refused("forbidden".to_owned()));
        assert_eq!(keys(Some(&away), true), None);
        for (error, in_use) in [(&away, false), (&refused, false), (&refused, true)] {
            let said = keys(Some(error), in_use).unwrap().message;
            assert!(said.contains("kube-system"), "{said}");
        }
    }
}
