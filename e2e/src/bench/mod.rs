//! The benchmarks of docs/benchmarks.md.

pub mod cost;
pub mod failover;
pub mod first_light;
pub mod install;
mod processes;
pub mod scale;
mod services;
pub(crate) mod stamps;
