//! A frame of the protocol on its way.

use herald_protocol::wire::Frame;

use crate::names::NodeIx;

/// A frame of the protocol on its way.
#[derive(Debug)]
pub struct Carried {
    /// Who sent it.
    pub from: NodeIx,
    /// What the cluster's keys make of it: opened once for all receivers.
    pub frame: Frame,
    /// Is it a Hello?
    pub hello: bool,
    /// Its length, without an Ethernet header.
    pub length: usize,
    /// What was sent, if receivers have different keys: each opens it for itself.
    pub bytes: Option<Vec<u8>>,
}
