//! Everything that is needed to understand a failure, in one folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Lab;
use super::plan::Role;

/// Requests to the API server and their output files. Herald's kinds are requested by their category.
const OBJECTS: [(&str, &[&str]); 6] = [
    ("nodes.yaml", &["get", "nodes", "-o", "yaml"]),
    ("herald.yaml", &["get", "herald", "-A", "-o", "yaml"]),
    (
        "workloads.yaml",
        &["get", "services,endpointslices,pods,deployments,daemonsets,leases,configmaps", "-A", "-o", "yaml"],
    ),
    ("overview.txt", &["get", "nodes,services,pods", "-A", "-o", "wide"]),
    ("events.txt", &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]),
    ("namespaces.yaml", &["get", "namespaces", "-o", "yaml"]),
];

pub(super) fn collect(lab: &Lab, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut missing = String::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            missing += &format!("{what}: {error:#}\n");
        }
    };
    attempt("logs of the components", copy(&lab.logs_dir(), &dir.join("logs")));
    for host in &lab.plan.hosts {
        if let Role::Node(_) = host.role {
            let logs = lab.paths.host_data(&host.name).join("log/pods");
            if logs.exists() {
                attempt(&format!("container logs of {}", host.name), copy(&logs, &dir.join("pods").join(&host.name)));
            }
        }
    }
    for segment in 0..lab.plan.segments {
        attempt("recording", copy(&lab.capture(segment), dir));
    }
    attempt("audit log", copy(&lab.audit_log(), dir));
    for (file, arguments) in OBJECTS {
        let mut kubectl = lab.kubectl(arguments);
        // The API server may be the broken part.
        kubectl.arg("--request-timeout=10s");
        attempt(file, output_to_file(&mut kubectl, &dir.join(file)));
    }
    if !missing.is_empty() {
        let note = dir.join("missing.txt");
        fs::write(&note, missing).with_context(|| note.display().to_string())?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    super::netns::run(Command::new("cp").arg("-r").arg(from).arg(to))
}

fn output_to_file(command: &mut Command, file: &Path) -> Result<()> {
    let text = super::netns::output_of(command)?;
    fs::write(file, text).with_context(|| file.display().to_string())
}
