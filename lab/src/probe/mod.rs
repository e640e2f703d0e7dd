//! Probes: observations of a client of an address, every 10 ms by the monotonic clock.
//!
//! The probers run in a process of their own on the client (the *agent*), which records raw samples; [`Report`] is
//! computed from them by pure functions. A witness in the agent records how long the machine kept it from running: a
//! run with [`Report::void`] proves nothing and must be repeated.

mod agent;
pub mod analysis;
mod cli;
pub mod frame;
pub mod sample;
mod session;
mod spec;
mod summary;

pub use self::analysis::Report;
pub use self::cli::{AgentArgs, Args, run, run_agent};
pub use self::sample::{AnnouncementKind, Mac};
pub use self::session::{Probe, Running};
pub use self::spec::{CONNECT_INTERVAL, CONNECT_LIMIT, INTERVAL, ProbeSpec, Probers};
