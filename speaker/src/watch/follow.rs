//! One kind of object, listed and then watched for ever.
//!
//! Why not the watcher of kube-rs: it swallows bookmarks, and by them alone a quiet watch shows that it is not stuck.
//! A move for a class needs a view that is as of now (docs/protocol.md section 19), also where nothing has happened for
//! an hour.
//!
//! The order is that of upstream's reflector (client-go `tools/cache/reflector.go`): list, page by page, from a quorum;
//! watch from the listing's version; go on from the last version seen when a watch ends; list anew when the server no
//! longer has that version (410). Nothing but a complete listing or a `DELETED` removes an object: a watch that is
//! empty, breaks or has expired says nothing about what exists.
//!
//! **As of now.** [`Step::Current`] follows each listing, each batch of events, and each bookmark whose version is new.
//! A bookmark with the version of the one before proves that the API server lives, not that it still hears etcd: a
//! server sends them by its own clock (apiserver `storage/cacher`). And where a kind is quiet, none comes at all: a
//! server sends no bookmark that is not newer than the version it was asked for (`cacheWatcher.process`), and for a
//! quiet kind knows none, unless etcd tells of its progress (every 10 min by default; kubeadm sets 5 s). Then one object
//! is read from a quorum, in the second case when the watch has come to its end.
//! After a break, events do not count before a bookmark does: they may be the beginning of what was missed.

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::{FutureExt, StreamExt};
use herald_observe::complaint::Complaint;
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    core::Status,
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::backoff::Backoff;

/// Objects per page of a listing, as in upstream's pager.
const PAGE: u32 = 500;
/// A watch lasts this long, in seconds, plus up to [`SPREAD`]. The server sends a bookmark 2 s before it ends a watch
/// (apiserver `cacheWatcher.nextBookmarkTime`), otherwise once a minute; a view is as of now for 30 s.
const TERM: u32 = 18;
/// Up to this many seconds more, so that speakers which started together do not reconnect together.
const SPREAD: u32 = 4;
/// The first watch after a break lasts this long, in seconds: its bookmark, after 3 s, says that nothing is missing.
const CATCH_UP_TERM: u32 = 5;
/// How long after its end a watch that does not end is taken for hung.
const GRACE: Duration = Duration::from_secs(5);
/// How long a page of a listing may take: 500 Nodes with their images are some 10 MB.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);
/// How long the server may take until a watch begins, or for a single object.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// After this many refusals of a watch in a row, list anew: etcd restored from a backup has never heard of the version.
const REFUSALS: u32 = 3;

/// One step of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<K> {
    /// A listing begins. What it does not contain is gone, but only once it is complete.
    Listing,
    /// An object is there, in this version.
    Applied(K),
    /// An object is gone; this is its last version.
    Deleted(K),
    /// The listing is complete.
    Listed,
    /// All that was told before is as of now.
    Current,
}

/// Which objects of the kind.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
    /// Whether [`Step::Current`] decides nothing: then a quiet watch costs one request in 20 s, instead of two.
    pub unproven: bool,
}

