//! All scenarios, in the order in which they run.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Cluster, Concurrency, Scenario, helm, learning_port, speaker_status_deleted};
use super::{
    address_count, address_rules, advertisements, announce_options, at_rest, class_matrix, cluster_key, contract,
    dead_connections, drills, earlier_crds, excluded_nodes, faults, first_light, gateway_addresses, interface_lost,
    interfaces, kernel_takes_address, leader, manifests, node_death, node_deleted, node_ports, notes, odd_addresses,
    one_segment, own_bridge, pools, private_registry, privileges, renamed_pools, restart, rollout_stops, sharing,
    shown_addresses, speaker_leaves, status_contest, strangers, type_changes, uninstall, upgrade,
};
use crate::drill::Topology;

/// Returns every scenario: first those that any laboratory's kernel can run, then those that need more kernel features.
pub fn catalogue() -> Vec<Scenario> {
    let mut catalogue = all();
    catalogue.extend(super::other_kernel::all());
    catalogue
}

/// Returns the scenario of this name.
///
/// # Errors
/// When the name is unknown.
pub fn named(name: &str) -> Result<Scenario> {
    let scenario = catalogue().into_iter().find(|scenario| scenario.name == name);
    scenario.with_context(|| format!("there is no scenario {name}: `herald-lab run` lists them"))
}

