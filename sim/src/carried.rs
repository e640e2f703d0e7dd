//! A frame of the protocol in transit.

use herald_protocol::wire::Frame;

use crate::names::NodeIx;

/// A frame of the protocol in transit.
#[derive(Debug)]
pub struct Carried {
    /// The sender.
    pub from: NodeIx,
    /// The content that the cluster's keys yield: the frame is opened once for all receivers.
    pub frame: Frame,
    /// Whether the frame is a Hello.
    pub hello: bool,
    /// Length in bytes, without an Ethernet header.
    pub length: usize,
    /// The bytes that were sent, if receivers have different keys: each receiver then opens the frame by itself.
    pub bytes: Option<Vec<u8>>,
}
