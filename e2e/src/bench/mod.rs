//! The benchmarks of docs/benchmarks.md.

pub mod failover;
pub mod first_light;
pub mod install;
pub mod scale;
pub(crate) mod stamps;
