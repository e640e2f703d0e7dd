//! The raw samples of the probers.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A moment of a probe run: microseconds of the monotonic clock since the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct At(pub u64);

impl At {
    /// Returns the moment in milliseconds.
    #[must_use]
    pub fn ms(self) -> f64 {
        // The conversion is exact up to 2^53 us, which is 285 years.
        self.0 as f64 / 1000.0
    }

    /// Returns the milliseconds from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> f64 {
        Self(self.0.saturating_sub(earlier.0)).ms()
    }
}

/// An Ethernet address; in JSON it has the notation of Linux.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        pnet::util::MacAddr::from(self.0).fmt(f)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<pnet::util::MacAddr> for Mac {
    fn from(mac: pnet::util::MacAddr) -> Self {
        Self(mac.octets())
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// The error for a text that is not an Ethernet address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an Ethernet address: write six bytes in hexadecimal, as in 02:00:5e:10:00:01")]
pub struct ParseMacError(String);

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<pnet::util::MacAddr>() {
            Ok(mac) => Ok(mac.into()),
            Err(_) => Err(ParseMacError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// All samples of one agent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Samples {
    /// CLOCK_MONOTONIC of the machine at [`At`] zero, in nanoseconds, which relates the run to other events.
    pub origin_ns: u64,
    /// Time of the last probe; answers were awaited a little longer.
    pub ended: At,
    /// One entry per target, in the order of the request.
    pub targets: Vec<TargetSamples>,
    /// Announcements on the segment by all hosts but this client.
    pub announcements: Vec<Announcement>,
    /// The witness's record of stalls.
    pub witness: WitnessSamples,
}

/// All samples of one address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetSamples {
    /// The probed address.
    pub address: IpAddr,
    /// Samples of ARP or neighbour discovery, by the family of the address.
    pub neighbour: Option<NeighbourSamples>,
    /// Samples of the UDP echo.
    pub udp: Option<UdpSamples>,
    /// Samples of the long TCP connection.
    pub stream: Option<StreamSamples>,
    /// Samples of the new TCP connections.
    pub connections: Option<Vec<Connection>>,
}

/// Solicitations and their answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NeighbourSamples {
    /// Time of each solicitation.
    pub sent: Vec<At>,
    /// The answers, in the order of their arrival.
    pub answers: Vec<NeighbourAnswer>,
}

/// One ARP reply or neighbour advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourAnswer {
    /// Time of its arrival.
    pub at: At,
    /// The MAC it gives for the address: ARP sender, or target link-layer address.
    pub mac: Mac,
    /// The Ethernet source, which differs from `mac` where one node answers for another.
    pub source: Mac,
}

/// The server that answered a client, according to the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Answerer {
    /// The pod's name, else its address, else `(no pod)`, because the server may run outside a pod.
    pub pod: String,
    /// The node of the pod.
    pub node: String,
    /// The client address seen by the pod.
    pub client: String,
}

/// Datagrams and their answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UdpSamples {
    /// Time of each datagram; the index is its sequence number.
    pub sent: Vec<At>,
    /// The answers, in the order of their arrival.
    pub answers: Vec<UdpAnswer>,
    /// ICMP errors reported by the kernel, and failed sends.
    pub errors: Vec<Failure>,
}

/// One answered datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpAnswer {
    /// Sequence number of the datagram.
    pub seq: usize,
    /// Time of the answer.
    pub at: At,
    /// The answering server.
    pub by: Answerer,
}

/// A long TCP connection: the lines sent and their echoes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamSamples {
    /// Time of each line's write to the kernel; the index is the line's number.
    pub sent: Vec<At>,
    /// The echoed lines.
    pub echoes: Vec<LineEcho>,
    /// Each establishment of the connection, once the server has sent its first line.
    pub opened: Vec<Opened>,
    /// Each failed establishment and each end of the connection.
    pub breaks: Vec<Failure>,
}

/// An echoed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineEcho {
    /// Number of the line.
    pub line: usize,
    /// Time of its echo.
    pub at: At,
}

/// A connection that was established.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Time of the first line's arrival.
    pub at: At,
    /// The answering server.
    pub by: Answerer,
}

/// One new TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Time of the connection attempt.
    pub started: At,
    /// Time of the answer or the failure.
    pub ended: At,
    /// The outcome.
    pub outcome: Outcome,
}

/// The outcome of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The connection was established, and the server sent its first line.
    Answered(Answerer),
    /// The connection failed, with the reason.
    Failed(Reason),
}

/// A failure and its moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Time of its detection.
    pub at: At,
    /// The reason.
    pub reason: Reason,
}

/// The reason why a connection or a datagram failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// A reset arrived on an established connection.
    Reset,
    /// The port is not open (a reset of the handshake, or an ICMP port unreachable).
    Refused,
    /// The network or host cannot be reached, according to the kernel or a router.
    Unreachable,
    /// No answer within the limit.
    TimedOut,
    /// The other side closed the connection.
    Closed,
    /// The answer is not one of an echo server.
    Garbled(String),
    /// Another error of the system.
    Other(String),
}

impl Reason {
    /// Returns the reason for a system error; `established` distinguishes a reset from a refusal.
    #[must_use]
    pub fn of(error: &std::io::Error, established: bool) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe if established => Self::Reset,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::Unreachable,
            ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("reset"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Closed => f.write_str("closed by the other side"),
            Self::Garbled(text) => write!(f, "unexpected answer {text:?}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// An unsolicited announcement of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Time of its arrival.
    pub at: At,
    /// The form of the announcement.
    pub kind: AnnouncementKind,
    /// The announced address.
    pub address: IpAddr,
    /// The announced MAC.
    pub mac: Mac,
    /// The Ethernet source.
    pub source: Mac,
}

/// The forms of an announcement on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnnouncementKind {
    /// ARP request whose sender and target are the address (RFC 5227 section 2.3).
    ArpRequest,
    /// ARP reply whose sender and target are the address.
    ArpReply,
    /// Unsolicited neighbour advertisement with the override flag (RFC 4861 section 7.2.6).
    AdvertisementOverride,
    /// Unsolicited neighbour advertisement without the override flag.
    Advertisement,
}

/// The stalls of the machine as measured by the witness.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WitnessSamples {
    /// The longest stall in microseconds, even if it is too short to be listed.
    pub max_us: u64,
    /// The stalls of more than 10 ms.
    pub stalls: Vec<Stall>,
}

/// A time in which the witness should have run and did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Time of the witness's wake-up.
    pub at: At,
    /// Delay of the wake-up in microseconds.
    pub us: u64,
}
