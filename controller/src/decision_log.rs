//! The log line for each decision, written once the API server has accepted it.

use std::net::IpAddr;

use herald_crds::{names::CONDITION_ACCEPTED, virtual_ip::ServiceReference};

use crate::{
    action::{Action, Change, Regarding},
    index::{FIELDS_NOT_KEPT, MISDATED},
};

/// Logs a decision that has been carried out.
pub fn decision(action: &Action) {
    match action {
        Action::CreateVirtualIp { address, spec, .. } => {
            let (services, home) = (names(&spec.services), spec.home_node.as_deref().unwrap_or_default());
            tracing::info!(%address, pool = spec.pool, services, home, "assigned an address");
        }
        Action::UpdateVirtualIpSpec { address, spec, .. } => {
            let (services, home) = (names(&spec.services), spec.home_node.as_deref().unwrap_or_default());
            tracing::info!(%address, pool = spec.pool, services, home, rules = spec.advertisements.len(),
                "updated a VirtualIP from its Services and L2Advertisements");
        }
        Action::DeleteVirtualIp { address, misdated: Some(date), .. } => tracing::warn!(%address, %date,
            "deleted a VirtualIP that the API server dated no later than its predecessor: it is created again"),
        Action::DeleteVirtualIp { address, .. } => {
            tracing::info!(%address, "deleted a VirtualIP: its address is to be withdrawn");
        }
        Action::RemoveVirtualIpFinalizer { address, .. } => {
            tracing::info!(%address, "removed the finalizer of a VirtualIP: its address is free");
        }
        Action::CorrectVirtualIpStatus { address, reason, .. } => {
            tracing::info!(%address, reason = reason.as_str(), "corrected VirtualIP status: no node announces this address");
        }
        Action::LookUpService { address, service } => {
            tracing::info!(%address, %service, "looked up a Service that has an address and shows no request for one");
        }
        Action::PatchServiceStatus { service, patch, .. } => {
            let ServiceReference { namespace, name, .. } = service;
            let ingress = match &patch.ingress {
                Change::Keep => None,
                Change::Set(addresses) => Some(list(addresses)),
                Change::Remove => Some("none".to_owned()),
            };
            let (reason, message) = match &patch.condition {
                Change::Set(condition) => (Some(condition.reason.as_str()), Some(condition.message.as_str())),
                Change::Keep | Change::Remove => (None, None),
            };
            tracing::info!(service = %format_args!("{namespace}/{name}"), ingress, reason, message,
                finalizer_added = patch.add_finalizer, finalizer_removed = patch.remove_finalizer,
                "wrote a Service's status");
        }
        // A burst writes this once a second, and it follows from the lines above.
        Action::PatchPoolStatus { pool, .. } => tracing::debug!(pool, "wrote a pool's status"),
        Action::PatchAdvertisementStatus { advertisement, report, .. } => {
            let accepted = report.conditions.iter().find(|condition| condition.type_ == CONDITION_ACCEPTED);
            tracing::info!(
                advertisement,
                status = accepted.map(|condition| condition.status),
                reason = accepted.map(|condition| condition.reason.as_str()),
                message = accepted.map(|condition| condition.message.as_str()),
                "wrote an L2Advertisement's status"
            );
        }
        Action::DescribeStrayVirtualIp { name, .. } => {
            tracing::warn!(name, "reported in a VirtualIP's status that it is not named after its address");
        }
        Action::ReleaseStrayVirtualIp { name, .. } => {
            tracing::info!(name, "removed the finalizer of a VirtualIP that was not named after its address");
        }
        Action::DeleteSpeakerStatus { node, .. } => {
            tracing::info!(node, "deleted the SpeakerStatus of a node that has long had no speaker pod");
        }
        Action::Event(event) => {
            let regarding = match &event.regarding {
                Regarding::Service(service) => format!("{}/{}", service.namespace, service.name),
                Regarding::Object { name, .. } => name.clone(),
            };
            if event.reason == MISDATED {
                tracing::warn!(regarding, note = event.note, "the clocks of the API servers are too far apart");
            }
            if event.reason == FIELDS_NOT_KEPT {
                tracing::warn!(regarding, note = event.note, "the API server did not keep every written field");
            }
            tracing::debug!(regarding, reason = event.reason, note = event.note, "posted an Event");
        }
    }
}

fn names(services: &[ServiceReference]) -> String {
    services.iter().map(|s| format!("{}/{}", s.namespace, s.name)).collect::<Vec<_>>().join(",")
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
