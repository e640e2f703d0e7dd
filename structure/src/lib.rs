//! Reads the modules of a crate and their references to each other.
//!
//! A reference is a path that begins with `crate`, `super` or `self`, in a `use` declaration or anywhere else; a
//! visibility such as `pub(crate)` does not count. Test code (`#[cfg(test)]`) does not count either: a test may know
//! everything.

mod graph;
mod read;

pub use graph::{Edge, circles, edges_between_siblings};
pub use read::{Module, ModulePath, read_crate};
