//! The wire format, from outside: the promises of docs/protocol/frames.md about bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
mod keys;
mod later;
mod refusals;
mod round_trip;
mod split;
mod vectors;
