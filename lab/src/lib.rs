//! Herald's laboratory: a real Kubernetes cluster on one machine, faults to inject in it, and probes that measure what
//! a client sees.
//!
//! The only code of Herald that it links is the bare packet socket: its probes parse frames by themselves, so that an
//! error in Herald's format is not hidden by the same error in the parser.

pub mod binaries;
pub mod cluster;
pub mod fault;
pub mod images;
pub mod long_command;
pub mod probe;
pub mod progress;
pub mod registry;
pub mod vm;
pub mod wait_factor;
