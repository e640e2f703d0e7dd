//! The Gateways for which Services were created, and the requests of those Services because of them.

use std::{collections::BTreeMap, net::IpAddr};

use herald_crds::{address::IpFamily, service::Request};

use super::{Index, Kind};
use crate::{
    action::Subject,
    gateway::{CombinedRequest, Knowledge, Obstruction},
    gateway_view::{GatewayKey, GatewayView},
    view::{ServiceKey, ServiceView},
};

/// The Gateways, as far as their addresses are honoured.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// Whether their addresses are honoured.
    honoured: bool,
    /// Whether they could not be listed so far.
    unreadable: bool,
    held: BTreeMap<GatewayKey, GatewayView>,
}

impl Gateways {
    pub(super) fn keys(&self) -> impl Iterator<Item = &GatewayKey> {
        self.held.keys()
    }
}

impl Index {
    /// Sets whether the Services that were created for Gateways get the addresses that these ask for.
    #[must_use]
    pub fn honour_gateways(mut self, honoured: bool) -> Self {
        self.gateways.honoured = honoured;
        self
    }

    /// Records that the watch of a kind is broken, which matters where Services wait for its first list.
    pub fn note_broken(&mut self, kind: Kind) {
        if kind == Kind::Gateway && !self.listed.contains(&kind) && !self.gateways.unreadable {
            self.gateways.unreadable = true;
            self.mark_waiting();
        }
    }

    pub(super) fn apply_gateway(&mut self, key: GatewayKey, gateway: GatewayView) {
        if self.gateways.held.get(&key) != Some(&gateway) {
            self.gateways.held.insert(key.clone(), gateway);
            self.mark_services_of(&key);
        }
    }

    pub(super) fn delete_gateway(&mut self, key: &GatewayKey) {
        if self.gateways.held.remove(key).is_some() {
            self.mark_services_of(key);
        }
    }

    fn mark_services_of(&mut self, gateway: &GatewayKey) {
        let first = ServiceKey { namespace: gateway.namespace.clone(), name: String::new() };
        let of_namespace = self.services.range(first..).take_while(|(key, _)| key.namespace == gateway.namespace);
        let of_gateway = of_namespace.filter(|(_, view)| view.gateway().as_ref() == Some(gateway));
        for key in of_gateway.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.mark(Subject::Service(key));
        }
    }

    /// Combines the request of a Service by itself (`own`) with that of its Gateway, if Gateways are honoured.
    pub(super) fn combine(&self, view: &ServiceView, own: &Request) -> Result<CombinedRequest, Obstruction> {
        let Some(key) = view.gateway().filter(|_| self.gateways.honoured) else { return Ok(own.clone().into()) };
        let knowledge = match self.gateways.held.get(&key) {
            Some(gateway) => Knowledge::Known(gateway),
            None if self.listed.contains(&Kind::Gateway) => Knowledge::Absent,
            None if self.gateways.unreadable => Knowledge::Unreadable,
            None => Knowledge::Unlisted,
        };
        let is_served = |address: &IpAddr| view.families.contains(&IpFamily::of(*address));
        CombinedRequest::of(own, &key, knowledge, &view.addresses().filter(is_served).collect::<Vec<_>>())
    }

    /// Returns whether a Service, or its Gateway, asks for the address.
    pub(super) fn asks_for(&self, view: &ServiceView, address: IpAddr) -> bool {
        let combined = view.request.as_ref().ok().and_then(|own| self.combine(view, own).ok());
        combined.is_some_and(|combined| combined.request.addresses.contains(&address))
    }
}

impl ServiceView {
    /// Returns the Gateway for which the Service was created, if the Service is Herald's.
    fn gateway(&self) -> Option<GatewayKey> {
        GatewayKey::named_by(&self.reference.namespace, &self.labels)
    }
}
