//! States that follow others with a delay, so that a test has to wait for them separately.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use herald_crds::{AddressPool, L2Advertisement, SpeakerStatus, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::TestNamespace;

/// Upper bound until a SpeakerStatus shows a state. A state that the speaker hears on the wire is reported after it has
/// held for 5 s (speaker/src/coordinator/speaker_status.rs). Where the API server does not know the kind, the speaker
/// writes within 10 s of its return (speaker/src/status_queue.rs). The rest is a margin for a busy machine.
pub(crate) const REPORTED_WITHIN: Duration = Duration::from_secs(60);

impl TestNamespace<'_> {
    /// Applies a pool that serves this namespace only, and waits until the controller has read it. The controller
    /// receives Services by another watch; without the wait it would sometimes first refuse a Service that is created
    /// next, and report that.
    pub fn known_pool(&self, name: &str, addresses: &[String]) -> Result<()> {
        self.pool(name, addresses)?;
        self.eventually(&format!("pool {name} to be read"), || {
            let pool: AddressPool = self.get_cluster(name)?.with_context(|| format!("pool {name} is gone"))?;
            let conditions = pool.status.map(|status| status.conditions).unwrap_or_default();
            Ok(is_read(&conditions, pool.metadata.generation).then_some(()))
        })
    }

    /// Waits until the controller has read the current generation of the advertisement.
    pub fn advertisement_is_read(&self, name: &str) -> Result<()> {
        self.eventually(&format!("advertisement {name} to be read"), || {
            let found: L2Advertisement =
                self.get_cluster(name)?.with_context(|| format!("advertisement {name} is gone"))?;
            let conditions = found.status.map(|status| status.conditions).unwrap_or_default();
            Ok(is_read(&conditions, found.metadata.generation).then_some(()))
        })
    }

    /// Waits until the pool's condition has this status, and returns its reason and message.
    pub fn pool_condition(&self, pool: &str, kind: &str, status: &str) -> Result<(String, String)> {
        self.eventually(&format!("pool {pool} to have {kind}={status}"), || {
            let pool: AddressPool = self.get_cluster(pool)?.with_context(|| format!("pool {pool} is gone"))?;
            let conditions = pool.status.map(|s| s.conditions).unwrap_or_default();
            let found = conditions.into_iter().find(|c| c.type_ == kind && c.status == status);
            Ok(found.map(|c| (c.reason, c.message)))
        })
    }

    /// Waits until the status no longer names an announcing node: [`TestNamespace::announcer`] could otherwise return
    /// the former one.
    pub fn unannounced(&self, address: IpAddr) -> Result<()> {
        self.eventually(&format!("{address} to be announced no longer"), || {
            let vip = self.virtual_ip(address)?.with_context(|| format!("the VirtualIP of {address}"))?;
            Ok(vip.announced().is_none_or(|c| c.status != "True").then_some(()))
        })
    }

    /// Waits until an event with this reason regards the object, checks that there is only one, and returns its note.
    /// An event is posted after the status that it reports has been written.
    pub fn told_once(&self, name: &str, reason: &str) -> Result<String> {
        let notes = || -> Result<Vec<String>> {
            let events = self.events(name)?.into_iter().filter(|(_, told, _)| told == reason);
            Ok(events.map(|(.., note)| note).collect())
        };
        let mut told = self.eventually(&format!("an Event {reason} of {}/{name}", self.namespace), || {
            Ok(Some(notes()?).filter(|notes| !notes.is_empty()))
        })?;
        ensure!(told.len() == 1, "{reason} was posted for {name} {} times: {told:?}", told.len());
        Ok(told.remove(0))
    }

    /// Waits until the speaker of every node proves that it works. A node that was off for a moment stays Ready in the
    /// API; but only its own speaker writes its SpeakerStatus again after a deletion.
    pub fn speakers_report_again(&self) -> Result<()> {
        self.kubectl(&["delete", "speaker", "--all"])?;
        let nodes = self.bed.lab.nodes()?.len();
        self.bed.wait_for("every speaker to report", REPORTED_WITHIN, || {
            let reports = self.list_cluster::<SpeakerStatus>()?;
            let reporting = reports.iter().filter(|speaker| speaker.status.is_some()).count();
            Ok((reporting == nodes).then_some(()))
        })
    }

    /// Waits until every SpeakerStatus shows that its speaker hears all others and covers none: then no write is left
    /// of what earlier scenarios did to speakers.
    pub fn speakers_say_all_is_well(&self) -> Result<()> {
        let others = i64::try_from(self.bed.lab.nodes()?.len())? - 1;
        self.bed.wait_for("every SpeakerStatus to report that all others are heard", REPORTED_WITHIN, || {
            let reports = self.list_cluster::<SpeakerStatus>()?;
            let is_well = |speaker: &SpeakerStatus| {
                let status = speaker.status.as_ref();
                status.is_some_and(|s| s.covering.is_empty() && s.segments.iter().all(|on| on.peers == others))
            };
            Ok(reports.iter().all(is_well).then_some(()))
        })
    }
}

/// Returns whether the conditions of a pool or an L2Advertisement belong to this generation of it.
fn is_read(conditions: &[Condition], generation: Option<i64>) -> bool {
    conditions.iter().any(|c| c.type_ == names::CONDITION_ACCEPTED && c.observed_generation == generation)
}
