//! Watches, whose objects are reduced as they arrive.
//!
//! The list+watch loop is [`follow`], as in the speaker, at the pace that costs the fewest requests: before a decision
//! takes an address away, the Service is looked up (`index/look_up.rs`), so the view need not be proved every 30 s.

use std::{fmt::Debug, time::Duration};

use herald_crds::{
    AddressPool, L2Advertisement, SpeakerStatus, VirtualIP, names::SPEAKER_POD_SELECTOR, service::Selection,
};
use herald_kube_common::reflector::{Pace, Step, WatchConfig, follow};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service},
    networking::v1::ServiceCIDR,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ApiResource, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    gateway_view::{self, GatewayKey, GatewayObject, GatewayView},
    index::{Kind, Object},
    speaker_pod::{PodObject, SpeakerPodView},
    view::{NodeView, ServiceView, SpeakerView},
};

/// Pause before the API server is asked again for ServiceCIDRs that it does not know. The server learns the kind when
/// it is updated, which takes minutes, and no list succeeds until then.
const SERVICE_NETWORKS_PAUSE: Duration = Duration::from_secs(600);
/// Pause for Gateways in the same case: their kind comes with CRDs, perhaps together with the first Gateway.
const GATEWAYS_PAUSE: Duration = Duration::from_secs(60);

/// The watched objects, and the parts that are kept of them, by the controller's flags.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The Services that are Herald's.
    pub selection: Selection,
    /// Whether nodes with the exclude label may announce too.
    pub include_excluded_nodes: bool,
    /// Whether Gateways are watched.
    pub gateway_addresses: bool,
}

/// An input from a watch.
#[derive(Clone, Debug)]
pub enum Input {
    /// The object was added or changed.
    Apply(Object),
    /// The object was deleted.
    Delete(Object),
    /// A complete list. It is sent only after all of it has come, so that a watch that expires or a list that breaks
    /// off removes nothing.
    Replace(Kind, Vec<Object>),
    /// Everything sent before about the kind is current.
    Current(Kind),
    /// The watch of the kind is broken: the objects sent before may be old.
    Broken(Kind),
}

/// Starts every watch; that of the speakers' pods in Herald's own namespace. A task ends only when its receiver is
/// dropped.
pub fn start(client: &Client, namespace: &str, scope: Scope, inputs: &mpsc::Sender<Input>) -> JoinSet<Kind> {
    let Scope { selection, include_excluded_nodes, gateway_addresses } = scope;
    let mut watches = Watches { inputs: inputs.clone(), tasks: JoinSet::new() };
    watches.add(Kind::Service, Api::<Service>::all(client.clone()), all(), move |service| {
        ServiceView::of(&service, &selection).map(|view| Object::Service(Box::new(view)))
    });
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    watches.add(Kind::Namespace, namespaces, all(), |namespace| {
        Some(Object::Namespace(namespace.name_any(), namespace.metadata.labels.unwrap_or_default()))
    });
    watches.add(Kind::Pool, Api::<AddressPool>::all(client.clone()), all(), |mut pool| {
        pool.metadata.managed_fields = None;
        Some(Object::Pool(Box::new(pool)))
    });
    let advertisements = Api::<L2Advertisement>::all(client.clone());
    watches.add(Kind::Advertisement, advertisements, all(), |mut advertisement| {
        advertisement.metadata.managed_fields = None;
        Some(Object::Advertisement(Box::new(advertisement)))
    });
    watches.add(Kind::VirtualIp, Api::<VirtualIP>::all(client.clone()), all(), |mut vip| {
        vip.metadata.managed_fields = None;
        Some(Object::VirtualIp(Box::new(vip)))
    });
    watches.add(Kind::Node, Api::<Node>::all(client.clone()), all(), move |node| {
        Some(Object::Node(node.name_any(), NodeView::of(&node, include_excluded_nodes)))
    });
    watches.add(Kind::Speaker, Api::<SpeakerStatus>::all(client.clone()), all(), |status| {
        Some(Object::Speaker(status.name_any(), SpeakerView::of(&status)))
    });
    // The many pods are decoded only in part.
    let pods = Api::<PodObject>::namespaced_with(client.clone(), namespace, &ApiResource::erase::<Pod>(&()));
    let speakers = WatchConfig { labels: Some(SPEAKER_POD_SELECTOR.to_owned()), ..all() };
    watches.add(Kind::SpeakerPod, pods, speakers, |pod| {
        Some(Object::SpeakerPod(pod.name_any(), SpeakerPodView::of(&pod)?))
    });
    // API servers have ServiceCIDR since 1.33; on an older one the controller does not wait for the kind.
    let where_known = WatchConfig { pause_if_unknown: Some(SERVICE_NETWORKS_PAUSE), ..all() };
    watches.add(Kind::ServiceNetwork, Api::<ServiceCIDR>::all(client.clone()), where_known, |network| {
        let cidrs = network.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
        Some(Object::ServiceNetwork(network.name_any(), cidrs.filter_map(|cidr| cidr.parse().ok()).collect()))
    });
    if gateway_addresses {
        let gateways = Api::<GatewayObject>::all_with(client.clone(), &gateway_view::api_resource());
        let where_installed = WatchConfig { pause_if_unknown: Some(GATEWAYS_PAUSE), ..all() };
        watches.add(Kind::Gateway, gateways, where_installed, |gateway| {
            Some(Object::Gateway(GatewayKey::of(&gateway.metadata)?, GatewayView::of(&gateway)))
        });
    }
    watches.tasks
}

