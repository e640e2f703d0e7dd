//! What Herald's programs tell of themselves, in the same way: metrics and health over HTTP ([`server`]), a log whose
//! level can be changed while they run ([`log`]), an outage told once ([`complaint`]).
//!
//! What is told belongs to the program: its loop owns it, and is asked for it ([`mod@ask`]).

pub mod ask;
pub mod complaint;
pub mod log;
pub mod server;
