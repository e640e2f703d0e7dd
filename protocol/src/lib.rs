//! Herald's segment protocol: which node answers for which address on one layer-2 segment.
//!
//! Pure and synchronous, after the convention of quinn-proto: no sockets, clock, tasks or API client. Facts and frames
//! go in with the time ([`Engine::handle`], [`Engine::handle_frame`], [`Engine::handle_packet`]), time passes by
//! [`Engine::handle_timeout`] when [`Engine::poll_timeout`] says so, and the actions to take come out of
//! [`Engine::poll_output`] as values. The same code runs on a wire, under a property test, and as 1,000 nodes in one
//! simulation. docs/protocol/README.md describes it so that it can be written a second time.

pub mod announce;
pub mod api_view;
pub mod claim;
pub mod inspect;
pub mod mac;
#[cfg(feature = "mutations")]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
mod mutation;
pub mod node;
pub mod timers;
pub mod twins;
pub mod wire;

mod claim_table;
mod conflict_detection;
mod election;
mod engine;
mod hold_down;
mod host_probe;
mod incarnation;
mod io;
mod peer;
mod peers;
mod ping;
mod timer_queue;

pub use engine::Engine;
pub use io::{Config, Counters, Deletion, Event, Input, Neighbour, Output, SavedState, Sibling, Withdrawal};
