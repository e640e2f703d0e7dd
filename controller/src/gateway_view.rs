//! Gateways (Gateway API), reduced to the fields that the controller reads. Pure.

use std::{collections::BTreeMap, fmt};

use herald_crds::names::LABEL_GATEWAY_NAME;
use kube::core::{ApiResource, GroupVersionKind, NotUsed, Object, ObjectMeta};
use serde::Deserialize;

/// The `type` of an address in `spec.addresses` that is an IP address; an absent field means the same.
const IP_ADDRESS: &str = "IPAddress";

/// The part of a Gateway's spec that is read: nothing else of it is ever decoded.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct GatewaySpecPart {
    /// The addresses that the Gateway asks for.
    #[serde(default)]
    pub addresses: Vec<GatewayAddressPart>,
}

/// One address that a Gateway asks for.
#[derive(Clone, Debug, Deserialize)]
pub struct GatewayAddressPart {
    /// The type of the address.
    #[serde(rename = "type", default)]
    pub type_: Option<String>,
    /// The address; without one the Gateway asks for any of the type.
    #[serde(default)]
    pub value: Option<String>,
}

/// A Gateway in the form in which it is watched.
pub type GatewayObject = Object<GatewaySpecPart, NotUsed>;

/// The resource of Gateways, in the version that is watched.
pub fn api_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"), "gateways")
}

/// Namespace and name of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayKey {
    /// The namespace of the Gateway.
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl GatewayKey {
    /// Returns the key of an object; `None` for an object that never reached an API server.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        Some(Self { namespace: meta.namespace.clone()?, name: meta.name.clone()? })
    }

    /// Returns the Gateway that a Service of this namespace, with these labels, was created for.
    pub fn named_by(namespace: &str, labels: &BTreeMap<String, String>) -> Option<Self> {
        let name = labels.get(LABEL_GATEWAY_NAME).filter(|name| !name.is_empty())?;
        Some(Self { namespace: namespace.to_owned(), name: name.clone() })
    }
}

impl fmt::Display for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Gateway, reduced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayView {
    /// The IP addresses that `spec.addresses` asks for, as written.
    pub addresses: Vec<String>,
}

impl GatewayView {
    /// Reduces a Gateway. Addresses of other types, and those without a value, request nothing of Herald.
    pub fn of(gateway: &GatewayObject) -> Self {
        let is_ip = |part: &&GatewayAddressPart| part.type_.as_deref().is_none_or(|type_| type_ == IP_ADDRESS);
        let addresses = gateway.spec.addresses.iter().filter(is_ip).filter_map(|part| part.value.clone());
        Self { addresses: addresses.filter(|value| !value.trim().is_empty()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use test_case::test_case;

    use super::*;

    fn key() -> GatewayKey {
        GatewayKey { namespace: "shop".to_owned(), name: "web".to_owned() }
    }

    fn view(spec: Value) -> GatewayView {
        let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"namespace": "shop", "name": "web"}, "spec": spec, "status": {"addresses": []}});
        GatewayView::of(&serde_json::from_value::<GatewayObject>(object).unwrap())
    }

    #[test_case(json!({}) => Vec::<String>::new(); "no addresses")]
    #[test_case(json!({"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}) => vec!["192.0.2.1"]; "an IP address")]
    #[test_case(json!({"addresses": [{"value": "192.0.2.1"}, {"value": "2001:db8::1"}]}) => vec!["192.0.2.1", "2001:db8::1"]; "the type is IPAddress unless given")]
    #[test_case(json!({"addresses": [{"type": "Hostname", "value": "192.0.2.1"}, {"type": "example.com/x", "value": "y"}]}) => Vec::<String>::new(); "other types")]
    #[test_case(json!({"addresses": [{"type": "IPAddress"}, {"value": ""}]}) => Vec::<String>::new(); "any address")]
    fn gateway_asks_for(spec: Value) -> Vec<String> {
        view(spec).addresses
    }

    #[test_case(json!({LABEL_GATEWAY_NAME: "web"}) => Some(key()))]
    #[test_case(json!({LABEL_GATEWAY_NAME: ""}) => None; "empty")]
    #[test_case(json!({"app": "web"}) => None; "another label")]
    fn service_names_a_gateway_of_its_namespace(labels: Value) -> Option<GatewayKey> {
        GatewayKey::named_by("shop", &serde_json::from_value(labels).unwrap())
    }
}
