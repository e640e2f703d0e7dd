//! Watches, reduced as they arrive.

use std::time::Duration;

use futures::{Stream, StreamExt, pin_mut};
use herald_crds::{AddressPool, L2Advertisement, SpeakerStatus, VirtualIP, names::SPEAKER_POD_SELECTOR};
use herald_observe::complaint::Complaint;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, ResourceExt,
    core::{ApiResource, PartialObjectMeta},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    backoff::WatchBackoff,
    index::{Kind, Object},
    speaker_pod::{PodObject, SpeakerPodView},
    view::{NodeView, ServiceView, SpeakerView},
};

/// How long the API server is not asked again for a kind that it does not know: it learns one when it is updated, which
/// takes minutes, and every list until then would be in vain.
const UNKNOWN_KIND_PAUSE: Duration = Duration::from_secs(600);

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

/// Starts every watch; that of the speakers' pods in Herald's own namespace. A task ends only when nobody listens any
/// more.
pub fn start(client: &Client, namespace: &str, default_provider: bool, inputs: &mpsc::Sender<Input>) -> JoinSet<Kind> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default;
    let services = watcher(Api::<Service>::all(client.clone()), all());
    tasks.spawn(feed(services.backoff(WatchBackoff::default()), Kind::Service, inputs.clone(), move |service| {
        ServiceView::of(&service, default_provider).map(|view| Object::Service(Box::new(view)))
    }));
    let namespaces = watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all());
    tasks.spawn(feed(namespaces.backoff(WatchBackoff::default()), Kind::Namespace, inputs.clone(), |namespace| {
        Some(Object::Namespace(namespace.name_any(), namespace.metadata.labels.unwrap_or_default()))
    }));
    let pools = watcher(Api::<AddressPool>::all(client.clone()), all());
    tasks.spawn(feed(pools.backoff(WatchBackoff::default()), Kind::Pool, inputs.clone(), |mut pool| {
        pool.metadata.managed_fields = None;
        Some(Object::Pool(Box::new(pool)))
    }));
    let advertisements = watcher(Api::<L2Advertisement>::all(client.clone()), all());
    tasks.spawn(feed(
        advertisements.backoff(WatchBackoff::default()),
        Kind::Advertisement,
        inputs.clone(),
        |mut advertisement| {
            advertisement.metadata.managed_fields = None;
            Some(Object::Advertisement(Box::new(advertisement)))
        },
    ));
    let vips = watcher(Api::<VirtualIP>::all(client.clone()), all());
    tasks.spawn(feed(vips.backoff(WatchBackoff::default()), Kind::VirtualIp, inputs.clone(), |mut vip| {
        vip.metadata.managed_fields = None;
        Some(Object::VirtualIp(Box::new(vip)))
    }));
    let nodes = watcher(Api::<Node>::all(client.clone()), all());
    tasks.spawn(feed(nodes.backoff(WatchBackoff::default()), Kind::Node, inputs.clone(), |node| {
        Some(Object::Node(node.name_any(), NodeView::of(&node)))
    }));
    let speakers = watcher(Api::<SpeakerStatus>::all(client.clone()), all());
    tasks.spawn(feed(speakers.backoff(WatchBackoff::default()), Kind::Speaker, inputs.clone(), |status| {
        Some(Object::Speaker(status.name_any(), SpeakerView::of(&status)))
    }));
    // Decoded in part, as they are many.
    let pods = Api::<PodObject>::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Pod>(&()));
    let pods = watcher(pods, all().labels(SPEAKER_POD_SELECTOR));
    tasks.spawn(feed(pods.backoff(WatchBackoff::default()), Kind::SpeakerPod, inputs.clone(), |pod| {
        Some(Object::SpeakerPod(pod.name_any(), SpeakerPodView::of(&pod)?))
    }));
    let networks = watcher(Api::<ServiceCIDR>::all(client.clone()), all());
    tasks.spawn(feed(networks.backoff(WatchBackoff::default()), Kind::ServiceNetwork, inputs.clone(), |network| {
        let cidrs = network.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
        Some(Object::ServiceNetwork(network.name_any(), cidrs.filter_map(|cidr| cidr.parse().ok()).collect()))
    }));
    tasks
}

/// Carries one watch into the channel. Errors are retried with the stream's backoff, and told once while they last.
async fn feed<K>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    kind: Kind,
    inputs: mpsc::Sender<Input>,
    reduce: impl Fn(K) -> Option<Object> + Send,
) -> Kind {
    pin_mut!(stream);
    let mut listed = Vec::new();
    let mut complaint = Complaint::default();
    while let Some(event) = stream.next().await {
        // That it begins to list is no sign of the API server.
        if !matches!(event, Ok(watcher::Event::Init) | Err(_)) && complaint.is_over() {
            tracing::info!(?kind, "the watch goes on");
        }
        // API servers have ServiceCIDR since 1.33; without it there is none to wait for.
        let unknown = kind == Kind::ServiceNetwork && event.as_ref().is_err_and(is_not_found);
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
            Err(error) if unknown => {
                tracing::debug!(%error, "the API server does not know ServiceCIDR");
                Some(Input::Replace(kind, Vec::new()))
            }
            Err(error) => {
                if complaint.is_new(&error.to_string()) {
                    tracing::warn!(?kind, %error, "the watch broke off and is started again; nothing is forgotten meanwhile");
                }
                None
            }
        };
        if let Some(input) = input
            && inputs.send(input).await.is_err()
        {
            break;
        }
        if unknown {
            sleep(UNKNOWN_KIND_PAUSE).await;
        }
    }
    kind
}

fn is_not_found(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::time::timeout;

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

    /// An API server before 1.33 does not learn ServiceCIDR while nobody updates it.
    #[tokio::test(start_paused = true)]
    async fn kind_that_the_api_server_does_not_know_is_asked_for_every_ten_minutes() {
        let (sender, mut inputs) = mpsc::channel(64);
        let mut lists = 0;
        let unknown = stream::repeat_with(|| {
            lists += 1;
            let status = kube::core::Status { code: 404, ..kube::core::Status::default() };
            Err::<watcher::Event<String>, _>(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
        });
        let object = |name| Some(Object::ServiceNetwork(name, Vec::new()));
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, feed(unknown, Kind::ServiceNetwork, sender, object)).await.is_err(), "it goes on");
        assert!((2..=7).contains(&lists), "{lists} in an hour");
        let Some(Input::Replace(Kind::ServiceNetwork, none)) = inputs.recv().await else { panic!("no list") };
        assert_eq!(none, [], "nothing is waited for meanwhile");
    }
}
