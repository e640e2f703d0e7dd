//! Herald's controller: decides which Service gets which address.
//!
//! The deciding part is pure and synchronous: [`allocator`] (which address, or why none), [`placement`] (an address's
//! home), [`advertisements`] (who may announce it), [`gateway`] (what a Gateway asks for), [`quarantine`] (what is kept back), [`caveat`] (what is worth
//! knowing all the same) and [`index`], which turns observed objects ([`view`]) into writes
//! ([`action`]). The edge is thin: [`watch`] feeds the index, [`writer`] carries its writes out, [`lease`] says whether
//! this replica may, [`watch_health`] whether it sees, [`api_version`] whether the API server is new enough, [`cluster_key`] fills the Secret the speakers share, [`mod@run`] ties them together.
//! [`outbox`] and [`breaker`] say how many writes may be under way and what became of them. [`metrics`] and [`tell`] are
//! what it tells of itself. [`mod@uninstall`] is the way out. [`reasons`] is the documentation of every
//! reason a Service can show.

pub mod action;
pub mod advertisements;
pub mod allocator;
pub mod api_version;
pub mod args;
pub mod breaker;
pub mod caveat;
pub mod cluster_key;
pub mod gateway;
pub mod index;
pub mod lease;
pub mod metrics;
pub mod outbox;
pub mod placement;
pub mod quarantine;
pub mod reasons;
pub mod run;
pub mod speaker_pod;
pub mod tell;
pub mod uninstall;
pub mod view;
pub mod watch;
pub mod watch_health;
pub mod writer;
