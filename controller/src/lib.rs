//! Herald's controller: it decides which Service gets which address.
//!
//! The deciding part is pure and synchronous: [`allocator`] (an address for a Service, or why there is none),
//! [`placement`] (an address's home), [`advertisement_rules`] (the nodes that may announce it), [`gateway`] (the
//! request of a Gateway), [`quarantine`] (the addresses kept back), [`advisory`] (facts that the owner should know) and
//! [`index`], which turns observed objects ([`view`]) into writes ([`action`]).
//!
//! The edge is thin: [`watch`] feeds the index, [`writer`] carries its writes out ([`writer::dispatch`] and
//! [`writer::breaker`] decide how many may be under way, and classify their outcomes), [`lease`] decides whether this
//! replica may write, [`watch_health`] whether it sees, [`api_version`] whether the API server is new enough,
//! [`cluster_key`] fills the Secret that the speakers share, and [`event_loop`] ties them together. [`metrics`] and
//! [`decision_log`] report the controller's state and decisions. [`mod@uninstall`] removes Herald. The example
//! `reasons` documents every reason that a Service can show.

pub mod action;
pub mod advertisement_rules;
pub mod advisory;
pub mod allocator;
pub mod api_version;
pub mod args;
pub mod cluster_key;
pub mod decision_log;
pub mod default_finalizer;
pub mod event_loop;
pub mod gateway;
pub mod gateway_view;
pub mod index;
pub mod lease;
pub mod metrics;
pub mod placement;
pub mod quarantine;
pub mod speaker_pod;
pub mod uninstall;
pub mod view;
pub mod watch;
pub mod watch_health;
pub mod writer;