impl Selection {
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

/// Why a watch broke, or a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("nobody listens")]
    Unheard,
    #[error("the API server refuses: {} ({})", .0.message, .0.code)]
    Refused(Box<Status>),
    // The chain is part of the text: kube's own is "ServiceError: client error (Connect)".
    #[error("{}", chain(.0))]
    Request(#[source] kube::Error),
    #[error("the API server has not answered for {0:?}")]
    Hung(Duration),
    #[error("the API server ended the watch long before its time")]
    Short,
    #[error("the API server sent an object without a version")]
    NoVersion,
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Request(other),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Lists and watches until nobody receives. What to send for each step, `translate` says.
pub async fn follow<K, M>(
    kind: &'static str,
    api: Api<K>,
    selection: Selection,
    translate: impl FnMut(Step<K>) -> Vec<M>,
    out: mpsc::Sender<M>,
) where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let receiver = out.clone();
    let follower =
        Follower { kind, api, selection, translate, out, version: None, caught_up: false, progressed: false };
    tokio::select! {
        () = follower.run() => {}
        () = receiver.closed() => {}
    }
}

struct Follower<K, M, F> {
    kind: &'static str,
    api: Api<K>,
    selection: Selection,
    translate: F,
    out: mpsc::Sender<M>,
    /// What has been seen; `None`: list.
    version: Option<String>,
    /// Nothing has been missed, so an event is news and not history.
    caught_up: bool,
    /// Has the present watch been as of now once?
    progressed: bool,
}

impl<K, M, F> Follower<K, M, F>
where
    K: Resource + Clone + Debug + DeserializeOwned,
    F: FnMut(Step<K>) -> Vec<M>,
{
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut refusals = 0;
        let mut complaint = Complaint::default();
        loop {
            self.progressed = false;
            let ended = self.turn().await;
            if ended.is_ok() || self.progressed {
                backoff = Backoff::default();
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
                tracing::warn!(kind = self.kind, error = text, "a watch broke; what is known stays, and it is retried");
            }
            self.caught_up = false;
            match &failure {
                Failure::Refused(status) if status.code == 410 => self.version = None,
                Failure::NoVersion => self.version = None,
                Failure::Refused(_) => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        self.version = None;
                    }
                }
                _ => {}
            }
            sleep(backoff.wait(fastrand::f64())).await;
        }
    }

    /// Lists if it must, and watches once.
    async fn turn(&mut self) -> Result<(), Failure> {
        let version = match self.version.clone() {
            Some(version) => version,
            None => self.list().await?,
        };
        self.watch(&version).await
    }

    /// Lists everything and returns the version it is of.
    async fn list(&mut self) -> Result<String, Failure> {
        self.tell(Step::Listing).await?;
        let mut params = self.selection.list(PAGE);
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
                self.tell(Step::Listed).await?;
                self.tell(Step::Current).await?;
                return Ok(version);
            }
        }
    }

    /// Watches until the server ends it, which is no failure if it had lasted long enough.
    async fn watch(&mut self, version: &str) -> Result<(), Failure> {
        let seconds = if self.caught_up { TERM + fastrand::u32(0..=SPREAD) } else { CATCH_UP_TERM };
        let term = Duration::from_secs(seconds.into());
        let params = self.selection.watch(seconds);
        let begun = Instant::now();
        let mut events = pin!(answered(PATIENCE, self.api.watch(&params, version)).await?);
        let mut untold = false;
        let mut bookmarked = false;
        loop {
            let next = match events.next().now_or_never() {
                Some(next) => next,
                None => {
                    // The batch is over.
                    if std::mem::take(&mut untold) && self.caught_up {
                        self.tell_current().await?;
                    }
                    let limit = term + GRACE;
                    timeout_at(begun + limit, events.next()).await.map_err(|_| Failure::Hung(limit))?
                }
            };
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
                Some(WatchEvent::Error(status)) => return Err(Failure::Refused(status)),
                None => break,
            }
        }
        // A server that shuts down ends its watches early, one that is broken as well.
        let short = begun.elapsed() < term / 2;
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

    /// Does the API server hear etcd?
    async fn read_one(&self) -> Result<(), Failure> {
        if self.selection.unproven {
            return Ok(());
        }
        answered(PATIENCE, self.api.list(&self.selection.list(1))).await.map(drop)
    }

    /// Takes a version in. Is it another than before?
    fn advance(&mut self, version: Option<&str>) -> Result<bool, Failure> {
        let version = version.filter(|v| !v.is_empty()).ok_or(Failure::NoVersion)?;
        let new = self.version.as_deref() != Some(version);
        self.version = Some(version.to_owned());
        Ok(new)
    }

    /// Says of a watch, not of a listing, that it goes well: a server that lists and refuses to watch does not.
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

/// The answer, if it comes in time.
pub(super) async fn answered<T>(
    patience: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Failure> {
    timeout(patience, request).await.map_err(|_| Failure::Hung(patience))?.map_err(Failure::from)
}

#[cfg(test)]
mod tests;
