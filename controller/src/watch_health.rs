//! The age of the watches, and whether this replica is blind. Pure; times are monotonic, since the start.
//!
//! A kind is *blind* when its watch has been broken for [`BLIND_AFTER`]. Silence alone does not make it blind: a quiet
//! kind has no news. A working watch brings an event, a bookmark or its end within 300 s; the reflector finds a watch
//! that does not, and reports it as broken (`herald_kube_common::reflector`).

use std::{collections::BTreeMap, time::Duration};

use crate::index::Kind;

/// Time that a watch may be broken before its kind is blind. A break that a healthy API server mends does not last
/// longer: one page of a list that hangs (30 s), another attempt at the start of a watch (10 s), and the short watch
/// that shows whether anything was missed (5 s). A replica that starts has the same time for its first lists.
pub const BLIND_AFTER: Duration = Duration::from_secs(45);

/// The watches of all kinds.
#[derive(Clone, Debug)]
pub struct WatchHealth(BTreeMap<Kind, Progress>);

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The time of the last complete list, event, bookmark, or end of a watch in time.
    last: Option<Duration>,
    /// The time since which the watch has been broken.
    broken: Option<Duration>,
}

impl Default for WatchHealth {
    /// Returns the state at time zero, when no kind has been listed.
    fn default() -> Self {
        Self(Kind::ALL.map(|kind| (kind, Progress { last: None, broken: Some(Duration::ZERO) })).into())
    }
}

impl WatchHealth {
    /// Records that the view of a kind is current.
    pub fn progressed(&mut self, kind: Kind, now: Duration) {
        self.0.insert(kind, Progress { last: Some(now), broken: None });
    }

    /// Records that the watch of a kind has failed, or an attempt to start it again.
    pub fn broke(&mut self, kind: Kind, now: Duration) {
        if let Some(progress) = self.0.get_mut(&kind) {
            progress.broken.get_or_insert(now);
        }
    }

    /// Returns the kinds that are blind.
    pub fn blind(&self, now: Duration) -> Vec<Kind> {
        self.dues().filter(|(_, due)| *due <= now).map(|(kind, _)| kind).collect()
    }

    /// Returns when the next kind becomes blind if nothing happens.
    pub fn timeout(&self, now: Duration) -> Option<Duration> {
        self.dues().map(|(_, due)| due).filter(|due| *due > now).min()
    }

    /// Returns a sentence that names the blind kinds with which this replica should not lead, if there are any. Gateways
    /// are none of them: where their ClusterRole is taken away again, or their conversion webhook fails, every replica
    /// would be unready and no status be corrected, for the sake of few Services.
    pub fn complaint(&self, now: Duration) -> Option<String> {
        let age = |kind: Kind| {
            let name = kind.as_str();
            match self.0.get(&kind).and_then(|progress| progress.last) {
                Some(last) => format!("{name} ({} s old)", now.saturating_sub(last).as_secs()),
                None => format!("{name} (never listed)"),
            }
        };
        let blind: Vec<_> = self.blind(now).into_iter().filter(|kind| kind.is_needed_to_lead()).map(age).collect();
        (!blind.is_empty()).then(|| {
            format!("is blind: its view of {} may be out of date; the log says why the watches break", blind.join(", "))
        })
    }

    /// Returns the kinds whose watches are broken, each with the time when it becomes blind. A kind that the controller
    /// does not await at the start counts once it has been listed, since a controller without the right to list it does
    /// its work.
    fn dues(&self) -> impl Iterator<Item = (Kind, Duration)> {
        let counted = self.0.iter().filter(|(kind, progress)| kind.is_awaited() || progress.last.is_some());
        counted.filter_map(|(kind, progress)| Some((*kind, progress.broken? + BLIND_AFTER)))
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Returns the watches of a replica that has listed everything at second 1.
    fn listed() -> WatchHealth {
        let mut health = WatchHealth::default();
        for kind in Kind::ALL {
            health.progressed(kind, s(1));
        }
        health
    }

    enum Told {
        Progress(u64),
        Break(u64),
    }
    use Told::{Break, Progress};

    #[test_case(&[], 100_000, false; "quiet kind")]
    #[test_case(&[Break(100)], 144, false; "break that may still end")]
    #[test_case(&[Break(100)], 145, true; "break that did not end")]
    #[test_case(&[Break(100), Break(110), Break(140)], 145, true; "failed attempts do not count as progress")]
    #[test_case(&[Break(100), Progress(144)], 1_000, false; "ended in time")]
    #[test_case(&[Break(100), Progress(200)], 201, false; "ended late")]
    #[test_case(&[Break(100), Progress(140), Break(141)], 185, false; "second break is counted from its own start")]
    #[test_case(&[Break(100), Progress(140), Break(141)], 186, true; "second break becomes blindness too")]
    fn kind_is_blind_when_its_watch_has_been_broken_for_long(told: &[Told], now: u64, blind: bool) {
        for kind in Kind::ALL {
            let mut health = listed();
            for step in told {
                match step {
                    Progress(at) => health.progressed(kind, s(*at)),
                    Break(at) => health.broke(kind, s(*at)),
                }
            }
            assert_eq!(health.blind(s(now)), if blind { vec![kind] } else { vec![] });
        }
    }

    #[test]
    fn replica_that_cannot_list_is_blind_except_for_optional_kinds() {
        let health = WatchHealth::default();
        assert_eq!((health.blind(s(44)), health.timeout(s(44))), (vec![], Some(BLIND_AFTER)));
        let awaited: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_awaited()).collect();
        assert_eq!((health.blind(s(45)), health.timeout(s(45))), (awaited, None));
    }

    #[test]
    fn complaint_names_each_kind_and_its_age() {
        let mut health = listed();
        assert_eq!((health.complaint(s(500)), health.timeout(s(500))), (None, None));
        health.broke(Kind::Pool, s(30));
        health.broke(Kind::Node, s(50));
        assert_eq!((health.complaint(s(74)), health.timeout(s(74))), (None, Some(s(75))));
        let complaint = health.complaint(s(100)).unwrap();
        assert!(complaint.contains("AddressPool (99 s old), Node (99 s old)"), "{complaint}");
        let complaint = WatchHealth::default().complaint(s(60)).unwrap();
        assert!(complaint.contains("Service (never listed), Namespace (never listed)"), "{complaint}");
    }

    /// Their ClusterRole was taken away while the controller ran.
    #[test]
    fn gateways_alone_make_no_replica_unready() {
        let mut health = listed();
        health.broke(Kind::Gateway, s(30));
        let told = (health.blind(s(100)), health.complaint(s(100)));
        assert_eq!(told, (vec![Kind::Gateway], None), "the metric reports it");
        health.broke(Kind::Node, s(30));
        let complaint = health.complaint(s(100)).unwrap();
        assert!(complaint.contains("Node (99 s old)") && !complaint.contains("Gateway"), "{complaint}");
    }
}
