//! The schemas of the definitions: what `kubectl explain` prints of them, how server-side apply merges them, what their
//! rules cost the API server, and how they go with the programs of an earlier build.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cost;
mod earlier;
mod explain;
mod lists;
mod place;
