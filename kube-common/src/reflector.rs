//! The reflector of one kind of object: it lists the kind and then watches it for ever.
//!
//! The watcher of kube-rs does not serve here: it swallows bookmarks, and bookmarks alone show that a quiet watch is
//! not stuck. A move for a class needs a current view (docs/protocol/ownership.md#fresh), even where nothing has
//! happened for an hour.
//!
//! The order is that of upstream's reflector (client-go `tools/cache/reflector.go`): list, page by page, from a quorum;
//! watch from the listing's version; continue from the last version seen when a watch ends; list again when the server
//! no longer has that version (410). Only a complete listing or a `DELETED` removes an object: a watch that is empty,
//! breaks or has expired says nothing about what exists.
//!
//! **Current.** [`Step::Current`] follows each listing, each batch of events, and each bookmark whose version is new. A
//! bookmark with the version of the one before proves that the API server lives, but not that it still hears etcd: a
//! server sends bookmarks by its own clock (apiserver `storage/cacher`). Where a kind is quiet, no bookmark comes at
//! all: a server sends only bookmarks that are newer than the requested version (`cacheWatcher.process`), and for a
//! quiet kind it knows a newer version only when etcd reports its progress (every 10 min by default; kubeadm sets 5 s).
//! In both cases one object is read from a quorum, in the second case when the watch has ended. After a break, events
//! do not count before a bookmark does: they may be the beginning of what was missed.
//!
//! **Broken.** [`Step::Broken`] follows each failure, and silence never lasts: a request has a timeout, a watch that
//! outlives its term is broken, and so is one that has brought a bookmark and then nothing for two minutes. A
//! connection whose other end is gone breaks by itself within 25 s ([`crate::client`]). Where the connection lives and
//! nothing arrives (a server that hangs, behind a proxy or not), the reflector notices after 27 s at most with
//! [`Pace::FRESH`], after 305 s with [`Pace::RESTFUL`], or after 130 s if the kind has bookmarks.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::{FutureExt, StreamExt};
use herald_telemetry::log_once::LogOnce;
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    backoff::Backoff,
    request::{PATIENCE, RequestError, answered},
};

/// Objects per page of a listing, as in upstream's pager.
const PAGE: u32 = 500;
/// Length of the first watch after a break, in seconds: its bookmark, after 3 s, proves that nothing is missing.
const CATCH_UP_TERM: u32 = 5;
/// Time after the end of its term at which a watch that has not ended counts as hung.
const GRACE: Duration = Duration::from_secs(5);
/// A watch that ends before this, or before half its term, was broken off: by a server that shuts down, or by one that
/// is broken. A later end may come from a load balancer that closes idle connections (kubeadm's own example for
/// HAProxy: after 35 s); the watch then continues at once on another connection.
const SHORT: Duration = Duration::from_secs(11);
/// A watch that has brought a bookmark brings another once a minute, or 3 s later: the server sends the bookmarks that
/// are due once in 1 to 1.25 s, from buckets of a second each (apiserver `Cacher.dispatchEvents`,
/// `watcherBookmarkTimeBuckets`). The server may skip one where the watch's buffer is full at that moment
/// (`cacheWatcher.nonblockingAdd`). The watch counts as hung after two of these times, and 4 s for the network.
const BOOKMARK_PATIENCE: Duration = Duration::from_secs(130);
/// Timeout of one page of a listing: 500 Nodes with their images are some 10 MB.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Pause before the second attempt, at most: an API server that was restarted behind a load balancer is back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Pause before an optional kind is listed again that the program is not allowed to list: perhaps nobody ever grants the
/// role.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(60);
/// Number of refusals of a watch in a row after which the kind is listed again: an etcd that was restored from a backup
/// has never heard of the version.
const REFUSALS: u32 = 3;

/// One step of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<K> {
    /// A listing begins. Objects that it does not contain are gone, but only once it is complete.
    Listing,
    /// An object exists, in this version.
    Applied(K),
    /// An object is gone; this is its last version.
    Deleted(K),
    /// The listing is complete.
    Listed,
    /// Everything sent before is current.
    Current,
    /// The watch broke or could not be started, or nothing can be listed. The known objects stay; they may be old until
    /// the next [`Step::Current`].
    Broken,
}

/// The rate at which a watch is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The least length of a watch, in seconds.
    term: u32,
    /// Maximum of the random seconds added to `term`, so that programs that started together do not reconnect together.
    spread: u32,
    /// Pause between two attempts, at most: the end of an outage is noticed within this time.
    longest_pause: Duration,
}

impl Pace {
    /// A view is current within 30 s: the server sends a bookmark 2 s before it ends a watch (apiserver
    /// `cacheWatcher.nextBookmarkTime`). Each watch costs one or two requests in 20 s.
    pub const FRESH: Self = Self { term: 18, spread: 4, longest_pause: Duration::from_secs(10) };

