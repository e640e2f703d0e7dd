//! Gateways (Gateway API), and the request of a Service on behalf of one. Pure.
//!
//! A Gateway implementation creates a Service for its Gateway, in the same namespace, and labels it with the Gateway's
//! name (GEP-1762). Few implementations carry the Gateway's `spec.addresses` over to the Service. With
//! `--gateway-addresses` the controller reads them instead, as if annotation `heraldlb.io/addresses` of the Service
//! named them. The status of a Gateway belongs to its implementation.

use std::net::IpAddr;

use herald_crds::service::Request;

use crate::{
    advisory::Advisory,
    allocator::Refusal,
    gateway_view::{GatewayKey, GatewayView},
};

/// The known state of the Gateway that a Service names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge<'a> {
    /// The Gateways have not been listed yet.
    Unlisted,
    /// The Gateways cannot be listed.
    Unreadable,
    /// The Gateway does not exist.
    Absent,
    /// The Gateway exists.
    Known(&'a GatewayView),
}

/// The request of a Service, including the addresses of its Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CombinedRequest {
    /// The combined request.
    pub request: Request,
    /// The Gateway that asks for the addresses in the request.
    pub asked_by: Option<GatewayKey>,
    /// The fact about the Gateway's addresses that the Service's owner should know.
    pub caveat: Option<Advisory>,
}

/// The reason why a Service that names a Gateway gets no address yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstruction {
    /// The request of its Gateway is not known yet, but soon will be.
    Awaited,
    /// The addresses of its Gateway cannot be read.
    Refused(Refusal),
}

impl From<Request> for CombinedRequest {
    /// Returns the request of a Service by itself.
    fn from(request: Request) -> Self {
        Self { request, ..Self::default() }
    }
}

