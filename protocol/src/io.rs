//! The inputs and outputs of an [`Engine`](crate::Engine).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    announce::Pace,
    api_view::{ExpectedPeer, Shutdown, Vip},
    claim::{Birth, Claim, Epoch},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
    timers::Timers,
    wire::{FrameLimit, Keyring},
};

/// Configuration of an engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// This run of its speaker: random.
    pub incarnation: Incarnation,
    /// Its link-layer address on the segment.
    pub mac: MacAddr,
    /// An address of its own on the segment.
    pub address: Option<IpAddr>,
    /// The timers.
    pub timers: Timers,
    /// The pace of announcements.
    pub pace: Pace,
    /// Whether all hosts are asked for an address before it is claimed for the first time ever (RFC 5227, 2.1.1).
    pub first_claim_probe: bool,
    /// Seed of the jitter: the same seed and inputs give the same outputs.
    pub seed: u64,
    /// A rule to break.
    #[cfg(feature = "mutations")]
    pub mutation: Option<crate::mutation::Mutation>,
}

impl Config {
    /// Returns a configuration with default timers, the default pace of announcements, no address of its own, and the
    /// seed 0.
    pub fn new(node: NodeName, incarnation: Incarnation, mac: MacAddr) -> Self {
        Self {
            node,
            incarnation,
            mac,
            address: None,
            timers: Timers::default(),
            pace: Pace::default(),
            first_claim_probe: true,
            seed: 0,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// A host whose link-layer address this node's kernel knows (its neighbour table, the gateway). It is asked for a sign
/// of life when nothing is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address.
    pub mac: MacAddr,
}

/// A fact.
#[derive(Clone, Debug)]
pub enum Input {
    /// The API's view of an address; `None`: its VirtualIP is gone or being deleted. (`None` does not mean unknown. An
    /// empty or expired watch is not an input.)
    Vip(IpAddr, Option<Arc<Vip>>),
    /// The API's view was current at this moment: every watch had made progress by then.
    Fresh(Duration),
    /// The nodes that the API lists on this segment, without this one.
    Stations(Arc<[ExpectedPeer]>),
    /// The keys, when the Secret changes.
    Keys(Arc<Keyring>),
    /// Whether the link has carrier. The engine assumes carrier at the start.
    Carrier(bool),
    /// How long frames on the link may be. The engine assumes any length at the start.
    FrameLimit(FrameLimit),
    /// The node's own addresses on the segment have changed.
    Interface {
        /// Link-layer address.
        mac: MacAddr,
        /// An address of the node.
        address: Option<IpAddr>,
    },
    /// Hosts to ask for a sign of life.
    Neighbours(Arc<[Neighbour]>),
    /// The runs that this speaker has on other interfaces, and the link-layer addresses of these: if one is heard here,
    /// both interfaces are on one segment ([`Engine::take_sibling`](crate::Engine::take_sibling)), and its statements
    /// by ARP or ND are not those of another host.
    Siblings(BTreeMap<Incarnation, MacAddr>),
    /// The address lies on another interface of this node: claims that an earlier run made here, or made according to
    /// peers ([`Engine::take_reminded`](crate::Engine::take_reminded)), are not resumed.
    LiesElsewhere(IpAddr),
    /// Another run of this speaker knows that these objects are gone
    /// ([`Engine::take_deletions`](crate::Engine::take_deletions)).
    Deletions(Vec<Deletion>),
    /// Another run of this speaker takes the place of this one, which ends and sends its last word now.
    Superseded,
    /// A frame from another host (not to 01:80:c2:00:00:0x) that is neither the protocol's nor ARP or ND.
    Evidence,
    /// A host has answered [`Output::Ping`]: the reply is to a request of this node's, and came from this address in a
    /// frame with this Ethernet source.
    Pong {
        /// The address that was asked.
        address: IpAddr,
        /// The Ethernet source of the reply.
        mac: MacAddr,
    },
    /// Stop. [`Event::Finished`] reports the end.
    Shutdown(Shutdown),
}

/// A frame of a run that this speaker has on another interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The run.
    pub incarnation: Incarnation,
    /// The sequence of the frame.
    pub sequence: u64,
}

/// The knowledge that an object of an address is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The address.
    pub address: IpAddr,
    /// The latest birth of an object that is gone, by its claims.
    pub birth: Birth,
    /// The UID of the object that the node's view showed when this was learned.
    pub shown: Option<Box<str>>,
    /// When this was learned, by the clock of the process; a later process learns it when it starts.
    #[serde(skip)]
    pub learned: Duration,
    /// Whether the node's own view showed the object to be gone: an object that the view shows later is younger. This
    /// is not saved, since the saved view may be older.
    #[serde(skip)]
    pub seen_here: bool,
}

