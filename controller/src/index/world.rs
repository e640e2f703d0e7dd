//! A scripted API server for tests: carries the index's writes out as the real one would, and watches.

mod speakers;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use herald_crds::{
    AddressPool, L2Advertisement, VirtualIP,
    address::name_of_address,
    names::{CONDITION_ADDRESS_ASSIGNED, FINALIZER_WITHDRAWAL},
    virtual_ip::AnnouncedReason,
};
use ipnet::IpNet;
use k8s_openapi::{
    api::core::v1::{LoadBalancerIngress, Service},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    action::{Change, Outcome},
    view::SegmentView,
};
use speakers::pod_on;

/// Objects, clock and index.
pub(super) struct World {
    pub(super) index: Index,
    pub(super) default_provider: bool,
    pub(super) now: Duration,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) vips: BTreeMap<IpAddr, VirtualIP>,
    /// VirtualIPs named after another address than theirs.
    pub(super) strays: BTreeMap<String, VirtualIP>,
    pub(super) pools: BTreeMap<String, AddressPool>,
    pub(super) advertisements: BTreeMap<String, L2Advertisement>,
    pub(super) service_networks: BTreeMap<String, Vec<IpNet>>,
    pub(super) nodes: BTreeMap<String, NodeView>,
    pub(super) speakers: BTreeMap<String, SpeakerView>,
    /// The speakers' pods, by name.
    pub(super) pods: BTreeMap<String, SpeakerPodView>,
    /// Addresses that somebody else answers for: the reason speakers give, and their sentence.
    pub(super) held_by_others: BTreeMap<IpAddr, (AnnouncedReason, String)>,
    /// What was written, events among it, and what the API server refused.
    pub(super) log: Vec<Action>,
    pub(super) conflicts: usize,
    /// By how many seconds the API server's clock is ahead.
    pub(super) clock_offset: i64,
    version: u64,
}

/// The link-layer address of every stranger.
pub(super) const STRANGER: &str = "02:00:00:00:00:99";

