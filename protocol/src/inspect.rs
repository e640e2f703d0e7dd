//! The knowledge of an [`Engine`](crate::Engine), as plain values to be shown to a person or written as JSON. No
//! decision uses them.
//!
//! Nodes are named as the segment knows them: by name, or by their id in hexadecimal if only a frame or a candidate
//! list has named them. Times are in milliseconds before the moment of the snapshot.

use std::net::IpAddr;

use serde::Serialize;

use crate::claim::Reason;

/// Number of candidates of an address that are listed, in the order of their rank: the next owner is nearly always
/// among them, and 1,000 addresses of 1,000 nodes would be a million.
pub const CANDIDATES: usize = 5;

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// This node.
    pub node: String,
    /// This run of its speaker, in hexadecimal.
    pub incarnation: String,
    /// Its state.
    pub state: SpeakerState,
    /// Whether it answers for the addresses that it owns and covers. It does not while it listens, or while the link
    /// has no carrier.
    pub answering: bool,
    /// Whether the link has carrier.
    pub carrier: bool,
    /// Whether there is a sign that this node hears the segment. Without one it takes no address.
    pub hearing: bool,
    /// Its link-layer address.
    pub mac: String,
    /// The time between two of its Hellos, in milliseconds.
    pub interval_ms: u64,
    /// Counts.
    pub totals: Totals,
    /// The keys that it accepts, oldest first.
    pub keys: Vec<KeyUse>,
    /// The other nodes, by name.
    pub peers: Vec<Peer>,
    /// The addresses that any node claims or that the API has, in ascending order.
    pub addresses: Vec<Address>,
}

/// A key and its users. Its id is not secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Whether this node signs with it. While it hears no peer, it signs with each of its keys in turn.
    pub signs: bool,
    /// Number of heard peers that signed their last frame with it.
    pub peers_signing: usize,
    /// Number of heard peers that accept it.
    pub peers_accepting: usize,
}

/// Counts of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Peers that are heard both ways.
    pub peers: usize,
    /// Addresses that this node owns.
    pub owned: usize,
    /// Addresses that it answers for in the place of silent nodes.
    pub covered: usize,
}

/// The state of a speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SpeakerState {
    /// It has just started, lost its link or stood still, and listens before it claims.
    Listening,
    /// It takes part.
    Active,
    /// It stops for a moment.
    Restarting,
    /// It stops for good.
    Leaving,
    /// It reports that it hears nothing.
    Deaf,
    /// It was heard, and is not heard now.
    Silent,
    /// It is silent, and so is its kernel.
    Dead,
    /// It is heard, but has not shown that it hears this node.
    OneWay,
    /// The API lists it; it was never heard.
    Unheard,
}

/// The answer of a node's kernel to liveness probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum KernelState {
    /// It answers.
    Answers,
    /// It is asked, and the answer is not known yet.
    Asked,
    /// It does not answer.
    Silent,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: SpeakerState,
    /// Time since its last frame; absent if there was none.
    pub heard_ms: Option<u64>,
    /// The run that was heard last, in hexadecimal.
    pub incarnation: Option<String>,
    /// Its link-layer address, by its own account or else the API's.
    pub mac: Option<String>,
    /// Number of its claims, as far as this node knows.
    pub claims: usize,
    /// Whether it has claims that this node does not know and has asked for.
    pub lacking: bool,
    /// The state of its kernel; absent while it is not asked.
    pub kernel: Option<KernelState>,
    /// The nodes that answer for it, by this node's account; empty while none needs to.
    pub covered_by: Vec<String>,
    /// The id of the key its last frame was signed with, in hexadecimal; absent if it is not heard.
    pub signs_with: Option<String>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// The claim that counts; absent if no node claims it.
    pub owner: Option<Owner>,
    /// Number of nodes that claim it. If more than one, they have not heard each other yet.
    pub claims: usize,
    /// The link-layer address with which this node answers for it; absent if it does not.
    pub answer: Option<String>,
    /// What this node waits for before it could claim it; absent if it does not intend to.
    pub waiting: Option<Waiting>,
    /// The candidates in the order of their rank: at most [`CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// Number of candidates.
    pub candidates_total: usize,
    /// The node that claims it if its owner dies now: the first candidate that could.
    pub next: Option<String>,
}

/// The owner of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The node.
    pub node: String,
    /// Ownership epoch: 1 for the first owner since the VirtualIP was created, +1 with every change.
    pub epoch: u32,
    /// The reason of its claim.
    pub reason: Reason,
    /// Time since the claim; known to the owner only.
    pub since_ms: Option<u64>,
}

/// The event that a claim waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Waiting {
    /// Other nodes come first, or this node may not claim yet.
    Turn {
        /// The reason for which it would be claimed.
        reason: Reason,
    },
    /// All hosts are asked whether the address is in use.
    Enquiry,
    /// A host outside the cluster has it.
    Conflict {
        /// Its link-layer address.
        mac: String,
    },
    /// A node of the cluster answers for it without a claim.
    AnsweredByClusterNode {
        /// The node.
        node: String,
    },
    /// A node that is not heard is taken to own it.
    Presumed {
        /// The node.
        node: String,
    },
}

/// A node that may announce an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// Its class; lower is fitter.
    pub class: u8,
    /// Whether it could claim an address now.
    pub able: bool,
}
