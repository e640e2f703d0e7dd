//! What both of Herald's programs need to write to the Kubernetes API. Pure: no client, no clock, no task.
//!
//! [`pause`] computes pauses that double, [`pacing`] bounds how often one object is written.

pub mod pacing;
pub mod pause;