    /// A watch at rest makes as few requests as kube-rs' own watcher: one in 290 s. The server's bookmarks, one a
    /// minute, and the end of each watch are the signs of life. This pace is for the few replicas of one program, which
    /// may retry a failed request as often as every 5 s.
    pub const RESTFUL: Self = Self { term: 280, spread: 20, longest_pause: Duration::from_secs(5) };
}

/// The selection of objects to watch, and how closely to watch them.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// The label selector, if any.
    pub labels: Option<String>,
    /// The field selector, if any.
    pub fields: Option<String>,
    /// Whether a living API server is enough for [`Step::Current`], even if it no longer hears etcd. A quiet watch then
    /// costs one request per term instead of two.
    pub unproven: bool,
    /// The rate at which the watch is started again.
    pub pace: Pace,
    /// The pause before the kind is listed again, if the API server may be one that does not know it. After a 404 the
    /// kind counts as empty. If the API server forbids to list the kind, the watch is broken, and the kind is listed again
    /// after a minute at most.
    pub pause_if_unknown: Option<Duration>,
}

impl Default for WatchConfig {
    /// Returns a configuration for all objects, current within 30 s.
    fn default() -> Self {
        Self { labels: None, fields: None, unproven: false, pace: Pace::FRESH, pause_if_unknown: None }
    }
}

impl WatchConfig {
    fn list(&self, limit: u32) -> ListParams {
        ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(limit),
            ..ListParams::default()
        }
    }

    fn watch(&self, seconds: u32) -> WatchParams {
        WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: false,
        }
    }
}

/// The reason why a watch broke, or a request failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("nobody listens")]
    Unheard,
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the API server ended the watch long before its time")]
    Short,
    #[error("the API server sent an object without a version")]
    NoVersion,
}

impl Failure {
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Request(RequestError::Refused(status)) if status.code == 404)
    }

    fn is_forbidden(&self) -> bool {
        matches!(self, Self::Request(RequestError::Refused(status)) if status.code == 403)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Request(error.into())
    }
}

/// Lists and watches until the receiver is dropped. `translate` returns the messages to send for each step.
pub async fn follow<K, M>(
    kind: &'static str,
    api: Api<K>,
    config: WatchConfig,
    translate: impl FnMut(Step<K>) -> Vec<M>,
    out: mpsc::Sender<M>,
) where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let receiver = out.clone();
    let follower = Follower {
        kind,
        api,
        config,
        translate,
        out,
        version: None,
        caught_up: false,
        progressed: false,
        told_unknown: false,
    };
    tokio::select! {
        () = follower.run() => {}
        () = receiver.closed() => {}
    }
}

struct Follower<K, M, F> {
    kind: &'static str,
    api: Api<K>,
    config: WatchConfig,
    translate: F,
    out: mpsc::Sender<M>,
    /// The last version seen; without one, the next turn lists.
    version: Option<String>,
    /// Whether nothing has been missed, so that an event is news and not history.
    caught_up: bool,
    /// Whether the present watch has been current once.
    progressed: bool,
    /// Whether the log says that the API server does not know the kind.
    told_unknown: bool,
}