pub(super) fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "ns".to_owned(), name: name.to_owned() }
}

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    /// Two Ready nodes with speakers in 192.0.2.0/24 and 2001:db8::/64, a pool `lan` of .1 to .3, and a leader that
    /// has listed everything.
    pub(super) fn new() -> Self {
        let mut world = Self::empty();
        world.pool("lan", json!({"addresses": ["192.0.2.1-192.0.2.3"]}));
        world.restart();
        world.settle();
        world.log.clear();
        world
    }

    pub(super) fn empty() -> Self {
        let node = NodeView { labels: BTreeMap::new(), ready: true, eligible: true, ..NodeView::default() };
        let segment = SegmentView {
            interface: "eth0".to_owned(),
            prefixes: ["192.0.2.0/24", "2001:db8::/64"].map(|p| p.parse().unwrap()).into(),
            default_route: true,
        };
        Self {
            index: Index::new(Timestamp::UNIX_EPOCH),
            default_provider: false,
            now: Duration::ZERO,
            services: BTreeMap::new(),
            vips: BTreeMap::new(),
            strays: BTreeMap::new(),
            pools: BTreeMap::new(),
            advertisements: BTreeMap::new(),
            service_networks: BTreeMap::new(),
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
        }
    }

    pub(super) fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// A new process: it knows what a list says, and no more.
    pub(super) fn restart(&mut self) {
        self.index = Index::new(Timestamp::UNIX_EPOCH);
        self.index.set_leading(true);
        for kind in Kind::ALL {
            self.relist(kind);
        }
    }

    pub(super) fn relist(&mut self, kind: Kind) {
        let default_provider = self.default_provider;
        let objects = match kind {
            Kind::Service => {
                self.services.values().map(|s| ServiceView::of(s, default_provider).unwrap().into()).collect()
            }
            Kind::Namespace => Vec::new(),
            Kind::Pool => self.pools.values().cloned().map(|p| Object::Pool(Box::new(p))).collect(),
            Kind::Advertisement => {
                self.advertisements.values().cloned().map(|a| Object::Advertisement(Box::new(a))).collect()
            }
            Kind::ServiceNetwork => {
                let all = self.service_networks.iter();
                all.map(|(n, cidrs)| Object::ServiceNetwork(n.clone(), cidrs.clone())).collect()
            }
            Kind::VirtualIp => self
                .vips
                .values()
                .chain(self.strays.values())
                .cloned()
                .map(|v| Object::VirtualIp(Box::new(v)))
                .collect(),
            Kind::Node => self.nodes.iter().map(|(n, v)| Object::Node(n.clone(), v.clone())).collect(),
            Kind::SpeakerPod => self.pods.iter().map(|(n, p)| Object::SpeakerPod(n.clone(), p.clone())).collect(),
            Kind::Speaker => self.speakers.iter().map(|(n, s)| Object::Speaker(n.clone(), s.clone())).collect(),
        };
        self.index.replace(kind, objects);
    }

    pub(super) fn pool(&mut self, name: &str, spec: Value) {
        let mut pool = AddressPool::new(name, serde_json::from_value(spec).unwrap());
        pool.metadata.uid = Some(format!("uid-{name}"));
        pool.metadata.resource_version = Some(self.next_version());
        pool.status = self.pools.get(name).and_then(|p| p.status.clone());
        self.pools.insert(name.to_owned(), pool.clone());
        self.index.apply(Object::Pool(Box::new(pool)));
    }

    pub(super) fn advertisement(&mut self, name: &str, spec: Value) {
        let mut advertisement = L2Advertisement::new(name, serde_json::from_value(spec).unwrap());
        advertisement.metadata.resource_version = Some(self.next_version());
        advertisement.status = self.advertisements.get(name).and_then(|a| a.status.clone());
        self.advertisements.insert(name.to_owned(), advertisement.clone());
        self.index.apply(Object::Advertisement(Box::new(advertisement)));
    }

    pub(super) fn delete_pool(&mut self, name: &str) {
        let pool = self.pools.remove(name).unwrap();
        self.index.delete(&Object::Pool(Box::new(pool)));
    }

    /// Creates a Service `ns/NAME` of our class, with what `change` merges over it.
    pub(super) fn create(&mut self, name: &str, change: Value) {
        let version = self.next_version();
        let mut object = json!({
            "metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}-{version}"),
                "resourceVersion": version, "creationTimestamp": Timestamp::from_second(self.version as i64).unwrap()},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "heraldlb.io/l2", "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack"}
        });
        merge(&mut object, change);
        self.store(serde_json::from_value(object).unwrap());
    }

    /// Changes a Service; a change of type wipes class and ingress, as the API server does.
    pub(super) fn change(&mut self, name: &str, change: Value) {
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

    /// `kubectl delete`: waits for finalizers.
    pub(super) fn delete(&mut self, name: &str) {
        let Some(service) = self.services.get(&key(name)) else { return };
        let mut service = service.clone();
        service.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self.store(service);
    }

    fn store(&mut self, mut service: Service) {
        service.metadata.resource_version = Some(self.next_version());
        let view = ServiceView::of(&service, self.default_provider).unwrap();
        let finalizers = service.metadata.finalizers.as_deref().unwrap_or_default();
        if service.metadata.deletion_timestamp.is_some() && finalizers.is_empty() {
            self.services.remove(&view.key());
            self.index.delete(&view.into());
        } else {
            self.services.insert(view.key(), service);
            self.index.apply(view.into());
        }
    }

    pub(super) fn store_vip(&mut self, mut vip: VirtualIP) {
        vip.metadata.resource_version = Some(self.next_version());
        let finalizers = vip.metadata.finalizers.as_deref().unwrap_or_default();
        let at = address(&vip.spec.address);
        if vip.metadata.deletion_timestamp.is_some() && finalizers.is_empty() {
            self.vips.remove(&at);
            self.index.delete(&Object::VirtualIp(Box::new(vip)));
        } else {
            self.vips.insert(at, vip.clone());
            self.index.apply(Object::VirtualIp(Box::new(vip)));
        }
    }

    /// `kubectl delete vip`, or ours.
    pub(super) fn delete_vip(&mut self, at: &str) {
        let mut vip = self.vips[&address(at)].clone();
        vip.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        self.store_vip(vip);
    }

    /// Another replica, or a person, has given the address to a Service, and node a announces it.
    pub(super) fn foreign_vip(&mut self, at: &str, service: ServiceReference) {
        let spec = herald_crds::VirtualIPSpec {
            address: at.to_owned(),
            pool: "lan".to_owned(),
            services: vec![service],
            external_traffic_policy: Default::default(),
            health_check_node_port: None,
            advertisements: Vec::new(),
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

    /// What is in a pool's quarantine.
    pub(super) fn quarantined(&self, pool: &str) -> Vec<String> {
        let status = self.pools[pool].status.clone().unwrap_or_default();
        status.quarantined.into_iter().map(|q| q.address).collect()
    }

    pub(super) fn node(&mut self, name: &str, ready: bool) {
        let view = NodeView { ready, ..self.nodes[name].clone() };
        self.nodes.insert(name.to_owned(), view.clone());
        self.index.apply(Object::Node(name.to_owned(), view));
    }

    /// Carries out what the index wants until it wants nothing more at this time.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(action) = self.index.poll_action(self.now) else { return };
            self.carry_out(&action);
        }
        panic!("never settles: {:?}", &self.log[self.log.len() - 10..]);
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        self.settle();
        while let Some(at) = self.index.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// Lets time pass until something is to be written, which the API server does not take. Returns what it was.
    pub(super) fn refuse_next(&mut self, outcome: Outcome) -> Action {
        loop {
            if let Some(action) = self.index.poll_action(self.now) {
                self.index.handle_outcome(self.now, &action, outcome);
                return action;
            }
            self.now = self.index.poll_timeout().expect("nothing is to be written");
        }
    }

    /// Settles with speakers that act at once.
    pub(super) fn live(&mut self) {
        for _ in 0..5 {
            self.settle();
            self.speakers_act();
        }
        self.pass(2);
    }

    pub(super) fn carry_out(&mut self, action: &Action) {
        let outcome = self.request(action);
        if matches!(outcome, Outcome::Failed) {
            self.conflicts += 1
        } else {
            self.log.push(action.clone())
        }
        self.index.handle_outcome(self.now, action, outcome);
    }

    /// What the API server makes of a write, whosever.
    pub(super) fn request(&mut self, action: &Action) -> Outcome {
        let current =
            |version: &str, metadata: &kube::api::ObjectMeta| metadata.resource_version.as_deref() == Some(version);
        match action {
            Action::CreateVirtualIp { address, labels, spec } => {
                if self.vips.contains_key(address) || self.strays.contains_key(&name_of_address(*address)) {
                    return Outcome::Failed;
                }
                let mut vip = VirtualIP::new(&name_of_address(*address), (**spec).clone());
                vip.metadata.uid = Some(format!("vip-{}", self.next_version()));
                let date = Timestamp::UNIX_EPOCH.checked_add(self.now).unwrap().as_second() + self.clock_offset;
                vip.metadata.creation_timestamp = Some(Time(Timestamp::from_second(date).unwrap()));
                vip.metadata.labels = Some(labels.clone());
                vip.metadata.finalizers = Some(vec![FINALIZER_WITHDRAWAL.to_owned()]);
                self.store_vip(vip);
                Outcome::VirtualIp(Box::new(self.vips[address].clone()))
            }
            Action::DeleteVirtualIp { address, uid, .. } => match self.vips.get(address) {
                Some(vip) if vip.metadata.uid.as_ref() == Some(uid) => {
                    self.delete_vip(&address.to_string());
                    self.vips.get(address).map_or(Outcome::Done, |v| Outcome::VirtualIp(Box::new(v.clone())))
                }
                Some(_) => Outcome::Failed,
                None => Outcome::Gone,
            },
            Action::UpdateVirtualIpSpec { address, resource_version, .. }
            | Action::RemoveVirtualIpFinalizer { address, resource_version, .. }
            | Action::CorrectVirtualIpStatus { address, resource_version, .. } => {
                let Some(mut vip) = self.vips.get(address).cloned() else { return Outcome::Gone };
                if !current(resource_version, &vip.metadata) {
                    return Outcome::Failed;
                }
                match action {
                    Action::UpdateVirtualIpSpec { labels, spec, .. } => {
                        vip.spec = (**spec).clone();
                        vip.metadata.labels.get_or_insert_default().extend(labels.clone());
                    }
                    Action::RemoveVirtualIpFinalizer { remaining, .. } => {
                        vip.metadata.finalizers = Some(remaining.clone());
                    }
                    Action::CorrectVirtualIpStatus { condition, others, .. } => {
                        let status = vip.status.get_or_insert_default();
                        status.node = None;
                        status.conditions = others.clone();
                        status.conditions.push(condition.at(&Time(Timestamp::UNIX_EPOCH)));
                    }
                    _ => {}
                }
                self.store_vip(vip.clone());
                Outcome::VirtualIp(Box::new(self.vips.get(address).cloned().unwrap_or(vip)))
            }
            Action::PatchServiceStatus { service, resource_version, patch, .. } => {
                let Some(mut object) = self.services.get(&key(&service.name)).cloned() else { return Outcome::Gone };
                if !current(resource_version, &object.metadata) {
                    return Outcome::Failed;
                }
                let finalizers = object.metadata.finalizers.get_or_insert_default();
                finalizers.extend(patch.add_finalizer.map(str::to_owned));
                finalizers.retain(|f| Some(f.as_str()) != patch.remove_finalizer);
                let status = object.status.get_or_insert_default();
                let balancer = status.load_balancer.get_or_insert_default();
                let vip = |a: &IpAddr| LoadBalancerIngress { ip: Some(a.to_string()), ..Default::default() };
                match &patch.ingress {
                    Change::Keep => {}
                    Change::Set(addresses) => balancer.ingress = Some(addresses.iter().map(vip).collect()),
                    Change::Remove => balancer.ingress = None,
                }
                let conditions = status.conditions.get_or_insert_default();
                if patch.condition != Change::Keep {
                    conditions.retain(|c| c.type_ != CONDITION_ADDRESS_ASSIGNED);
                }
                if let Change::Set(condition) = &patch.condition {
                    conditions.push(condition.at(&Time(Timestamp::UNIX_EPOCH)));
                }
                self.store(object.clone());
                let written = self.services.get(&key(&service.name)).unwrap_or(&object);
                Outcome::Service(Box::new(ServiceView::of(written, self.default_provider).unwrap()))
            }
            Action::PatchPoolStatus { pool, resource_version, report } => {
                let Some(mut object) = self.pools.get(pool).cloned() else { return Outcome::Gone };
                if !current(resource_version, &object.metadata) {
                    return Outcome::Failed;
                }
                let status = object.status.get_or_insert_default();
                status.ipv4 = report.ipv4.clone();
                status.ipv6 = report.ipv6.clone();
                status.quarantined = report.quarantined.clone();
                status.conditions = report.conditions.iter().map(|c| c.at(&Time(Timestamp::UNIX_EPOCH))).collect();
                object.metadata.resource_version = Some(self.next_version());
                self.pools.insert(pool.clone(), object.clone());
                self.index.apply(Object::Pool(Box::new(object.clone())));
                Outcome::Pool(Box::new(object))
            }
            Action::PatchAdvertisementStatus { advertisement, resource_version, condition } => {
                let Some(mut object) = self.advertisements.get(advertisement).cloned() else { return Outcome::Gone };
                if !current(resource_version, &object.metadata) {
                    return Outcome::Failed;
                }
                object.status.get_or_insert_default().conditions = vec![condition.at(&Time(Timestamp::UNIX_EPOCH))];
                object.metadata.resource_version = Some(self.next_version());
                self.advertisements.insert(advertisement.clone(), object.clone());
                Outcome::Advertisement(Box::new(object))
            }
            Action::DescribeStrayVirtualIp { name, resource_version, condition, .. } => {
                let Some(mut vip) = self.strays.get(name).cloned() else { return Outcome::Gone };
                if !current(resource_version, &vip.metadata) {
                    return Outcome::Failed;
                }
                vip.status.get_or_insert_default().conditions = vec![condition.at(&Time(Timestamp::UNIX_EPOCH))];
                vip.metadata.resource_version = Some(self.next_version());
                self.strays.insert(name.clone(), vip.clone());
                Outcome::VirtualIp(Box::new(vip))
            }
            Action::ReleaseStrayVirtualIp { name, .. } => {
                let vip = self.strays.remove(name).unwrap();
                self.index.delete(&Object::VirtualIp(Box::new(vip)));
                Outcome::Done
            }
            Action::DeleteSpeakerStatus { node, uid } => match self.speakers.get(node) {
                Some(speaker) if speaker.uid == *uid => {
                    self.speakers.remove(node);
                    Outcome::Done
                }
                Some(_) => Outcome::Failed,
                None => Outcome::Gone,
            },
            Action::Event(_) => Outcome::Done,
        }
    }

    /// The addresses in a Service's status.
    pub(super) fn ingress(&self, name: &str) -> Vec<String> {
        let Some(service) = self.services.get(&key(name)) else { return Vec::new() };
        let view = ServiceView::of(service, self.default_provider).unwrap();
        view.addresses().map(|a| a.to_string()).collect()
    }

    /// Our condition on a Service as "Status Reason".
    pub(super) fn condition(&self, name: &str) -> String {
        let found = self.service_condition(name);
        found.map_or_else(|| "none".to_owned(), |c| format!("{} {}", c.status, c.reason))
    }

    pub(super) fn service_condition(&self, name: &str) -> Option<Condition> {
        ServiceView::of(self.services.get(&key(name))?, self.default_provider)?.condition
    }

    pub(super) fn pool_condition(&self, pool: &str, type_: &str) -> Condition {
        let status = self.pools[pool].status.as_ref().unwrap();
        status.conditions.iter().find(|c| c.type_ == type_).unwrap().clone()
    }

    pub(super) fn finalizers(&self, name: &str) -> Vec<String> {
        self.services.get(&key(name)).and_then(|s| s.metadata.finalizers.clone()).unwrap_or_default()
    }

    /// The events told so far.
    pub(super) fn events(&self) -> Vec<&EventValue> {
        self.log
            .iter()
            .filter_map(|a| match a {
                Action::Event(event) => Some(event),
                _ => None,
            })
            .collect()
    }

    #[track_caller]
    pub(super) fn wrote_nothing(&self) {
        assert!(self.log.is_empty(), "{:?}", self.log);
    }

    /// What was written so far, a word each.
    pub(super) fn writes(&self) -> Vec<String> {
        let word = |a: &Action| format!("{a:?}").split([' ', '(']).next().unwrap().to_owned();
        self.log.iter().map(word).collect()
    }
}

/// A JSON merge patch (RFC 7386).
pub(super) fn merge(target: &mut Value, patch: Value) {
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
