//! Herald's controller: decides which Service gets which address.
//!
//! The deciding part is pure and synchronous: [`allocator`] (which address, or why none), [`placement`] (an address's
//! home), [`advertisements`] (who may announce it) and [`index`], which turns observed objects ([`view`]) into writes
//! ([`action`]). The edge is thin: [`watch`] feeds the index, [`writer`] carries its writes out, [`lease`] says whether
//! this replica may, [`mod@run`] ties them together. [`mod@uninstall`] is the way out.

pub mod action;
pub mod advertisements;
pub mod allocator;
pub mod args;
pub mod index;
pub mod lease;
pub mod placement;
pub mod run;
pub mod uninstall;
pub mod view;
pub mod watch;
pub mod writer;
