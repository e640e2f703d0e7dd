//! Another kernel than the machine's: user-mode Linux, in which the scenarios run that need what this machine's kernel
//! may lack (bonding, VLANs, VRFs, IPVS, cgroup version 2 alone).
//!
//! A user-mode Linux is a program. Its root is the machine's own, read-only, below layers in memory: the checkout, the
//! cache and the programs are seen at their own paths, and nothing written there reaches the machine, except in one
//! directory that both share. It computes at the machine's speed, but a system call costs some 70 times as much: no
//! figure that is measured there says anything.

mod guest;
pub mod kernel;
pub mod machine;

pub use guest::become_first_process;
pub use kernel::build;
