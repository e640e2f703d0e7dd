//! What Herald promises, tried on a real cluster.
//!
//! A scenario is a function that does what a user does and checks what a user sees. Each has a namespace and a block
//! of addresses of its own, so most share one cluster ([`Testbed`]); the registry ([`all`]) says which do.
//! `make e2e` runs them all, `herald-lab run NAME` one of them on a laboratory that is already up.

mod address_rules;
mod advertisements;
mod audit;
mod class_matrix;
mod cli;
mod faults;
mod first_light;
pub mod install;
mod node_death;
mod node_ports;
mod pools;
mod privileges;
mod restart;
mod scene;
mod testbed;
mod type_changes;
mod uninstall;

use anyhow::Result;

pub use cli::{Args, run};
pub use install::{Images, Overlay};
pub use scene::{Expose, Scene};
pub use testbed::Testbed;

/// A promise and how it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name on the command line and of its namespace.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// The cluster it runs on.
    pub cluster: Cluster,
    /// What it does.
    pub run: fn(&Scene<'_>) -> Result<()>,
}

/// The cluster a scenario runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// The one all share: three nodes, a client, Herald installed.
    Shared,
    /// One of its own, with so many nodes.
    Own {
        /// How many.
        nodes: u8,
    },
}

/// Every scenario, in the order they run on the shared cluster: those that take Herald away come last, and after them
/// the one that judges the audit log of all.
pub fn all() -> Vec<Scenario> {
    use Cluster::{Own, Shared};
    let scenario = |name, about, cluster, run| Scenario { name, about, cluster, run };
    vec![
        scenario("first-light", "an address, one node that answers, three pods behind it", Shared, first_light::run),
        scenario("type-changes", "from ClusterIP to LoadBalancer and away again", Shared, type_changes::run),
        scenario("class-matrix", "what is not ours is never touched", Shared, class_matrix::run),
        scenario("node-ports", "no node ports, then node ports, one address", Shared, node_ports::run),
        scenario("pools", "why a Service waits, and a freed address", Shared, pools::run),
        scenario("address-rules", "what the API server refuses, in which words", Shared, address_rules::run),
        scenario("adoption", "an address a Service already carries is kept", Shared, pools::adoption),
        scenario("local-policy", "only a node with an endpoint announces a Local address", Shared, first_light::local),
        scenario("advertisements", "an L2Advertisement chooses the node, or none", Shared, advertisements::run),
        scenario("faults", "faults of wire, container and API server, and their healing", Shared, faults::run),
        scenario("restart", "20 Services in place, everything restarted, nothing written", Shared, restart::run),
        scenario("node-death", "another node announces, and keeps the address", Shared, node_death::run),
        scenario("uninstall", "the documented command leaves nothing behind", Shared, uninstall::run),
        scenario(
            "uninstall-without-controller",
            "the same when the controller is already gone",
            Shared,
            uninstall::without_controller,
        ),
        scenario("least-privilege", "no request denied, no permission unused", Shared, privileges::run),
        scenario("one-node", "a cluster of one node", Own { nodes: 1 }, first_light::small),
        scenario("two-nodes", "a cluster of two nodes", Own { nodes: 2 }, first_light::small),
    ]
}
