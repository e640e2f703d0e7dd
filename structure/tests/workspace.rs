//! The structure of this workspace: which crate may know which, no circles between modules, and decisions that know no
//! socket, file, clock or API client.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use herald_structure::{Module, circles, edges_between_siblings, read_crate};

/// A crate and the crates of this workspace that it may depend on, besides in its tests. In this order none depends on a
/// later one.
const CRATES: &[(&str, &[&str])] = &[
    ("packet-socket", &[]),
    ("crds", &[]),
    ("telemetry", &[]),
    ("protocol", &[]),
    ("kube-common", &["telemetry"]),
    ("controller", &["crds", "kube-common", "telemetry"]),
    ("speaker", &["crds", "kube-common", "packet-socket", "protocol", "telemetry"]),
    // The judge does not know the defendant: of Herald, the laboratory has the bare packet socket.
    ("lab", &["packet-socket"]),
    ("lab/echo", &[]),
    ("e2e", &["crds", "lab", "packet-socket", "protocol"]),
    ("sim", &["protocol"]),
    ("structure", &[]),
];

/// The modules at the top of a crate that decide, and so may know only each other.
const PURE: &[(&str, &[&str])] = &[
    (
        "controller",
        &[
            "action",
            "advertisement_rules",
            "advisory",
            "allocator",
            "decision_log",
            "default_finalizer",
            "gateway",
            "gateway_view",
            "index",
            "placement",
            "quarantine",
            "speaker_pod",
            "view",
        ],
    ),
    (
        "speaker",
        &[
            "api_objects",
            "coordinator",
            "event_log",
            "filter",
            "interfaces",
            "keys",
            "kube_events",
            "packet",
            "rank",
            "readiness",
            "saved_state",
            "status_queue",
            "turn",
            "warnings",
            "write_outage",
        ],
    ),
    (
        "protocol",
        &[
            "announce",
            "api_view",
            "claim",
            "claim_table",
            "conflict_detection",
            "election",
            "engine",
            "hold_down",
            "host_probe",
            "incarnation",
            "inspect",
            "io",
            "mac",
            "mutation",
            "node",
            "peer",
            "peers",
            "ping",
            "timer_queue",
            "timers",
            "twins",
            "wire",
        ],
    ),
];

/// The modules at the top of a crate that touch the world, or put it together.
const EDGE: &[(&str, &[&str])] = &[
    (
        "controller",
        &[
            "api_version",
            "args",
            "cluster_key",
            "event_loop",
            "lease",
            "metrics",
            "uninstall",
            "watch",
            "watch_health",
            "writer",
        ],
    ),
    (
        "speaker",
        &[
            "args",
            "check",
            "cli",
            "event_loop",
            "event_writer",
            "inspect",
            "kube_proxy",
            "metrics",
            "netlink",
            "sockets",
            "sources",
            "state_dir",
            "status_writer",
            "watch",
        ],
    ),
    ("protocol", &[]),
];

/// What a module that decides does not use.
const OF_THE_EDGE: &[&str] =
    &["nix", "rtnetlink", "socket2", "std::fs", "std::process", "std::thread", "tokio", "hyper"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn modules_of(name: &str) -> Vec<Module> {
    let source = workspace().join(name).join("src");
    let root = ["lib.rs", "main.rs"].map(|file| source.join(file)).into_iter().find(|file| file.is_file());
    read_crate(&root.unwrap()).unwrap()
}

/// The crates of this workspace that one depends on, by their directories.
fn dependencies_of(name: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(workspace().join(name).join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let herald = section.lines().filter_map(|line| line.strip_prefix("herald-"));
    herald.map(|rest| rest.split(['.', ' ', '=']).next().unwrap().to_owned()).collect()
}

#[test]
fn every_member_of_the_workspace_is_listed() {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: BTreeSet<_> = members.split('"').skip(1).step_by(2).collect();
    assert_eq!(members, CRATES.iter().map(|(name, _)| *name).collect());
}

#[test]
fn crates_depend_on_what_they_may() {
    for (name, allowed) in CRATES {
        let unexpected: Vec<_> =
            dependencies_of(name).into_iter().filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(unexpected.is_empty(), "{name}/Cargo.toml: {unexpected:?} is not among {allowed:?}");
    }
}

#[test]
fn no_crate_has_a_circle_of_modules() {
    let mut found = Vec::new();
    for (name, _) in CRATES {
        for circle in circles(&edges_between_siblings(&modules_of(name))) {
            let paths: Vec<_> = circle.iter().map(|path| path.join("::")).collect();
            found.push(format!("{name}: {}", paths.join(", ")));
        }
    }
    assert!(found.is_empty(), "modules that name each other:\n{}", found.join("\n"));
}

#[test]
fn every_module_is_pure_or_edge() {
    for ((name, pure), (_, edge)) in PURE.iter().zip(EDGE) {
        let mut expected: Vec<_> = pure.iter().chain(*edge).copied().collect();
        expected.sort_unstable();
        let modules = modules_of(name);
        let found: BTreeSet<_> = modules.iter().filter(|m| m.path.len() == 1).map(|m| m.path[0].as_str()).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{name}: list each module in PURE or in EDGE");
    }
}

#[test]
fn decisions_do_not_know_the_edge() {
    let edge: BTreeMap<_, _> = EDGE.iter().copied().collect();
    let mut found = Vec::new();
    for (name, pure) in PURE {
        for module in modules_of(name) {
            if !module.path.first().is_some_and(|top| pure.contains(&top.as_str())) {
                continue;
            }
            let at = module.path.join("::");
            let of_edge = module
                .references
                .iter()
                .filter(|path| path.first().is_some_and(|top| edge[name].contains(&top.as_str())));
            found.extend(of_edge.map(|path| format!("{name}: {at} names {}", path.join("::"))));
            let foreign = module
                .foreign
                .iter()
                .filter(|path| OF_THE_EDGE.iter().any(|edge| *path == edge || path.starts_with(&format!("{edge}::"))));
            found.extend(foreign.map(|path| format!("{name}: {at} uses {path}")));
        }
    }
    assert!(found.is_empty(), "what decides knows the edge:\n{}", found.join("\n"));
}
