//! Tests the structure of this workspace: the allowed dependencies between crates, modules without circles, and
//! decisions that know no socket, file, clock or API client.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use herald_structure::{Module, circles, edges_between_siblings, read_crate};

/// Each crate with the crates of this workspace on which it may depend outside its tests. In this order no crate
/// depends on a later one.
const CRATES: &[(&str, &[&str])] = &[
    ("packet-socket", &[]),
    ("crds", &[]),
    ("telemetry", &[]),
    ("protocol", &[]),
    ("kube-common", &["telemetry"]),
    ("controller", &["crds", "kube-common", "telemetry"]),
    ("speaker", &["crds", "kube-common", "packet-socket", "protocol", "telemetry"]),
    // The laboratory must not share code with what it tests: the only part of Herald it uses is the bare packet socket.
    ("lab", &["packet-socket"]),
    ("lab/echo", &[]),
    ("e2e", &["crds", "lab", "packet-socket", "protocol"]),
    ("sim", &["protocol"]),
    ("structure", &[]),
];

/// The top-level modules of a crate that make decisions and may know only each other.
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
            "answer_table",
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

/// The top-level modules of a crate that perform input and output, or connect the others.
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

/// Crates, modules and items that a deciding module must not use. What is below one of [`DATA`] is excepted.
const OF_THE_EDGE: &[&str] = &[
    "herald_kube_common::client",
    "herald_kube_common::reflector",
    "herald_kube_common::request",
    "herald_telemetry::http",
    "hyper",
    "kube",
    "nix",
    "rtnetlink",
    "socket2",
    "std::fs",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// The parts of those crates that are data or derive macros, and perform no request.
const DATA: &[&str] =
    &["kube::core", "kube::CustomResource", "kube::KubeSchema", "kube::Resource", "kube::ResourceExt"];

/// The functions that read a clock, as the last names of a path: a deciding module takes the time as an argument.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"];

/// Returns whether a path is one of the edge.
fn is_of_the_edge(path: &str) -> bool {
    // An import of everything in a module, or of a module that holds a part of the edge, is an import of the edge.
    let module = path.strip_suffix("::*").unwrap_or(path);
    let is_below =
        |path: &str, part: &str| path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let is_edge = |edge: &&str| is_below(module, edge) || module.contains("::") && is_below(edge, module);
    let reads_clock = CLOCKS.iter().any(|clock| path == *clock || path.ends_with(&format!("::{clock}")));
    reads_clock || OF_THE_EDGE.iter().any(is_edge) && !DATA.iter().any(|data| is_below(module, data))
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn modules_of(name: &str) -> Vec<Module> {
    let source = workspace().join(name).join("src");
    let root = ["lib.rs", "main.rs"].map(|file| source.join(file)).into_iter().find(|file| file.is_file());
    read_crate(&root.unwrap()).unwrap()
}

/// Returns the crates of this workspace on which a crate depends, by their directories.
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
fn crates_depend_only_on_allowed_crates() {
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
            let foreign = module.foreign.iter().filter(|path| is_of_the_edge(path));
            found.extend(foreign.map(|path| format!("{name}: {at} uses {path}")));
        }
    }
    assert!(found.is_empty(), "what decides knows the edge:\n{}", found.join("\n"));
}

#[test]
fn paths_of_the_edge_are_distinguished_from_data() {
    for edge in [
        "kube::Client",
        "kube::api::Patch",
        "std::time::Instant",
        "std::time::Instant::now",
        "std::time::*",
        "std::time",
        "Timestamp::now",
        "jiff::Timestamp::now",
        "tokio",
        "tokio::sync::mpsc",
    ] {
        assert!(is_of_the_edge(edge), "{edge}");
    }
    for other in
        ["kube::core::ObjectMeta", "kube::Resource", "std::time::Duration", "kubelet::Client", "jiff::Timestamp"]
    {
        assert!(!is_of_the_edge(other), "{other}");
    }
}
