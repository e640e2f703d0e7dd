//! A thousand nodes of Herald's segment protocol in one deterministic simulation.
//!
//! The simulation runs discrete events from one seed. The engines ([`herald_protocol::Engine`]) and the codecs are the
//! real ones. The model consists of the wire ([`net`]), the nodes' kernels and processes ([`node`]), the API with its
//! delayed and lost watches ([`api`]) and clients with their neighbour caches ([`client`]). A [`history`] is a list of
//! [`fault`]s, made from a seed; it can be printed, replayed and shrunk. While it runs ([`world`]), invariants are
//! checked at every step ([`check`]).

pub mod api;
pub mod carried;
pub mod check;
pub mod client;
pub mod fault;
pub mod generate;
pub mod history;
pub mod machine;
pub mod measure;
pub mod mutations;
pub mod names;
pub mod net;
pub mod node;
pub mod queue;
pub mod report;
pub mod runner;
pub mod shrink;
pub mod world;