fn all() -> WatchConfig {
    WatchConfig { unproven: true, pace: Pace::RESTFUL, ..WatchConfig::default() }
}

struct Watches {
    inputs: mpsc::Sender<Input>,
    tasks: JoinSet<Kind>,
}

impl Watches {
    /// Starts the watch of a kind. `reduce` returns the part of an object to keep.
    fn add<K>(
        &mut self,
        kind: Kind,
        api: Api<K>,
        config: WatchConfig,
        reduce: impl Fn(K) -> Option<Object> + Send + Sync + 'static,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let inputs = self.inputs.clone();
        let mut reducer = Reducer { kind, reduce, listing: None };
        self.tasks.spawn(async move {
            follow(kind.as_str(), api, config, |step| reducer.take(step).into_iter().collect(), inputs).await;
            kind
        });
    }
}

/// Turns the steps of one watch into inputs.
struct Reducer<F> {
    kind: Kind,
    reduce: F,
    /// The objects that the listing under way has brought.
    listing: Option<Vec<Object>>,
}

impl<F> Reducer<F> {
    fn take<K>(&mut self, step: Step<K>) -> Option<Input>
    where
        F: Fn(K) -> Option<Object>,
    {
        match step {
            // The objects of a listing that broke off are dropped.
            Step::Listing => {
                self.listing = Some(Vec::new());
                None
            }
            Step::Applied(object) => {
                let object = (self.reduce)(object)?;
                match &mut self.listing {
                    Some(listing) => {
                        listing.push(object);
                        None
                    }
                    None => Some(Input::Apply(object)),
                }
            }
            Step::Deleted(object) => (self.reduce)(object).map(Input::Delete),
            Step::Listed => Some(Input::Replace(self.kind, self.listing.take()?)),
            Step::Current => Some(Input::Current(self.kind)),
            Step::Broken => Some(Input::Broken(self.kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use kube::client::Body;
    use tokio::time::{sleep, timeout};

    use super::*;

    fn namespace(name: &str) -> Object {
        Object::Namespace(name.to_owned(), BTreeMap::new())
    }

    fn inputs(steps: impl IntoIterator<Item = Step<&'static str>>) -> Vec<Input> {
        let mut reducer = Reducer {
            kind: Kind::Namespace,
            reduce: |name: &str| (name != "none").then(|| namespace(name)),
            listing: None,
        };
        steps.into_iter().filter_map(|step| reducer.take(step)).collect()
    }

    /// A list that breaks off half way does not count as a complete one.
    #[test]
    fn only_a_complete_list_replaces_objects() {
        let inputs = inputs([
            Step::Listing,
            Step::Applied("a"),
            Step::Broken,
            Step::Listing,
            Step::Applied("b"),
            Step::Applied("none"),
            Step::Applied("c"),
            Step::Listed,
        ]);
        let [Input::Broken(Kind::Namespace), Input::Replace(Kind::Namespace, objects)] = &inputs[..] else {
            panic!("{inputs:?}")
        };
        assert_eq!(*objects, ["b", "c"].map(namespace));
    }

    #[test]
    fn steps_after_a_list_change_single_objects() {
        let inputs = inputs([
            Step::Listing,
            Step::Listed,
            Step::Applied("a"),
            Step::Applied("none"),
            Step::Broken,
            Step::Applied("a"),
            Step::Deleted("a"),
            Step::Current,
        ]);
        let [
            Input::Replace(Kind::Namespace, none),
            Input::Apply(first),
            Input::Broken(Kind::Namespace),
            Input::Apply(second),
            Input::Delete(gone),
            Input::Current(Kind::Namespace),
        ] = &inputs[..]
        else {
            panic!("{inputs:?}")
        };
        assert_eq!((none.len(), first, second, gone), (0, &namespace("a"), &namespace("a"), &namespace("a")));
    }

    /// An API server before 1.33 does not know ServiceCIDR until it is updated. This one knows no kind.
    #[tokio::test(start_paused = true)]
    async fn kind_that_the_api_server_need_not_know_is_asked_for_after_its_pause() {
        let asked = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
        let counts = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            *counts.lock().unwrap().entry(request.uri().path().to_owned()).or_default() += 1;
            async { Response::builder().status(404).body(Body::from(b"404 page not found".to_vec())) }
        });
        let (inputs, mut received) = mpsc::channel(16 * 1024);
        let scope = Scope { gateway_addresses: true, ..Scope::default() };
        let client = Client::new(service, "default");
        let mut watches = start(&client, "herald-system", scope, &inputs);
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, watches.join_next()).await.is_err(), "they go on");
        watches.shutdown().await;
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked.len(), Kind::ALL.len(), "{asked:?}");
        for (path, lists) in asked {
            // The controller needs the other kinds, and asks for them every 2.5 to 5 s.
            let expected = match path.rsplit('/').next() {
                Some("servicecidrs") => 2..=7,
                Some("gateways") => 58..=61,
                _ => 700..=1500,
            };
            assert!(expected.contains(&lists), "{path}: {lists} in an hour");
        }
        sleep(Duration::ZERO).await;
        let mut listed = BTreeSet::new();
        let optional = [Kind::ServiceNetwork, Kind::Gateway];
        while let Ok(input) = received.try_recv() {
            match input {
                Input::Replace(kind, none) if optional.contains(&kind) && none.is_empty() => drop(listed.insert(kind)),
                Input::Current(kind) if optional.contains(&kind) => {}
                Input::Broken(kind) if !optional.contains(&kind) => {}
                _ => panic!("{input:?}"),
            }
        }
        assert_eq!(listed, optional.into(), "they would be waited for");
    }

    /// A controller that does not honour Gateways needs no permission for them.
    #[tokio::test(start_paused = true)]
    async fn gateways_are_not_asked_for_unless_they_are_honoured() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let paths = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            paths.lock().unwrap().push(request.uri().path().to_owned());
            async { Response::builder().status(404).body(Body::from(b"404 page not found".to_vec())) }
        });
        let (inputs, _received) = mpsc::channel(1024);
        let mut watches = start(&Client::new(service, "default"), "herald-system", Scope::default(), &inputs);
        assert!(timeout(Duration::from_secs(60), watches.join_next()).await.is_err(), "they go on");
        let asked = asked.lock().unwrap();
        assert!(!asked.is_empty() && asked.iter().all(|path| !path.contains("gateway")), "{asked:?}");
    }
}
