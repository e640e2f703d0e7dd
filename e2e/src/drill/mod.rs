//! Failover: faults done to a cluster while two clients watch its addresses.
//!
//! A [`Drill`] is a fault and what is promised while it lasts; a drill has one [`Phase`] or several (the cable is
//! pulled, the cable is plugged back), each measured by itself. Four addresses are probed at once: IPv4 and IPv6, of a
//! Service with `externalTrafficPolicy: Cluster` and of one with `Local` ([`Setup`]). The same drills serve the scenarios,
//! which do each once and hold it against its [`Promise`], and `make bench-failover`, which repeats them and reports how
//! long everything took.

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

/// A fault, and what is promised while it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// Name on the command line.
    pub name: &'static str,
    /// What is done, in a line.
    pub about: &'static str,
    /// The laboratories it is for.
    pub places: &'static [Topology],
    /// Services besides the two that are probed: each has an IPv4 and an IPv6 address on the node that fails.
    pub more_services: u16,
    /// How often it is done: scenarios leave out what takes them too long.
    pub tried: Tried,
    /// What is done before anybody watches.
    pub prepare: fn(&DrillRun<'_>) -> Result<()>,
    /// What is measured, one after the other.
    pub phases: &'static [Phase],
}

/// A part of a drill, watched by itself.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Its name in reports.
    pub name: &'static str,
    /// Does what is to be done while the clients watch; returns when there is nothing more to come of it but answers
    /// and traffic.
    pub act: fn(&mut ActivePhase<'_>) -> Result<()>,
    /// What holds meanwhile for the Service with `externalTrafficPolicy: Cluster`.
    pub cluster: Promise,
    /// The same with `Local`.
    pub local: Promise,
    /// How long things may take, where that is promised.
    pub bounds: Bounds,
    /// What MetalLB did under the same fault, in words.
    pub metallb: Option<&'static str>,
}

impl Phase {
    /// The promise for the Services of a policy.
    #[must_use]
    pub fn promise(&self, policy: Policy) -> Promise {
        match policy {
            Policy::Cluster => self.cluster,
            Policy::Local => self.local,
        }
    }
}

/// Who does a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The scenarios and the benchmark.
    Always,
    /// The benchmark alone: it takes too long for every change.
    Benchmark,
}

/// What holds for one address while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Who answers for it.
    pub owner: Owner,
    /// What becomes of its traffic.
    pub traffic: Traffic,
}

/// How long things may take, in milliseconds: bounds by timers, with room for a busy machine. What is typical is the
/// benchmark's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// From the fault until the next owner answers, where there is one.
    pub moved_ms: f64,
    /// Without an answer to a solicitation.
    pub unanswered_ms: f64,
    /// Without an answered datagram or new connection.
    pub traffic_ms: f64,
    /// For which two nodes may answer while the address goes from one to the other.
    pub two_macs_ms: f64,
}

impl Bounds {
    /// Two Hello intervals for two MACs (P4), of 100 ms each on segments of up to 100 speakers: the one hears of the
    /// other's claim then. Nothing else is bounded.
    pub const CONTEST: Self =
        Self { moved_ms: f64::INFINITY, unanswered_ms: f64::INFINITY, traffic_ms: f64::INFINITY, two_macs_ms: 200.0 };
    /// A failed owner is covered or replaced within half a second (P2). Ten times that is the coarse ceiling: only a
    /// take-over that did not work takes longer, however busy the machine is.
    pub const TAKE_OVER: Self = Self { unanswered_ms: 5000.0, traffic_ms: 5000.0, ..Self::CONTEST };
    /// Two halves of a network each have an owner when they are joined. They hear of each other within two Hello
    /// intervals (P4); a coarse ceiling of a second is for lost frames and a busy machine.
    pub const REJOINED: Self = Self { two_macs_ms: 1000.0, ..Self::CONTEST };
}

/// Who answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The same MAC throughout; somebody else may send it.
    Stays,
    /// Another one, once; the old one may answer until it has heard of it.
    Moves,
    /// What happens meanwhile is measured; in the end one MAC answers.
    OneInTheEnd,
}

/// What becomes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Every datagram and every line comes back, no connection is reset or fails.
    Unbroken,
    /// No new connection fails. Established ones end with the node that tracked them.
    NoNewConnectionLost,
    /// kube-proxy on the old node drops what comes as soon as it hears that the endpoint is gone, and the new one announces
    /// as soon as its speaker does: new connections fail for as long as the one hears of it before the other.
    Raced,
    /// It is interrupted and goes on.
    Resumes,
}

impl Promise {
    /// Nobody notices anything.
    pub const NOTHING: Self = Self { owner: Owner::Stays, traffic: Traffic::Unbroken };
    /// The owner is gone, another takes over.
    pub const SUCCEEDED: Self = Self { owner: Owner::Moves, traffic: Traffic::Resumes };
    /// A planned move.
    pub const HANDED_OVER: Self = Self { owner: Owner::Moves, traffic: Traffic::NoNewConnectionLost };
    /// A planned move, of which kube-proxy on the old node does not wait for the new one.
    pub const RACED: Self = Self { owner: Owner::Moves, traffic: Traffic::Raced };
    /// The fault itself makes the network unusable; what counts is that one owner is left.
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
    /// The family of an address.
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
    /// Its endpoints are on the nodes that do not fail: what kube-proxy does about endpoints of a dead node is not
    /// measured.
    Cluster,
    /// It has an endpoint on each node.
    Local,
}

impl Policy {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cluster, Self::Local];

    /// Name of the probed Service.
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
