//! Watches, reduced as they arrive.

use futures::{Stream, StreamExt, pin_mut};
use herald_crds::{AddressPool, L2Advertisement, SpeakerStatus, VirtualIP};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    index::{Kind, Object},
    view::{NodeView, ServiceView, segments},
};

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Input {
    /// Added or changed.
    Apply(Object),
    /// Gone.
    Delete(Object),
    /// A complete list: only after all of it has come, so that a watch that expires or a list that breaks off takes
    /// nothing away.
    Replace(Kind, Vec<Object>),
}

/// Starts every watch. A task ends only when nobody listens any more.
pub fn start(client: &Client, default_provider: bool, inputs: &mpsc::Sender<Input>) -> JoinSet<Kind> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default;
    let services = watcher(Api::<Service>::all(client.clone()), all());
    tasks.spawn(feed(services.default_backoff(), Kind::Service, inputs.clone(), move |service| {
        ServiceView::of(&service, default_provider).map(|view| Object::Service(Box::new(view)))
    }));
    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all());
    tasks.spawn(feed(namespaces.default_backoff(), Kind::Namespace, inputs.clone(), |namespace| {
        Some(Object::Namespace(namespace.name_any(), namespace.metadata.labels.unwrap_or_default()))
    }));
    let pools = watcher(Api::<AddressPool>::all(client.clone()), all());
    tasks.spawn(feed(pools.default_backoff(), Kind::Pool, inputs.clone(), |mut pool| {
        pool.metadata.managed_fields = None;
        Some(Object::Pool(Box::new(pool)))
    }));
    let advertisements = watcher(Api::<L2Advertisement>::all(client.clone()), all());
    tasks.spawn(feed(advertisements.default_backoff(), Kind::Advertisement, inputs.clone(), |advertisement| {
        Some(Object::Advertisement(advertisement.name_any(), Box::new(advertisement.spec)))
    }));
    let vips = watcher(Api::<VirtualIP>::all(client.clone()), all());
    tasks.spawn(feed(vips.default_backoff(), Kind::VirtualIp, inputs.clone(), |mut vip| {
        vip.metadata.managed_fields = None;
        Some(Object::VirtualIp(Box::new(vip)))
    }));
    let nodes = watcher(Api::<Node>::all(client.clone()), all());
    tasks.spawn(feed(nodes.default_backoff(), Kind::Node, inputs.clone(), |node| {
        Some(Object::Node(node.name_any(), NodeView::of(&node)))
    }));
    let speakers = watcher(Api::<SpeakerStatus>::all(client.clone()), all());
    tasks.spawn(feed(speakers.default_backoff(), Kind::Speaker, inputs.clone(), |status| {
        Some(Object::Speaker(status.name_any(), segments(&status)))
    }));
    tasks
}

/// Carries one watch into the channel. Errors are retried with the stream's backoff (kube-rs: 0.8 s to 30 s, with
/// jitter).
async fn feed<K>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    kind: Kind,
    inputs: mpsc::Sender<Input>,
    reduce: impl Fn(K) -> Option<Object> + Send,
) -> Kind {
    pin_mut!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        let input = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(reduce(object));
                None
            }
            Ok(watcher::Event::InitDone) => Some(Input::Replace(kind, std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(object)) => reduce(object).map(Input::Apply),
            Ok(watcher::Event::Delete(object)) => reduce(object).map(Input::Delete),
            Err(error) => {
                tracing::warn!(?kind, %error, "the watch broke off and is started again; nothing is forgotten meanwhile");
                None
            }
        };
        if let Some(input) = input
            && inputs.send(input).await.is_err()
        {
            break;
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// A list that breaks off half way is not taken for a complete one.
    #[tokio::test]
    async fn only_a_complete_list_replaces() {
        let (sender, mut inputs) = mpsc::channel(16);
        let namespace = |name: &str| name.to_owned();
        let events = stream::iter(vec![
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitApply(namespace("a"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitApply(namespace("b"))),
            Ok(watcher::Event::InitApply(namespace("c"))),
            Ok(watcher::Event::InitDone),
        ]);
        feed(events, Kind::Namespace, sender, |name| Some(Object::Namespace(name, Default::default()))).await;
        let Some(Input::Replace(Kind::Namespace, objects)) = inputs.recv().await else { panic!("no list") };
        let expected = ["b", "c"].map(|n| Object::Namespace(n.to_owned(), Default::default()));
        assert_eq!(objects, expected);
        assert!(inputs.recv().await.is_none());
    }
}
