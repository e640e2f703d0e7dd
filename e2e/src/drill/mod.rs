//! Drills: faults injected into a cluster while two clients watch its addresses.
//!
//! A [`Drill`] is a fault and the promises that hold during it. It has one [`Phase`] or several (the cable is pulled,
//! the cable is plugged back), each measured by itself. Four addresses are probed at once: IPv4 and IPv6, of a Service
//! with `externalTrafficPolicy: Cluster` and of one with `Local` ([`Setup`]). The same drills serve the scenarios,
//! which do each once and check it against its [`Promise`], and `make bench-failover`, which repeats them and reports
//! the times.

mod address_ranges;
mod answerers;
mod catalogue;
mod cli;
mod observation;
mod runner;
mod services;
mod setup;
pub(crate) mod speaker_state;
mod topology;
mod verdict;
mod workload;

pub use catalogue::{Subject, drills};
pub use cli::{Args, run};
pub use observation::{FirstAnnouncement, Observation};
pub use runner::{ActivePhase, DrillRun, PhaseResult, TooBusy, perform};
pub use setup::{FaultLength, Setup};
pub use topology::Topology;
pub use verdict::violations;

use anyhow::Result;
use serde::Serialize;

/// A fault and the promises that hold during it.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Name on the command line.
    pub name: &'static str,
    /// A one-line description.
    pub about: &'static str,
    /// The laboratories it is done in.
    pub places: &'static [Topology],
    /// Services besides the two that are probed: each has an IPv4 and an IPv6 address on the node that fails.
    pub more_services: u16,
    /// The programs that do it: scenarios leave out what takes too long.
    pub tried: Tried,
    /// The preparation, done before the clients watch.
    pub prepare: fn(&DrillRun<'_>) -> Result<()>,
    /// The phases, measured one after the other.
    pub phases: &'static [Phase],
}

/// A part of a drill, measured by itself.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Its name in reports.
    pub name: &'static str,
    /// Does the action while the clients watch; returns when only answers and traffic are still to come.
    pub act: fn(&mut ActivePhase<'_>) -> Result<()>,
    /// The promise for the Service with `externalTrafficPolicy: Cluster`.
    pub cluster: Promise,
    /// The promise for the Service with `Local`.
    pub local: Promise,
    /// How long things may take, where that is promised.
    pub bounds: Bounds,
    /// MetalLB's behaviour under the same fault, in words.
    pub metallb: Option<&'static str>,
}

impl Phase {
    /// Returns the promise for the Services of a policy.
    #[must_use]
    pub fn promise(&self, policy: Policy) -> Promise {
        match policy {
            Policy::Cluster => self.cluster,
            Policy::Local => self.local,
        }
    }
}

/// The programs that do a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The scenarios and the benchmark.
    Always,
    /// The benchmark alone: the drill takes too long for every change.
    Benchmark,
}

/// The promise for one address while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The node that answers for the address.
    pub owner: Owner,
    /// The effect on its traffic.
    pub traffic: Traffic,
}

/// How long things may take, in milliseconds: bounds by timers, with room for a busy machine. What is typical is the
/// benchmark's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// From the fault until the next owner answers, if there is a next owner.
    pub moved_ms: f64,
    /// The longest time without an answer to a solicitation.
    pub unanswered_ms: f64,
    /// The longest time without an answered datagram or new connection.
    pub traffic_ms: f64,
    /// The longest time in which two nodes answer while the address moves.
    pub two_macs_ms: f64,
}

impl Bounds {
    /// Two Hello intervals for two MACs (P4), of 100 ms each on segments of up to 100 speakers: the old owner receives
    /// the new owner's claim in this time. Nothing else is bounded.
    pub const CONTEST: Self =
        Self { moved_ms: f64::INFINITY, unanswered_ms: f64::INFINITY, traffic_ms: f64::INFINITY, two_macs_ms: 200.0 };
    /// A failed owner is covered or replaced within half a second (P2). Ten times that is the coarse ceiling: only a
    /// take-over that did not work takes longer, however busy the machine is.
    pub const TAKE_OVER: Self = Self { unanswered_ms: 5000.0, traffic_ms: 5000.0, ..Self::CONTEST };
    /// Two halves of a network each have an owner when they are joined. They hear of each other within two Hello
    /// intervals (P4); a coarse ceiling of a second is for lost frames and a busy machine.
    pub const REJOINED: Self = Self { two_macs_ms: 1000.0, ..Self::CONTEST };
}

/// The node that answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The same MAC throughout; another node may send it.
    Stays,
    /// Another MAC, after one move; the old owner may answer until it has received the new claim.
    Moves,
    /// The time until the end is only measured; in the end one MAC answers.
    OneInTheEnd,
}

/// The effect on traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Every datagram and every line comes back; no connection is reset or fails.
    Unbroken,
    /// No new connection fails. Established ones end with the node that tracked them.
    NoNewConnectionLost,
    /// kube-proxy on the old node drops traffic as soon as it sees that the endpoint is gone, and the new node
    /// announces as soon as its speaker sees it: new connections fail between these two moments.
    Raced,
    /// Traffic is interrupted and continues.
    Resumes,
}

impl Promise {
    /// Clients do not notice the fault.
    pub const NOTHING: Self = Self { owner: Owner::Stays, traffic: Traffic::Unbroken };
    /// The owner is gone and another node takes over.
    pub const SUCCEEDED: Self = Self { owner: Owner::Moves, traffic: Traffic::Resumes };
    /// A planned move.
    pub const HANDED_OVER: Self = Self { owner: Owner::Moves, traffic: Traffic::NoNewConnectionLost };
    /// A planned move in which kube-proxy on the old node does not wait for the new one.
    pub const RACED: Self = Self { owner: Owner::Moves, traffic: Traffic::Raced };
    /// The fault itself makes the network unusable; the only promise is that one owner is left in the end.
    pub const ONE_IN_THE_END: Self = Self { owner: Owner::OneInTheEnd, traffic: Traffic::Resumes };
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Family {
    /// IPv4: ARP.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6: neighbour discovery.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Returns the family of an address.
    #[must_use]
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// `externalTrafficPolicy` of a probed Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Policy {
    /// Its endpoints are on the nodes that do not fail: kube-proxy's treatment of a dead node's endpoints is not
    /// measured.
    Cluster,
    /// The Service has an endpoint on each node.
    Local,
}

impl Policy {
    /// Both policies.
    pub const ALL: [Self; 2] = [Self::Cluster, Self::Local];

    /// Returns the name of the probed Service.
    #[must_use]
    pub fn service(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Local => "local",
        }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

/// A probed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The address.
    pub address: std::net::IpAddr,
    /// The policy of its Service.
    pub policy: Policy,
}
