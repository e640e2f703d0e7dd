//! VirtualIPs whose names are not those of their addresses: made by hand, or broken. No node announces them. The status
//! of each reports that. The address that it is named after is not assigned, since no VirtualIP of that name can be
//! created.

use std::net::IpAddr;

use herald_crds::{
    VirtualIP,
    address::{AddressBlock, address_of_name, name_of_address},
    names::{CONDITION_ANNOUNCED, FINALIZER_WITHDRAWAL},
    virtual_ip::AnnouncedReason,
};

use super::Index;
use crate::{
    action::{Action, ConditionValue, Subject},
    allocator::Reservation,
};

impl Index {
    pub(super) fn apply_stray(&mut self, vip: VirtualIP) {
        let Some(name) = vip.metadata.name.clone() else { return };
        let version = |v: &VirtualIP| v.metadata.resource_version.clone();
        let old = self.strays.get(&name);
        if old.is_some_and(|o| self.is_outdated(version(&vip).as_deref(), version(o).as_deref())) {
            return;
        }
        self.strays.insert(name.clone(), vip);
        let reserved = address_of_name(&name).map(AddressBlock::single);
        self.reserve(Reservation::StrayVirtualIp(name.clone()), reserved);
        self.mark(Subject::StrayVirtualIp(name));
    }

    pub(super) fn forget_stray(&mut self, name: &str) {
        if self.strays.remove(name).is_some() {
            self.queue.forget(&Subject::StrayVirtualIp(name.to_owned()));
            self.reserve(Reservation::StrayVirtualIp(name.to_owned()), []);
        }
    }

    pub(super) fn decide_stray(&self, name: &str) -> Option<Action> {
        let vip = self.strays.get(name)?;
        let resource_version = vip.metadata.resource_version.clone().unwrap_or_default();
        let finalizers = vip.metadata.finalizers.as_deref().unwrap_or_default();
        if vip.metadata.deletion_timestamp.is_some() {
            // No node announces it, so none has to fall silent.
            let remaining = finalizers.iter().filter(|f| *f != FINALIZER_WITHDRAWAL).cloned().collect();
            let held = finalizers.iter().any(|f| f == FINALIZER_WITHDRAWAL);
            return held.then_some(Action::ReleaseStrayVirtualIp {
                name: name.to_owned(),
                resource_version,
                remaining,
            });
        }
        let right = match vip.spec.address.parse::<IpAddr>() {
            Ok(address) if name_of_address(address) == name => format!("not spelled {address}"),
            Ok(address) => format!("VirtualIP {}'s", name_of_address(address)),
            Err(_) => "no address at all".to_owned(),
        };
        let reason = AnnouncedReason::NameMismatch;
        let condition = ConditionValue {
            type_: CONDITION_ANNOUNCED,
            status: reason.status(),
            reason: reason.as_str().to_owned(),
            message: format!(
                "metadata.name is {name}, and spec.address {:?} is {right}: no node announces it. Herald creates its \
                 VirtualIPs itself; delete this one (kubectl delete vip {name})",
                vip.spec.address
            ),
            generation: vip.metadata.generation,
            since: None,
        };
        let observed = vip.announced();
        let all = vip.status.iter().flat_map(|s| &s.conditions);
        (!condition.is(observed)).then(|| Action::DescribeStrayVirtualIp {
            name: name.to_owned(),
            resource_version,
            condition: condition.following(observed),
            others: all.filter(|c| c.type_ != CONDITION_ANNOUNCED).cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::json;

    use super::*;
    use crate::index::{Kind, Object, tests::fake_cluster::World};

    fn stray(world: &mut World, name: &str, address: &str) -> VirtualIP {
        let spec = json!({"address": address, "pool": "lan", "advertisements": [],
            "services": [{"namespace": "ns", "name": "x", "uid": "u"}]});
        let mut vip = VirtualIP::new(name, serde_json::from_value(spec).unwrap());
        vip.metadata.uid = Some("stray".to_owned());
        vip.metadata.resource_version = Some(world.next_version());
        vip.metadata.finalizers = Some(vec![FINALIZER_WITHDRAWAL.to_owned()]);
        world.strays.insert(name.to_owned(), vip.clone());
        vip
    }

    /// A misnamed VirtualIP reports its fault, keeps its name's address from every Service, and is released when it is
    /// deleted.
    #[test]
    fn vip_named_after_another_address_reserves_that_address_until_its_deletion() {
        let mut world = World::new();
        let vip = stray(&mut world, "192.0.2.1", "192.0.2.2");
        world.index.apply(Object::VirtualIp(Box::new(vip)));
        world.create("web", json!({}));
        world.live();
        assert_eq!((world.ingress("web"), world.conflicts), (vec!["192.0.2.2".to_owned()], 0));
        let said = world.strays["192.0.2.1"].announced().unwrap().clone();
        assert_eq!((&*said.status, &*said.reason), ("False", "NameMismatch"));
        assert!(
            said.message.contains("metadata.name is 192.0.2.1")
                && said.message.contains("kubectl delete vip 192.0.2.1")
        );
        let pool = world.pool_condition("lan", herald_crds::names::CONDITION_ACCEPTED);
        assert!(pool.message.contains("192.0.2.1 is in metadata.name of VirtualIP 192.0.2.1"), "{}", pool.message);
        world.create("asks", json!({"spec": {"loadBalancerIP": "192.0.2.1"}}));
        world.live();
        assert_eq!(world.condition("asks"), "False AddressReserved");
        world.log.clear();
        world.restart();
        world.pass(60);
        assert!(world.log.is_empty(), "{:?}", world.log);
        let mut gone = world.strays["192.0.2.1"].clone();
        gone.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        gone.metadata.resource_version = Some(world.next_version());
        world.strays.insert("192.0.2.1".to_owned(), gone);
        world.relist(Kind::VirtualIp);
        world.live();
        assert!(world.strays.is_empty());
        assert_eq!(world.ingress("asks"), ["192.0.2.1"]);
    }

    /// The address of a VirtualIP cannot be edited, so a VirtualIP with a noncanonical address can only be deleted.
    #[test]
    fn vip_with_a_noncanonical_address_is_described_once() {
        let mut world = World::empty();
        world.pool("six", json!({"addresses": ["2001:db8::1-2001:db8::2"]}));
        world.restart();
        let vip = stray(&mut world, "2001-db8--1", "2001:0db8::1");
        let name = name_of_address("2001:db8::1".parse().unwrap());
        let vip = VirtualIP { metadata: kube::api::ObjectMeta { name: Some(name.clone()), ..vip.metadata }, ..vip };
        world.strays = [(name.clone(), vip.clone())].into();
        world.index.apply(Object::VirtualIp(Box::new(vip)));
        world.create("web", json!({"spec": {"ipFamilies": ["IPv6"]}}));
        world.live();
        assert_eq!((world.ingress("web"), world.conflicts), (vec!["2001:db8::2".to_owned()], 0));
        let said = world.strays[&name].announced().unwrap().message.clone();
        assert!(said.contains("spec.address \"2001:0db8::1\" is not spelled 2001:db8::1"), "{said}");
        world.log.clear();
        world.pass(600);
        assert!(world.log.is_empty(), "{:?}", world.log);
    }
}
