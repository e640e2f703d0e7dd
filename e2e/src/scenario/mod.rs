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
mod cluster_key;
mod contract;
mod failover;
mod faults;
mod first_light;
pub mod install;
mod interfaces;
mod leader;
mod node_death;
mod node_ports;
mod notes;
mod pools;
mod privileges;
mod restart;
mod scene;
mod sharing;
mod strangers;
mod testbed;
mod type_changes;
mod uninstall;

use anyhow::Result;

pub use cli::{Args, run};
pub use install::{Images, Overlay};
pub use scene::{Expose, Scene};
pub use testbed::Testbed;

use crate::failover::Place;

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
    /// The one all share: three nodes, two clients, Herald installed.
    Shared,
    /// One of its own.
    Own(Place),
}

/// Every scenario, in the order they run on the shared cluster: those that take Herald away come last, and after them
/// the one that judges the audit log of all. Those with a cluster of their own stand side by side where they can share
/// it.
pub fn all() -> Vec<Scenario> {
    use Cluster::{Own, Shared};
    let scenario = |name, about, cluster, run| Scenario { name, about, cluster, run };
    vec![
        scenario("first-light", "an address, one node that answers, three pods behind it", Shared, first_light::run),
        scenario("type-changes", "from ClusterIP to LoadBalancer and away again", Shared, type_changes::run),
        scenario("class-matrix", "what is not ours is never touched", Shared, class_matrix::run),
        scenario("node-ports", "no node ports, then node ports, one address", Shared, node_ports::run),
        scenario("pools", "why a Service waits, and a freed address", Shared, pools::run),
        scenario("sharing", "one sharing key, one address, ports disjoint", Shared, sharing::run),
        scenario("notes", "what is wrong is a sentence, once, until it is mended", Shared, notes::run),
        scenario("address-rules", "what the API server refuses, in which words", Shared, address_rules::run),
        scenario("adoption", "an address a Service already carries is kept", Shared, pools::adoption),
        scenario("cluster-key", "made once, kept by every kubectl apply", Shared, cluster_key::run),
        scenario("local-policy", "only a node with an endpoint announces a Local address", Shared, first_light::local),
        scenario("advertisements", "an L2Advertisement chooses the node, or none", Shared, advertisements::run),
        scenario("interfaces", "an interface and an address that come later", Shared, interfaces::run),
        scenario("contract-selection", "whose Service, what it asks for", Shared, contract::selection),
        scenario("contract-lifecycle", "what changes and ends, and what stays", Shared, contract::lifecycle),
        scenario("contract-families", "one address per family, in order", Shared, contract::families),
        scenario("contract-neighbours", "what works with a Service, or is left alone", Shared, contract::neighbours),
        scenario("faults", "faults of wire, container and API server, and their healing", Shared, faults::run),
        scenario("restart", "20 Services in place, everything restarted, nothing written", Shared, restart::run),
        scenario("leader", "its end in the middle of a burst: each Service one address", Shared, leader::run),
        scenario("node-death", "another node announces, and keeps the address", Shared, node_death::run),
        scenario("stranger-first", "an address in use is not announced but replaced", Shared, strangers::first),
        scenario("stranger-later", "an announced address is defended and stays", Shared, strangers::later),
        scenario("cluster-node", "another provider's answers burn no address", Shared, strangers::cluster_node),
        scenario("another-cluster", "frames of another cluster change nothing", Shared, strangers::another_cluster),
        scenario("failover-speaker", "speakers fail, nobody notices", Shared, failover::speaker),
        scenario("failover-power", "nodes lose power, others take over", Shared, failover::power),
        scenario("failover-wire", "the network fails in part or as a whole", Shared, failover::wire),
        scenario("failover-api", "faults while the API server is away", Shared, failover::api),
        scenario("failover-endpoints", "endpoints come and go, no connection is lost", Shared, failover::endpoints),
        scenario("failover-updates", "what answers is replaced, no request fails", Shared, failover::updates),
        scenario("failover-moves", "planned moves lose no connection", Shared, failover::moves),
        scenario("uninstall", "the documented command leaves nothing behind", Shared, uninstall::run),
        scenario(
            "uninstall-without-controller",
            "the same when the controller is already gone",
            Shared,
            uninstall::without_controller,
        ),
        scenario("least-privilege", "no request denied, no permission unused", Shared, privileges::run),
        scenario("one-node", "a cluster of one node", Own(Place::One), first_light::small),
        scenario("failover-one-node", "faults in a cluster of one node", Own(Place::One), failover::one_node),
        scenario("two-nodes", "a cluster of two nodes", Own(Place::Two), first_light::small),
        scenario("failover-two-nodes", "faults in a cluster of two nodes", Own(Place::Two), failover::two_nodes),
        scenario("failover-iptables", "the main faults under iptables", Own(Place::Iptables), failover::iptables),
        scenario("failover-segments", "faults of one of two networks", Own(Place::TwoSegments), failover::segments),
    ]
}
