//! The inputs and outputs of the coordinator.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use herald_crds::{
    advertisement::InterfacePattern,
    speaker_status::{LinkStatus, SpeakerStatusStatus, SpeakerWarning},
    virtual_ip::VirtualIPStatus,
};
use herald_protocol::{Neighbour, announce::Pace, mac::MacAddr, timers::Timers};
use jiff::Timestamp;

use super::sockets::SocketFailure;
use crate::{
    api_objects::{Change, Node, ServiceName, Slice, SliceSelection, Speaker, Vip},
    interfaces::{LocalSegment, Selection},
    keys::{Keys, KeysError},
    kube_events::EventValue,
    saved_state::{Claims, View},
};

/// The settings of a coordinator.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the speaker's own node.
    pub node: String,
    /// The interfaces that the flag chooses.
    pub interfaces: Vec<InterfacePattern>,
    /// Herald's version, for SpeakerStatus.
    pub version: String,
    /// How addresses are announced.
    pub announcing: Announcing,
    /// The timers of the segment protocol.
    pub timers: Timers,
    /// Seed of incarnations and jitter: random, new at each start.
    pub seed: u64,
}

/// How addresses are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcing {
    /// The frequency of announcements.
    pub pace: Pace,
    /// Whether an ARP reply follows each ARP request that announces an IPv4 address.
    pub with_reply: bool,
    /// Whether a probe asks all hosts for an address before it is announced for the first time ever.
    pub first_claim_probe: bool,
}

impl Default for Announcing {
    fn default() -> Self {
        Self { pace: Pace::default(), with_reply: false, first_claim_probe: true }
    }
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time since the speaker started, which never goes backwards: all waiting is by this clock.
    pub monotonic: Duration,
    /// The time that is written into objects.
    pub wall: Timestamp,
}

/// The interfaces of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// The interfaces that can announce addresses.
    pub segments: Vec<LocalSegment>,
    /// The links that have addresses, each with the use made of it.
    pub links: Vec<LinkStatus>,
    /// Number of links beyond those in `links`.
    pub links_left_out: usize,
    /// Warnings about the interfaces.
    pub warnings: Vec<SpeakerWarning>,
}

/// The state that an earlier run of this speaker left.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The claims of the earlier run.
    pub claims: Claims,
    /// Whether the node has not been rebooted since.
    pub same_boot: bool,
    /// The earlier run's view of the cluster: it counts until the API gives another.
    pub view: Option<View>,
}

/// A fact of the API.
#[derive(Clone, Debug)]
pub enum ApiFact {
    /// A fact of the watch on VirtualIPs.
    Vip(Change<Vip>),
    /// A fact of the watch on Nodes.
    Node(Change<Node>),
    /// A fact of the watch on SpeakerStatuses.
    Speaker(Change<Speaker>),
    /// A fact of the watch on EndpointSlices.
    Slice(Change<Slice>),
    /// These EndpointSlices are completely known from now on (after a [`Change::Listed`]).
    SlicesCover(SliceSelection),
}

/// A fact.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all facts are the API's, and each is moved twice in its life")]
pub enum Input {
    /// A fact of the API.
    Api(ApiFact),
    /// The interfaces of this node, whenever they change.
    Interfaces(Interfaces),
    /// Hosts on a segment (by interface index) that can be asked for a sign of life.
    Neighbours(u32, Arc<[Neighbour]>),
    /// The cluster's keys, whenever the Secret changes.
    Keys(Result<Keys, KeysError>),
    /// kube-proxy on this node has rules for the local endpoints of an address.
    ProxySynced(IpAddr),
    /// The result of the kernel for the sockets of a segment (by interface index): each refusal, and the success that
    /// follows refusals.
    Sockets(u32, Result<(), SocketFailure>),
    /// Stop: the shutdown is complete with [`Output::Finished`].
    Terminate,
}

/// An action for the event loop.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The event loop uses these interfaces from now on; before the first selection it uses none.
    Select(Selection),
    /// These segments (by interface index) are in use from now on, and no others; the event loop opens those that are
    /// not open.
    Segments(BTreeSet<u32>),
    /// Let frames about these addresses through on this segment, and about no others.
    Listen {
        /// Interface index.
        segment: u32,
        /// All addresses that are announced there, by any node.
        addresses: BTreeSet<IpAddr>,
    },
    /// Send a frame of the segment protocol.
    Hello {
        /// Interface index.
        segment: u32,
        /// The interface's link-layer address.
        from: MacAddr,
        /// The bytes after the Ethernet header.
        bytes: Vec<u8>,
    },
    /// Send a frame of ARP, IPv4 or IPv6.
    Transmit {
        /// Interface index.
        segment: u32,
        /// The whole frame.
        frame: Vec<u8>,
        /// The purpose of the frame.
        purpose: Purpose,
    },
    /// Write the status of a VirtualIP.
    WriteVip(VipWrite),
    /// Write this node's SpeakerStatus.
    WriteSpeaker(SpeakerWrite),
    /// Watch these EndpointSlices, and no others.
    WatchSlices(SliceSelection),
    /// Ask kube-proxy's health check until it reports local endpoints, for [`PROXY_SYNC_TIMEOUT`](super::PROXY_SYNC_TIMEOUT) at most,
    /// and answer with [`Input::ProxySynced`].
    AskProxy {
        /// The address that waits for it.
        address: IpAddr,
        /// The Service asked about.
        service: ServiceName,
        /// The address and port of kube-proxy's health check.
        target: SocketAddr,
    },
    /// The result of [`Coordinator::saved_claims`](super::Coordinator::saved_claims) has changed.
    ClaimsChanged,
    /// The result of [`Coordinator::saved_view`](super::Coordinator::saved_view) has changed.
    ViewChanged,
    /// Log an event on a segment.
    Event(Event),
    /// Post a Kubernetes Event.
    Post(EventValue),
    /// The shutdown is complete.
    Finished,
}

/// The purpose of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The frame answers a solicitation for the address.
    Answer(IpAddr),
    /// The frame announces the address to all hosts.
    Announcement(IpAddr),
    /// The frame asks for a sign of life, or which host has an address.
    Question,
}

/// A status for a VirtualIP.
#[derive(Clone, Debug, PartialEq)]
pub struct VipWrite {
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The version of the object that the status was decided from.
    pub resource_version: String,
    /// The whole status.
    pub status: VirtualIPStatus,
}

/// A status for this node's SpeakerStatus.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeakerWrite {
    /// The name of the node, which is also that of the object.
    pub node: String,
    /// The UID of the Node, which owns the object.
    pub node_uid: String,
    /// The whole status.
    pub status: SpeakerStatusStatus,
}

/// An event on a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The interface.
    pub interface: String,
    /// The event, as the engine reports it.
    pub what: herald_protocol::Event,
}
