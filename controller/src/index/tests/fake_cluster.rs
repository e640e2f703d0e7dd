//! A fake cluster: a scripted API server that carries the index's writes out as the real one would, and its watches.

mod api_server;
mod speakers;
mod watches;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use herald_crds::service::Selection;
use herald_crds::{
    AddressPool, L2Advertisement, VirtualIP,
    address::name_of_address,
    names::{ANNOTATION_ALLOCATED_FROM, FINALIZER_WITHDRAWAL},
    placement::Interface,
    virtual_ip::AnnouncedReason,
};
use ipnet::IpNet;
use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use crate::index::*;
use crate::{
    action::Outcome,
    gateway_view::{GatewayKey, GatewayView},
    speaker_pod::SpeakerPodView,
    view::SpeakerView,
};
pub(in crate::index) use api_server::Trouble;
use speakers::pod_on;
use watches::Watches;

/// Objects, clock and index.
pub(in crate::index) struct World {
    pub(in crate::index) index: Index,
    pub(in crate::index) default_provider: bool,
    pub(in crate::index) now: Duration,
    pub(in crate::index) services: BTreeMap<ServiceKey, Service>,
    /// The labels of each namespace.
    pub(in crate::index) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub(in crate::index) vips: BTreeMap<IpAddr, VirtualIP>,
    /// VirtualIPs whose names are not those of their addresses.
    pub(in crate::index) strays: BTreeMap<String, VirtualIP>,
    pub(in crate::index) pools: BTreeMap<String, AddressPool>,
    pub(in crate::index) advertisements: BTreeMap<String, L2Advertisement>,
    pub(in crate::index) service_networks: BTreeMap<String, Vec<IpNet>>,
    pub(in crate::index) gateways: BTreeMap<GatewayKey, GatewayView>,
    /// Whether the controller honours the addresses of Gateways.
    pub(in crate::index) honours_gateways: bool,
    pub(in crate::index) nodes: BTreeMap<String, NodeView>,
    pub(in crate::index) speakers: BTreeMap<String, SpeakerView>,
    /// The speakers' pods, by name.
    pub(in crate::index) pods: BTreeMap<String, SpeakerPodView>,
    /// Addresses that another host answers for: the reason that speakers give, and their sentence.
    pub(in crate::index) held_by_others: BTreeMap<IpAddr, (AnnouncedReason, String)>,
    /// The successful writes so far, including events; `conflicts` counts the failed ones.
    pub(in crate::index) log: Vec<Action>,
    pub(in crate::index) conflicts: usize,
    /// The seconds by which the API server's clock is ahead.
    pub(in crate::index) clock_offset: i64,
    version: u64,
    watches: Watches,
    /// The troubles of the next writes, in order.
    pub(in crate::index) trouble: VecDeque<Trouble>,
    /// The fields of a VirtualIP's spec, or of a status, that the API server does not know.
    pub(in crate::index) unknown_fields: Vec<&'static str>,
    /// The writes of an earlier leader that have not arrived.
    pub(in crate::index) late: Vec<Action>,
}

/// The link-layer address of every stranger.
pub(in crate::index) const STRANGER: &str = "02:00:00:00:00:99";

