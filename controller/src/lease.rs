//! Which replica may write: leader election on a Lease, as client-go does it (`tools/leaderelection`).
//!
//! Another replica's clock is never trusted: a lease has expired when *this* replica has not seen it change for its
//! duration. Every write carries the resource version, so of two candidates one fails.

use std::time::Duration;

use herald_crds::names::MANAGER_CONTROLLER;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// Others wait this long after the last renewal they saw (client-go's default).
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long stops writing, 5 s before another may start (client-go's default).
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between attempts (client-go's default).
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// One attempt: two fit into the deadline.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);

/// What to do about the lease.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// It does not exist.
    Create(LeaseSpec),
    /// It is ours, or free, or has expired.
    Replace(LeaseSpec),
    /// It is another's.
    Wait,
}

/// One candidate's view of the lease.
#[derive(Clone, Debug)]
struct Elector {
    identity: String,
    /// The lease as last seen, and when it was first seen so.
    seen: Option<(LeaseSpec, Duration)>,
}

impl Elector {
    fn new(identity: String) -> Self {
        Self { identity, seen: None }
    }

    /// `now` is monotonic; `clock` is what is written for people to read.
    fn step(&mut self, now: Duration, clock: MicroTime, lease: Option<&LeaseSpec>) -> Step {
        let duration = i32::try_from(LEASE_DURATION.as_secs()).unwrap_or(i32::MAX);
        let fresh = |transitions| LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(duration),
            acquire_time: Some(clock.clone()),
            renew_time: Some(clock.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let Some(lease) = lease else { return Step::Create(fresh(0)) };
        let since = match &self.seen {
            Some((seen, since)) if seen == lease => *since,
            _ => now,
        };
        self.seen = Some((lease.clone(), since));
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            return Step::Replace(LeaseSpec {
                renew_time: Some(clock),
                lease_duration_seconds: Some(duration),
                ..lease.clone()
            });
        }
        let theirs = lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
        if holder.is_empty() || now >= since + theirs.unwrap_or(LEASE_DURATION) {
            return Step::Replace(fresh(lease.lease_transitions.unwrap_or(0).saturating_add(1)));
        }
        Step::Wait
    }
}

/// A candidate for leadership.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    elector: Elector,
    started: Instant,
    /// The lease as last written by us: renewed without reading it first.
    held: Option<Lease>,
}

impl Candidate {
    /// `identity` differs between replicas and survives the restart of a container (the pod's name), so that a
    /// restarted leader goes on at once.
    pub fn new(client: Client, namespace: &str, name: String, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name,
            elector: Elector::new(identity),
            started: Instant::now(),
            held: None,
        }
    }

    /// Stands for election until nobody listens; then gives the lease back, so that the next replica need not wait.
    pub async fn run(mut self, leading: watch::Sender<bool>) {
        let mut renewed: Option<Instant> = None;
        while !leading.is_closed() {
            let at = Instant::now();
            let left = renewed.map_or(ATTEMPT_LIMIT, |r| (r + RENEW_DEADLINE).saturating_duration_since(at));
            match timeout(left.min(ATTEMPT_LIMIT), self.attempt()).await {
                Ok(Ok(true)) => renewed = Some(at),
                Ok(Ok(false)) => renewed = None,
                Ok(Err(error)) => {
                    self.held = None;
                    tracing::warn!(lease = self.name, %error, "the lease could not be written");
                }
                Err(_) => {
                    self.held = None;
                    tracing::warn!(lease = self.name, "no answer about the lease in time");
                }
            }
            renewed = renewed.filter(|r| r.elapsed() < RENEW_DEADLINE);
            let now_leading = renewed.is_some();
            leading.send_if_modified(|was| {
                let changed = *was != now_leading;
                if changed {
                    tracing::info!(lease = self.name, leading = now_leading, "leadership changed");
                }
                *was = now_leading;
                changed
            });
            tokio::select! {
                () = sleep(RETRY_PERIOD) => {}
                () = leading.closed() => {}
            }
        }
        if renewed.is_some() {
            self.release().await;
        }
    }

    /// Holds the lease after it?
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let lease = match self.held.take() {
            Some(lease) => Some(lease),
            None => self.api.get_opt(&self.name).await?,
        };
        let spec = lease.as_ref().map(|l| l.spec.clone().unwrap_or_default());
        let params = PostParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
        let written = match self.elector.step(self.started.elapsed(), MicroTime(Timestamp::now()), spec.as_ref()) {
            Step::Wait => return Ok(false),
            Step::Create(spec) => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.api.create(&params, &Lease { metadata, spec: Some(spec) }).await
            }
            Step::Replace(spec) => {
                let metadata = lease.map(|l| l.metadata).unwrap_or_default();
                self.api.replace(&self.name, &params, &Lease { metadata, spec: Some(spec) }).await
            }
        };
        match written {
            Ok(lease) => {
                self.held = Some(lease);
                Ok(true)
            }
            // Another was first, or the lease changed since it was read: read it again.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&mut self) {
        let Some(mut lease) = self.held.take() else { return };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let params = PostParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
        match timeout(ATTEMPT_LIMIT, self.api.replace(&self.name, &params, &lease)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "the lease is given back"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "the lease was not given back; it expires"),
            Err(_) => tracing::warn!(lease = self.name, "the lease was not given back in time; it expires"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).unwrap())
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn spec(step: Step) -> LeaseSpec {
        match step {
            Step::Create(spec) | Step::Replace(spec) => spec,
            Step::Wait => panic!("waits"),
        }
    }

    #[test]
    fn the_first_creates_and_renews() {
        let mut a = Elector::new("a".to_owned());
        let held = spec(a.step(at(0), clock(0), None));
        let renewed = spec(a.step(at(2), clock(2), Some(&held)));
        assert_eq!(renewed.acquire_time, Some(clock(0)));
        assert_eq!(renewed.renew_time, Some(clock(2)));
        assert_eq!(renewed.lease_transitions, Some(0));
    }

    #[test]
    fn the_second_waits_until_it_has_seen_no_renewal_for_the_duration() {
        let (mut a, mut b) = (Elector::new("a".to_owned()), Elector::new("b".to_owned()));
        let held = spec(a.step(at(0), clock(1_000_000), None));
        // The other's clock is far off; only what b sees, and when, counts.
        assert_eq!(b.step(at(0), clock(0), Some(&held)), Step::Wait);
        assert_eq!(b.step(at(14), clock(14), Some(&held)), Step::Wait);
        let renewed = spec(a.step(at(14), clock(1_000_014), Some(&held)));
        assert_eq!(b.step(at(16), clock(16), Some(&renewed)), Step::Wait, "renewed meanwhile");
        let taken = spec(b.step(at(31), clock(31), Some(&renewed)));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
    }

    #[test]
    fn a_lease_given_back_is_taken_at_once() {
        let mut b = Elector::new("b".to_owned());
        let free = LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() };
        assert_eq!(spec(b.step(at(0), clock(0), Some(&free))).holder_identity.as_deref(), Some("b"));
    }
}
