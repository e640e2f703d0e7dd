//! What the edge tells the machine about the world beyond the segment: the API's view, and the node's own interface.

use std::{net::IpAddr, sync::Arc};

use crate::{
    claim::Birth,
    mac::MacAddr,
    node::{NodeId, NodeMap, NodeName},
};

/// How fit a node is to announce an address; lower is better. Made by the edge from what the API says: usable endpoint
/// (for `externalTrafficPolicy: Local`), Ready, and, with `failback: Always`, preference. Nodes of one class are equal:
/// nothing ever moves between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub u8);

impl Class {
    /// From this class on, a node only ends what it has: its endpoint shuts down, and does not come back.
    pub const ENDING: Self = Self(100);

    /// Does it only end what it has?
    pub fn is_ending(self) -> bool {
        self >= Self::ENDING
    }
}

/// A node that may announce an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// How fit it is.
    pub class: Class,
}

/// The nodes that may announce an address, first in rank first: by class, then by what breaks ties (weight, incumbent,
/// home, hash).
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    order: Vec<Candidate>,
    classes: NodeMap<Class>,
}

impl Candidates {
    /// The class of a node, if it is one of them.
    pub fn class_of(&self, node: NodeId) -> Option<Class> {
        self.classes.get(&node).copied()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// First in rank first.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.order.iter()
    }
}

impl FromIterator<Candidate> for Candidates {
    fn from_iter<I: IntoIterator<Item = Candidate>>(candidates: I) -> Self {
        let order: Vec<Candidate> = candidates.into_iter().collect();
        let classes = order.iter().map(|candidate| (candidate.node, candidate.class)).collect();
        Self { order, classes }
    }
}

impl PartialEq for Candidates {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Candidates {}

/// Who has given an address up where it does not hear its successor, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// This node, so that a fitter one may claim it.
    HandedOver(NodeId),
    /// This node, because another announced it.
    Yielded(NodeId),
}

impl GivenUp {
    /// The former owner.
    #[must_use]
    pub fn by(self) -> NodeId {
        match self {
            Self::HandedOver(node) | Self::Yielded(node) => node,
        }
    }
}

/// A VirtualIP, as this node's API view has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// When the object was created.
    pub birth: Birth,
    /// The object's UID.
    pub uid: Arc<str>,
    /// Who may announce it.
    pub candidates: Candidates,
    /// The node that announces it by VirtualIP.status.
    pub announced_by: Option<NodeId>,
    /// That its owner has given it up by VirtualIP.status.
    pub given_up: Option<GivenUp>,
    /// Has this node's own kernel the address? Then it answers for it, whoever announces it.
    pub held_here: bool,
    /// Has anyone ever announced it? If not, it is probed for before the first claim.
    pub ever_announced: bool,
    /// May others answer for the owner while its speaker is silent?
    pub cover: bool,
}

/// A node which the API lists on this segment (SpeakerStatus), whether or not it is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedPeer {
    /// Its name.
    pub node: NodeName,
    /// Its link-layer address on the segment.
    pub mac: MacAddr,
    /// An address of the node itself on the segment, for which its kernel answers: what liveness probes ask for.
    pub address: IpAddr,
}

/// How a speaker is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The node stays: a restart or an upgrade. Others cover; nothing moves.
    Restarting,
    /// The node is cordoned, deleted or drained: others take over while this one still answers.
    Leaving,
}

/// An ARP or Neighbour Discovery packet, in the terms both share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The Ethernet source.
    pub source: MacAddr,
    /// The binding it states: ARP's sender addresses (absent if the protocol address is 0.0.0.0); target and link-layer
    /// option of a Neighbour Advertisement; source and link-layer option of a Neighbour Solicitation.
    pub binding: Option<(IpAddr, MacAddr)>,
    /// The address it asks for; `None` for answers. A gratuitous ARP request asks for what it states.
    pub asks: Option<IpAddr>,
}
