//! Facts that the owner of a Service should know although they do not keep an address from it.

use herald_crds::{
    address::name_of_address,
    condition::shown,
    names::{
        ANNOTATION_SOURCE_RANGES, CLASS, FOREIGN_REQUESTS, LABEL_HEADLESS, LABEL_SERVICE_PROXY_NAME, MANAGER_CONTROLLER,
    },
    service::{Claim, Request},
    virtual_ip::ServiceReference,
};
use k8s_openapi::api::core::v1::Service;

use crate::{
    allocator::{Reservation, SharingObstacle},
    default_finalizer::default_finalizer_by,
    gateway_view::GatewayKey,
};

/// One fact. Each is a sentence in the Service's condition for as long as it holds, and one Warning when it appears.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Advisory {
    /// Field and annotation ask for two addresses.
    #[error("spec.loadBalancerIP {ip} is overruled by the annotation: give both the same value, or empty the field")]
    LoadBalancerIpOverruled {
        /// The address in the field.
        ip: String,
    },
    /// The Service asks for other addresses than its Gateway.
    #[error(
        "spec.addresses of Gateway {gateway} asks for {addresses} as well, and the Service's own request wins: give \
         both the same addresses, or remove the Service's request"
    )]
    GatewayAddressesOverruled {
        /// The Gateway that asks for them.
        gateway: GatewayKey,
        /// The addresses of the Gateway that the Service does not ask for.
        addresses: String,
    },
    /// Source ranges are in the annotation only.
    #[error(
        "metadata.annotations[{ANNOTATION_SOURCE_RANGES}] {ranges:?} is not enforced: kube-proxy reads only \
         spec.loadBalancerSourceRanges; write the ranges there"
    )]
    SourceRangesNotEnforced {
        /// The ranges as written.
        ranges: String,
    },
    /// The Service has no selector, and the policy Local.
    #[error(
        "spec.externalTrafficPolicy is Local and spec.selector is empty: only a node that an EndpointSlice of the \
         Service names in nodeName announces the address; write nodeName, or use the policy Cluster"
    )]
    LocalWithoutSelector,
    /// A label makes kube-proxy skip the Service.
    #[error(
        "metadata.labels[{label}] makes kube-proxy skip the Service: its address is announced, but no endpoint answers \
         behind it; remove the label, unless another proxy serves it"
    )]
    SkippedByKubeProxy {
        /// The key of the label.
        label: &'static str,
    },
    /// Another program put upstream's finalizer on the Service.
    #[error(
        "metadata.finalizers holds service.kubernetes.io/load-balancer-cleanup of {manager}: if that is another \
         provider, both serve this Service; let one of them be the default, or set spec.loadBalancerClass to {CLASS}"
    )]
    AnotherProvider {
        /// The field manager of that provider.
        manager: String,
    },
    /// An annotation asks another provider for a thing that Herald grants by its own annotation.
    #[error(
        "metadata.annotations[{foreign}] {value:?} is for another provider, and Herald does not read it: use \
         annotation {ours}"
    )]
    ForeignAnnotation {
        /// The key of the annotation.
        foreign: &'static str,
        /// The value as written.
        value: String,
        /// The annotation that Herald reads.
        ours: &'static str,
    },
    /// An edit has made Services that share an address collide.
    #[error("{address} is shared with Service {other}, which is no longer possible: {why}. Both Services keep it")]
    SharingConflict {
        /// The shared address.
        address: std::net::IpAddr,
        /// Namespace and name of the other Service.
        other: String,
        /// The reason.
        why: SharingObstacle,
    },
    /// The status of another Service shows the address too.
    #[error(
        "{address} is in status.loadBalancer.ingress of Service {other} as well, which did not get it from Herald and \
         may not share it: kube-proxy gives the traffic of a port that both have to one of them; delete that Service, \
         or let it ask for another address"
    )]
    ShownTwice {
        /// The address in both statuses.
        address: std::net::IpAddr,
        /// The other Service.
        other: ServiceReference,
    },
    /// The VirtualIP of an address is deleted, and finalizers of other programs hold it.
    #[error(
        "VirtualIP {} is being deleted and waits for its metadata.finalizers ({finalizers}), which are not Herald's: no \
         node announces {address}; let the programs that put them there remove them, or remove them by kubectl edit vip",
        name_of_address(*address)
    )]
    VirtualIpHeld {
        /// The address.
        address: std::net::IpAddr,
        /// The finalizers, separated by commas.
        finalizers: String,
    },
    /// The Service has an address that would not be given out today.
    #[error(
        "{address} is {by}, so Herald would not give it out today, and hosts may fail to reach it: the Service keeps \
         it because it had it before; ask for another, or end the other use"
    )]
    ReservedAddress {
        /// The reserved address.
        address: std::net::IpAddr,
        /// The use of the address.
        by: Reservation,
    },
}

