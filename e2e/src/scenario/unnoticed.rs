//! Disruptions that clients must not notice: a client solicits addresses all the time while the cluster changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::testbed::TestNamespace;
use herald_lab::probe::{Mac, Probe, ProbeSpec, Probers, Running};

/// Upper bound until every address is answered, for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A speaker that ends is covered within 0.2 s. The bound does not measure that: it distinguishes silence from a busy
/// machine.
const LONGEST_GAP_MS: f64 = 2000.0;

/// A client that solicits addresses whose announcing nodes are known.
pub(super) struct Unnoticed {
    watch: Running,
    owners: BTreeMap<IpAddr, String>,
}

impl Unnoticed {
    /// Starts to solicit the addresses, each of which the given node announces, and waits until all are answered.
    pub(super) fn from_here(ns: &TestNamespace<'_>, owners: BTreeMap<IpAddr, String>) -> Result<Self> {
        let spec = ProbeSpec::all(owners.keys().copied()).with(Probers { announcements: false, ..Probers::NEIGHBOUR });
        let mut watch = Probe::start(ns.bed.lab(), ns.client()?.name(), &spec)?;
        watch.steady(LIMIT)?;
        Ok(Self { watch, owners })
    }

    /// Waits until all addresses are answered again, and checks that each was answered all the time by its node, and by
    /// no other.
    pub(super) fn until_here(mut self, ns: &TestNamespace<'_>) -> Result<()> {
        self.watch.steady_again(LIMIT)?;
        let report = self.watch.stop()?;
        for (address, owner) in &self.owners {
            let seen = report.target(*address).and_then(|target| target.neighbour.as_ref());
            let seen = seen.context("the client's report")?;
            let macs: Vec<_> = seen.macs.iter().map(|seen| seen.mac).collect();
            let mac = Mac::from(ns.bed.lab().host(owner)?.mac(0)?);
            ensure!(macs == [mac], "{address} was answered by {macs:?}, and is {owner}'s ({mac})");
            let gap = seen.answers.gaps.max_ms;
            ensure!(gap <= LONGEST_GAP_MS, "{address} was unanswered for {gap} ms:\n{report}");
        }
        Ok(())
    }
}
