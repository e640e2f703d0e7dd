//! What one leader decides, step by step, and what random histories show.

mod adoption;
mod api_outage;
mod blind;
mod conflict;
mod contest;
mod counts;
mod creation;
pub(super) mod fake_cluster;
mod families;
mod gateways;
mod histories;
mod leadership;
mod lifecycle;
mod messages;
mod other_providers;
mod pools;
mod reservations;
mod sharing;
mod shown;
mod speakers;
mod virtual_ips;
