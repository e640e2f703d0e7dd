//! Leader election on a Lease, as client-go does it (`tools/leaderelection`): it decides which replica may write.
//!
//! Another replica's clock is never trusted: a lease has expired when *this* replica has not seen it change for its
//! duration. Every write carries the resource version, so that of two candidates one fails. `elector` holds the
//! decisions, also those about a blind leader.

mod elector;

use std::time::Duration;

use herald_crds::names::MANAGER_CONTROLLER;
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use elector::{Elector, Step};

/// Time that other replicas wait after the last renewal they saw (client-go's default).
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// Time without a renewal after which a leader stops writing, 5 s before another may start (client-go's default).
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between attempts (client-go's default).
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// Timeout of one attempt: two fit into the deadline.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(4);

/// The outcome of an attempt.
enum Attempt {
    /// This replica holds the lease.
    Held,
    /// Another replica holds the lease, or was first.
    Waited,
    /// This replica holds the lease, in this version, and has to release it.
    ToRelease(Box<Lease>),
}

/// A candidate for leadership.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    elector: Elector,
    started: Instant,
    /// The lease as last written by us: it is renewed without being read first.
    held: Option<Lease>,
}

impl Candidate {
    /// Returns a candidate. `identity` differs between replicas and survives the restart of a container (the pod's
    /// name), so that a restarted leader goes on at once.
    pub fn new(client: Client, namespace: &str, name: String, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name,
            elector: Elector::new(identity),
            started: Instant::now(),
            held: None,
        }
    }

    /// Stands for election until every receiver of `leading` is dropped; then releases the lease, so that the next
    /// replica need not wait. `blind` tells whether this replica's watches are broken.
    pub async fn run(mut self, leading: watch::Sender<bool>, blind: watch::Receiver<bool>) {
        let mut renewed: Option<Instant> = None;
        while !leading.is_closed() {
            let at = Instant::now();
            let left = renewed.map_or(ATTEMPT_LIMIT, |r| (r + RENEW_DEADLINE).saturating_duration_since(at));
            let is_blind = *blind.borrow();
            match timeout(left.min(ATTEMPT_LIMIT), self.attempt(is_blind)).await {
                Ok(Ok(Attempt::Held)) => renewed = Some(at),
                Ok(Ok(Attempt::Waited)) => renewed = None,
                Ok(Ok(Attempt::ToRelease(lease))) => {
                    tracing::warn!(lease = self.name, "offered the Lease to other replicas: this one is blind");
                    // This replica stops leading before another can start.
                    renewed = None;
                    self.tell(&leading, false);
                    self.release(*lease).await;
                }
                Ok(Err(error)) => {
                    self.held = None;
                    tracing::warn!(lease = self.name, %error, "cannot write the Lease");
                }
                Err(_) => {
                    self.held = None;
                    tracing::warn!(lease = self.name, "the API server did not answer about the Lease in time");
                }
            }
            renewed = renewed.filter(|r| r.elapsed() < RENEW_DEADLINE);
            self.elector.note_holding(self.started.elapsed(), renewed.is_some());
            self.tell(&leading, renewed.is_some());
            tokio::select! {
                () = sleep(RETRY_PERIOD) => {}
                () = leading.closed() => {}
            }
        }
        if renewed.is_some()
            && let Some(lease) = self.held.take()
        {
            self.release(lease).await;
        }
    }

    fn tell(&self, leading: &watch::Sender<bool>, now_leading: bool) {
        leading.send_if_modified(|was| {
            let changed = *was != now_leading;
            if changed {
                tracing::info!(lease = self.name, leading = now_leading, "leadership changed");
            }
            *was = now_leading;
            changed
        });
    }

    async fn attempt(&mut self, blind: bool) -> Result<Attempt, kube::Error> {
        let lease = match self.held.take() {
            Some(lease) => Some(lease),
            None => self.api.get_opt(&self.name).await?,
        };
        let spec = lease.as_ref().map(|l| l.spec.clone().unwrap_or_default());
        let params = PostParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
        let step = self.elector.step(self.started.elapsed(), MicroTime(Timestamp::now()), spec.as_ref(), blind);
        let written = match step {
            Step::Wait => return Ok(Attempt::Waited),
            Step::Release => return Ok(Attempt::ToRelease(Box::new(lease.unwrap_or_default()))),
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
                Ok(Attempt::Held)
            }
            // Another replica was first, or the lease changed since it was read: the next attempt reads it again.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Waited),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, mut lease: Lease) {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let params = PostParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
        match timeout(ATTEMPT_LIMIT, self.api.replace(&self.name, &params, &lease)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "released the Lease"),
            Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "cannot release the Lease; it expires"),
            Err(_) => tracing::warn!(lease = self.name, "cannot release the Lease in time; it expires"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;

    use super::*;

    /// Returns a server that keeps the Lease as the API server does, with the Lease that it stores. It calls `written`
    /// with each holder before it stores one.
    fn server(written: impl Fn(&str) + Send + Sync + 'static) -> (Client, Arc<Mutex<Option<Lease>>>) {
        let stored = Arc::new(Mutex::new(None::<Lease>));
        let (kept, written) = (Arc::clone(&stored), Arc::new(written));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (kept, written) = (Arc::clone(&kept), Arc::clone(&written));
            async move {
                let (parts, body) = request.into_parts();
                if parts.method != Method::GET {
                    let body = body.collect().await?.to_bytes();
                    let mut lease: Lease = serde_json::from_slice(&body)?;
                    written(holder(&lease));
                    let mut kept = kept.lock().unwrap();
                    let version = kept.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
                    assert_eq!(lease.metadata.resource_version, version, "one candidate, which knows what it wrote");
                    let next = version.map_or(1, |version| version.parse::<u64>().unwrap() + 1);
                    lease.metadata.resource_version = Some(next.to_string());
                    *kept = Some(lease);
                }
                let (code, body) = match &*kept.lock().unwrap() {
                    Some(lease) => (200, serde_json::to_vec(lease)?),
                    None => (404, br#"{"code": 404, "status": "Failure", "reason": "NotFound"}"#.to_vec()),
                };
                Ok::<_, tower::BoxError>(Response::builder().status(code).body(Body::from(body))?)
            }
        });
        (Client::new(service, "default"), stored)
    }

    fn holder(lease: &Lease) -> &str {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn blind_leader_stops_before_it_releases_the_lease_and_leads_again_if_it_stays_free() {
        let (elected, mut leading) = watch::channel(false);
        let (blind, told_blind) = watch::channel(false);
        let seen = leading.clone();
        let (client, stored) = server(move |holder| {
            assert!(!holder.is_empty() || !*seen.borrow(), "it leads, and the Lease is free");
        });
        let candidate = Candidate::new(client, "herald-system", "herald-controller".to_owned(), "a".to_owned());
        let election = tokio::spawn(candidate.run(elected, told_blind));
        leading.wait_for(|leads| *leads).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert!(*leading.borrow(), "a leader that sees renews");
        blind.send_replace(true);
        let begun = Instant::now();
        leading.wait_for(|leads| !*leads).await.unwrap();
        assert!(begun.elapsed() <= RETRY_PERIOD, "{:?}", begun.elapsed());
        sleep(Duration::from_millis(1)).await;
        assert_eq!(stored.lock().unwrap().as_ref().map(holder), Some(""));
        leading.wait_for(|leads| *leads).await.unwrap();
        assert!((12..=16).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        assert_eq!(stored.lock().unwrap().as_ref().map(holder), Some("a"));
        election.abort();
    }
}
