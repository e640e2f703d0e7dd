//! Herald's segment protocol: who answers for which address on one layer-2 segment.
//!
//! Pure and synchronous, after the convention of quinn-proto: no sockets, clock, tasks or API client. Facts and frames
//! go in with the time ([`Segment::handle`], [`Segment::handle_frame`], [`Segment::handle_packet`]), time passes by
//! [`Segment::handle_timeout`] when [`Segment::poll_timeout`] says so, and what is to be done comes out of
//! [`Segment::poll_output`] as values. The same code runs on a wire, under a property test, and as 1,000 nodes in one
//! simulation. docs/protocol.md describes it so that it can be written a second time.

pub mod announce;
pub mod claim;
pub mod mac;
#[cfg(feature = "mutations")]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
mod mutation;
pub mod node;
pub mod snapshot;
pub mod timers;
pub mod twins;
pub mod view;
pub mod wire;

mod agenda;
mod book;
mod decide;
mod first_claim;
mod hold_down;
mod kernel;
mod peer;
mod peers;
mod ping;
mod run;
mod segment;
mod types;

pub use segment::Segment;
pub use types::{Config, Counters, Deletion, Event, Input, Neighbour, Output, SavedState, Sibling, Withdrawal};
