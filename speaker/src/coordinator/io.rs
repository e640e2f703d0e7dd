//! What goes into the machine and what comes out.

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

/// What a machine is made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node it runs on.
    pub node: String,
    /// The interfaces that the flag chooses.
    pub interfaces: Vec<InterfacePattern>,
    /// Herald's version, for SpeakerStatus.
    pub version: String,
    /// How addresses are announced.
    pub announcing: Announcing,
    /// The timers of the segment protocol.
    pub timers: Timers,
    /// Where incarnations and jitter come from: random, new at each start.
    pub seed: u64,
}

/// How addresses are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcing {
    /// How often.
    pub pace: Pace,
    /// Whether an ARP reply follows each ARP request that announces an IPv4 address.
    pub with_reply: bool,
    /// Whether everybody is asked for an address before it is announced for the first time ever.
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
    /// Since the speaker started, never backwards: all waiting is by this.
    pub monotonic: Duration,
    /// What is written into objects.
    pub wall: Timestamp,
}

/// The interfaces of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Where something can be announced.
    pub segments: Vec<LocalSegment>,
    /// The links that have addresses, each with what is done with it.
    pub links: Vec<LinkStatus>,
    /// How many more there are.
    pub links_left_out: usize,
    /// What is wrong.
    pub warnings: Vec<SpeakerWarning>,
}

/// What an earlier run of this speaker left.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// What it claimed.
    pub claims: Claims,
    /// Has the machine not been rebooted since?
    pub same_boot: bool,
    /// What it knew of the cluster: good until the API says otherwise.
    pub view: Option<View>,
}

/// What the API says.
#[derive(Clone, Debug)]
pub enum ApiFact {
    /// Of the watch on VirtualIPs.
    Vip(Change<Vip>),
    /// Of the watch on Nodes.
    Node(Change<Node>),
    /// Of the watch on SpeakerStatuses.
    Speaker(Change<Speaker>),
    /// Of the watch on EndpointSlices.
    Slice(Change<Slice>),
    /// These EndpointSlices are completely known from now on (after a [`Change::Listed`]).
    SlicesCover(SliceSelection),
}

/// A fact.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all facts are the API's, and each is moved twice in its life")]
pub enum Input {
    /// Of the API's.
    Api(ApiFact),
    /// The interfaces of this node, whenever they change.
    Interfaces(Interfaces),
    /// Hosts on a segment (by interface index) that can be asked for a sign of life.
    Neighbours(u32, Arc<[Neighbour]>),
    /// The cluster's keys, whenever the Secret changes.
    Keys(Result<Keys, KeysError>),
    /// kube-proxy on this node has rules for the local endpoints of an address.
    ProxySynced(IpAddr),
    /// What the kernel says to the sockets of a segment (by interface index): whenever it refuses something, and when it
    /// refuses nothing any more.
    Sockets(u32, Result<(), SocketFailure>),
    /// Stop: [`Output::Finished`] says when.
    Terminate,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// These interfaces are wanted from now on: before the first, none is.
    Select(Selection),
    /// These segments (by interface index) are in use from now on, and no others; those that are not open are to be
    /// opened.
    Segments(BTreeSet<u32>),
    /// Let through what concerns these addresses on this segment, and nothing else.
    Listen {
        /// Interface index.
        segment: u32,
        /// All that is announced there, by whomever.
        addresses: BTreeSet<IpAddr>,
    },
    /// Send a frame of the segment protocol.
    Hello {
        /// Interface index.
        segment: u32,
        /// Its link-layer address.
        from: MacAddr,
        /// What follows the Ethernet header.
        bytes: Vec<u8>,
    },
    /// Send a frame of ARP or IPv6.
    Transmit {
        /// Interface index.
        segment: u32,
        /// The whole frame.
        frame: Vec<u8>,
        /// What for.
        purpose: Purpose,
    },
    /// Write the status of a VirtualIP.
    WriteVip(VipWrite),
    /// Write this node's SpeakerStatus.
    WriteSpeaker(SpeakerWrite),
    /// Watch these EndpointSlices, and no others.
    WatchSlices(SliceSelection),
    /// Ask kube-proxy's health check until it reports local endpoints, for [`PROXY_SYNC`](super::PROXY_SYNC) at most,
    /// and answer with [`Input::ProxySynced`].
    AskProxy {
        /// The address that waits for it.
        address: IpAddr,
        /// The Service asked about.
        service: ServiceName,
        /// Where it answers.
        target: SocketAddr,
    },
    /// What [`Coordinator::saved_claims`](super::Coordinator::saved_claims) gives has changed.
    ClaimsChanged,
    /// What [`Coordinator::saved_view`](super::Coordinator::saved_view) gives has changed.
    ViewChanged,
    /// Tell what happened.
    Event(Event),
    /// Post a Kubernetes Event.
    Post(EventValue),
    /// The shutdown is complete.
    Finished,
}

/// What a frame is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody asked.
    Answer(IpAddr),
    /// To tell everybody.
    Announcement(IpAddr),
    /// To ask: for a sign of life, or who has an address.
    Question,
}

/// A status for a VirtualIP.
#[derive(Clone, Debug, PartialEq)]
pub struct VipWrite {
    /// Object name.
    pub name: String,
    /// Object UID.
    pub uid: String,
    /// The version it was decided from.
    pub resource_version: String,
    /// The whole status.
    pub status: VirtualIPStatus,
}

/// A status for this node's SpeakerStatus.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeakerWrite {
    /// The node; the object has its name.
    pub node: String,
    /// UID of the Node, which owns the object.
    pub node_uid: String,
    /// The whole status.
    pub status: SpeakerStatusStatus,
}

/// Something that happened on a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The interface.
    pub interface: String,
    /// What the segment protocol says.
    pub what: herald_protocol::Event,
}
