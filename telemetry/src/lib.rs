//! What Herald's programs tell of themselves, in the same way: metrics and health over HTTP ([`http`]), a log whose
//! level can be changed while they run ([`log`]), an outage told once ([`log_once`]).
//!
//! What is told belongs to the program: its loop owns it, and is asked for it ([`query`]).

pub mod http;
pub mod log;
pub mod log_once;
pub mod query;
