//! Tests of Herald: scenarios and drills on the laboratory's real clusters, and the benchmarks.

pub mod bench;
pub mod demo;
pub mod drill;
pub mod kernel_test;
pub mod scenario;
pub mod testbed;
pub mod vm_test;
