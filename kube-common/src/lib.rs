//! The parts that both of Herald's programs need to talk to the Kubernetes API.
//!
//! [`client`] makes their connections, [`request`] bounds one request, [`reflector`] lists and watches one kind of
//! object; [`pause`] and [`mod@backoff`] compute pauses that double, [`pacing`] bounds how often one object is written.
//! Only the first three use a clock or the network.

pub mod backoff;
pub mod client;
pub mod pacing;
pub mod pause;
pub mod reflector;
pub mod request;
