//! Herald's speaker: answers on the wire for the addresses of its node.
//!
//! One speaker runs on every node. On each segment the speakers agree among themselves which of them answers for which
//! address, by the protocol of [`herald_protocol`]; the API says which addresses there are, which nodes may announce
//! them, and which node comes first. The speaker writes what it does into VirtualIP.status; it writes what its node can
//! do, and what is wrong there, into SpeakerStatus.
//!
//! ```text
//! API ──watch──▶ api_objects ─┐                         ┌─▶ sockets (Hellos, answers, announcements, filters, groups)
//! Secret ──keys───────────────┤                         ├─▶ status_queue ──▶ status_writer ──▶ API
//! kernel ─netlink─▶ interfaces, warnings ─▶ coordinator ┤
//! kube_proxy ─────────────────┤  (rank, one             ├─▶ watch (EndpointSlices, while an address needs them)
//! sockets ──packet────────────┘   herald_protocol       └─▶ saved_state (what outlives a restart), metrics, inspect
//!                                 ::Engine per interface)
//! ```
//!
//! **Pure**, synchronous, values in and values out: [`api_objects`] (the part of the API's objects that is kept),
//! [`keys`], [`interfaces`], [`warnings`], [`rank`] (which node comes first), [`packet`] (ARP and Neighbour Discovery),
//! [`filter`] (the kernel's part), [`saved_state`] (what outlives a restart), [`status_queue`] (which status is written
//! when), [`kube_events`], and [`coordinator`], which decides by them all.
//!
//! **Reports** of the speaker about itself: [`metrics`], [`inspect`] and [`check`]. They query the event loop through
//! [`herald_telemetry`].
//!
//! **Edge**: [`watch`], [`kube_proxy`], [`netlink`], [`sockets`] over [`herald_packet_socket`] (the only unsafe code),
//! [`status_writer`], [`event_writer`], [`state_dir`]; [`event_loop`] ties them together on one thread. A second thread
//! answers ARP and Neighbour Discovery by an [`answer_table`] that the coordinator fills.

pub mod answer_table;
pub mod api_objects;
pub mod args;
pub mod check;
pub mod cli;
pub mod coordinator;
pub mod event_log;
pub mod event_loop;
pub mod event_writer;
pub mod filter;
pub mod inspect;
pub mod interfaces;
pub mod keys;
pub mod kube_events;
pub mod kube_proxy;
pub mod metrics;
pub mod netlink;
pub mod packet;
pub mod rank;
pub mod readiness;
pub mod saved_state;
pub mod sockets;
mod sources;
pub mod state_dir;
pub mod status_queue;
pub mod status_writer;
mod turn;
pub mod warnings;
pub mod watch;
mod write_outage;

#[cfg(test)]
mod network_namespace;