impl CombinedRequest {
    /// Combines the request of a Service by itself with that of its Gateway. The Service's own addresses win as a
    /// whole, and a caveat names the addresses of the Gateway that they leave out. `has` are the addresses that the
    /// Service has: while its Gateway cannot be known, they count as asked for, since the Gateway may ask for them. A
    /// Service without an address waits, since any other address would be replaced a moment later.
    ///
    /// # Errors
    /// If the Service has to wait for its Gateway, or the request of the Gateway cannot be read.
    pub fn of(own: &Request, key: &GatewayKey, gateway: Knowledge<'_>, has: &[IpAddr]) -> Result<Self, Obstruction> {
        let asks_itself = !own.addresses.is_empty();
        let gateway = match gateway {
            Knowledge::Known(gateway) => gateway,
            _ if asks_itself => return Ok(own.clone().into()),
            Knowledge::Absent if !has.is_empty() => return Ok(own.clone().into()),
            Knowledge::Unlisted | Knowledge::Unreadable if !has.is_empty() => {
                return Ok(Request { addresses: has.to_vec(), ..own.clone() }.into());
            }
            Knowledge::Unlisted => return Err(Obstruction::Awaited),
            Knowledge::Unreadable => {
                return Err(Obstruction::Refused(Refusal::GatewaysUnreadable { gateway: key.clone() }));
            }
            Knowledge::Absent => return Err(Obstruction::Refused(Refusal::GatewayNotFound { gateway: key.clone() })),
        };
        if asks_itself {
            let is_left_out = |text: &&String| !text.parse::<IpAddr>().is_ok_and(|ip| own.addresses.contains(&ip));
            let left_out: Vec<_> = gateway.addresses.iter().filter(is_left_out).cloned().collect();
            let caveat = (!left_out.is_empty())
                .then(|| Advisory::GatewayAddressesOverruled { gateway: key.clone(), addresses: left_out.join(", ") });
            return Ok(Self { request: own.clone(), asked_by: None, caveat });
        }
        if gateway.addresses.is_empty() {
            return Ok(own.clone().into());
        }
        let field = format!("spec.addresses of Gateway {key}");
        let request = own.with_addresses(&field, gateway.addresses.iter().map(String::as_str));
        match request {
            Ok(request) => Ok(Self { request, asked_by: Some(key.clone()), caveat: None }),
            Err(error) => Err(Obstruction::Refused(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    fn key() -> GatewayKey {
        GatewayKey { namespace: "shop".to_owned(), name: "web".to_owned() }
    }

    /// Returns a request for a list of addresses, and a number of each family.
    fn own(addresses: &str, count: usize) -> Request {
        Request { count, ..Request::default() }.with_addresses("test", addresses.split(' ')).unwrap()
    }

    fn gateway(addresses: &str) -> GatewayView {
        GatewayView { addresses: addresses.split_whitespace().map(str::to_owned).collect() }
    }

    /// Each case holds the addresses that the Service asks for by itself, their number of each family, and those of its
    /// Gateway; then the combined request, and the addresses left out.
    #[test_case("", 1, "" => ("".into(), false, None); "nothing is asked for")]
    #[test_case("", 1, "192.0.2.1" => ("192.0.2.1".into(), true, None); "the Gateway asks")]
    #[test_case("", 1, "2001:db8::1 192.0.2.1" => ("2001:db8::1 192.0.2.1".into(), true, None); "one of each family")]
    #[test_case("", 2, "192.0.2.2 192.0.2.1" => ("192.0.2.2 192.0.2.1".into(), true, None); "as many as the count says")]
    #[test_case("192.0.2.9", 1, "" => ("192.0.2.9".into(), false, None); "the Service asks")]
    #[test_case("192.0.2.9", 1, "192.0.2.1" => ("192.0.2.9".into(), false, Some("192.0.2.1".into())); "the Service wins")]
    #[test_case("192.0.2.9", 1, "192.0.2.9" => ("192.0.2.9".into(), false, None); "both ask for the same")]
    #[test_case("2001:db8::1", 1, "2001:DB8:0::1" => ("2001:db8::1".into(), false, None); "in two spellings")]
    #[test_case("192.0.2.9", 1, "192.0.2.9 2001:db8::1" => ("192.0.2.9".into(), false, Some("2001:db8::1".into())); "the Service's list wins whole")]
    #[test_case("192.0.2.9", 1, "x" => ("192.0.2.9".into(), false, Some("x".into())); "an unused value need not be readable")]
    fn combined(addresses: &str, count: usize, theirs: &str) -> (String, bool, Option<String>) {
        let theirs = gateway(theirs);
        let combined = CombinedRequest::of(&own(addresses, count), &key(), Knowledge::Known(&theirs), &[]).unwrap();
        let addresses: Vec<_> = combined.request.addresses.iter().map(ToString::to_string).collect();
        let left_out = combined.caveat.map(|caveat| match caveat {
            Advisory::GatewayAddressesOverruled { addresses, .. } => addresses,
            other => panic!("{other}"),
        });
        (addresses.join(" "), combined.asked_by.is_some(), left_out)
    }

    #[test_case("192.0.2.1 192.0.2.2", "spec.addresses of Gateway shop/web: 192.0.2.1 and 192.0.2.2 are both IPv4")]
    #[test_case("192.0.2.300", "spec.addresses of Gateway shop/web: \"192.0.2.300\" is not an IP address")]
    fn unreadable_addresses_are_refused_with_gateway_and_field(theirs: &str, message: &str) {
        for has in [vec![], own("192.0.2.1", 1).addresses] {
            let theirs = gateway(theirs);
            let refused = CombinedRequest::of(&own("", 1), &key(), Knowledge::Known(&theirs), &has);
            let Err(Obstruction::Refused(refusal)) = refused else { panic!("{refused:?}") };
            assert!(refusal.to_string().contains(message), "{refusal}");
        }
    }

    /// Each case is the state of the Gateway, and the request of a Service that has the address 192.0.2.1.
    #[test_case(Knowledge::Unlisted, "192.0.2.1" => "waits")]
    #[test_case(Knowledge::Unreadable, "192.0.2.1" => "GatewaysUnreadable")]
    #[test_case(Knowledge::Absent, "" => "GatewayNotFound")]
    fn new_service_waits_for_its_gateway_and_no_other_does(knowledge: Knowledge<'_>, served: &str) -> &'static str {
        let has = own("192.0.2.1", 1).addresses;
        assert_eq!(CombinedRequest::of(&own("", 1), &key(), knowledge, &has), Ok(own(served, 1).into()));
        assert_eq!(CombinedRequest::of(&own("192.0.2.9", 1), &key(), knowledge, &[]), Ok(own("192.0.2.9", 1).into()));
        match CombinedRequest::of(&own("", 1), &key(), knowledge, &[]) {
            Err(Obstruction::Awaited) => "waits",
            Err(Obstruction::Refused(refusal)) => refusal.reason(),
            Ok(combined) => panic!("{combined:?}"),
        }
    }
}