/// Returns every scenario that any laboratory's kernel can run, in their order on the shared cluster. Scenarios that
/// can run concurrently come first; those that uninstall Herald come late, and after them the one that checks the audit
/// log of all. Scenarios with a cluster of their own stand next to each other where they can share it.
pub fn all() -> Vec<Scenario> {
    use Cluster::{Own, Shared};
    use Concurrency::{Alone, Concurrent};
    let scenario = |name, about, cluster, company, seconds, run| {
        let budget = Duration::from_secs(seconds);
        Scenario { name, about, cluster, needs: &[], company, budget, run }
    };
    let welcome = |name, about, seconds, run| scenario(name, about, Shared, Concurrent, seconds, run);
    let alone = |name, about, seconds, run| scenario(name, about, Shared, Alone, seconds, run);
    let elsewhere = |name, about, place, seconds, run| scenario(name, about, Own(place), Alone, seconds, run);
    vec![
        // This one is first because it takes longest: a conflict is over after a minute.
        welcome("kernel-takes-address", "another node answers for it: reported once", 150, kernel_takes_address::run),
        welcome("manifests", "the files that are applied are what their directories say", 5, manifests::run),
        welcome("first-light", "an address, one node that answers, three pods behind it", 30, first_light::run),
        welcome("type-changes", "from ClusterIP to LoadBalancer and back", 30, type_changes::run),
        welcome("node-ports", "no node ports, then node ports, one address", 30, node_ports::run),
        welcome("pools", "why a Service waits, and a freed address", 30, pools::run),
        welcome("sharing", "one sharing key, one address, ports disjoint", 30, sharing::run),
        welcome("address-count", "three addresses on three nodes for one Service, then one", 30, address_count::run),
        welcome("address-rules", "the API server refuses bad pools, in clear words", 30, address_rules::run),
        welcome("adoption", "an address a Service already carries is kept", 30, pools::adoption),
        welcome(
            "status-contest",
            "another program undoes each write: ever fewer writes, one Warning",
            70,
            status_contest::run,
        ),
        welcome("local-policy", "only a node with an endpoint announces a Local address", 30, first_light::local),
        welcome("contract-selection", "which Services are Herald's, and what they ask for", 60, contract::selection),
        welcome("contract-families", "one address per family, in order", 60, contract::families),
        alone(
            "shown-addresses",
            "an address that a Service shows is its own, whoever wrote it",
            60,
            shown_addresses::run,
        ),
        // Its L2Advertisement ends the announcement of all other pools.
        alone("renamed-pools", "addresses of a renamed pool stay where they are", 40, renamed_pools::run),
        alone("class-matrix", "objects of other providers are never touched", 30, class_matrix::run),
        alone("notes", "a mistake is reported by one sentence until it is corrected", 30, notes::run),
        alone("cluster-key", "made once, kept by every kubectl apply, made again when deleted", 60, cluster_key::run),
        alone("advertisements", "an L2Advertisement chooses the node, or none", 30, advertisements::run),
        alone("interface-lost", "an interface or its address goes: reported within seconds", 60, interface_lost::run),
        alone("interfaces", "an interface and an address that come later", 30, interfaces::run),
        alone("one-segment", "a second interface on the same network: one MAC, nothing moves", 60, one_segment::run),
        alone("learning-port", "a port that forwards nothing yet: nothing moves, one MAC", 120, learning_port::run),
        alone(
            "own-bridge",
            "an address on a bridge of the node's own, and what settings leave out",
            60,
            own_bridge::run,
        ),
        alone(
            "announce-options",
            "announced again, in both forms, unasked; all frames received",
            90,
            announce_options::run,
        ),
        alone("excluded-nodes", "one setting lets excluded nodes announce, for both programs", 90, excluded_nodes::run),
        alone(
            "gateway-addresses",
            "a Gateway's spec.addresses are its Service's, also where its kind comes later",
            150,
            gateway_addresses::run,
        ),
        alone("odd-addresses", "addresses no host may have are not given out or adopted", 60, odd_addresses::run),
        alone("contract-lifecycle", "changes and deletions of a Service, and what stays", 60, contract::lifecycle),
        alone(
            "contract-neighbours",
            "neighbours that work with a Service, or are left alone",
            60,
            contract::neighbours,
        ),
        alone("faults", "faults of wire, container and API server, and their healing", 60, faults::run),
        alone("restart", "20 Services in place, everything restarted, nothing written", 60, restart::run),
        alone("at-rest", "100 Services at once, and then nothing is written", 60, at_rest::run),
        alone("rollout-stops", "at the first node that cannot speak, and no address is silent", 90, rollout_stops::run),
        alone(
            "dead-connections",
            "the leader's connections die in silence: noticed, and opened again",
            120,
            dead_connections::run,
        ),
        alone("earlier-crds", "programs newer than the CRDs do not write in a loop", 105, earlier_crds::run),
        alone("leader", "the leader ends in the middle of a burst: each Service one address", 120, leader::run),
        alone("node-death", "another node announces, and keeps the address", 60, node_death::run),
        alone("speaker-leaves", "a node that the DaemonSet leaves is no longer a candidate", 60, speaker_leaves::run),
        alone(
            "speaker-status-deleted",
            "a SpeakerStatus, or its definition, is deleted, also during a roll-out: no client notices",
            120,
            speaker_status_deleted::run,
        ),
        alone("node-deleted", "a silent node is deleted, and the others go on", 60, node_deleted::run),
        alone("stranger-first", "an address in use is not announced but replaced", 60, strangers::first),
        alone("stranger-later", "an announced address is defended and stays", 60, strangers::later),
        alone("cluster-node", "another provider's answers burn no address", 60, strangers::cluster_node),
        alone("kernel-has-address", "a node that has it itself does not announce it", 30, kernel_takes_address::own),
        alone("another-cluster", "frames of another cluster change nothing", 60, strangers::another_cluster),
        alone("failover-speaker", "speakers fail, no client notices", 120, drills::speaker),
        alone("failover-power", "nodes lose power, others take over", 120, drills::power),
        alone("failover-wire", "the network fails in part or as a whole", 180, drills::wire),
        alone("failover-api", "faults while the API server is away", 150, drills::api),
        alone("failover-endpoints", "endpoints come and go, no connection is lost", 120, drills::endpoints),
        alone("failover-updates", "pods are replaced, no request fails", 120, drills::updates),
        alone("failover-moves", "planned moves lose no connection", 150, drills::moves),
        alone("failover-unheard", "planned moves where no speaker hears another", 150, drills::unheard),
        alone("false-witness", "a switch answers for a dead node, and another takes over", 60, drills::false_witness),
        alone("small-mtu", "long lists of claims on a short link: no second owner", 60, drills::small_mtu),
        alone("flood", "the wire is flooded, and failures are covered as ever", 90, drills::flood),
        alone("helm", "the chart: what it makes, adopts, upgrades, rolls back and leaves", 240, helm::run),
        alone("private-registry", "the image comes from a registry with a password", 90, private_registry::run),
        alone("upgrade", "from the last release to today's and back: nobody notices", 180, upgrade::run),
        alone("uninstall", "the documented command leaves nothing behind", 60, uninstall::run),
        alone(
            "uninstall-without-controller",
            "the same when the controller is already gone",
            60,
            uninstall::without_controller,
        ),
        alone("least-privilege", "no request denied, no permission unused", 10, privileges::run),
        elsewhere("one-node", "a cluster of one node", Topology::One, 30, first_light::small),
        elsewhere("failover-one-node", "faults in a cluster of one node", Topology::One, 60, drills::one_node),
        elsewhere("two-nodes", "a cluster of two nodes", Topology::Two, 30, first_light::small),
        elsewhere("failover-two-nodes", "faults in a cluster of two nodes", Topology::Two, 120, drills::two_nodes),
        elsewhere("failover-iptables", "the main faults under iptables", Topology::Iptables, 120, drills::iptables),
        elsewhere("failover-segments", "faults of one of two networks", Topology::TwoSegments, 120, drills::segments),
    ]
}
