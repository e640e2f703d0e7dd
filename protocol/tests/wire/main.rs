//! The wire format, from outside: what docs/protocol/frames.md promises about bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
mod keys;
mod later;
mod refusals;
mod round_trip;
mod split;
mod vectors;
