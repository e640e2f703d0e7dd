//! Several nodes on one bus: the promises of the protocol, and the reports of an engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod alternating_endpoints;
mod announcements;
mod births;
mod bus;
mod conflict_detection;
mod deletion;
mod failure_detector;
mod handover;
mod histories;
mod isolation;
mod listening_owner;
mod next_build;
mod presumed_owners;
mod proxied_network;
mod repeated_handover;
mod replaced_machine;
mod replay;
mod rolling;
mod short_links;
mod siblings;
mod telling;
mod unheard_nodes;
