//! VirtualIPs that are being deleted, and that finalizers of other programs hold: no node announces their addresses, and
//! Herald can neither make them again nor give the addresses out. Their Services report that.

use std::{net::IpAddr, time::Duration};

use herald_crds::{VirtualIP, names::FINALIZER_WITHDRAWAL};

use super::Index;
use crate::{
    action::{EventValue, Regarding},
    advisory::Advisory,
};

/// The finalizers of the garbage collector, which removes them by itself (`kubectl delete --cascade=foreground`).
const OF_GARBAGE_COLLECTOR: [&str; 2] = ["foregroundDeletion", "orphan"];

/// Returns the finalizers of other programs that alone hold a deleted VirtualIP, separated by commas; `None` if there
/// are none, or if the address has not been withdrawn yet.
pub(super) fn held_by(vip: &VirtualIP) -> Option<String> {
    vip.metadata.deletion_timestamp.as_ref()?;
    let all = vip.metadata.finalizers.as_deref().unwrap_or_default();
    if all.iter().any(|finalizer| finalizer == FINALIZER_WITHDRAWAL) {
        return None;
    }
    let others: Vec<_> =
        all.iter().map(String::as_str).filter(|finalizer| !OF_GARBAGE_COLLECTOR.contains(finalizer)).collect();
    (!others.is_empty()).then(|| others.join(", "))
}

impl Index {
    /// Returns the fact that the VirtualIP of an address is held, if it is.
    pub(super) fn held(&self, address: IpAddr) -> Option<Advisory> {
        let finalizers = held_by(&self.vips.get(&address)?.vip)?;
        Some(Advisory::VirtualIpHeld { address, finalizers })
    }

    /// Reports that the VirtualIP of an address is held to the Services that are being deleted, or want no address any
    /// longer, and wait for it. The others have it in their conditions.
    pub(super) fn tell_held(&mut self, address: IpAddr, now: Duration) {
        let Some((held, entry)) = self.held(address).zip(self.vips.get(&address)) else { return };
        let services = entry.vip.spec.services.iter();
        let waiting = services.filter(|service| self.service(service).is_some_and(|view| !view.wants_address()));
        for service in waiting.cloned().collect::<Vec<_>>() {
            let event = EventValue {
                regarding: Regarding::Service(service),
                warning: true,
                reason: held.reason(),
                action: "Release",
                note: held.to_string(),
            };
            if self.told.tell(now, &event) {
                self.events.push_back(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use test_case::test_case;

    use super::*;
    use crate::index::tests::fake_cluster::{World, address};

    #[test_case(&["a.example/x"], false => None; "not deleted")]
    #[test_case(&["a.example/x", FINALIZER_WITHDRAWAL], true => None; "not withdrawn")]
    #[test_case(&["a.example/x", "b.example/y"], true => Some("a.example/x, b.example/y".to_owned()); "held")]
    #[test_case(&["foregroundDeletion"], true => None; "the garbage collector is about to remove it")]
    #[test_case(&["foregroundDeletion", "a.example/x"], true => Some("a.example/x".to_owned()); "held and collected")]
    fn deleted_vip_is_held_by_the_finalizers_of_others(finalizers: &[&str], deleted: bool) -> Option<String> {
        let at = deleted.then_some("2026-01-02T03:04:05Z");
        let vip = json!({"apiVersion": "heraldlb.io/v1alpha1", "kind": "VirtualIP",
            "metadata": {"name": "192.0.2.1", "finalizers": finalizers, "deletionTimestamp": at},
            "spec": {"address": "192.0.2.1", "pool": "lan", "services": [], "advertisements": []}});
        held_by(&serde_json::from_value(vip).unwrap())
    }

    fn hold(world: &mut World, held: bool) {
        let mut vip = world.vips[&address("192.0.2.1")].clone();
        let finalizers = vip.metadata.finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != "a.example/x");
        finalizers.extend(held.then(|| "a.example/x".to_owned()));
        world.store_vip(vip);
    }

    fn told(world: &World) -> usize {
        world.events().iter().filter(|event| event.warning && event.reason == "VirtualIPHeld").count()
    }

    /// The address is silent for as long as the finalizer holds the deleted VirtualIP.
    #[test]
    fn service_reports_that_its_vip_is_held_until_it_is_made_again() {
        let mut world = World::new();
        world.create("web", json!({}));
        world.live();
        hold(&mut world, true);
        world.delete_vip("192.0.2.1");
        world.live();
        world.pass(60);
        let message = world.service_condition("web").unwrap().message;
        assert!(message.contains("VirtualIP 192.0.2.1") && message.contains("a.example/x"), "{message}");
        assert_eq!((world.ingress("web"), told(&world)), (vec!["192.0.2.1".to_owned()], 1));
        hold(&mut world, false);
        world.live();
        assert!(world.vips[&address("192.0.2.1")].metadata.deletion_timestamp.is_none(), "it is made again");
        let message = world.service_condition("web").unwrap().message;
        assert!(!message.contains("a.example/x"), "{message}");
    }

    #[test]
    fn deletion_of_a_service_that_waits_for_a_held_vip_is_explained_once() {
        let mut world = World::new();
        world.create("web", json!({}));
        world.live();
        hold(&mut world, true);
        world.delete("web");
        world.live();
        world.pass(600);
        assert_eq!((world.finalizers("web").len(), told(&world)), (1, 1));
        hold(&mut world, false);
        world.live();
        assert!(world.services.is_empty() && world.vips.is_empty());
    }
}
