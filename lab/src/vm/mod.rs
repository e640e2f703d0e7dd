//! A kernel other than the machine's: user-mode Linux, for scenarios that need features which this machine's kernel may
//! lack (bonding, VLANs, VRFs, IPVS, cgroup version 2 alone).
//!
//! A user-mode Linux is a program. Its root is the machine's own, read-only, below layers in memory: the checkout, the
//! cache and the programs appear at their own paths, and no write reaches the machine, except in one shared directory.
//! It computes at the machine's speed, but a system call costs about 70 times as much, so durations measured there
//! prove nothing.

mod guest;
pub mod kernel;
pub mod machine;

pub use guest::become_first_process;
pub use kernel::build;