impl Advisory {
    /// Returns the reason of the Warning.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::LoadBalancerIpOverruled { .. } => "LoadBalancerIPOverruled",
            Self::GatewayAddressesOverruled { .. } => "GatewayAddressesOverruled",
            Self::SourceRangesNotEnforced { .. } => "SourceRangesNotEnforced",
            Self::LocalWithoutSelector => "LocalWithoutSelector",
            Self::SkippedByKubeProxy { .. } => "SkippedByKubeProxy",
            Self::AnotherProvider { .. } => "AnotherProvider",
            Self::ForeignAnnotation { .. } => "ForeignAnnotation",
            Self::SharingConflict { .. } => "SharingConflict",
            Self::ShownTwice { .. } => "AddressShownTwice",
            Self::VirtualIpHeld { .. } => "VirtualIPHeld",
            Self::ReservedAddress { .. } => "ReservedAddress",
        }
    }
}

/// Returns the facts that a Service of ours shows by itself. `request` is `None` if it cannot be read.
pub fn of(service: &Service, claim: Claim, request: Option<&Request>) -> Vec<Advisory> {
    let (meta, spec) = (&service.metadata, service.spec.as_ref());
    let overruled = request.and_then(|r| r.overruled_load_balancer_ip.clone());
    let overruled = overruled.map(|ip| Advisory::LoadBalancerIpOverruled { ip });
    let enforced = spec.and_then(|s| s.load_balancer_source_ranges.as_ref()).is_some_and(|ranges| !ranges.is_empty());
    let ranges = meta.annotations.as_ref().and_then(|a| a.get(ANNOTATION_SOURCE_RANGES));
    let ranges = ranges.filter(|ranges| !enforced && !ranges.trim().is_empty());
    let ranges = ranges.map(|ranges| Advisory::SourceRangesNotEnforced { ranges: shown(ranges) });
    let local = spec.is_some_and(|s| s.external_traffic_policy.as_deref() == Some("Local"));
    let no_selector = spec.is_none_or(|s| s.selector.as_ref().is_none_or(|selector| selector.is_empty()));
    let no_selector = (local && no_selector).then_some(Advisory::LocalWithoutSelector);
    let has = |label: &&str| meta.labels.as_ref().is_some_and(|labels| labels.contains_key(*label));
    let skipped = [LABEL_SERVICE_PROXY_NAME, LABEL_HEADLESS].into_iter().filter(has);
    let skipped = skipped.map(|label| Advisory::SkippedByKubeProxy { label });
    let managers: Vec<_> = default_finalizer_by(meta).filter(|_| claim == Claim::Default).collect();
    let another = managers.first().filter(|_| !managers.contains(&MANAGER_CONTROLLER));
    let another = another.map(|manager| Advisory::AnotherProvider { manager: (*manager).to_owned() });
    // A Service that has our annotation does not need the hint.
    let value_of = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key)).filter(|v| !v.trim().is_empty());
    let foreign = FOREIGN_REQUESTS.into_iter().filter(|(_, ours)| value_of(ours).is_none());
    let foreign = foreign.filter_map(|(foreign, ours)| {
        let value = shown(value_of(foreign)?);
        Some(Advisory::ForeignAnnotation { foreign, value, ours })
    });
    overruled
        .into_iter()
        .chain(foreign.take(1))
        .chain(ranges)
        .chain(no_selector)
        .chain(skipped)
        .chain(another)
        .collect()
}

