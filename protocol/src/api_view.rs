//! Input of the edge about the world beyond the segment: the API's view, and the node's own interface.

use std::{net::IpAddr, sync::Arc};

use crate::{
    claim::Birth,
    mac::MacAddr,
    node::{NodeId, NodeMap, NodeName},
};

/// Fitness of a node to announce an address; lower is better. The edge computes it from the API: usable endpoint (for
/// `externalTrafficPolicy: Local`), Ready, and, with `failback: Always`, preference. Nodes of one class are equal: no
/// address moves between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub u8);

impl Class {
    /// From this class on, a node only ends its present connections: its endpoint shuts down, and does not come back.
    pub const ENDING: Self = Self(100);

    /// Returns whether the node only ends its present connections.
    pub fn is_ending(self) -> bool {
        self >= Self::ENDING
    }
}

/// A node that may announce an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Fitness of the node.
    pub class: Class,
}

/// The nodes that may announce an address, in the order of their rank: by class, then by what breaks ties (weight,
/// incumbent, home, hash).
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    order: Vec<Candidate>,
    classes: NodeMap<Class>,
}

impl Candidates {
    /// Returns the class of a node, if it is a candidate.
    pub fn class_of(&self, node: NodeId) -> Option<Class> {
        self.classes.get(&node).copied()
    }

    /// Returns whether there is no candidate.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Returns the candidates in the order of their rank.
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

/// The node that has given an address up without hearing its successor, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// This node gave it up so that a fitter one may claim it.
    HandedOver(NodeId),
    /// This node gave it up because another announced it.
    Yielded(NodeId),
}

impl GivenUp {
    /// Returns the former owner.
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
    /// The nodes that may announce it.
    pub candidates: Candidates,
    /// The node that announces it by VirtualIP.status.
    pub announced_by: Option<NodeId>,
    /// The former owner that has given it up by VirtualIP.status.
    pub given_up: Option<GivenUp>,
    /// Whether this node's own kernel has the address. If so, the kernel answers for it, whichever node announces it.
    pub held_here: bool,
    /// Whether any node has ever announced it. If not, it is probed for before the first claim.
    pub ever_announced: bool,
    /// Whether other nodes may answer for the owner while its speaker is silent.
    pub cover: bool,
}

/// A node that the API lists on this segment (SpeakerStatus), whether or not it is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedPeer {
    /// Its name.
    pub node: NodeName,
    /// Its link-layer address on the segment.
    pub mac: MacAddr,
    /// An address of the node itself on the segment, for which its kernel answers. Liveness probes ask for it.
    pub address: IpAddr,
}

/// The way in which a speaker stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The node stays: a restart or an upgrade. Other nodes cover; no address moves.
    Restarting,
    /// The node is cordoned, deleted or drained: other nodes take over while this one still answers.
    Leaving,
}

/// An ARP or Neighbour Discovery packet, in the terms that both share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The Ethernet source.
    pub source: MacAddr,
    /// The binding that the packet states: ARP's sender addresses (absent if the protocol address is 0.0.0.0); target
    /// and link-layer option of a Neighbour Advertisement; source and link-layer option of a Neighbour Solicitation.
    pub binding: Option<(IpAddr, MacAddr)>,
    /// The address that the packet asks for; `None` for answers. A gratuitous ARP request asks for the address that it
    /// states.
    pub asks: Option<IpAddr>,
}

impl Packet {
    /// Returns the address that the packet really asks for. A gratuitous request announces an address and asks for
    /// none.
    pub fn question(&self) -> Option<IpAddr> {
        self.asks.filter(|asked| self.binding.is_none_or(|(address, _)| address != *asked))
    }
}
