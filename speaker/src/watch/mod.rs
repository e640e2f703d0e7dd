//! Watches of the API, reduced as they arrive: only what decisions need is kept.

pub(crate) mod cluster_key;
mod cluster_uid;

use std::{collections::BTreeSet, fmt::Debug};

use herald_crds::{SpeakerStatus, VirtualIP};
use herald_kube_common::reflector::{Step, WatchConfig, follow};
use k8s_openapi::api::{core::v1, discovery::v1::EndpointSlice};
use kube::{Api, Client, Resource, core::ApiResource};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    api_objects::{Change, Keyed, Node, NodeObject, SERVICE_NAME_LABEL, Slice, SliceSelection, Speaker, Vip},
    coordinator::{ApiFact, Input},
};

/// Starts the watches that always run. No task ends before the receiver of the channel is gone.
pub fn start(
    tasks: &mut JoinSet<&'static str>,
    client: &Client,
    node: &str,
    include_excluded: bool,
    inputs: &mpsc::Sender<Input>,
) {
    let feeding = feed(
        "VirtualIP",
        Api::<VirtualIP>::all(client.clone()),
        inputs.clone(),
        |object| Vip::reduce(object).inspect_err(|error| tracing::error!(%error)).ok(),
        |change| Input::Api(ApiFact::Vip(change)),
    );
    tasks.spawn(async move {
        feeding.await;
        "the watch on VirtualIPs"
    });

    // Nodes are decoded in part: each lists all its images.
    let resource = ApiResource::erase::<v1::Node>(&());
    let feeding = feed(
        "Node",
        Api::<NodeObject>::all_with(client.clone(), &resource),
        inputs.clone(),
        move |object| Some(Node::reduce(object, include_excluded)),
        |change| Input::Api(ApiFact::Node(change)),
    );
    tasks.spawn(async move {
        feeding.await;
        "the watch on Nodes"
    });

    let own = node.to_owned();
    let feeding = feed(
        "SpeakerStatus",
        Api::<SpeakerStatus>::all(client.clone()),
        inputs.clone(),
        move |object| Some(Speaker::reduce(object, &own)),
        |change| Input::Api(ApiFact::Speaker(change)),
    );
    tasks.spawn(async move {
        feeding.await;
        "the watch on SpeakerStatuses"
    });
}

/// Watches these EndpointSlices until the receiver of the channel is gone. A label selector holds names alone, so
/// slices of Services of the same name in other namespaces are dropped on arrival.
pub async fn slices(client: Client, slices: SliceSelection, inputs: mpsc::Sender<Input>) {
    let config = WatchConfig { labels: Some(slice_selector(&slices)), ..WatchConfig::default() };
    let reduce = |object| Slice::reduce(object).filter(|slice| slices.contains(&slice.service));
    let translate = |step| {
        let cover = matches!(step, Step::Listed).then(|| Input::Api(ApiFact::SlicesCover(slices.clone())));
        change(step, reduce).map(|change| Input::Api(ApiFact::Slice(change))).into_iter().chain(cover).collect()
    };
    follow("EndpointSlice", Api::<EndpointSlice>::all(client), config, translate, inputs).await;
}

/// Carries a watch on all objects of a kind into the channel.
async fn feed<K: Resource + Clone + Debug + DeserializeOwned, T: Keyed>(
    kind: &'static str,
    api: Api<K>,
    inputs: mpsc::Sender<Input>,
    reduce: impl Fn(K) -> Option<T>,
    input: impl Fn(Change<T>) -> Input,
) {
    let translate = |step| change(step, &reduce).map(&input).into_iter().collect();
    follow(kind, api, WatchConfig::default(), translate, inputs).await;
}

/// Returns the change of what is kept, or `None` where nothing of the object is kept.
fn change<K, T: Keyed>(step: Step<K>, reduce: impl Fn(K) -> Option<T>) -> Option<Change<T>> {
    match step {
        Step::Listing => Some(Change::Listing),
        Step::Applied(object) => reduce(object).map(Change::Applied),
        Step::Deleted(object) => reduce(object).map(|item| Change::Deleted(item.key())),
        Step::Listed => Some(Change::Listed),
        Step::Current => Some(Change::Current),
        Step::Broken => None,
    }
}

fn slice_selector(slices: &SliceSelection) -> String {
    match slices {
        SliceSelection::All => SERVICE_NAME_LABEL.to_owned(),
        SliceSelection::Of(services) => {
            let names: BTreeSet<_> = services.iter().map(|service| service.name.as_str()).collect();
            format!("{SERVICE_NAME_LABEL} in ({})", names.into_iter().collect::<Vec<_>>().join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_selected_by_the_names_of_their_services() {
        let service = |namespace: &str, name: &str| crate::api_objects::ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let some = SliceSelection::Of([service("n", "s0"), service("m", "s0"), service("n", "s1")].into());
        assert_eq!(slice_selector(&some), "kubernetes.io/service-name in (s0,s1)");
        assert_eq!(slice_selector(&SliceSelection::All), "kubernetes.io/service-name");
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Item(String);

    impl Keyed for Item {
        type Key = String;
        fn key(&self) -> String {
            self.0.clone()
        }
    }

    #[test]
    fn unreadable_object_is_not_a_change() {
        let reduce = |text: &str| (text != "unreadable").then(|| Item(text.to_owned()));
        assert_eq!(change(Step::Applied("a"), reduce), Some(Change::Applied(Item("a".to_owned()))));
        assert_eq!(change(Step::Deleted("a"), reduce), Some(Change::Deleted("a".to_owned())));
        assert_eq!(change(Step::Applied("unreadable"), reduce), None);
        assert_eq!(change(Step::Current, reduce), Some(Change::Current));
    }
}
