//! What Herald promises, tried on a real cluster.
//!
//! A scenario is a function that does what a user does and checks what a user sees. Each has a namespace and a block
//! of addresses of its own, so most share one cluster ([`Testbed`](crate::testbed::Testbed)); the catalogue ([`all`]) says which do.
//! `make e2e` runs them all, `herald-lab run NAME` one of them on a laboratory that is already up.

mod address_count;
mod address_rules;
mod advertisements;
mod announce_options;
mod at_rest;
mod audit;
mod catalogue;
mod class_matrix;
mod cli;
mod cluster_key;
mod contract;
mod dead_connections;
mod drills;
mod earlier_crds;
mod excluded_nodes;
mod faults;
mod first_light;
mod gateway_addresses;
mod interface_lost;
mod interfaces;
mod kernel_takes_address;
mod leader;
mod manifests;
mod node_death;
mod node_deleted;
mod node_ports;
mod notes;
mod odd_addresses;
mod one_segment;
mod other_kernel;
mod own_bridge;
mod pools;
mod privileges;
mod renamed_pools;
mod report;
mod restart;
mod rollout_stops;
mod runner;
mod schedule;
mod sharing;
mod shown_addresses;
mod speaker_leaves;
mod status_contest;
mod strangers;
mod type_changes;
mod uninstall;
mod unnoticed;

use std::time::Duration;

use anyhow::Result;

pub use catalogue::{all, catalogue, named};
pub use cli::{Args, run};
pub use report::RunReport;
pub use runner::run_on;
pub use schedule::{Concurrency, Schedule};

use crate::drill::Topology;
use crate::testbed::TestNamespace;
use herald_lab::cluster::preflight::Feature;

/// A promise and how it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name on the command line and of its namespace.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// The cluster it runs on.
    pub cluster: Cluster,
    /// What it needs of the kernel beyond what every laboratory does. Such a scenario is not part of `make e2e`.
    pub needs: &'static [Feature],
    /// Whether it bears others beside it there.
    pub company: Concurrency,
    /// What it should take at most, on two processors and beside others if it bears them. A run that takes longer is
    /// named at the end; it has not failed.
    pub budget: Duration,
    /// What it does.
    pub run: fn(&TestNamespace<'_>) -> Result<()>,
}

/// The cluster a scenario runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// The one all share: three nodes, two clients, Herald installed.
    Shared,
    /// One of its own.
    Own(Topology),
}
