//! The API server's handling of a write.

use herald_crds::{
    VirtualIP, VirtualIPSpec,
    address::name_of_address,
    names::{ANNOTATION_ALLOCATED_FROM, CONDITION_ADDRESS_ASSIGNED, FINALIZER_WITHDRAWAL},
};
use k8s_openapi::{api::core::v1::LoadBalancerIngress, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::net::IpAddr;

use super::{World, key};
use crate::{
    action::{Action, Change, Outcome},
    index::Object,
    view::ServiceView,
};

/// A trouble of a write, apart from an outdated version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::index) enum Trouble {
    /// Another program has written at the same time.
    Conflict,
    /// A webhook or a Role forbids the write.
    Refused,
    /// The write is accepted, and the answer is lost.
    AnswerLost,
}

impl World {
    /// Returns the outcome of a write of the leader.
    pub(super) fn write(&mut self, action: &Action) -> Outcome {
        if matches!(action, Action::LookUpService { .. } | Action::Event(_)) {
            return self.request(action);
        }
        match self.trouble.pop_front() {
            None => self.request(action),
            Some(Trouble::Conflict) => Outcome::Failed,
            Some(Trouble::Refused) => {
                Outcome::Refused { code: 403, sentence: "admission webhook \"w\" denied the request".to_owned() }
            }
            Some(Trouble::AnswerLost) => {
                self.request(action);
                Outcome::Failed
            }
        }
    }

    /// Returns a spec without the fields that the CustomResourceDefinition does not have.
    fn pruned(&self, spec: &VirtualIPSpec) -> VirtualIPSpec {
        let mut fields = serde_json::to_value(spec).unwrap();
        for field in &self.unknown_fields {
            fields.as_object_mut().unwrap().remove(*field);
        }
        serde_json::from_value(fields).unwrap()
    }

    /// Returns a generation for a status, if the CustomResourceDefinition has the field.
    fn kept_generation(&self, generation: Option<i64>) -> Option<i64> {
        generation.filter(|_| !self.unknown_fields.contains(&"observedGeneration"))
    }

    /// Carries out a write of any leader and returns its outcome.
    pub(in crate::index) fn request(&mut self, action: &Action) -> Outcome {
        let current =
            |version: &str, metadata: &kube::api::ObjectMeta| metadata.resource_version.as_deref() == Some(version);
        match action {
            Action::CreateVirtualIp { address, labels, spec } => {
                if self.vips.contains_key(address) || self.strays.contains_key(&name_of_address(*address)) {
                    return Outcome::Failed;
                }
                let mut vip = VirtualIP::new(&name_of_address(*address), self.pruned(spec));
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
                        vip.spec = self.pruned(spec);
                        let all = vip.metadata.labels.get_or_insert_default();
                        for (label, value) in labels {
                            match value {
                                Some(value) => all.insert(label.clone(), value.clone()),
                                None => all.remove(label),
                            };
                        }
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
            Action::LookUpService { service, .. } => {
                let Some(object) = self.services.get(&key(&service.name)) else { return Outcome::Gone };
                Outcome::Service(Box::new(ServiceView::of(object, &self.selection()).unwrap()))
            }
            Action::PatchServiceStatus { service, resource_version, patch, .. } => {
                let Some(mut object) = self.services.get(&key(&service.name)).cloned() else { return Outcome::Gone };
                if !current(resource_version, &object.metadata) {
                    return Outcome::Failed;
                }
                let finalizers = object.metadata.finalizers.get_or_insert_default();
                finalizers.extend(patch.add_finalizer.map(str::to_owned));
                finalizers.retain(|f| Some(f.as_str()) != patch.remove_finalizer);
                let annotations = object.metadata.annotations.get_or_insert_default();
                match &patch.allocated_from {
                    Change::Keep => {}
                    Change::Set(pools) => {
                        drop(annotations.insert(ANNOTATION_ALLOCATED_FROM.to_owned(), pools.clone()));
                    }
                    Change::Remove => drop(annotations.remove(ANNOTATION_ALLOCATED_FROM)),
                }
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
                Outcome::Service(Box::new(ServiceView::of(written, &self.selection()).unwrap()))
            }
            Action::PatchPoolStatus { pool, resource_version, report } => {
                let Some(mut object) = self.pools.get(pool).cloned() else { return Outcome::Gone };
                if !current(resource_version, &object.metadata) {
                    return Outcome::Failed;
                }
                let generation = self.kept_generation(report.generation);
                let status = object.status.get_or_insert_default();
                status.observed_generation = generation;
                status.ipv4 = report.ipv4.clone();
                status.ipv6 = report.ipv6.clone();
                status.quarantined = report.quarantined.clone();
                status.conditions = report.conditions.iter().map(|c| c.at(&Time(Timestamp::UNIX_EPOCH))).collect();
                object.metadata.resource_version = Some(self.next_version());
                self.pools.insert(pool.clone(), object.clone());
                self.shows(false, Object::Pool(Box::new(object.clone())));
                Outcome::Pool(Box::new(object))
            }
            Action::PatchAdvertisementStatus { advertisement, resource_version, report } => {
                let Some(mut object) = self.advertisements.get(advertisement).cloned() else { return Outcome::Gone };
                if !current(resource_version, &object.metadata) {
                    return Outcome::Failed;
                }
                let generation = self.kept_generation(report.generation);
                let status = object.status.get_or_insert_default();
                status.observed_generation = generation;
                status.conditions = report.conditions.iter().map(|c| c.at(&Time(Timestamp::UNIX_EPOCH))).collect();
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
                self.shows(true, Object::VirtualIp(Box::new(vip)));
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
}
