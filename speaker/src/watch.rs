//! Watches of the API, reduced as they arrive: nothing but what decisions need is kept.

use std::{collections::BTreeSet, fmt::Debug};

use futures::{Stream, StreamExt};
use herald_crds::{SpeakerStatus, VirtualIP};
use k8s_openapi::api::{core::v1, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    core::ApiResource,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    cluster::{Change, Keyed, Node, NodeObject, SERVICE_NAME_LABEL, ServiceName, Slice, Speaker, Vip},
    machine::Input,
};

/// Names in a label selector, at most: 63 bytes each keep the request's URL below the 8 KiB that proxies allow. Beyond,
/// all EndpointSlices are watched and the foreign ones dropped on arrival.
const SELECTOR_NAMES: usize = 100;

/// Starts the watches that always run. None of the tasks ends while somebody listens. Errors are retried with the
/// backoff of kube-rs (0.8 s to 30 s, with jitter).
pub fn start(
    tasks: &mut JoinSet<&'static str>,
    client: &Client,
    node: &str,
    include_excluded: bool,
    inputs: &mpsc::Sender<Input>,
) {
    let stream = watcher(Api::<VirtualIP>::all(client.clone()), watcher::Config::default()).default_backoff();
    let reduce = |object| Vip::reduce(object).inspect_err(|error| tracing::error!(%error)).ok();
    let feeding = feed("VirtualIP", stream, inputs.clone(), reduce, Input::Vip);
    tasks.spawn(async move {
        feeding.await;
        "the watch on VirtualIPs"
    });

    // Nodes are decoded in part: each lists all its images.
    let resource = ApiResource::erase::<v1::Node>(&());
    let stream = watcher(Api::<NodeObject>::all_with(client.clone(), &resource), watcher::Config::default());
    let stream = stream.default_backoff();
    let feeding =
        feed("Node", stream, inputs.clone(), move |object| Some(Node::reduce(object, include_excluded)), Input::Node);
    tasks.spawn(async move {
        feeding.await;
        "the watch on Nodes"
    });

    let stream = watcher(Api::<SpeakerStatus>::all(client.clone()), watcher::Config::default()).default_backoff();
    let own = node.to_owned();
    let feeding = feed(
        "SpeakerStatus",
        stream,
        inputs.clone(),
        move |object| Some(Speaker::reduce(object, &own)),
        Input::Speaker,
    );
    tasks.spawn(async move {
        feeding.await;
        "the watch on SpeakerStatuses"
    });
}

/// Watches the EndpointSlices of these Services until nobody listens.
pub async fn slices(client: Client, services: BTreeSet<ServiceName>, inputs: mpsc::Sender<Input>) {
    let config = watcher::Config::default().labels(&slice_selector(&services));
    let stream = watcher(Api::<EndpointSlice>::all(client), config).default_backoff();
    let wanted = services.clone();
    let reduce = move |object| Slice::reduce(object).filter(|slice| wanted.contains(&slice.service));
    feed_and("EndpointSlice", stream, inputs, reduce, Input::Slice, || Some(Input::SlicesCover(services.clone())))
        .await;
}

fn slice_selector(services: &BTreeSet<ServiceName>) -> String {
    let names: BTreeSet<_> = services.iter().map(|service| service.name.as_str()).collect();
    if names.len() > SELECTOR_NAMES {
        return SERVICE_NAME_LABEL.to_owned();
    }
    format!("{SERVICE_NAME_LABEL} in ({})", names.into_iter().collect::<Vec<_>>().join(","))
}

/// Carries a watch into the channel.
async fn feed<K: Debug, T: Keyed>(
    kind: &'static str,
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    inputs: mpsc::Sender<Input>,
    reduce: impl Fn(K) -> Option<T>,
    input: impl Fn(Change<T>) -> Input,
) {
    feed_and(kind, stream, inputs, reduce, input, || None).await;
}

/// As [`feed`], with something to say after each complete listing. After an error what was known stays known.
async fn feed_and<K: Debug, T: Keyed>(
    kind: &'static str,
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    inputs: mpsc::Sender<Input>,
    reduce: impl Fn(K) -> Option<T>,
    input: impl Fn(Change<T>) -> Input,
    listed: impl Fn() -> Option<Input>,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        let (change, then) = match event {
            Ok(watcher::Event::Init) => (Some(Change::Listing), None),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                (reduce(object).map(Change::Applied), None)
            }
            Ok(watcher::Event::Delete(object)) => (reduce(object).map(|item| Change::Deleted(item.key())), None),
            Ok(watcher::Event::InitDone) => (Some(Change::Listed), listed()),
            Err(error) => {
                tracing::warn!(kind, %error, "a watch broke; it goes on when the API server is back");
                continue;
            }
        };
        for input in change.map(&input).into_iter().chain(then) {
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn services(count: usize) -> BTreeSet<ServiceName> {
        (0..count).map(|i| ServiceName { namespace: "n".to_owned(), name: format!("s{i}") }).collect()
    }

    #[test]
    fn slices_are_chosen_by_name_while_that_fits() {
        assert_eq!(slice_selector(&services(2)), "kubernetes.io/service-name in (s0,s1)");
        assert_eq!(slice_selector(&services(101)), "kubernetes.io/service-name");
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Item(String);

    impl Keyed for Item {
        type Key = String;
        fn key(&self) -> String {
            self.0.clone()
        }
    }

    #[tokio::test]
    async fn events_become_changes_and_errors_do_not() {
        let object = |name: &str| {
            let mut object = ConfigMap::default();
            object.metadata.name = Some(name.to_owned());
            object
        };
        let events = stream::iter([
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitApply(object("a"))),
            Ok(watcher::Event::InitApply(object("unreadable"))),
            Ok(watcher::Event::InitDone),
            Ok(watcher::Event::Apply(object("b"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(watcher::Event::Delete(object("a"))),
        ]);
        let (inputs, mut received) = mpsc::channel(20);
        let reduce = |o: ConfigMap| o.metadata.name.filter(|n| n != "unreadable").map(Item);
        // Any input will do to tell them apart: the change is written into a namespace.
        let spell = |change: Change<Item>| {
            Input::SlicesCover(BTreeSet::from([ServiceName { namespace: format!("{change:?}"), name: String::new() }]))
        };
        feed_and("ConfigMap", events, inputs, reduce, spell, || Some(Input::SlicesCover(BTreeSet::new()))).await;
        let mut seen = Vec::new();
        while let Ok(Input::SlicesCover(set)) = received.try_recv() {
            seen.push(set.into_iter().next().map_or("then".to_owned(), |s| s.namespace));
        }
        let a = "Applied(Item(\"a\"))";
        assert_eq!(seen, ["Listing", a, "Listed", "then", "Applied(Item(\"b\"))", "Deleted(\"a\")"]);
    }
}