#[cfg(test)]
mod tests {
    use herald_crds::names::FINALIZER_SERVICE_DEFAULT;
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    fn finalizer_of(manager: &str) -> Value {
        let owned = format!("v:\"{FINALIZER_SERVICE_DEFAULT}\"");
        json!({"metadata": {"finalizers": [FINALIZER_SERVICE_DEFAULT], "managedFields": [{"manager": manager,
            "operation": "Update", "fieldsV1": {"f:metadata": {"f:finalizers": {owned: {}}}}}]}})
    }

    #[test_case(json!({"spec": {"selector": {"app": "web"}}}) => Vec::<&str>::new(); "no fact")]
    #[test_case(json!({"spec": {"loadBalancerIP": "192.0.2.2"}, "metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.1"}}})
        => vec!["LoadBalancerIPOverruled"]; "field and annotation differ")]
    #[test_case(json!({"spec": {"loadBalancerIP": "192.0.2.1"}, "metadata": {"annotations": {"heraldlb.io/addresses": "192.0.2.1"}}})
        => Vec::<&str>::new(); "field and annotation agree")]
    #[test_case(json!({"metadata": {"annotations": {ANNOTATION_SOURCE_RANGES: "10.0.0.0/8"}}})
        => vec!["SourceRangesNotEnforced"]; "source ranges by annotation only")]
    #[test_case(json!({"metadata": {"annotations": {ANNOTATION_SOURCE_RANGES: "10.0.0.0/8"}}, "spec": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}})
        => Vec::<&str>::new(); "source ranges in the field")]
    #[test_case(json!({"metadata": {"annotations": {"kube-vip.io/loadbalancerIPs": "192.0.2.1", "purelb.io/service-group": "x"}}})
        => vec!["ForeignAnnotation"]; "another provider is asked")]
    #[test_case(json!({"metadata": {"annotations": {"lbipam.cilium.io/ips": "192.0.2.1", "heraldlb.io/addresses": "192.0.2.2"}}})
        => Vec::<&str>::new(); "both are asked")]
    #[test_case(json!({"spec": {"externalTrafficPolicy": "Local"}}) => vec!["LocalWithoutSelector"])]
    #[test_case(json!({"spec": {"externalTrafficPolicy": "Local", "selector": {"app": "web"}}}) => Vec::<&str>::new(); "Local with a selector")]
    #[test_case(json!({"metadata": {"labels": {LABEL_HEADLESS: ""}}}) => vec!["SkippedByKubeProxy"]; "headless label")]
    #[test_case(json!({"metadata": {"labels": {LABEL_SERVICE_PROXY_NAME: "other"}}}) => vec!["SkippedByKubeProxy"]; "proxy name label")]
    #[test_case(finalizer_of("cloud-controller-manager") => vec!["AnotherProvider"]; "two default providers")]
    #[test_case(finalizer_of(MANAGER_CONTROLLER) => Vec::<&str>::new(); "our own finalizer")]
    fn each_fact_is_found(object: Value) -> Vec<&'static str> {
        let service: Service = serde_json::from_value(object).unwrap();
        let spec = service.spec.clone().unwrap_or_default();
        let annotations = service.metadata.annotations.clone().unwrap_or_default();
        let request = Request::read(&annotations, spec.load_balancer_ip.as_deref()).unwrap();
        of(&service, Claim::Default, Some(&request)).iter().map(Advisory::reason).collect()
    }

    #[test]
    fn service_with_a_class_names_no_other_provider() {
        let service: Service = serde_json::from_value(finalizer_of("cloud-controller-manager")).unwrap();
        assert_eq!(of(&service, Claim::Class, None), []);
    }
}
