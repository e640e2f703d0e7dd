//! What a [`Engine`](crate::Engine) knows, as plain values to be shown to a person or written as JSON. Nothing is
//! decided by them.
//!
//! Nodes are named as the segment knows them: by name, or by their id in hexadecimal where only a frame or a candidate
//! list has spoken of them. Times are in milliseconds before the moment of the snapshot.

use std::net::IpAddr;

use serde::Serialize;

use crate::claim::Reason;

/// How many candidates of an address are listed, the first in rank first: who is next is nearly always among them, and
/// 1,000 addresses of 1,000 nodes would be a million.
pub const CANDIDATES: usize = 5;

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// This node.
    pub node: String,
    /// This run of its speaker, in hexadecimal.
    pub incarnation: String,
    /// How it stands.
    pub state: SpeakerState,
    /// Does it answer for what it owns and covers? Not while it listens, or the link has no carrier.
    pub answering: bool,
    /// Has the link a carrier?
    pub carrier: bool,
    /// Is there a sign that this node hears the segment? Without one it takes nothing.
    pub hearing: bool,
    /// Its link-layer address.
    pub mac: String,
    /// The time between two of its Hellos, in milliseconds.
    pub interval_ms: u64,
    /// The numbers.
    pub totals: Totals,
    /// The keys it accepts, oldest first.
    pub keys: Vec<KeyUse>,
    /// The other nodes, by name.
    pub peers: Vec<Peer>,
    /// The addresses that anybody claims or that the API has, in ascending order.
    pub addresses: Vec<Address>,
}

/// A key and who uses it. Its id is no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Whether this node signs with it. While it hears nobody, it signs with each of its keys in turn.
    pub signs: bool,
    /// How many peers that are heard signed their last frame with it.
    pub peers_signing: usize,
    /// How many peers that are heard accept it.
    pub peers_accepting: usize,
}

/// A segment in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Peers that are heard both ways.
    pub peers: usize,
    /// Addresses this node owns.
    pub owned: usize,
    /// Addresses it answers for in the place of silent nodes.
    pub covered: usize,
}

/// How a speaker stands.
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
    /// It says that it hears nothing.
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

/// What a node's kernel says to liveness probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum KernelState {
    /// It answers.
    Answers,
    /// It is asked, and it is not known yet.
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
    /// How it stands.
    pub state: SpeakerState,
    /// Since its last frame; absent if there was none.
    pub heard_ms: Option<u64>,
    /// The run that was heard last, in hexadecimal.
    pub incarnation: Option<String>,
    /// Its link-layer address, by its own account or else the API's.
    pub mac: Option<String>,
    /// What it claims, as far as this node knows.
    pub claims: usize,
    /// It claims something that this node does not know, and has asked for.
    pub lacking: bool,
    /// What its kernel says; absent while it is not asked.
    pub kernel: Option<KernelState>,
    /// Who answers for it, by this node's account; empty while nobody needs to.
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
    /// The claim that counts; absent if nobody claims it.
    pub owner: Option<Owner>,
    /// How many claim it. More than one: they have not heard each other yet.
    pub claims: usize,
    /// With which link-layer address this node answers for it; absent: it does not.
    pub answer: Option<String>,
    /// What this node waits for before it could claim it; absent if it does not mean to.
    pub waiting: Option<Waiting>,
    /// The candidates, first in rank first: at most [`CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// How many candidates there are.
    pub candidates_total: usize,
    /// Who claims it if its owner dies now: the first candidate that could.
    pub next: Option<String>,
}

/// Who owns an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The node.
    pub node: String,
    /// The how-manieth owner since the VirtualIP was created.
    pub epoch: u32,
    /// Why it claimed.
    pub reason: Reason,
    /// Since when; known to the owner only.
    pub since_ms: Option<u64>,
}

/// What a claim waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Waiting {
    /// Others come first, or this node may not claim yet.
    Turn {
        /// Why it would be claimed.
        reason: Reason,
    },
    /// Everybody is asked whether the address is in use.
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
    /// How fit it is; lower is better.
    pub class: u8,
    /// Could it claim something now?
    pub able: bool,
}
