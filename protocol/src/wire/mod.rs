//! The wire format: frames as values, and as bytes (docs/protocol/frames.md).

mod bytes;
mod claims;
mod envelope;
mod hello;
mod key;
mod versions;

use std::{net::IpAddr, time::Duration};

use crate::{
    claim::{Birth, Claim, Digest},
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
};
pub use claims::{changes_per_frame, delta, full_list};
pub(crate) use envelope::signing_key_of;
pub use envelope::{Rejected, SealError};
pub use hello::heard_capacity;
pub use key::{Key, KeyError, KeyId, Keyring, key_of_cluster};
pub use versions::Versions;

/// EtherType of Herald's frames: Local Experimental Ethertype 1 (IEEE 802-2014 section 9.2.4).
pub const ETHERTYPE: u16 = 0x88b5;

/// The destination of Herald's frames: a locally administered group address (IEEE 802-2014 section 8.2), "HRLD" behind
/// the two flag bits. Outside 01:80:c2:00:00:0x, which bridges do not forward.
pub const GROUP: MacAddr = MacAddr([0x03, 0x48, 0x52, 0x4c, 0x44, 0x01]);

/// The newest protocol version of this build.
pub const VERSION: u8 = Versions::THIS.newest();

/// Version, type, length, key id: the part of a frame that is read before it is known to be from this cluster.
const PREFIX: usize = 12;

/// The prefix and the sender: node, incarnation, sequence.
const HEADER: usize = PREFIX + 24;

/// Bytes of a frame around its body.
const ENVELOPE: usize = HEADER + key::TAG;

/// The longest frame, in bytes after the Ethernet header. It is below 1,450, which VXLAN leaves of a 1,500-byte wire.
pub const MAX_FRAME: usize = 1400;

/// The longest frame that a link carries, in bytes after the Ethernet header: at most [`MAX_FRAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameLimit(usize);

impl FrameLimit {
    /// The limit of a link with an MTU of [`MAX_FRAME`] or more.
    pub const LARGEST: Self = Self(MAX_FRAME);
    /// The limit of every link that the protocol runs on.
    pub const LEAST: Self = Self(Self::SMALLEST);

    /// The length that every link carries on which IPv4 hosts need not fragment what each of them has to accept (RFC
    /// 791, section 3.1). A Hello with the longest name, four keys and a heard entry is shorter.
    const SMALLEST: usize = 576;

    /// Returns the limit of a link with this MTU, in bytes. A frame that passes several links, the shortest of which is
    /// not this node's own, may be lost all the same.
    pub fn of_mtu(mtu: u32) -> Self {
        Self(usize::try_from(mtu).unwrap_or(MAX_FRAME).clamp(Self::SMALLEST, MAX_FRAME))
    }

    /// Returns the limit in bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }
}

/// The sender of a frame, and the number of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The node.
    pub node: NodeId,
    /// Its current run.
    pub incarnation: Incarnation,
    /// Rises by one with each frame of an incarnation, starting at 1.
    pub sequence: u64,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender.
    pub sender: Sender,
    /// The content.
    pub body: Body,
}

/// The content of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "I am here."
    Hello(Hello),
    /// "I answer for these."
    Claims(Claims),
    /// A frame of a type that a later build may send, by its number: its content is not read, but its sender counts as
    /// heard.
    Later(u8),
}

/// The state of a speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// It has just started or lost its link, and listens before it claims.
    Listening = 0,
    /// It takes part.
    Active = 1,
    /// It stops for a moment: other nodes cover.
    Restarting = 2,
    /// It stops for good: other nodes take over.
    Leaving = 3,
}

/// A Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's state.
    pub state: State,
    /// The highest protocol version that the sender can read.
    pub highest_version: u8,
    /// The sender hears nothing at all: no peer, no other host.
    pub deaf: bool,
    /// When the sender's next Hello comes at the latest; whole milliseconds, at most 65,535.
    pub interval: Duration,
    /// Time since the sender's incarnation began; whole milliseconds.
    pub uptime: Duration,
    /// Number of peers that the sender hears both ways: a newcomer listens until it hears as many.
    pub peers: u16,
    /// Digest of the sender's claims.
    pub claims: Digest,
    /// The sender's name.
    pub name: NodeName,
    /// The sender's link-layer address on this segment.
    pub mac: MacAddr,
    /// An address of the sender's own on this segment, if it has one: its kernel answers for it, whatever its speaker
    /// does.
    pub address: Option<IpAddr>,
    /// The keys that the sender accepts.
    pub keys: Vec<KeyId>,
    /// Reports on peers: echoes for those that need them, and those that the sender no longer hears.
    pub heard: Vec<Heard>,
}

/// A Hello's report on one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The peer.
    pub node: NodeId,
    /// The run of it that was heard.
    pub incarnation: Incarnation,
    /// The sequence of the last frame heard.
    pub sequence: u64,
    /// Time since then; whole milliseconds, 65,535 for that or more.
    pub age: Duration,
    /// The state of its kernel, if the sender probes it.
    pub kernel: Option<Kernel>,
    /// "You have not echoed me yet; I do not count you."
    pub wants_echo: bool,
    /// "I lack some of your claims: send them all."
    pub wants_claims: bool,
    /// "I no longer hear it": a peer that does says so at once.
    pub suspect: bool,
}

/// The outcome of liveness probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// It answered this question this long ago; whole milliseconds, at most 65,534. A sender that knows the node to
    /// answer pings reports pings only.
    Answered(Question, Duration),
    /// It has ceased to answer this question.
    Silent(Question),
}

/// A question to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether it has its own address: ARP, Neighbour Discovery. A switch may answer for it.
    Address,
    /// A ping (an ICMP or ICMPv6 echo request), which no other host can answer.
    Ping,
}

/// A part of a node's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The node whose claims these are: the sender itself, or a peer that has restarted and is to resume claims that
    /// the sender remembers.
    pub subject: NodeId,
    /// The first and the last address for which this frame is exhaustive: the subject does not claim an address between
    /// them that the frame does not list. `None`: it lists changes only.
    pub range: Option<(IpAddr, IpAddr)>,
    /// The changes, in ascending order of addresses.
    pub changes: Vec<Change>,
}

/// A change of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is claimed.
    Claimed(Claim),
    /// It is no longer claimed.
    Withdrawn {
        /// The address.
        address: IpAddr,
        /// The birth of the object.
        birth: Birth,
        /// The object is gone: no node may claim the address for an object of this birth again.
        deleted: bool,
    },
}

impl Change {
    /// Returns the address.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Claimed(claim) => claim.address,
            Self::Withdrawn { address, .. } => *address,
        }
    }
}
