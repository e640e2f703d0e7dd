//! What the probers write down, before anybody judges it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A moment of a probe run: microseconds of the monotonic clock since the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct At(pub u64);

impl At {
    /// The moment in milliseconds.
    #[must_use]
    pub fn ms(self) -> f64 {
        // Exact up to 2^53 us, which is 285 years.
        self.0 as f64 / 1000.0
    }

    /// Milliseconds from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> f64 {
        Self(self.0.saturating_sub(earlier.0)).ms()
    }
}

/// An Ethernet address; in JSON the text Linux shows.
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

/// A text that is no Ethernet address.
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

/// Everything one agent saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Samples {
    /// CLOCK_MONOTONIC of the machine at [`At`] zero, in nanoseconds: places the run beside other events.
    pub origin_ns: u64,
    /// When the last probe was sent; answers were awaited a little longer.
    pub ended: At,
    /// One entry per target, in the order asked.
    pub targets: Vec<TargetSamples>,
    /// Addresses announced on the segment, by anybody but this client.
    pub announcements: Vec<Announcement>,
    /// The witness's account of the machine.
    pub witness: WitnessSamples,
}

/// Everything seen of one address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetSamples {
    /// The address probed.
    pub address: IpAddr,
    /// ARP or neighbour discovery, by the family of the address.
    pub neighbour: Option<NeighbourSamples>,
    /// The UDP echo.
    pub udp: Option<UdpSamples>,
    /// The one long TCP connection.
    pub stream: Option<StreamSamples>,
    /// The new TCP connections.
    pub connections: Option<Vec<Connection>>,
}

/// Solicitations and who answered them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NeighbourSamples {
    /// When each solicitation was sent.
    pub sent: Vec<At>,
    /// The answers, in the order they came.
    pub answers: Vec<NeighbourAnswer>,
}

/// One ARP reply or neighbour advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourAnswer {
    /// When it came.
    pub at: At,
    /// The MAC it gives for the address: ARP sender, or target link-layer address.
    pub mac: Mac,
    /// The Ethernet source: differs from `mac` where one node answers for another.
    pub source: Mac,
}

/// Who answered a client, in the answer's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Answerer {
    /// The pod's name, else its address, else `(no pod)`: the server may run outside one.
    pub pod: String,
    /// The node of the pod.
    pub node: String,
    /// The client address the pod saw.
    pub client: String,
}

/// Datagrams and their answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct UdpSamples {
    /// When each datagram was sent; its sequence number is its place here.
    pub sent: Vec<At>,
    /// The answers, in the order they came.
    pub answers: Vec<UdpAnswer>,
    /// When the kernel reported an ICMP error or could not send.
    pub errors: Vec<Failure>,
}

/// One answered datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpAnswer {
    /// Sequence number of the datagram.
    pub seq: usize,
    /// When the answer came.
    pub at: At,
    /// Who answered.
    pub by: Answerer,
}

/// A long TCP connection: lines sent and lines that came back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamSamples {
    /// When each line was handed to the kernel; the line's number is its place here.
    pub sent: Vec<At>,
    /// When which line came back.
    pub echoes: Vec<LineEcho>,
    /// Each time the connection was established and the other side had said who it is.
    pub opened: Vec<Opened>,
    /// Each time it could not be established, or ended.
    pub breaks: Vec<Failure>,
}

/// A line that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineEcho {
    /// Number of the line.
    pub line: usize,
    /// When it came back.
    pub at: At,
}

/// A connection that was established.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// When the first line had come.
    pub at: At,
    /// Who answered.
    pub by: Answerer,
}

/// One new TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// When the connection was asked for.
    pub started: At,
    /// When it was answered or had failed.
    pub ended: At,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Established, and the other side said who it is.
    Answered(Answerer),
    /// Not answered, and why.
    Failed(Reason),
}

/// A failure and its moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When it was noticed.
    pub at: At,
    /// What it was.
    pub reason: Reason,
}

/// Why a connection or a datagram failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// A reset came on an established connection.
    Reset,
    /// The port answered that nobody listens (a reset of the handshake, or an ICMP port unreachable).
    Refused,
    /// The network or host cannot be reached, as the kernel or a router said.
    Unreachable,
    /// No answer within the limit.
    TimedOut,
    /// The other side closed.
    Closed,
    /// What came back was not what an echo server says.
    Garbled(String),
    /// Another error of the system.
    Other(String),
}

impl Reason {
    /// Reads a reason out of a system error; `established` tells a reset from a refusal.
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

/// An address somebody announced unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// When it came.
    pub at: At,
    /// How it was said.
    pub kind: AnnouncementKind,
    /// The address announced.
    pub address: IpAddr,
    /// The MAC given for it.
    pub mac: Mac,
    /// The Ethernet source.
    pub source: Mac,
}

/// The forms an announcement takes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnnouncementKind {
    /// ARP request whose sender and target are the address (RFC 5227 section 2.3).
    ArpRequest,
    /// ARP reply whose sender and target are the address.
    ArpReply,
    /// Neighbour advertisement that nobody solicited, with the override flag (RFC 4861 section 7.2.6).
    AdvertisementOverride,
    /// The same without the override flag.
    Advertisement,
}

/// How well the machine kept time for this client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WitnessSamples {
    /// The longest stall, in microseconds, whether or not it was long enough to be listed.
    pub max_us: u64,
    /// The stalls of more than 10 ms.
    pub stalls: Vec<Stall>,
}

/// A time in which the witness should have run and did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// When the witness woke.
    pub at: At,
    /// How much too late, in microseconds.
    pub us: u64,
}
