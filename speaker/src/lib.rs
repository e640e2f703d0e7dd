//! Herald's speaker: answers on the wire for the addresses of its node.
//!
//! One runs on every node. It watches VirtualIPs, Nodes and SpeakerStatuses, works out for every address which node
//! ranks first, and where that is its own node, answers ARP for the address with the node's MAC and announces it. What
//! it does it writes into VirtualIP.status; what its node can do, and what is wrong there, into SpeakerStatus.
//!
//! ```text
//! API ──watch──▶ cluster ─┐                        ┌─▶ segment ──▶ wire (announcements, answers, filters)
//! kernel ─netlink─▶ interfaces, warnings ─▶ machine ─▶ queue ──▶ writer ──▶ API (statuses)
//! wire ──segment──▶ arp ──┘    (rank, announce)    └─▶ watch (EndpointSlices, while an address needs them)
//! ```
//!
//! **Pure**, synchronous, values in and values out: [`cluster`] (what is kept of the API), [`interfaces`], [`warnings`],
//! [`rank`] (who announces), [`herald_segment::announce`] (when), [`arp`] (frames), [`filter`] (the kernel's part),
//! [`queue`] (what is written when), and [`machine`], which decides by them all.
//!
//! **Edge**: [`watch`], [`netlink`], [`segment`] over [`socket`] (the only unsafe code), [`writer`]; [`run`] ties them
//! together on one thread.

pub mod args;
pub mod arp;
pub mod cluster;
pub mod filter;
pub mod interfaces;
pub mod machine;
pub mod netlink;
pub mod queue;
pub mod rank;
pub mod run;
pub mod segment;
pub mod socket;
pub mod warnings;
pub mod watch;
pub mod writer;
