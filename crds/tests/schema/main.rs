//! The schemas of the definitions: the output of `kubectl explain`, how server-side apply merges their lists, the cost
//! of their rules for the API server, and their compatibility with the programs of an earlier build.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cost;
mod earlier;
mod explain;
mod lists;
mod place;
