//! Herald's laboratory: a real Kubernetes cluster on one machine, faults to inject in it, and probes that measure what a
//! client sees.
//!
//! It links none of Herald's own code but the bare packet socket: its probes read frames by themselves, so that a wrong
//! format in Herald is not read by the same wrong format here.

pub mod binaries;
pub mod cluster;
pub mod fault;
pub mod images;
pub mod long_command;
pub mod probe;
pub mod progress;
pub mod vm;
pub mod wait_factor;
