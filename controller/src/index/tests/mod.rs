//! The decisions of one leader, step by step, and properties of random histories.

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
mod takeovers;
mod virtual_ips;
