//! Herald's promises, tested on a real cluster.
//!
//! A scenario is a function that does what a user does and checks what a user sees. Each has a namespace and a block of
//! addresses of its own, so that most can share one cluster ([`Testbed`](crate::testbed::Testbed)); the catalogue
//! ([`all`]) shows which do. `make e2e` runs them all, `herald-lab run NAME` runs one of them on a laboratory that is
//! already up.

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
mod helm;
mod interface_lost;
mod interfaces;
mod kernel_takes_address;
mod leader;
mod learning_port;
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
mod private_registry;
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
mod speaker_status_deleted;
mod status_contest;
mod strangers;
mod type_changes;
mod uninstall;
mod unnoticed;
mod upgrade;

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

/// A promise and its test.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name, on the command line and of its namespace.
    pub name: &'static str,
    /// A one-line description.
    pub about: &'static str,
    /// The cluster it runs on.
    pub cluster: Cluster,
    /// The kernel features it needs beyond those of every laboratory. A scenario that needs any is not part of `make
    /// e2e`.
    pub needs: &'static [Feature],
    /// Whether other scenarios may run on the cluster at the same time.
    pub company: Concurrency,
    /// The longest time it should take, on two processors and with concurrent scenarios if it allows them. A run that
    /// takes longer is listed at the end; it does not fail.
    pub budget: Duration,
    /// The test function.
    pub run: fn(&TestNamespace<'_>) -> Result<()>,
}

/// The cluster a scenario runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// The shared cluster: three nodes, two clients, Herald installed.
    Shared,
    /// A cluster of its own.
    Own(Topology),
}