/// An action of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a frame of the protocol to [`wire::GROUP`](crate::wire::GROUP).
    Send(Vec<u8>),
    /// Ask one host for its own address, by unicast ARP request or Neighbour Solicitation.
    Probe {
        /// The address that is asked for.
        address: IpAddr,
        /// The host.
        mac: MacAddr,
    },
    /// Ping one host: an ICMP or ICMPv6 echo request to its own address, by unicast. Without an address in the host's
    /// subnet to ask from, the edge skips the ping.
    Ping {
        /// The host's address.
        address: IpAddr,
        /// The host.
        mac: MacAddr,
    },
    /// Ask all hosts whether they have an address before it is claimed for the first time: an ARP probe (sender
    /// 0.0.0.0) or a Neighbour Solicitation from ::.
    Enquire(IpAddr),
    /// Ask all hosts for a sign of life: an ICMPv6 echo request to ff02::1.
    EchoAll,
    /// Announce an address to all hosts: a gratuitous ARP request or an unsolicited Neighbour Advertisement.
    Announce {
        /// The address.
        address: IpAddr,
        /// Its link-layer address: always this node's.
        mac: MacAddr,
    },
    /// From now on solicitations for this address are answered with this link-layer address (this node's, or that of
    /// the silent node that it covers), or not at all. For filters and group memberships.
    Answers {
        /// The address.
        address: IpAddr,
        /// The answer.
        mac: Option<MacAddr>,
    },
    /// Report an event.
    Event(Event),
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node owns an address now.
    Owned {
        /// Its claim.
        claim: Claim,
        /// The former owner, if it was another node.
        from: Option<NodeId>,
        /// How long ago that node's speaker was last heard, by this node or another; absent while it is heard.
        silent_for: Option<Duration>,
    },
    /// This node has lost an address to a better claim.
    Lost {
        /// The better claim.
        claim: Claim,
        /// The owner by that claim.
        to: NodeId,
    },
    /// This node gave an address up, without a successor.
    Withdrawn {
        /// The address.
        address: IpAddr,
        /// The reason.
        why: Withdrawal,
    },
    /// A peer is heard both ways: for the first time, or again after a silence.
    PeerUp(NodeName),
    /// A peer has fallen silent.
    PeerSilent(NodeId),
    /// A node that the API lists on the segment is not heard, though its kernel answers: the network may drop the
    /// protocol's frames, or the node's speaker does not run.
    PeerUnheard(NodeName),
    /// A peer's node is dead.
    PeerDead(NodeId),
    /// This node answers for a silent one.
    Covering(NodeId),
    /// This node has answered for a silent one for a minute.
    CoveringLong(NodeId),
    /// This node has ceased to answer for a silent one.
    CoverEnded(NodeId),
    /// A host outside the cluster holds an address: an unclaimed address is not claimed, an owned one is defended.
    Conflict {
        /// The address.
        address: IpAddr,
        /// The stranger.
        mac: MacAddr,
    },
    /// A node of the cluster answers for an address that it does not claim: another provider, or kube-proxy in IPVS
    /// mode without strict ARP.
    AnsweredByClusterNode {
        /// The address.
        address: IpAddr,
        /// The node.
        node: NodeId,
    },
    /// The VirtualIP of an address that this node claims is younger than its predecessor, but its creationTimestamp is
    /// not later: clocks of API servers differ, or one was set back.
    BornOutOfOrder(IpAddr),
    /// A node is silent, and no address of its own is known at which its kernel could be asked: it never sent one, and
    /// the API does not list it (any longer). The findings of others count; otherwise it is covered until cover ends.
    CannotBeAsked(NodeId),
    /// For ten seconds the claims of a peer that speaks have not arrived, or not all of them.
    ClaimsLacking(NodeId),
    /// A peer has heard frames of this run that it has not sent: the machine was set back to a snapshot of its memory.
    /// Peers drop its frames as replays, so it has to join the segment again, as another run.
    Reverted,
    /// Two machines speak under one node's name.
    DuplicateNode(NodeId),
    /// This node's own frames come back: two of its interfaces are on one segment, or the segment has a loop.
    SegmentLoop,
    /// This process did not run for this long; it answers nothing until it has heard what it missed.
    Stalled(Duration),
    /// [`Engine::saved_state`](crate::Engine::saved_state) has changed.
    StateChanged,
    /// The shutdown is complete.
    Finished,
}

/// The reason why an address was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// Its VirtualIP is gone.
    Deleted,
    /// No node may announce it.
    NoCandidate,
    /// A node that is not heard announces it.
    TakenByUnheard(NodeId),
    /// This node is handed the address over by way of the API: it is fitter, its kernel lives, and it is not heard.
    HandedOver(NodeId),
}

/// State that outlives a restart of the process: the edge writes it to memory and gives it back at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The claims of this node.
    pub claims: Vec<Claim>,
    /// The highest birth and epoch seen of each address.
    pub floors: Vec<(IpAddr, Birth, Epoch)>,
    /// The objects that are known to be gone. (An earlier build did not save them.)
    #[serde(default)]
    pub deletions: Vec<Deletion>,
}

/// Counts of frames sent, accepted and dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Hellos sent.
    pub hellos_sent: u64,
    /// Frames of the protocol that were accepted.
    pub accepted: u64,
    /// Accepted frames that are Hellos.
    pub hellos_accepted: u64,
    /// Frames of another cluster: unknown key.
    pub foreign: u64,
    /// Frames with a known key and a wrong authentication code.
    pub forged: u64,
    /// Frames older than an accepted one, or of a run that has not proved that it is live.
    pub replayed: u64,
    /// Frames of a protocol version or a type that this build does not know.
    pub unknown: u64,
    /// Frames that could not be parsed.
    pub malformed: u64,
    /// Frames not sent, because no receiver would understand them.
    pub unsendable: u64,
    /// Frames that the kernel refused to send: too long for the link, or no link.
    pub unsent: u64,
}
