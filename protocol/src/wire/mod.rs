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

/// Where Herald's frames go: a locally administered group address (IEEE 802-2014 section 8.2), "HRLD" behind the two
/// flag bits. Outside 01:80:c2:00:00:0x, which bridges do not forward.
pub const GROUP: MacAddr = MacAddr([0x03, 0x48, 0x52, 0x4c, 0x44, 0x01]);

/// The newest protocol version of this build.
pub const VERSION: u8 = Versions::THIS.newest();

/// Version, type, length, key id: what is read of a frame before it is known to be from this cluster.
const PREFIX: usize = 12;

/// The prefix, and who sent the frame: node, incarnation, sequence.
const HEADER: usize = PREFIX + 24;

/// Bytes of a frame around its body.
const ENVELOPE: usize = HEADER + key::TAG;

/// The longest frame, in bytes after the Ethernet header. Below 1,450: what VXLAN leaves of a 1,500-byte wire.
pub const MAX_FRAME: usize = 1400;

/// The longest frame that a link carries, in bytes after the Ethernet header: at most [`MAX_FRAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameLimit(usize);

impl FrameLimit {
    /// That of a link with an MTU of [`MAX_FRAME`] or more.
    pub const LARGEST: Self = Self(MAX_FRAME);
    /// What every link carries that the protocol runs on.
    pub const LEAST: Self = Self(Self::SMALLEST);

    /// What every link carries on which IPv4 hosts need not fragment what each of them has to take (RFC 791, section
    /// 3.1). A Hello with the longest name, four keys and a heard entry is shorter.
    const SMALLEST: usize = 576;

    /// That of a link with this MTU, in bytes. A frame that is sent over several links, the shortest of which is not this
    /// node's own, may be lost all the same.
    pub fn of_mtu(mtu: u32) -> Self {
        Self(usize::try_from(mtu).unwrap_or(MAX_FRAME).clamp(Self::SMALLEST, MAX_FRAME))
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }
}

/// Who sent a frame, and which.
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
    /// Who.
    pub sender: Sender,
    /// What.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "I am here."
    Hello(Hello),
    /// "I answer for these."
    Claims(Claims),
    /// Of a type that a later build may send, by its number: what it says is not read, only that its sender is there.
    Later(u8),
}

/// How a speaker stands to its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// It has just started or lost its link, and listens before it claims.
    Listening = 0,
    /// It takes part.
    Active = 1,
    /// It stops for a moment: cover.
    Restarting = 2,
    /// It stops for good: take over.
    Leaving = 3,
}

/// A Hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// How it stands.
    pub state: State,
    /// The highest protocol version the sender can read.
    pub highest_version: u8,
    /// It hears nothing at all: no peer, no other host.
    pub deaf: bool,
    /// When its next Hello comes at the latest; whole milliseconds, at most 65,535.
    pub interval: Duration,
    /// Since its incarnation began; whole milliseconds.
    pub uptime: Duration,
    /// How many peers it hears both ways: a newcomer listens until it hears as many.
    pub peers: u16,
    /// Its claims in short.
    pub claims: Digest,
    /// Its name.
    pub name: NodeName,
    /// Its link-layer address on this segment.
    pub mac: MacAddr,
    /// An address of its own on this segment, if it has one: its kernel answers for it, whatever its speaker does.
    pub address: Option<IpAddr>,
    /// The keys it accepts.
    pub keys: Vec<KeyId>,
    /// What it has to say about peers: echoes for those who need them, and those it no longer hears.
    pub heard: Vec<Heard>,
}

/// What a Hello says about one peer.
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
    /// What its kernel says, if the sender probes it.
    pub kernel: Option<Kernel>,
    /// "You have not echoed me yet; I do not count you."
    pub wants_echo: bool,
    /// "I lack some of your claims: send them all."
    pub wants_claims: bool,
    /// "I no longer hear it": whoever does, says so at once.
    pub suspect: bool,
}

/// The outcome of liveness probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// It answered this question this long ago; whole milliseconds, at most 65,534. A sender that knows the node to answer
    /// pings speaks of these only.
    Answered(Question, Duration),
    /// It does not answer this question any more.
    Silent(Question),
}

/// What a kernel is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether it has its own address: ARP, Neighbour Discovery. A switch may answer for it.
    Address,
    /// For the answer to a ping (an ICMP or ICMPv6 echo request), which nobody else can give.
    Ping,
}

/// A part of somebody's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose claims: the sender's own, or those it remembers of a peer that has restarted and is to resume them.
    pub subject: NodeId,
    /// The first and the last address this frame is exhaustive about: what it does not list between them, the subject
    /// does not claim. `None`: it only lists what has changed.
    pub range: Option<(IpAddr, IpAddr)>,
    /// What there is to say, in ascending order of addresses.
    pub changes: Vec<Change>,
}

/// What is said about one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is claimed.
    Claimed(Claim),
    /// It is not claimed any more.
    Withdrawn {
        /// The address.
        address: IpAddr,
        /// Of which object.
        birth: Birth,
        /// The object is gone: nobody is to claim the address for an object of this birth again.
        deleted: bool,
    },
}

impl Change {
    /// The address it is about.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Claimed(claim) => claim.address,
            Self::Withdrawn { address, .. } => *address,
        }
    }
}
