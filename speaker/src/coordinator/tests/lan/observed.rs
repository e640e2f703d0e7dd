//! The statuses and reports that the speakers have written, as a test reads them.

use super::*;

impl Lan {
    /// Returns the status, reason and message of a condition of an address.
    pub(in super::super) fn condition(&self, address: &str, kind: &str) -> Option<(String, String, String)> {
        let conditions = self.status(address).conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((found.status, found.reason, found.message))
    }

    /// Returns the number of peers and the warnings that a node reported last.
    pub(in super::super) fn reported(&self, name: &str) -> (i64, Vec<WarningKind>) {
        let (_, status) = self.reports.iter().rev().find(|(by, _)| *by == name).unwrap();
        (status.segments[0].peers, status.warnings.iter().map(|warning| warning.kind).collect())
    }

    /// Returns the interfaces that `herald-speaker inspect` shows as segments.
    pub(in super::super) fn inspected(&self, name: &str) -> Vec<&str> {
        self.hosts[name].coordinator.as_ref().unwrap().segments().map(|(interface, _)| interface).collect()
    }

    /// Returns the interfaces for which the first one speaks, as a node has reported it last.
    pub(in super::super) fn speaks_for(&self, name: &str) -> &[String] {
        let (_, status) = self.reports.iter().rev().find(|(by, _)| *by == name).unwrap();
        &status.segments[0].speaks_for
    }

    /// Returns the interfaces in each report of a node.
    pub(in super::super) fn ever_reported(&self, name: &str) -> Vec<Vec<&str>> {
        let reports = self.reports.iter().filter(|(by, _)| *by == name);
        reports.map(|(_, status)| status.segments.iter().map(|segment| segment.interface.as_str()).collect()).collect()
    }

    /// Returns the covered nodes in each report of a node, without repetitions.
    pub(in super::super) fn covering(&self, name: &str) -> Vec<Vec<String>> {
        let mut told: Vec<_> =
            self.reports.iter().filter(|(by, _)| *by == name).map(|(_, status)| status.covering.clone()).collect();
        told.dedup();
        told
    }

    /// Returns the number of a node's reports in which a peer is heard.
    pub(in super::super) fn reports(&self, name: &str) -> usize {
        self.reports.iter().filter(|(by, status)| *by == name && status.segments[0].peers > 0).count()
    }

    pub(in super::super) fn status(&self, address: &str) -> VirtualIPStatus {
        self.vips.get(&address.parse().unwrap()).map(|vip| vip.status.clone()).unwrap_or_default()
    }

    pub(in super::super) fn vip(&self, address: &str) -> Vip {
        self.vips.get(&address.parse().unwrap()).cloned().unwrap()
    }

    /// Returns the reason of the condition `Announced`.
    pub(in super::super) fn reason(&self, address: &str) -> Option<String> {
        self.status(address).conditions.iter().find(|c| c.type_ == "Announced").map(|c| c.reason.clone())
    }

    pub(in super::super) fn announcer(&self, address: &str) -> Option<String> {
        let announced = self.reason(address).as_deref() == Some(AnnouncedReason::Announcing.as_str());
        self.status(address).node.filter(|_| announced)
    }
}
