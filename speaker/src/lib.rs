//! Herald's speaker: answers on the wire for the addresses of its node.
//!
//! One runs on every node. On each segment the speakers agree among themselves who answers for which address, by the
//! protocol of [`herald_segment`]; the API says which addresses there are, who may announce them, and who comes first.
//! What the speaker does it writes into VirtualIP.status; what its node can do, and what is wrong there, into
//! SpeakerStatus.
//!
//! ```text
//! API ──watch──▶ cluster ─┐                              ┌─▶ wire (Hellos, answers, announcements, filters, groups)
//! Secret ──keys───────────┤                              ├─▶ queue ──▶ writer ──▶ API (statuses, events)
//! kernel ─netlink─▶ interfaces, warnings ─▶ machine ─────┤
//! kube-proxy ──health─────┤   (rank, one herald_segment  ├─▶ watch (EndpointSlices, while an address needs them)
//! wire ──packet───────────┘    ::Segment per interface)  └─▶ state (what outlives a restart), metrics, inspect
//! ```
//!
//! **Pure**, synchronous, values in and values out: [`cluster`] (what is kept of the API), [`interfaces`], [`warnings`],
//! [`rank`] (who comes first), [`packet`] (ARP and Neighbour Discovery), [`filter`] (the kernel's part), [`queue`] (what
//! is written when), and [`machine`], which decides by them all.
//!
//! Beside them, what the speaker tells of itself: [`metrics`], [`inspect`], [`check`] and [`events`], which ask the loop by
//! [`herald_observe`].
//!
//! **Edge**: [`watch`], [`keys`], [`health`], [`netlink`], [`wire`] over [`socket`] (the only unsafe code), [`writer`],
//! [`state`]; [`run`] ties them together on one thread.

pub mod args;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod events;
pub mod filter;
pub mod health;
pub mod inspect;
pub mod interfaces;
pub mod keys;
pub mod machine;
pub mod metrics;
pub mod netlink;
pub mod packet;
pub mod queue;
pub mod rank;
pub mod readiness;
pub mod run;
pub mod socket;
mod sources;
pub mod state;
pub mod tell;
mod turn;
pub mod warnings;
pub mod watch;
pub mod wire;
mod write_outage;
pub mod writer;
