//! Several nodes on one bus: what the protocol promises, and what a segment tells of itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod attack_handover;
mod attack_takes;
mod births;
mod bus;
mod handover;
mod histories;
mod liveness;
mod next_build;
mod replay;
mod rolling;
mod telling;