impl<K, M, F> Follower<K, M, F>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    F: FnMut(Step<K>) -> Vec<M>,
{
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, self.config.pace.longest_pause);
        let mut refusals = 0;
        let mut complaint = LogOnce::default();
        loop {
            self.progressed = false;
            let ended = self.turn().await;
            if ended.is_ok() || self.progressed {
                backoff.reset();
                refusals = 0;
                if complaint.is_over() {
                    tracing::info!(kind = self.kind, "the watch goes on");
                }
            }
            let failure = match ended {
                Ok(()) => continue,
                Err(Failure::Unheard) => return,
                Err(failure) => failure,
            };
            let text = failure.to_string();
            if complaint.is_new(&text) {
                tracing::warn!(kind = self.kind, error = text, "a watch broke; its objects are kept; retrying");
            }
            self.caught_up = false;
            if self.tell(Step::Broken).await.is_err() {
                return;
            }
            match &failure {
                Failure::Request(RequestError::Refused(status)) if status.code == 410 => self.version = None,
                Failure::NoVersion => self.version = None,
                Failure::Request(RequestError::Refused(_)) => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        self.version = None;
                    }
                }
                _ => {}
            }
            // An API server that has just started forbids what it has not read the roles for yet.
            let is_settled = refusals >= REFUSALS && failure.is_forbidden();
            match self.config.pause_if_unknown.filter(|_| is_settled) {
                Some(pause) => sleep(pause.min(FORBIDDEN_PAUSE)).await,
                None => sleep(backoff.wait(fastrand::f64())).await,
            }
        }
    }

    /// Lists if necessary, and watches once.
    async fn turn(&mut self) -> Result<(), Failure> {
        let version = match self.version.clone() {
            Some(version) => version,
            None => match (self.list().await, self.config.pause_if_unknown) {
                (Err(failure), Some(pause)) if failure.is_not_found() => return self.do_without(pause).await,
                (listed, _) => listed?,
            },
        };
        self.watch(&version).await
    }

    /// Reports an empty kind, because the API server does not know it, and waits.
    async fn do_without(&mut self, pause: Duration) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.told_unknown, true) {
            tracing::info!(kind = self.kind, asked_again_every = ?pause, "the API server does not know the kind");
        }
        self.tell(Step::Listing).await?;
        self.tell(Step::Listed).await?;
        self.tell_current().await?;
        sleep(pause).await;
        Ok(())
    }

    /// Lists everything and returns the version of the listing.
    async fn list(&mut self) -> Result<String, Failure> {
        self.tell(Step::Listing).await?;
        let mut params = self.config.list(PAGE);
        loop {
            let page = answered(PAGE_PATIENCE, self.api.list(&params)).await?;
            for object in page.items {
                self.tell(Step::Applied(object)).await?;
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = page.metadata.resource_version.filter(|v| !v.is_empty()).ok_or(Failure::NoVersion)?;
                self.version = Some(version.clone());
                self.caught_up = true;
                if std::mem::take(&mut self.told_unknown) {
                    tracing::info!(kind = self.kind, "the API server knows the kind now");
                }
                self.tell(Step::Listed).await?;
                self.tell(Step::Current).await?;
                return Ok(version);
            }
        }
    }

    /// Watches until the server ends the watch, which is a failure only if the watch was short.
    async fn watch(&mut self, version: &str) -> Result<(), Failure> {
        let Pace { term, spread, .. } = self.config.pace;
        let seconds = if self.caught_up { term + fastrand::u32(0..=spread) } else { CATCH_UP_TERM };
        let term = Duration::from_secs(seconds.into());
        let params = self.config.watch(seconds);
        let begun = Instant::now();
        let mut events = pin!(answered(PATIENCE, self.api.watch(&params, version)).await?);
        let mut untold = false;
        let mut bookmarked = false;
        let mut heard = begun;
        loop {
            let next = match events.next().now_or_never() {
                Some(next) => next,
                None => {
                    // The batch is over.
                    if std::mem::take(&mut untold) && self.caught_up {
                        self.tell_current().await?;
                    }
                    let (since, limit) = match bookmarked {
                        true if heard + BOOKMARK_PATIENCE < begun + term + GRACE => (heard, BOOKMARK_PATIENCE),
                        _ => (begun, term + GRACE),
                    };
                    timeout_at(since + limit, events.next()).await.map_err(|_| RequestError::Hung(limit))?
                }
            };
            heard = Instant::now();
            match next.transpose()? {
                Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    self.advance(object.meta().resource_version.as_deref())?;
                    untold = true;
                    self.tell(Step::Applied(object)).await?;
                }
                Some(WatchEvent::Deleted(object)) => {
                    self.advance(object.meta().resource_version.as_deref())?;
                    untold = true;
                    self.tell(Step::Deleted(object)).await?;
                }
                Some(WatchEvent::Bookmark(bookmark)) => {
                    if !self.advance(Some(&bookmark.metadata.resource_version))? {
                        self.read_one().await?;
                    }
                    untold = false;
                    bookmarked = true;
                    self.caught_up = true;
                    self.tell_current().await?;
                }
                Some(WatchEvent::Error(status)) => return Err(RequestError::Refused(status).into()),
                None => break,
            }
        }
        let short = begun.elapsed() < SHORT.min(term / 2);
        if !short && !bookmarked {
            self.read_one().await?;
            self.caught_up = true;
            untold = true;
        }
        if untold && self.caught_up {
            self.tell_current().await?;
        }
        if short { Err(Failure::Short) } else { Ok(()) }
    }

    /// Reads one object from a quorum, to check that the API server hears etcd.
    async fn read_one(&self) -> Result<(), Failure> {
        if self.config.unproven {
            return Ok(());
        }
        answered(PATIENCE, self.api.list(&self.config.list(1))).await?;
        Ok(())
    }

    /// Records a version and returns whether it differs from the last one.
    fn advance(&mut self, version: Option<&str>) -> Result<bool, Failure> {
        let version = version.filter(|v| !v.is_empty()).ok_or(Failure::NoVersion)?;
        let new = self.version.as_deref() != Some(version);
        self.version = Some(version.to_owned());
        Ok(new)
    }

    /// Reports progress of a watch. A listing alone is not progress: a server that lists and refuses to watch does not
    /// work.
    async fn tell_current(&mut self) -> Result<(), Failure> {
        self.progressed = true;
        self.tell(Step::Current).await
    }

    async fn tell(&mut self, step: Step<K>) -> Result<(), Failure> {
        for message in (self.translate)(step) {
            self.out.send(message).await.map_err(|_| Failure::Unheard)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
