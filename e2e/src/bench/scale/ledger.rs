//! Counts of write requests by account, verb and resource.

use std::collections::BTreeMap;

use crate::testbed::audit_log::Request;

/// The writes of Herald's programs: the number of requests of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunReport {
    entries: BTreeMap<Entry, usize>,
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// `herald-controller` or `herald-speaker`.
    pub(super) account: String,
    pub(super) verb: String,
    /// The resource with its subresource: `services/status`.
    pub(super) resource: String,
    /// HTTP status code. Refused writes cost the API server as much as others.
    pub(super) code: u16,
}

impl RunReport {
    /// Counts these requests.
    pub(super) fn of(requests: Vec<Request>) -> Self {
        let mut entries = BTreeMap::new();
        for Request { account, verb, resource, code, .. } in requests {
            *entries.entry(Entry { account, verb, resource, code }).or_default() += 1;
        }
        Self { entries }
    }

    /// Returns all entries with their counts.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Entry, usize)> {
        self.entries.iter().map(|(entry, count)| (entry, *count))
    }

    /// Returns the number of writes of one account.
    pub(super) fn by(&self, account: &str) -> usize {
        self.entries().filter(|(entry, _)| entry.account == account).map(|(_, count)| count).sum()
    }

    /// Returns the number of writes of all accounts.
    pub(super) fn total(&self) -> usize {
        self.entries.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::audit_log::tests::request;
    use crate::testbed::audit_log::{CONTROLLER, SPEAKER};

    #[test]
    fn equal_requests_are_counted_together() {
        let patch = |account| request(account, "10.10.0.11", "patch", "virtualips/status");
        let refused = Request { code: 409, ..patch(SPEAKER) };
        let ledger = RunReport::of(vec![patch(SPEAKER), patch(CONTROLLER), refused, patch(SPEAKER)]);
        assert_eq!((ledger.by(CONTROLLER), ledger.by(SPEAKER), ledger.total()), (1, 3, 4));
        let counts: Vec<_> = ledger.entries().map(|(entry, count)| (entry.code, count)).collect();
        assert_eq!(counts, [(200, 1), (200, 2), (409, 1)]);
    }
}
