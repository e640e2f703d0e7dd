//! Reads the modules of a crate and which of them name which others.
//!
//! A reference is a path that begins with `crate`, `super` or `self`, in a `use` declaration or anywhere else; with
//! `pub(crate)` and the like it is none. Test code (`#[cfg(test)]`) does not count: a test may know everything.

mod graph;
mod read;

pub use graph::{Edge, circles, edges_between_siblings};
pub use read::{Module, ModulePath, read_crate};
