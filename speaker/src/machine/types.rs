//! What goes into the machine and what comes out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use herald_crds::{
    speaker_status::{SpeakerStatusStatus, SpeakerWarning},
    virtual_ip::VirtualIPStatus,
};
use jiff::Timestamp;

use crate::{
    arp::Frame,
    cluster::{Change, Node, ServiceName, Slice, Speaker, Vip},
    interfaces::LocalSegment,
    rank::Refusal,
};

/// What a machine is made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node it runs on.
    pub node: String,
    /// Herald's version, for SpeakerStatus.
    pub version: String,
    /// Repeated announcements per second and segment.
    pub announce_rate: u32,
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
    /// What is wrong.
    pub warnings: Vec<SpeakerWarning>,
}

/// A fact.
#[derive(Clone, Debug)]
pub enum Input {
    /// Of the watch on VirtualIPs.
    Vip(Change<Vip>),
    /// Of the watch on Nodes.
    Node(Change<Node>),
    /// Of the watch on SpeakerStatuses.
    Speaker(Change<Speaker>),
    /// Of the watch on EndpointSlices.
    Slice(Change<Slice>),
    /// The EndpointSlices of these Services are completely known from now on (after a [`Change::Listed`]).
    SlicesCover(BTreeSet<ServiceName>),
    /// The interfaces of this node, whenever they change.
    Interfaces(Interfaces),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Let through requests for these addresses on this segment (by interface index), and no others.
    Listen {
        /// Interface index.
        segment: u32,
        /// All that is owned there.
        addresses: Vec<Ipv4Addr>,
    },
    /// Send a frame.
    Transmit {
        /// Interface index.
        segment: u32,
        /// The frame.
        frame: Frame,
    },
    /// Write the status of a VirtualIP.
    WriteVip(VipWrite),
    /// Write this node's SpeakerStatus.
    WriteSpeaker(SpeakerWrite),
    /// Watch the EndpointSlices of these Services, and no others.
    WatchSlices(BTreeSet<ServiceName>),
    /// Tell what happened.
    Event(Event),
}

/// A status for a VirtualIP.
#[derive(Clone, Debug, PartialEq)]
pub struct VipWrite {
    /// Object name.
    pub name: String,
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

/// What a person reading the log wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This node announces an address now.
    Gained {
        /// The address.
        address: IpAddr,
        /// The interface.
        interface: String,
        /// It did so before it restarted.
        resumed: bool,
    },
    /// This node fell silent about an address.
    Lost {
        /// The address.
        address: IpAddr,
        /// Why.
        why: Silence,
    },
}

/// Why this node does not announce an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// The VirtualIP is gone.
    #[error("its VirtualIP is gone")]
    Gone,
    /// The VirtualIP is being deleted.
    #[error("its VirtualIP is being deleted")]
    Deleting,
    /// Another node is first.
    #[error("node {0} ranks first")]
    Outranked(String),
    /// This node is first by what it has published, but its interface is gone; publishing that makes another first.
    #[error("interface {0} is gone")]
    InterfaceGone(String),
    /// This node may not announce it, and no other may.
    #[error("{0}, and no other node may announce it")]
    Ineligible(#[source] Refusal),
    /// IPv6 is announced by Neighbour Discovery, which this speaker does not speak.
    #[error("it is not an IPv4 address")]
    NotIpv4,
}
