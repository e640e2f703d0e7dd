//! The specification of a probe run.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Interval of solicitations, datagrams and lines: short enough for a promise of 150 ms, long enough for two cores.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// Interval of new TCP connections.
pub const CONNECT_INTERVAL: Duration = Duration::from_millis(20);

/// Time after which an unanswered new connection has failed: shorter than the kernel's first SYN retransmission (1 s,
/// RFC 6298 section 2), so that one lost SYN counts as one failed connection.
pub const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// The specification of a probe run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// The addresses, of either family.
    pub targets: Vec<IpAddr>,
    /// Port of the TCP echo.
    pub tcp_port: u16,
    /// Port of the UDP echo.
    pub udp_port: u16,
    /// The probers to run.
    pub probers: Probers,
    /// Interface for ARP, neighbour discovery and the recorder; the default is the interface of the route to a target.
    pub interface: Option<String>,
}

/// The probers to run.
///
/// The answers to ARP and ND probes also refresh the kernel's own neighbour table on the client that sends them. To
/// measure the effect of a move on traffic, run `traffic` on one client and `neighbour` on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probers {
    /// ARP or neighbour discovery, by family.
    pub neighbour: bool,
    /// UDP echo.
    pub udp: bool,
    /// One long TCP connection.
    pub stream: bool,
    /// A new TCP connection every 20 ms.
    pub connections: bool,
    /// Record announcements.
    pub announcements: bool,
}

impl Probers {
    /// All probers.
    pub const ALL: Self = Self { neighbour: true, udp: true, stream: true, connections: true, announcements: true };
    /// Answers and announcements without traffic.
    pub const NEIGHBOUR: Self =
        Self { neighbour: true, udp: false, stream: false, connections: false, announcements: true };
    /// Traffic and announcements; the kernel resolves the address as for any client.
    pub const TRAFFIC: Self =
        Self { neighbour: false, udp: true, stream: true, connections: true, announcements: true };
}

impl ProbeSpec {
    /// Returns a specification with every prober on these addresses, at the ports of the laboratory's echo server.
    #[must_use]
    pub fn all(targets: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            targets: targets.into_iter().collect(),
            tcp_port: 9000,
            udp_port: 9000,
            probers: Probers::ALL,
            interface: None,
        }
    }

    /// Replaces the probers.
    #[must_use]
    pub fn with(self, probers: Probers) -> Self {
        Self { probers, ..self }
    }

    /// Replaces the port of TCP and UDP.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { tcp_port: port, udp_port: port, ..self }
    }
}
