//! The reports that Herald's programs make in the same way: metrics and health over HTTP ([`http`]), a log whose level
//! can be changed at run time ([`log`]), one log line for an outage ([`log_once`]), the version ([`version!`]), and the
//! sentence with which a program fails ([`exit`]).
//!
//! The reported state belongs to the program: its loop owns the state and answers queries for it ([`query`]).

pub mod exit;
pub mod http;
pub mod log;
pub mod log_once;
pub mod query;
mod version;