/// Returns the key of a Service: names that begin with `late-` are of namespace `late`, all others of `ns`.
pub(in crate::index) fn key(name: &str) -> ServiceKey {
    let namespace = if name.starts_with("late-") { "late" } else { "ns" };
    ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

pub(in crate::index) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    /// Returns a world of two Ready nodes with speakers in 192.0.2.0/24 and 2001:db8::/64, a pool `lan` of .1 to .3,
    /// and a leader that has listed everything.
    pub(in crate::index) fn new() -> Self {
        let mut world = Self::empty();
        world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
        world.restart();
        world.settle();
        world.log.clear();
        world
    }

    pub(in crate::index) fn empty() -> Self {
        let node = NodeView { labels: BTreeMap::new(), ready: true, eligible: true, ..NodeView::default() };
        let segment = Interface {
            name: "eth0".to_owned(),
            prefixes: ["192.0.2.0/24", "2001:db8::/64"].map(|p| p.parse().unwrap()).into(),
            default_route: true,
            speaks_for: vec![],
        };
        Self {
            index: Index::new(Timestamp::UNIX_EPOCH),
            default_provider: false,
            now: Duration::ZERO,
            services: BTreeMap::new(),
            namespaces: [("ns".to_owned(), BTreeMap::new())].into(),
            vips: BTreeMap::new(),
            strays: BTreeMap::new(),
            pools: BTreeMap::new(),
            advertisements: BTreeMap::new(),
            service_networks: BTreeMap::new(),
            gateways: BTreeMap::new(),
            honours_gateways: false,
            nodes: ["a", "b"].map(|n| (n.to_owned(), node.clone())).into(),
            speakers: ["a", "b"]
                .map(|n| {
                    let (uid, segments) = (format!("speaker-{n}"), vec![segment.clone()]);
                    (n.to_owned(), SpeakerView { uid, segments, ..SpeakerView::default() })
                })
                .into(),
            pods: ["a", "b"].map(|n| (format!("speaker-{n}"), pod_on(n, true))).into(),
            held_by_others: BTreeMap::new(),
            log: Vec::new(),
            conflicts: 0,
            clock_offset: 0,
            version: 1,
            watches: Watches::default(),
            trouble: VecDeque::new(),
            unknown_fields: Vec::new(),
            late: Vec::new(),
        }
    }

    pub(in crate::index) fn selection(&self) -> Selection {
        Selection { default_provider: self.default_provider, other_classes: Vec::new() }
    }

    pub(in crate::index) fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Starts a new process, which knows only the lists.
    pub(in crate::index) fn restart(&mut self) {
        self.restart_with(|_| true);
    }

    /// Starts a new process, which has not listed this kind.
    pub(in crate::index) fn restart_without(&mut self, unlisted: Kind) {
        self.restart_with(|kind| kind != unlisted);
    }

    fn restart_with(&mut self, lists: impl Fn(Kind) -> bool) {
        self.index = Index::new(Timestamp::UNIX_EPOCH).honour_gateways(self.honours_gateways);
        self.index.set_leading(true);
        for kind in Kind::ALL.into_iter().filter(|kind| lists(*kind)) {
            self.relist(kind);
        }
    }

    pub(in crate::index) fn pool(&mut self, name: &str, spec: Value) {
        let mut pool = AddressPool::new(name, serde_json::from_value(spec).unwrap());
        let version = self.next_version();
        let old = self.pools.get(name);
        let generation = old.and_then(|old| Some((old.metadata.generation?, old.spec == pool.spec)));
        pool.metadata.generation = Some(next_generation(generation));
        let uid = old.and_then(|pool| pool.metadata.uid.clone());
        pool.metadata.uid = uid.or_else(|| Some(format!("uid-{name}-{version}")));
        pool.metadata.resource_version = Some(version);
        pool.status = self.pools.get(name).and_then(|p| p.status.clone());
        self.pools.insert(name.to_owned(), pool.clone());
        self.shows(false, Object::Pool(Box::new(pool)));
    }

    pub(in crate::index) fn advertisement(&mut self, name: &str, spec: Value) {
        let mut advertisement = L2Advertisement::new(name, serde_json::from_value(spec).unwrap());
        advertisement.metadata.resource_version = Some(self.next_version());
        let old = self.advertisements.get(name);
        let generation = old.and_then(|old| Some((old.metadata.generation?, old.spec == advertisement.spec)));
        advertisement.metadata.generation = Some(next_generation(generation));
        advertisement.status = self.advertisements.get(name).and_then(|a| a.status.clone());
        self.advertisements.insert(name.to_owned(), advertisement.clone());
        self.index.apply(Object::Advertisement(Box::new(advertisement)));
    }

    /// Does what `kubectl delete pool` does where the pool has a finalizer.
    pub(in crate::index) fn begin_to_delete_pool(&mut self, name: &str) {
        let mut pool = self.pools[name].clone();
        pool.metadata.resource_version = Some(self.next_version());
        pool.metadata.generation = pool.metadata.generation.map(|generation| generation + 1);
        pool.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        pool.metadata.finalizers = Some(vec!["example.com/inventory".to_owned()]);
        self.pools.insert(name.to_owned(), pool.clone());
        self.shows(false, Object::Pool(Box::new(pool)));
    }

    pub(in crate::index) fn delete_pool(&mut self, name: &str) {
        let pool = self.pools.remove(name).unwrap();
        self.shows(true, Object::Pool(Box::new(pool)));
    }

    /// Makes a Gateway of namespace `ns` ask for these addresses.
    pub(in crate::index) fn gateway(&mut self, name: &str, addresses: &[&str]) {
        let key = GatewayKey { namespace: "ns".to_owned(), name: name.to_owned() };
        let view = GatewayView { addresses: addresses.iter().map(|text| (*text).to_owned()).collect() };
        self.gateways.insert(key.clone(), view.clone());
        self.shows(false, Object::Gateway(key, view));
    }

    pub(in crate::index) fn has_gateway(&self, name: &str) -> bool {
        self.gateways.contains_key(&GatewayKey { namespace: "ns".to_owned(), name: name.to_owned() })
    }

    /// Deletes a Gateway, as `kubectl delete gateway` does.
    pub(in crate::index) fn delete_gateway(&mut self, name: &str) {
        let key = GatewayKey { namespace: "ns".to_owned(), name: name.to_owned() };
        let view = self.gateways.remove(&key).unwrap();
        self.shows(true, Object::Gateway(key, view));
    }

    /// Sets the labels of a namespace.
    pub(in crate::index) fn namespace(&mut self, name: &str, labels: Value) {
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
        self.namespaces.insert(name.to_owned(), labels.clone());
        self.shows(false, Object::Namespace(name.to_owned(), labels));
    }

    /// Creates a Service of our class, with `change` merged over it.
    pub(in crate::index) fn create(&mut self, name: &str, change: Value) {
        let version = self.next_version();
        let mut object = json!({
            "metadata": {"namespace": key(name).namespace, "name": name, "uid": format!("uid-{name}-{version}"),
                "resourceVersion": version, "creationTimestamp": Timestamp::from_second(self.version as i64).unwrap()},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "heraldlb.io/l2", "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack"}
        });
        merge(&mut object, change);
        self.store(serde_json::from_value(object).unwrap());
    }

    /// Changes a Service; a change of type wipes class and ingress, as the API server does.
    pub(in crate::index) fn change(&mut self, name: &str, change: Value) {
        let mut object = serde_json::to_value(&self.services[&key(name)]).unwrap();
        merge(&mut object, change);
        let mut service: Service = serde_json::from_value(object).unwrap();
        let spec = service.spec.as_mut().unwrap();
        if spec.type_.as_deref() != Some("LoadBalancer") {
            spec.load_balancer_class = None;
            if let Some(status) = &mut service.status {
                status.load_balancer = None;
            }
        }
        self.store(service);
    }

    /// Does what `kubectl delete` does: the Service waits for its finalizers.
    pub(in crate::index) fn delete(&mut self, name: &str) {
        let Some(service) = self.services.get(&key(name)) else { return };
        let mut service = service.clone();
        service.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self.store(service);
    }

    fn store(&mut self, mut service: Service) {
        service.metadata.resource_version = Some(self.next_version());
        let view = ServiceView::of(&service, &self.selection()).unwrap();
        let finalizers = service.metadata.finalizers.as_deref().unwrap_or_default();
        if service.metadata.deletion_timestamp.is_some() && finalizers.is_empty() {
            self.services.remove(&view.key());
            self.shows(true, view.into());
        } else {
            self.services.insert(view.key(), service);
            self.shows(false, view.into());
        }
    }

    pub(in crate::index) fn store_vip(&mut self, mut vip: VirtualIP) {
        vip.metadata.resource_version = Some(self.next_version());
        let finalizers = vip.metadata.finalizers.as_deref().unwrap_or_default();
        let at = address(&vip.spec.address);
        if vip.metadata.deletion_timestamp.is_some() && finalizers.is_empty() {
            self.vips.remove(&at);
            self.shows(true, Object::VirtualIp(Box::new(vip)));
        } else {
            self.vips.insert(at, vip.clone());
            self.shows(false, Object::VirtualIp(Box::new(vip)));
        }
    }

    /// Deletes a VirtualIP, as `kubectl delete vip` or the controller does.
    pub(in crate::index) fn delete_vip(&mut self, at: &str) {
        let mut vip = self.vips[&address(at)].clone();
        vip.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self.store_vip(vip);
    }

    /// Adds a VirtualIP by which another replica, or a person, has given the address to a Service; node a announces it.
    pub(in crate::index) fn foreign_vip(&mut self, at: &str, service: ServiceReference) {
        let spec = herald_crds::VirtualIPSpec {
            address: at.to_owned(),
            pool: "lan".to_owned(),
            service_names: herald_crds::virtual_ip::names_of(std::slice::from_ref(&service)),
            services: vec![service],
            external_traffic_policy: Default::default(),
            health_check_node_port: None,
            advertisements: Vec::new(),
            advertised_by: None,
            home_node: None,
        };
        let mut vip = VirtualIP::new(&name_of_address(address(at)), spec);
        vip.metadata.uid = Some(format!("foreign-{at}"));
        vip.metadata.resource_version = Some(self.next_version());
        vip.metadata.finalizers = Some(vec![FINALIZER_WITHDRAWAL.to_owned()]);
        let status = herald_crds::virtual_ip::VirtualIPStatus { node: Some("a".to_owned()), ..Default::default() };
        vip.status = Some(status);
        self.vips.insert(address(at), vip);
    }

    /// Returns the quarantine of a pool.
    pub(in crate::index) fn quarantined(&self, pool: &str) -> Vec<String> {
        let status = self.pools[pool].status.clone().unwrap_or_default();
        status.quarantined.into_iter().map(|q| q.address).collect()
    }

    pub(in crate::index) fn node(&mut self, name: &str, ready: bool) {
        let view = NodeView { ready, ..self.nodes[name].clone() };
        self.nodes.insert(name.to_owned(), view.clone());
        self.index.apply(Object::Node(name.to_owned(), view));
    }

    /// Carries out the actions of the index until it has none at this time.
    pub(in crate::index) fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(action) = self.index.poll_action(self.now) else { return };
            self.carry_out(&action);
        }
        panic!("never settles: {:?}", &self.log[self.log.len() - 10..]);
    }

    /// Lets time pass, timer by timer.
    pub(in crate::index) fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        self.settle();
        while let Some(at) = self.index.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Lets time pass until there is a write, gives it this outcome without carrying it out, and returns it.
    pub(in crate::index) fn refuse_next(&mut self, outcome: Outcome) -> Action {
        loop {
            if let Some(action) = self.index.poll_action(self.now) {
                self.index.handle_outcome(self.now, &action, outcome);
                return action;
            }
            self.now = self.index.poll_timeout().expect("nothing is to be written");
        }
    }

    /// Settles with speakers that act at once.
    pub(in crate::index) fn live(&mut self) {
        for _ in 0..5 {
            self.settle();
            self.speakers_act();
        }
        self.pass(2);
    }

    pub(in crate::index) fn carry_out(&mut self, action: &Action) {
        let outcome = self.write(action);
        if matches!(outcome, Outcome::Failed | Outcome::Refused { .. }) {
            self.conflicts += 1
        } else if !matches!(action, Action::LookUpService { .. }) {
            self.log.push(action.clone())
        }
        self.index.handle_outcome(self.now, action, outcome);
    }

    /// Returns the addresses in a Service's status.
    pub(in crate::index) fn ingress(&self, name: &str) -> Vec<String> {
        let Some(service) = self.services.get(&key(name)) else { return Vec::new() };
        let view = ServiceView::of(service, &self.selection()).unwrap();
        view.addresses().map(|a| a.to_string()).collect()
    }

    /// Returns the pools of a Service's addresses, as its annotation names them.
    pub(in crate::index) fn allocated_from(&self, name: &str) -> Option<String> {
        self.services[&key(name)].metadata.annotations.as_ref()?.get(ANNOTATION_ALLOCATED_FROM).cloned()
    }

    /// Returns our condition on a Service as "Status Reason".
    pub(in crate::index) fn condition(&self, name: &str) -> String {
        let found = self.service_condition(name);
        found.map_or_else(|| "none".to_owned(), |c| format!("{} {}", c.status, c.reason))
    }

    pub(in crate::index) fn service_condition(&self, name: &str) -> Option<Condition> {
        ServiceView::of(self.services.get(&key(name))?, &self.selection())?.condition
    }

    pub(in crate::index) fn pool_condition(&self, pool: &str, type_: &str) -> Condition {
        let status = self.pools[pool].status.as_ref().unwrap();
        status.conditions.iter().find(|c| c.type_ == type_).unwrap().clone()
    }

    pub(in crate::index) fn finalizers(&self, name: &str) -> Vec<String> {
        self.services.get(&key(name)).and_then(|s| s.metadata.finalizers.clone()).unwrap_or_default()
    }

    /// Returns the events posted so far.
    pub(in crate::index) fn events(&self) -> Vec<&EventValue> {
        self.log
            .iter()
            .filter_map(|a| match a {
                Action::Event(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    #[track_caller]
    pub(in crate::index) fn wrote_nothing(&self) {
        assert!(self.log.is_empty(), "{:?}", self.log);
    }

    /// Returns the writes so far, a word each.
    pub(in crate::index) fn writes(&self) -> Vec<String> {
        let word = |a: &Action| format!("{a:?}").split([' ', '(']).next().unwrap().to_owned();
        self.log.iter().map(word).collect()
    }
}

/// Returns the generation of an object, which grows by one with each change of its spec.
fn next_generation(held: Option<(i64, bool)>) -> i64 {
    held.map_or(1, |(generation, same_spec)| if same_spec { generation } else { generation + 1 })
}

/// Applies a JSON merge patch (RFC 7386).
pub(in crate::index) fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}
